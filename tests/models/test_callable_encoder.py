"""An encoder around a function: functions that differ share neither vectors nor an index."""

import copy
from functools import partial

import dspy
import numpy as np
import pytest

from radio_dspy.core.errors import CheckpointError
from radio_dspy.core.passages import Passage
from radio_dspy.core.redaction import redacted
from radio_dspy.models.callable_encoder import CallableEncoder
from radio_dspy.models.encoder import Encoder
from radio_dspy.retrievers import FaissRetriever


def made(direction, noise=0.0):
    """A function whose name and source are those of every other that is made here."""

    def embed(texts):
        rng = np.random.default_rng(7)
        rows = np.array([[len(text), text.count("a") + direction, direction, 1.0] for text in texts])
        return rows + noise * rng.standard_normal(rows.shape)

    return embed


def letters(texts):
    return [[float(len(text)), 1.0] for text in texts]


def marks(texts):  # the same vectors for nearly all texts
    return [[float(len(text)), 1.0 + text.count("§")] for text in texts]


class Model:
    def __init__(self, direction):
        self.direction = direction

    def __call__(self, texts):
        return made(self.direction)(texts)


DIFFERENT = {
    "a closure's value": (made(1.0), made(2.0)),
    "the source": (letters, marks),
    "an object's value": (Model(1.0), Model(5.0)),
    "a hosted model's settings": (
        dspy.Embedder("openai/text-embedding-3-small", dimensions=256),
        dspy.Embedder("openai/text-embedding-3-small", dimensions=512),
    ),
    "an encoder's prefix": (
        dspy.Embedder(Encoder("all-MiniLM-L6-v2").encode_queries),
        dspy.Embedder(Encoder("all-MiniLM-L6-v2", query_prefix="query: ").encode_queries),
    ),
    "an encoder's side": (Encoder("all-MiniLM-L6-v2").encode_queries, Encoder("all-MiniLM-L6-v2").encode_passages),
}
SAME = {
    "a function again": (made(1.0), made(1.0)),
    "the last digits": (made(1.0), made(1.0, noise=1e-7)),
    "an embedder around it": (made(1.0), dspy.Embedder(made(1.0))),
    "another key": (
        dspy.Embedder("openai/text-embedding-3-small", api_key="sk-one-12345678"),
        dspy.Embedder("openai/text-embedding-3-small", api_key="sk-two-12345678"),
    ),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_two_functions_of_one_name_are_two_encoders(name):
    one, other = map(CallableEncoder, DIFFERENT[name])
    assert one.identity != other.identity


@pytest.mark.parametrize("name", SAME)
def test_the_same_function_is_the_same_encoder(name):
    one, other = map(CallableEncoder, SAME[name])
    assert one.identity == other.identity
    assert copy.deepcopy(one).identity == one.identity


def test_a_name_of_the_users_own_is_the_identity():
    one, other = CallableEncoder(made(1.0), name="mine v1"), CallableEncoder(made(2.0), name="mine v1")
    assert one.identity == other.identity != CallableEncoder(made(1.0), name="mine v2").identity
    assert one.identity != CallableEncoder(made(1.0)).identity


def test_an_index_serves_the_function_that_built_it_alone(tmp_path):
    passages = [Passage("a", "Ice floats."), Passage("b", "Salt draws water out of a ham.")]
    FaissRetriever.build(passages, CallableEncoder(made(1.0))).save(tmp_path / "index")
    loaded = FaissRetriever.load(tmp_path / "index", encoder=CallableEncoder(made(1.0)))
    assert [one.id for one in loaded("ice?", k=2).passages]
    with pytest.raises(CheckpointError, match="give that one, or build again"):
        FaissRetriever.load(tmp_path / "index", encoder=CallableEncoder(made(9.0)))


@pytest.mark.parametrize("wrap", ["itself", "a partial", "a method"])
def test_the_key_of_an_embedder_inside_a_function(wrap):
    key = f"sk-MARK-of-{wrap.replace(' ', '-')}-3"
    one = dspy.Embedder("openai/x", api_key=key)
    CallableEncoder({"itself": one, "a partial": partial(one), "a method": one.__call__}[wrap], name="mine")
    assert redacted(f"refused {key}") == "refused ***"
