"""Programs as MLflow's models: logged, loaded elsewhere, served."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from radio_dspy.programs import RetrieveRerankAnswer

import radio_dspy as radio
from radio_dspy import Rerank
from radio_dspy.core.errors import CheckpointError, SettingsError
from tests.settings import tracked

mlflow = pytest.importorskip("mlflow")
QUESTION = "Why did the dough not rise?"
IN_ANOTHER_PROCESS = """
import sys, mlflow, radio_dspy as radio
mlflow.set_tracking_uri(sys.argv[1])
program = radio.load_model(sys.argv[2])
found = program.rerank(sys.argv[3], program.retriever(sys.argv[3], k=10).passages)
print(*[one.id for one in found.passages], *found.scores, sep="\\n")
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mlflow")
    uri = f"sqlite:///{folder}/runs.db"
    with pytest.MonkeyPatch.context() as patch, tracked(uri):
        patch.chdir(folder)  # where a new store puts its artifacts
        yield uri


@pytest.fixture(scope="module")
def program(index, small, tmp_path_factory):
    """A program whose weights lie in a folder of its own, as after training."""
    folder = tmp_path_factory.mktemp("trained") / "reranker"
    shutil.copytree(small.name, folder)
    return RetrieveRerankAnswer(index, Rerank(str(folder), "bi-encoder"), candidates=10, k=3)


@pytest.fixture(scope="module")
def logged(store, program):
    """The model's address, and the ranking that the program gave; what it was logged from is gone."""
    found = program.rerank(QUESTION, program.retriever(QUESTION, k=10).passages)
    uri = radio.log_model(program).model_uri
    shutil.rmtree(program.rerank.weights.checkpoint)
    return uri, [one.id for one in found.passages], found.scores


@pytest.mark.slow
def test_another_process_ranks_the_same(logged, store):
    uri, ids, scores = logged
    command = [sys.executable, "-c", IN_ANOTHER_PROCESS, store, uri, QUESTION]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = done.stdout.split("\n")
    assert lines[:10] == ids
    assert list(map(float, lines[10:20])) == pytest.approx(scores, abs=1e-6)


def test_the_pyfunc_gives_the_passages(logged):
    uri, ids, scores = logged
    (row,) = mlflow.pyfunc.load_model(uri).predict([{"question": QUESTION}])
    assert ([one["id"] for one in row["passages"]], row["answer"]) == (ids[:3], "")
    assert row["scores"] == pytest.approx(scores[:3], abs=1e-6)


def test_an_index_whose_encoder_is_packaged_is_opened_again(store, topic, encoder, tmp_path):
    radio.FaissRetriever.build(topic.passages[:6], encoder=encoder).save(tmp_path / "index")
    retriever = radio.FaissRetriever.load(tmp_path / "index")
    program = RetrieveRerankAnswer(retriever, Rerank("all-MiniLM-L6-v2", "bi-encoder"), candidates=5, k=2)
    loaded = radio.load_model(radio.log_model(program).model_uri)
    assert [one.id for one in loaded.retriever(QUESTION).passages] == [one.id for one in retriever(QUESTION).passages]


def test_what_cannot_be_logged_or_loaded(store, small, index):
    with pytest.raises(SettingsError, match="index=True needs a FaissRetriever, got NoneType"):
        radio.log_model(Rerank(small, "bi-encoder"))
    uri = radio.log_model(RetrieveRerankAnswer(index, Rerank(small, "bi-encoder")), index=False).model_uri
    with pytest.raises(SettingsError, match="retriever="):
        radio.load_model(uri)
    assert radio.load_model(uri, retriever=index).k == 5
    with pytest.raises(CheckpointError, match="no such model"):
        radio.load_model("runs:/0123456789abcdef0123456789abcdef/program")


def no_encoder(folder):
    shutil.rmtree(folder / "encoder")
    (folder / "encoder").mkdir()


def two_encoders(folder):
    (one,) = (folder / "encoder").iterdir()
    shutil.copytree(one, folder / "encoder" / "other")


def linked_encoder(folder):
    (one,) = (folder / "encoder").iterdir()
    one.rename(folder.parent / "elsewhere")
    one.symlink_to(folder.parent / "elsewhere")


def a_file(folder):
    (one,) = (folder / "encoder").iterdir()
    shutil.rmtree(one)
    one.write_text("x")


def linked_program(folder):
    (folder / "program").rename(folder.parent / "elsewhere")
    (folder / "program").symlink_to(folder.parent / "elsewhere")


@pytest.mark.parametrize("change", [no_encoder, two_encoders, linked_encoder, a_file, linked_program])
def test_a_model_of_a_stranger_is_held_against_what_is_logged(logged, tmp_path, change):
    folder = Path(mlflow.artifacts.download_artifacts(logged[0], dst_path=str(tmp_path / "model")))
    change(folder / "artifacts")
    with pytest.raises(CheckpointError, match=r"needs one folder of weights|is a link"):
        radio.load_model(str(folder))


@pytest.mark.slow
def test_mlflow_serves_it(logged, store, tmp_path):
    uri, ids, _ = logged
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", uri, "-p", str(port), "--env-manager", "local"]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "MLFLOW_TRACKING_URI": store, "PATH": path}
    log = (tmp_path / "log").open("w+")
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        ends = time.monotonic() + 120
        while True:
            try:
                if httpx.get(f"http://127.0.0.1:{port}/ping").status_code == 200:
                    break
            except httpx.TransportError:
                assert process.poll() is None, log.seek(0) or log.read()
                assert time.monotonic() < ends
                time.sleep(0.5)
        body = json.dumps({"dataframe_records": [{"question": QUESTION}]})
        curl = [
            "curl",
            "-sS",
            f"http://127.0.0.1:{port}/invocations",
            "-d",
            body,
            "-H",
            "Content-Type: application/json",
        ]
        reply = json.loads(subprocess.run(curl, capture_output=True, text=True, check=True).stdout)
        (row,) = reply["predictions"]
        assert [one["id"] for one in row["passages"]] == ids[:3]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)
