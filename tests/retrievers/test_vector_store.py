"""What a store of the user's returns is held against what was asked; a client's error is the project's."""

import traceback
from dataclasses import replace

import numpy as np
import pytest

from radio_dspy import VectorRetriever
from radio_dspy.core.errors import DataError, RadioError, SettingsError, StoreError
from radio_dspy.core.passages import Passage
from radio_dspy.models.callable_encoder import CallableEncoder

PASSAGES = [
    Passage(key, f"{key} floats.", metadata={"tenant": tenant}) for key, tenant in zip("abcde", "xyxyx", strict=True)
]
ENCODER = CallableEncoder(lambda texts: [[1.0, 0.0, 0.0] for _ in texts], name="one direction")
KEY = "hunter2-of-the-shelf"


class Shelf:
    """Answers as it should, unless a test says otherwise."""

    name = "the shelf"
    dimension = 3

    def __init__(self, **answers):
        self.answers = answers
        self.client = type("Client", (), {})()
        self.client.api_key = KEY

    def search(self, vectors, k, filter=None):
        if "search" in self.answers:
            return self.answers["search"](vectors, k)
        some = [one for one in PASSAGES if not filter or one.metadata["tenant"] in filter["tenant"]]
        return [[(one, 1 - place / 10) for place, one in enumerate(some[:k])] for _ in vectors]

    def vectors(self, ids):
        return self.answers["vectors"](ids) if "vectors" in self.answers else np.eye(3, dtype=np.float32)[: len(ids)]

    def passages(self, ids):
        if "passages" in self.answers:
            return self.answers["passages"](ids)
        return [one for one in PASSAGES if one.id in ids]


def opened(**answers):
    return VectorRetriever(Shelf(**answers), ENCODER, k=2)


def hits(*pairs):
    """A search that finds this for every query."""
    return lambda vectors, k: [list(pairs) for _ in vectors]


def refuse(error):
    def answer(*asked):
        raise error

    return answer


A, B, C = PASSAGES[:3]
SEARCHES = {
    "more than asked for": (hits((A, 0.9), (B, 0.8), (C, 0.7)), "asked for 2 passages and gave more"),
    "twice the same": (hits((A, 0.9), (A, 0.8)), "found passage 'a' twice"),
    "worst first": (hits((A, 0.1), (B, 0.9)), "gave 0.1 before 0.9; give the best first"),
    "no list": (lambda vectors, k: None, "search gave None"),
    "without end": (lambda vectors, k: [((A, 0.9) for _ in iter(int, 1))], "gave more"),
    "too few lists": (lambda vectors, k: [], "gave 0 lists for 1 queries"),
    "one list for all": (lambda vectors, k: [(A, 0.9), (B, 0.8)], "gave more lists for 1 queries"),
    "no pairs": (hits(A, B), r"give \(passage, score\) pairs"),
    "texts": (hits(("ice", 0.9)), "needs a Passage whose id is a string, got 'ice'"),
    "dictionaries": (hits(({"id": "a", "text": "ice"}, 0.9)), "needs a Passage"),
    "an id that is a number": (hits((replace(A, id=7), 0.9)), "needs a Passage whose id is a string"),
    "an empty id": (hits((replace(A, id=" "), 0.9)), "is empty"),
    "no text": (hits((replace(A, text=None), 0.9)), "text: needs a string, got None"),
    "half a character": (hits((replace(A, text="\ud800"), 0.9)), "unpaired surrogate"),
    "a score that is a text": (hits((A, "0.9")), "gave the scores"),
    "a score that is none": (hits((A, None)), "one finite number for each passage"),
    "a score that is no number": (hits((A, 0.9), (B, float("nan"))), "one finite number"),
    "a score without end": (hits((A, float("inf"))), "one finite number"),
    "a score beyond float32": (hits((A, 1e300)), "one finite number"),
    "scores that are lists": (hits((A, [0.9])), "one finite number"),
}


@pytest.mark.parametrize("name", SEARCHES)
def test_what_a_search_finds(name):
    answer, message = SEARCHES[name]
    with pytest.raises(DataError, match=message) as caught:
        opened(search=answer)("why?")
    assert str(caught.value).startswith("the shelf: search")


def test_a_filter_that_a_store_does_not_hold():
    with pytest.raises(DataError, match="found passage 'b', whose 'tenant' is 'y'"):
        opened(search=hits((A, 0.9), (B, 0.8)))("why?", filter={"tenant": "x"})
    with pytest.raises(DataError, match="whose 'day' is None"):
        opened(search=hits((A, 0.9)))("why?", filter={"day": ["mon", "tue"]})
    tagged = replace(A, metadata={"tags": ["x", "z"], "one": 1})
    found = opened(search=hits((tagged, 0.9)))
    assert found("why?", filter={"tags": "z", "one": [1.0]}).passages == [tagged]  # one of several is enough
    with pytest.raises(DataError, match="whose 'one' is 1"):
        found("why?", filter={"one": True})


