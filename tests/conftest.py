"""Shared fixtures: everything runs offline, without keys, on the real small models."""

import functools
import gc
import json
import os
import shutil
import signal
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

# Started in the background, Python ignores Ctrl-C, and the tests of what it does would see nothing.
signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
os.environ["HF_HUB_OFFLINE"] = "1"
# All temporary files in one folder that is gone at the end: a compile without run_dir leaves its checkpoint behind.
_temporary = tempfile.TemporaryDirectory(prefix="radio-dspy-tests-", ignore_cleanup_errors=True)
tempfile.tempdir = os.environ["TMPDIR"] = _temporary.name
# A response cache of its own: nothing that an earlier run was told may answer a test.
os.environ["RADIO_DSPY_CACHE"] = tempfile.mkdtemp(prefix="radio-dspy-runs-")
os.environ["DSPY_CACHEDIR"] = tempfile.mkdtemp(prefix="radio-dspy-cache-")

import dspy
import hypothesis
import pytest
import typer.testing
from dspy.utils import DummyLM
from radio_dspy.programs import RetrieveRerankAnswer

from radio_dspy.datasets import loading as datasets
from radio_dspy.models.encoder import Encoder, quiet_loading
from radio_dspy.models.files import PACKAGED_WEIGHTS, weights
from radio_dspy.rerankers import Rerank
from radio_dspy.retrievers import FaissRetriever

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = ROOT / "tests" / "samples"  # what earlier releases and the reference implementations wrote
ENCODER = "all-MiniLM-L6-v2"
# The same examples everywhere; HYPOTHESIS_PROFILE=explore draws new ones.
hypothesis.settings.register_profile("same", derandomize=True, max_examples=50)
hypothesis.settings.register_profile("explore", derandomize=False, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))
# Typer reads every option of every command again whenever a test calls one: half of the call's time.
typer.testing._get_command = functools.cache(typer.testing._get_command)
FREQUENT = 2000  # words of `small`, special ones and all letters included; they stand in the order of their frequency
WIDTH = 192  # of its feed-forward part: an eighth
# What an LM says to whatever the docs and the examples ask: the library's own signatures, and MIPROv2's proposer.
REPLIES = {
    **{"rationale": "Yeast dies in hot water.", "answer": "yeast", "order": "[0]", "letter": "A", "query": "DONE"},
    **{"reasoning": "Yeast dies.", "response": "yeast"},
    **dict.fromkeys(("observations", "summary", "program_description", "module_description"), "COMPLETE"),
    "proposed_instruction": "Answer in one word.",
    **{"precision": "0.5", "recall": "1.0"},  # of SemanticF1
}


def pytest_collection_finish():
    """Python's collector, which every compile calls, need not look through all that was imported."""
    gc.collect()
    gc.freeze()


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


def _kept_words(tokenizer, demo) -> dict[str, int]:
    """The words of ``small`` in order, with their old rows: the most frequent ones and all that the demo set has."""
    texts = [one.contents for one in demo.passages]
    texts += [text for one in [*demo.train, *demo.test] for text in (one.question, *one.answers)]
    used = {row for rows in tokenizer(texts)["input_ids"] for row in rows}
    words = sorted(tokenizer.get_vocab().items(), key=lambda pair: pair[1])
    return {word: row for word, row in words if row < FREQUENT or row in used}


