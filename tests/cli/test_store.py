"""compile and evaluate over a vector store, given by its address."""

import json

import pytest
from typer.testing import CliRunner

from radio_dspy import Rerank, RetrieveRerankAnswer, save
from radio_dspy.cli.app import app
from tests.retrievers.stores.engines import SECRET, LanceDB, PgVector


def question(example):
    metadata = {"supporting_ids": example.relevant}
    return {"id": example.id, "question": example.question, "golden_answers": example.answers, "metadata": metadata}


@pytest.fixture(scope="module")
def files(topic, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    for name, examples in (("train", topic.train), ("dev", topic.test)):
        (folder / f"{name}.jsonl").write_text("\n".join(json.dumps(question(one)) for one in examples))
    return folder


@pytest.fixture(scope="module")
def vectors(topic, small):
    return small.encode_passages(topic.passages)


def run(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_the_main_job_from_postgresql(files, topic, small, vectors, tmp_path_factory, monkeypatch):
    tmp_path = tmp_path_factory.mktemp("cli")
    engine = PgVector(tmp_path)
    try:
        engine.fill("passages", topic.passages, vectors)
        before = engine.state("passages")
        store = ["--store", engine.uri, "--table", "passages", "--encoder", small.name, "--column", "title=title"]
        done = run(
            "compile", *store, "--train", files / "train.jsonl", "--dev", files / "dev.jsonl", "--lm", "none",
            "--limit", 8, "--epochs", 1, "--reranker", small.name, "--out", tmp_path / "aligned",
            "--run-dir", tmp_path / "run",
        )  # fmt: skip
        assert done.exit_code == 0, done.output
        judged = run("evaluate", tmp_path / "aligned", *store, "--questions", files / "dev.jsonl",
                     "--json", tmp_path / "result.json")  # fmt: skip
        assert judged.exit_code == 0, judged.output
        assert json.loads((tmp_path / "result.json").read_text())["judged"] == len(topic.test)
        assert engine.state("passages") == before
        assert SECRET not in done.output + judged.output
        written = [one for one in tmp_path.rglob("*") if one.is_file() and "pg" not in one.relative_to(tmp_path).parts]
        assert written
        assert not [one for one in written if SECRET.encode() in one.read_bytes()]
        remembered = json.loads((tmp_path / "run" / "command.json").read_text())["arguments"]
        assert remembered["store"] == engine.uri.replace(f":{SECRET}", "")
        engine.kill()
        failed = run("evaluate", tmp_path / "aligned", *store, "--questions", files / "dev.jsonl")
        assert failed.exit_code == 1
        assert "passages" in failed.output
        assert SECRET not in failed.output
    finally:
        engine.close()


def test_a_folder_of_lancedb(files, topic, small, index, vectors, tmp_path):
    LanceDB(tmp_path).fill("passages", topic.passages, vectors)
    program = RetrieveRerankAnswer(index, Rerank(small, architecture="bi-encoder"), candidates=10, k=3)
    save(program, tmp_path / "program")
    arguments = ["evaluate", tmp_path / "program", "--questions", files / "dev.jsonl", "--encoder", small.name]
    done = run(*arguments, "--store", f"lancedb://{tmp_path}/lancedb", "--table", "passages")
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--store", "oracle://host", "--table", "t", "--encoder", "x"], "--store cannot be 'oracle'"),
        (["--store", "postgresql://host/db", "--encoder", "x"], "--store needs --table and --encoder"),
        (["--store", "postgresql://host/db", "--table", "t"], "--store needs --table and --encoder"),
        (["--table", "t", "--corpus", "FILE"], "belong to a store"),
        (["--store", "postgresql://host/db", "--corpus", "FILE"], "Give one of --store, --index and --corpus"),
        (["--store", "lancedb:///no/such", "--table", "t", "--encoder", "x"], "no such store"),
        (
            ["--store", "chroma:///no/such", "--table", "t", "--encoder", "x", "--column", "body"],
            "--column 'body' must",
        ),
    ],
)
def test_what_does_not_go_together(files, tmp_path, arguments, message):
    given = [files / "train.jsonl" if one == "FILE" else one for one in arguments]
    done = run("compile", "--train", files / "train.jsonl", "--out", tmp_path / "out", *given)
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())
    assert not list(tmp_path.iterdir())