def test_scores_are_pythons_and_ties_may_waver():
    found = opened(search=hits((A, np.float32(0.5)), (B, np.float32(0.50001))))("why?")
    assert [type(one) for one in found.scores] == [float, float]
    assert opened(search=lambda vectors, k: ([(one, 0.5)] for one in [A]))("why?").passages == [A]


def test_equal_scores_come_by_id_in_every_store():
    found = [opened(search=hits(*((one, 0.5) for one in order)))("why?") for order in ((A, B), (B, A))]
    assert [one.passages for one in found] == [[A, B], [A, B]]


VECTORS = {
    "too few": (np.eye(3)[:1], "2 passages, but vectors of shape"),
    "another dimension": (np.ones((2, 2)), "2 dimensions, but 3 are needed"),
    "no number": (np.array([[1, 0, 0], [np.nan, 0, 0]]), "holds what is no finite number"),
    "zero": (np.zeros((2, 3)), "is zero"),
    "ragged": ([[1, 0, 0], [1, 0]], "gave no array of numbers"),
    "none": (None, "gave vectors of type object"),
    "one is missing": ([[1.0, 0, 0], None], "gave no array of numbers"),
    "texts": ([["1", "0", "0"]] * 2, "gave vectors of type"),
}


@pytest.mark.parametrize("name", VECTORS)
def test_vectors(name):
    found, message = VECTORS[name]
    with pytest.raises(DataError, match=message) as caught:
        opened(vectors=lambda ids: found).vectors(["a", "b"])
    assert str(caught.value).startswith("the shelf")


@pytest.mark.parametrize("given", [2 * np.eye(3)[:2], np.eye(3, dtype=np.int8)[:2] * 100, np.eye(3).tolist()[:2]])
def test_vectors_are_brought_to_length_1(given):
    found = opened(vectors=lambda ids: given).vectors(["a", "b"])
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.eye(3)[:2])
    assert opened(vectors=refuse(AssertionError)).vectors([]).shape == (0, 3)  # nothing is asked


def test_passages():
    assert opened(passages=lambda ids: PASSAGES[1::-1]).passages_by_id(["a", "b"]) == [A, B]  # in the order of ids
    for answer, message in [
        ([A, None], "needs a Passage"),
        ([A, C], "gave 'c', which was not asked for"),
        ([A, replace(A, text="other")], "'a' is there more than once"),
        (None, "give a list of Passage"),
    ]:
        with pytest.raises(DataError, match=message):
            opened(passages=lambda ids, answer=answer: answer).passages_by_id(["a", "b"])


ERRORS = [
    ConnectionError("refused"),
    KeyError("a"),
    TypeError("x"),
    AttributeError("y"),
    TimeoutError(),
    OSError(5, "io"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_clients_error_is_the_projects_without_its_key(error):
    error.args = (*error.args, f"with {KEY}")
    for name, ask in [
        ("search", lambda found: found("why?")),
        ("vectors", lambda found: found.vectors(["a"])),
        ("passages", lambda found: found.passages_by_id(["a"])),
    ]:
        with pytest.raises(StoreError, match=f"the shelf: {type(error).__name__}.* See that it runs") as caught:
            ask(opened(**{name: refuse(error)}))
        assert KEY not in "".join(traceback.format_exception(caught.value))


def test_an_error_while_what_is_found_is_read():
    def search(vectors, k):
        yield [(A, 0.9)]
        raise ConnectionError("cut")

    with pytest.raises(StoreError, match="ConnectionError: cut"):
        opened(search=search)("why?")


class Down:
    name = "far"
    search = vectors = passages = None

    @property
    def dimension(self):
        raise ConnectionError("refused")


@pytest.mark.parametrize(
    ("store", "message"),
    [
        (None, "it lacks name, dimension, search"),
        (type("S", (), {"name": "s", "search": print})(), "lacks dimension, vectors, passages"),
        (type("S", (Shelf,), {"name": ""})(), "its name must be a text"),
        (type("S", (Shelf,), {"dimension": "3"})(), "its dimension must be a whole number, got '3'"),
        (Down(), "Down: ConnectionError: refused"),
    ],
)
def test_what_is_no_store(store, message):
    with pytest.raises((SettingsError, StoreError), match=message):
        VectorRetriever(store, ENCODER)


def test_another_dimension_than_the_encoders():
    with pytest.raises(RadioError, match="3 dimensions, but 4 are needed"):
        VectorRetriever(type("S", (Shelf,), {"dimension": 4})(), ENCODER)("why?")


@pytest.mark.parametrize("wrong", [{"a": float("nan")}, {"a": None}, {"a": "\ud800"}, {"": 1}, "a", {"a": {"b": 1}}])
def test_a_filter_that_is_none(wrong):
    with pytest.raises(SettingsError, match="filter"):
        opened()("why?", filter=wrong)


def test_numpys_values_in_a_filter():
    found = opened(search=hits((replace(A, metadata={"n": np.int64(3)}), 0.9)))
    for wanted in (np.int64(3), [np.float32(3)], np.array([2, 3])):
        assert len(found("why?", filter={"n": wanted}).passages) == 1
