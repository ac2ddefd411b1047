"""Bad input: a library error that says what was got, where, and what to do."""

import json

import pytest

import radio_dspy as radio
from radio_dspy.core.errors import RadioError


def lines(*rows) -> str:
    return "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)


GOOD = {"id": "1", "contents": "Ice\nIt floats."}
QUESTION = {"id": "q1", "question": "Why?", "golden_answers": ["a"]}

BAD_CORPORA = {
    "truncated JSON": (lines(GOOD, '{"id": "2", "cont'), r"bad\.jsonl:2: not JSON"),
    "a list in place of an object": (lines([1, 2]), r"bad\.jsonl: row 1: expected a JSON object, got int"),
    "no id": (lines({"contents": "x"}), r"bad\.jsonl:1: needs an 'id'"),
    "an empty id": (lines({"id": " ", "contents": "x"}), r"bad\.jsonl:1: needs an 'id'"),
    "an id that is no name": (lines({"id": [1], "contents": "x"}), r"whole number, got \[1\]"),
    "a repeated id": (
        lines(GOOD, "", {**GOOD, "contents": "x"}),
        r"bad\.jsonl:3: id '1' was already used at .*:1",
    ),
    "numbers in place of text": (lines({"id": "1", "contents": 5}), r"bad\.jsonl:1: needs a string 'contents', got 5"),
    "no text": (lines({"id": "1", "bodies": "x"}), r"needs 'contents' \(or 'text'\); the row has \['bodies', 'id'\]"),
    "blank text": (lines({"id": "1", "contents": "  "}), r"bad\.jsonl:1: 'contents' is empty"),
    "an empty file": ("", "holds no passages"),
}
BAD_QUESTIONS = {
    "no question": (lines({"id": "q1", "golden_answers": ["a"]}), r"bad\.jsonl:1: needs 'question' \(or 'text'\)"),
    "answers that are an object": (
        lines({**QUESTION, "golden_answers": {"a": True}}),
        "'golden_answers' must be a list of strings",
    ),
    "an object among the answers": (lines({**QUESTION, "golden_answers": [{}]}), r"list of strings, got \{\} in it"),
    "metadata that is text": (lines({**QUESTION, "metadata": "x"}), "'metadata' must be an object, got str"),
    "labels that are an object": (
        lines({**QUESTION, "metadata": {"supporting_ids": {}}}),
        "'supporting_ids' must be a",
    ),
    "only blank lines": ("\n\n", "holds no questions"),
}


@pytest.mark.parametrize(("text", "message"), BAD_CORPORA.values(), ids=BAD_CORPORA)
def test_bad_corpora(tmp_path, text, message):
    (tmp_path / "bad.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(RadioError, match=message):
        radio.load_corpus(tmp_path / "bad.jsonl")


@pytest.mark.parametrize(("text", "message"), BAD_QUESTIONS.values(), ids=BAD_QUESTIONS)
def test_bad_questions(tmp_path, text, message):
    (tmp_path / "bad.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(RadioError, match=message):
        radio.load_questions(tmp_path / "bad.jsonl")


def test_bad_files(tmp_path):
    with pytest.raises(RadioError, match=r"missing\.jsonl: no such file"):
        radio.load_corpus(tmp_path / "missing.jsonl")
    with pytest.raises(RadioError, match="is a folder without a"):
        radio.load_corpus(tmp_path)
    (tmp_path / "latin.jsonl").write_bytes(b'{"id": "1", "contents": "caf\xe9"}')
    with pytest.raises(RadioError, match=r"latin\.jsonl:1: not UTF-8 text"):
        radio.load_corpus(tmp_path / "latin.jsonl")
    (tmp_path / "plain.jsonl.gz").write_text('{"id": "1", "contents": "x"}')
    with pytest.raises(RadioError, match=r"plain\.jsonl\.gz: not a whole gzip file"):
        radio.load_corpus(tmp_path / "plain.jsonl.gz")
    with pytest.raises(RadioError, match="row 1: expected a mapping, got str"):
        radio.load_corpus(["text"])


@pytest.mark.parametrize(
    ("signals", "weights", "message"),
    [
        ({}, {}, "Nothing to fuse"),
        ({"a": [1.0]}, {"b": 1.0}, r"Signals \['a'\] and weights \['b'\] must have the same names"),
        ({"a": [1.0], "b": [1.0, 2.0]}, {"a": 1, "b": 1}, r"got lengths \{'a': 1, 'b': 2\}"),
        ({"a": [1.0]}, {"a": -1}, "The weight of signal 'a' is -1.0"),
        ({"a": [1.0, float("inf")]}, {"a": 1}, "Signal 'a': The score at position 1 is inf"),
    ],
)
def test_bad_signals(signals, weights, message):
    with pytest.raises(RadioError, match=message):
        radio.distillation.fuse(signals, weights)


@pytest.mark.parametrize(
    ("name", "message"),
    [("", "is empty"), ("./nowhere", "no such folder"), ("a b/c d", "neither a folder nor a hub name")],
)
def test_bad_names_of_weights(name, message):
    with pytest.raises(RadioError, match=message):
        radio.weights(name)


def test_weights_are_found_in_folders_packages_and_by_hub_name(tmp_path):
    assert radio.weights(str(tmp_path)) == str(tmp_path.resolve())
    assert radio.weights("all-MiniLM-L6-v2") == radio.weights("sentence-transformers/all-MiniLM-L6-v2")
    assert radio.weights("all-MiniLM-L6-v2").endswith("model")
    assert radio.weights("BAAI/bge-reranker-base") == "BAAI/bge-reranker-base"


def test_weights_are_found_in_the_hubs_cache(tmp_path):
    """The cache's own layout, in a process that looks into this one."""
    import os
    import subprocess
    import sys

    repository = tmp_path / "hub" / "models--BAAI--bge-reranker-base"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    (snapshot / "config.json").write_text("{}")
    (snapshot / "model.safetensors").write_text("")
    script = (
        "import radio_dspy as radio; from radio_dspy.models.files import weights_name\n"
        "found = radio.weights('BAAI/bge-reranker-base'); print(found); print(weights_name(found))"
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == [str(snapshot), "BAAI/bge-reranker-base"]