@pytest.fixture(scope="session")
def small(demo, tmp_path_factory) -> Encoder:
    """all-MiniLM-L6-v2 with a part of its first layer and of its words: a compile takes half a second."""
    import torch
    from sentence_transformers import SentenceTransformer

    folder = tmp_path_factory.mktemp("small") / "encoder"
    with quiet_loading():
        model = SentenceTransformer(weights(ENCODER))
        bert = model[0].auto_model
        bert.encoder.layer = bert.encoder.layer[:1]
        bert.config.num_hidden_layers = 1
        inner, outer = bert.encoder.layer[0].intermediate.dense, bert.encoder.layer[0].output.dense
        inner.weight, inner.bias = (torch.nn.Parameter(one[:WIDTH].clone()) for one in (inner.weight, inner.bias))
        outer.weight = torch.nn.Parameter(outer.weight[:, :WIDTH].clone())
        bert.config.intermediate_size = WIDTH
        kept = _kept_words(model.tokenizer, demo)
        rows = bert.get_input_embeddings().weight[list(kept.values())].clone()
        bert.set_input_embeddings(torch.nn.Embedding.from_pretrained(rows, freeze=False, padding_idx=0))
        bert.config.vocab_size = len(rows)
        model.save_pretrained(str(folder), create_model_card=False)
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["model"]["vocab"] = {word: row for row, word in enumerate(kept)}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    gc.collect()
    gc.freeze()  # and what the first model imported
    return Encoder(str(folder))


@pytest.fixture(scope="session")
def tiny(small, tmp_path_factory) -> str:
    """A cross-encoder of random weights that is only a thirtieth of MiniLM."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    folder = tmp_path_factory.mktemp("tiny") / "cross-encoder"
    with quiet_loading(), torch.random.fork_rng():
        torch.manual_seed(7)
        config = BertConfig(
            hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, num_labels=1,
            initializer_range=0.5,
        )  # fmt: skip
        BertForSequenceClassification(config).save_pretrained(folder)
        AutoTokenizer.from_pretrained(small.name).save_pretrained(folder)
    return str(folder)


def give_by_name(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Whoever asks for all-MiniLM-L6-v2 by its name gets the encoder in this folder."""
    package = SimpleNamespace(submodule_search_locations=[str(folder.parent)])
    patch.setattr("radio_dspy.models.files.find_spec", lambda name: package)
    name = f"sentence-transformers/{ENCODER}"
    patch.setitem(PACKAGED_WEIGHTS, name, (PACKAGED_WEIGHTS[name][0], folder.name))


@pytest.fixture
def small_by_name(small, monkeypatch) -> None:
    """Whoever asks for all-MiniLM-L6-v2 by its name gets ``small``."""
    give_by_name(Path(small.name), monkeypatch)


@pytest.fixture(scope="session")
def index(topic, small) -> FaissRetriever:
    """The topic's passages, encoded by ``small``."""
    return FaissRetriever.build(topic.passages, encoder=small)


@pytest.fixture
def program(index, small) -> RetrieveRerankAnswer:
    return RetrieveRerankAnswer(index, Rerank(small, "bi-encoder"), candidates=10, k=3)


@pytest.fixture
def waited(monkeypatch) -> list[float]:
    """The seconds for which calls of hosted encoders and rerankers would have waited between two tries."""
    seconds: list[float] = []
    monkeypatch.setattr("radio_dspy.models.endpoint.time", SimpleNamespace(sleep=seconds.append))
    return seconds


@pytest.fixture(autouse=True)
def _no_drawings(request, monkeypatch):
    """Curves take half of a small compile's time: tests marked `drawn`, and fixtures of whole modules, have them."""
    if request.node.get_closest_marker("drawn") is None:
        monkeypatch.setattr("radio_dspy.reporting.plots.drawable", lambda: False)


def no_browser(reason: str) -> NoReturn:
    """Skip a test of pages for want of something; fail where all of it has been installed, as in CI."""
    if os.environ.get("RADIO_BROWSER_REQUIRED"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def browser():
    """Debian's Chromium, without a screen; while it runs, so does an event loop, and no other test can have its own."""
    if shutil.which("chromium") is None:
        no_browser("needs chromium (apt-get install chromium)")
    try:
        import axe_playwright_python.sync_playwright  # noqa: F401  # of tests.reporting.pages
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError as error:
        no_browser(f"needs {error.name} (pip install 'radio-dspy[browser]')")
    with sync_playwright() as running:
        # Its own sandbox needs rights that a container does not give; nothing but our own pages is opened.
        browser = running.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(autouse=True)
def _no_lm_left_over():
    """A test's LM stays in the test."""
    with dspy.context(lm=None, adapter=None):
        yield
