"""Commands over a vector store, given by its address."""

import contextlib
import json
from dataclasses import replace

import pytest
from dspy.utils import DummyLM
from typer.testing import CliRunner

import radio_dspy
from radio_dspy import Rerank, RetrieveRerankAnswer, save
from radio_dspy.cli.app import app
from tests.retrievers.stores.engines import SECRET, Chroma, LanceDB, Milvus, PgVector


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


@pytest.fixture(params=[PgVector, Chroma, LanceDB, Milvus], ids=lambda kind: kind.__name__)
def store(request, topic, small, vectors, tmp_path):
    """The options that name a filled store, where passages have a year."""
    engine = request.param(tmp_path)
    dated = [replace(one, metadata={"year": 2024 + row % 2}) for row, one in enumerate(topic.passages)]
    engine.fill("passages", dated, vectors)
    local = {Chroma: "chroma://{}/chroma", LanceDB: "lancedb://{}/lancedb", Milvus: "milvus://{}/milvus.db"}
    address = local[request.param].format(tmp_path) if request.param in local else engine.uri
    if request.param is Milvus:
        engine.close()  # its file is opened once
    named = ["--column", "metadata=metadata"] if request.param is PgVector else []
    yield ["--store", address, "--table", "passages", "--encoder", small.name, "--column", "title=title", *named]
    if request.param is not Milvus:
        engine.close()


def test_groups_questions_and_answers_take_their_passages_from_the_store(store, topic, small, tmp_path, monkeypatch):
    names = [one.id for one in topic.passages]
    kept = [
        {
            "id": one.id,
            "query": one.question,
            "positive": one.relevant[0],
            "negatives": names[row : row + 3],
            "random": [],
        }
        for row, one in enumerate(topic.train[:6])
        if one.relevant[0] not in names[row : row + 3]
    ]
    (tmp_path / "groups.jsonl").write_text("\n".join(map(json.dumps, kept)))
    trained = run(
        "train", tmp_path / "groups.jsonl", *store, "--no-gate", "--epochs", 1, "--max-length", 32, "--reranker",
        small.name, "--out", tmp_path / "trained", "--json", tmp_path / "train.json",
    )  # fmt: skip
    assert trained.exit_code == 0, trained.output
    report = json.loads((tmp_path / "train.json").read_text())
    assert report["groups"] + report["questions"]["judged"] == len(kept)

    model = DummyLM({"": {"answer": "hot water"}})
    monkeypatch.setattr("radio_dspy.lm.opening.open_lm", lambda *_, **__: contextlib.nullcontext(model))
    for wanted, fits in (([], names), (["--filter", "year=2025"], names[1::2])):
        asked = run(
            "ask", tmp_path / "trained", topic.test[0].question, *store, *wanted, "--json", tmp_path / "ask.json"
        )
        assert asked.exit_code == 0, asked.output
        found = [one["id"] for one in json.loads((tmp_path / "ask.json").read_text())["passages"]]
        assert len(found) == 5
        assert set(found) <= set(fits)

    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("\n".join(json.dumps({"id": one.id, "contents": one.contents}) for one in topic.passages))
    first_stages = []
    monkeypatch.setattr(
        radio_dspy, "make_questions", lambda *_, retriever, **__: first_stages.append(retriever) or 1 / 0, raising=False
    )
    run("questions", corpus, *store, "--out", tmp_path / "questions.jsonl")
    ((first,),) = [one("yeast", k=1).passages for one in first_stages]
    assert first.contents == next(one.contents for one in topic.passages if one.id == first.id)


@pytest.mark.parametrize("command", ["ask", "evaluate", "serve"])
def test_a_program_of_ones_own_is_refused_before_its_store_is_looked_for(command, index, small, tmp_path):
    class Own(RetrieveRerankAnswer):
        pass

    save(Own(index, Rerank(small, "bi-encoder")), tmp_path / "own")
    store = ["--store", "lancedb:///no/such", "--table", "t", "--encoder", "x"]
    more = {"ask": ["why?"], "evaluate": ["--questions", tmp_path / "q.jsonl"], "serve": []}[command]
    (tmp_path / "q.jsonl").write_text('{"question": "why?", "golden_answers": ["so"]}')
    done = run(command, tmp_path / "own", *more, *store)
    assert done.exit_code == 2
    assert "holds a Own" in " ".join(done.output.split())


def test_groups_of_another_store_are_named(topic, small, vectors, tmp_path):
    LanceDB(tmp_path).fill("passages", topic.passages, vectors)
    (tmp_path / "groups.jsonl").write_text('{"query": "why?", "positive": "x-1", "negatives": ["x-2"], "random": []}')
    done = run(
        "train", tmp_path / "groups.jsonl", "--store", f"lancedb://{tmp_path}/lancedb", "--table", "passages",
        "--encoder", small.name, "--reranker", small.name, "--out", tmp_path / "trained",
    )  # fmt: skip
    assert done.exit_code == 1
    assert "holds none of the 2 passages that the groups name, such as 'x-1'" in " ".join(done.output.split())


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
        (["--filter", "year=2025", "--corpus", "FILE"], "belong to a store"),
        (["--store", "lancedb:///no", "--table", "t", "--encoder", "x", "--filter", "2025"], "--filter '2025' must be"),
        (["--store", "postgresql://host/db", "--corpus", "FILE"], "Give one of --store, --index and --corpus"),
        (["--store", "lancedb:///no/such", "--table", "t", "--encoder", "x"], "no such store"),
        (
            ["--store", "chroma:///no/such", "--table", "t", "--encoder", "x", "--column", "body"],
            "--column 'body' must",
        ),
        (
            [
                "--store",
                "chroma:///no/such",
                "--table",
                "t",
                "--encoder",
                "x",
                "--column",
                "text=a",
                "--column",
                "text=b",
            ],
            "--column names text twice (a and b)",
        ),
    ],
)
def test_what_does_not_go_together(files, tmp_path, arguments, message):
    given = [files / "train.jsonl" if one == "FILE" else one for one in arguments]
    done = run("compile", "--train", files / "train.jsonl", "--out", tmp_path / "out", *given)
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())
    assert not list(tmp_path.iterdir())
