"""Programs as MLflow's models: logged, loaded elsewhere, served."""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import dspy
import httpx
import pytest
from radio_dspy.programs import RetrieveRerankAnswer

import radio_dspy as radio
from radio_dspy import Rerank, save
from radio_dspy.core.errors import CheckpointError, SettingsError
from tests.settings import tracked
from tests.stub_servers import KEY, StubServer

mlflow = pytest.importorskip("mlflow")
QUESTION = "Why did the dough not rise?"
IN_ANOTHER_PROCESS = """
import json, sys, dspy, mlflow, radio_dspy as radio
mlflow.set_tracking_uri(sys.argv[1])
program = radio.load_model(sys.argv[2])
with dspy.context(lm=dspy.LM("openai/any")):
    found = program(question=sys.argv[3])
print(json.dumps([str(found.answer), [one.id for one in found.passages], list(map(float, found.scores))]))
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mlflow")
    uri = f"sqlite:///{folder}/runs.db"
    with pytest.MonkeyPatch.context() as patch, tracked(uri):
        patch.chdir(folder)  # where a new store puts its artifacts
        yield uri


@pytest.fixture(scope="module")
def lm():
    """The environment of a process that asks `openai/any`, whose answers are told apart by what was asked."""
    reply = "[[ ## answer ## ]]\n{}\n\n[[ ## completed ## ]]"
    with StubServer(lambda prompt: reply.format(hashlib.sha256(prompt.encode()).hexdigest())) as stub:
        yield {"OPENAI_API_BASE": f"{stub.url}/v1", "OPENAI_API_KEY": KEY}


@pytest.fixture(scope="module")
def logged(store, lm, index, small, tmp_path_factory):
    """The model's address, and what the program gave; the folders of its run and of the saved program are gone."""
    folder = tmp_path_factory.mktemp("trained")
    shutil.copytree(small.name, folder / "run" / "reranker")
    compiled = RetrieveRerankAnswer(index, Rerank(str(folder / "run" / "reranker"), "bi-encoder"), candidates=10, k=3)
    program = radio.load(save(compiled, folder / "aligned"), retriever=index)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in lm.items():
            patch.setenv(name, value)
        with dspy.context(lm=dspy.LM("openai/any")):
            found = program(question=QUESTION)
    uri = radio.log_model(program, lm="openai/any").model_uri
    shutil.rmtree(folder)
    return uri, [str(found.answer), [one.id for one in found.passages], list(map(float, found.scores))]


def check(expected, answer, ids, scores):
    assert [answer, ids] == expected[:2]
    assert scores == pytest.approx(expected[2], abs=1e-6)


@pytest.mark.slow
def test_another_process_answers_the_same(logged, store, lm):
    uri, expected = logged
    command = [sys.executable, "-c", IN_ANOTHER_PROCESS, store, uri, QUESTION]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **lm})
    check(expected, *json.loads(done.stdout))


def test_the_pyfunc_without_an_lm_gives_the_passages(logged):
    uri, (_, ids, scores) = logged
    (row,) = mlflow.pyfunc.load_model(uri, model_config={"lm": "none"}).predict([{"question": QUESTION}])
    check(["", ids, scores], row["answer"], [one["id"] for one in row["passages"]], row["scores"])


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
def test_mlflow_serves_it(logged, store, lm, tmp_path):
    uri, expected = logged
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", uri, "-p", str(port), "--env-manager", "local"]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, **lm, "MLFLOW_TRACKING_URI": store, "PATH": path}
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
        kind = "Content-Type: application/json"
        curl = ["curl", "-sS", f"http://127.0.0.1:{port}/invocations", "-H", kind, "-d", body]
        reply = json.loads(subprocess.run(curl, capture_output=True, text=True, check=True).stdout)
        (row,) = reply["predictions"]
        check(expected, row["answer"], [one["id"] for one in row["passages"]], row["scores"])
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)
