import pytest
from radio_dspy.programs import RetrieveRerankAnswer

from radio_dspy import Rerank, save
from tests.conftest import ENCODER, scripted
from tests.serving.running import serving

KEY = "test-key-of-the-server-1"


@pytest.fixture(scope="session")
def saved(index, small, tmp_path_factory):
    """A saved program over the topic's index."""
    program = RetrieveRerankAnswer(index, Rerank(small, architecture="bi-encoder"), candidates=10, k=3)
    program.rerank.weights = program.rerank.weights._changed(base=ENCODER)  # as if trained from the whole one
    return save(program, tmp_path_factory.mktemp("served") / "aligned")


@pytest.fixture(scope="session")
def feedback_file(tmp_path_factory):
    return tmp_path_factory.mktemp("feedback") / "feedback.jsonl"


@pytest.fixture(scope="session")
def server(saved, index, feedback_file):
    """The server of most tests: without keys, with an LM that always answers the same."""
    settings = {"feedback": feedback_file, "max_texts": 200, "max_body": 1_000_000, "time_limit": 20}
    with serving(saved, index, scripted(answer="warm milk"), **settings) as running:
        yield running


@pytest.fixture(scope="session")
def keyed(saved, index, tmp_path_factory):
    """A server that wants a key, with narrow limits."""
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(f"another-key-2\n{KEY}\n")
    settings = {
        "api_key_file": keys, "origins": ("https://app.example",), "max_texts": 5, "max_body": 5000, "max_tokens": 60,
        "time_limit": 1.0,
    }  # fmt: skip
    with serving(saved, index, **settings) as running:
        yield running
