"""Shared fixtures: everything runs offline, without keys, on the real small models."""

import os
import signal
import tempfile
from pathlib import Path

# Started in the background, Python ignores Ctrl-C, and the tests of what it does would see nothing.
signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
os.environ["HF_HUB_OFFLINE"] = "1"
# All temporary files in one folder that is gone at the end: a compile without run_dir leaves its checkpoint behind.
_temporary = tempfile.TemporaryDirectory(prefix="radio-dspy-tests-", ignore_cleanup_errors=True)
tempfile.tempdir = os.environ["TMPDIR"] = _temporary.name
# A response cache of its own: nothing that an earlier run was told may answer a test.
os.environ["DSPY_CACHEDIR"] = tempfile.mkdtemp(prefix="radio-dspy-cache-")

import dspy
import pytest
from dspy.utils import DummyLM
from radio_dspy.programs import RetrieveRerankAnswer

from radio_dspy import datasets
from radio_dspy.encoders import Encoder, quiet_loading
from radio_dspy.model_files import weights
from radio_dspy.rerankers import Rerank
from radio_dspy.retrievers import FaissRetriever

ROOT = Path(__file__).resolve().parent.parent
ENCODER = "all-MiniLM-L6-v2"


class LaunchableLM(DummyLM):
    """A scripted LM with the two methods that BetterTogether calls on every LM."""

    def launch(self, launch_kwargs=None):
        """Nothing to start."""

    def kill(self, launch_kwargs=None):
        """Nothing to stop."""


class UnaskedLM(LaunchableLM):
    """An LM that must not be asked."""

    def __call__(self, *args, **kwargs):
        raise AssertionError("the LM was asked")


def scripted(**fields: str) -> LaunchableLM:
    """An LM that gives the same fields whatever it is asked."""
    return LaunchableLM({"": fields})


def shared(*parts: str) -> Path:
    """A file of the shared data; the test is skipped where it is missing."""
    folder = Path(os.environ.get("RADIO_SHARED", ROOT.parent / "shared"))
    path = folder.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"needs {'/'.join(parts)} of the shared benchmark data (set RADIO_SHARED to its folder)")
    return path


@pytest.fixture(scope="session")
def demo() -> datasets.Demo:
    return datasets.demo()


@pytest.fixture(scope="session")
def encoder() -> Encoder:
    return Encoder(ENCODER)


@pytest.fixture(scope="session")
def topic(demo) -> datasets.Demo:
    """One topic of the demo set: small enough to train on in seconds."""
    passages = [one for one in demo.passages if one.id.startswith("kit")]
    train = [one for one in demo.train if one.id.startswith("kit")]
    return datasets.Demo(passages, train, [one for one in demo.test if one.id.startswith("kit")])


@pytest.fixture(scope="session")
def retriever(topic, encoder) -> FaissRetriever:
    return FaissRetriever.build(topic.passages, encoder=encoder)


@pytest.fixture(scope="session")
def small(tmp_path_factory) -> Encoder:
    """all-MiniLM-L6-v2 with the first of its six layers: trains in a second or two."""
    from sentence_transformers import SentenceTransformer

    folder = tmp_path_factory.mktemp("small") / "encoder"
    with quiet_loading():
        model = SentenceTransformer(weights(ENCODER))
        bert = model[0].auto_model
        bert.encoder.layer = bert.encoder.layer[:1]
        bert.config.num_hidden_layers = 1
        model.save_pretrained(str(folder), create_model_card=False)
    return Encoder(str(folder))


@pytest.fixture(scope="session")
def index(topic, small) -> FaissRetriever:
    """The topic's passages, encoded by ``small``."""
    return FaissRetriever.build(topic.passages, encoder=small)


@pytest.fixture
def program(retriever, encoder) -> RetrieveRerankAnswer:
    return RetrieveRerankAnswer(retriever, Rerank(encoder, architecture="bi-encoder"), candidates=10, k=3)


@pytest.fixture(autouse=True)
def _no_lm_left_over():
    """A test's LM stays in the test."""
    with dspy.context(lm=None, adapter=None):
        yield
