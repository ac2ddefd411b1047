"""Vectors of a store are looked at before it is used."""

import numpy as np
import pytest
from pyarrow import bool_, float32, int64, string, timestamp

import radio_dspy as radio
from radio_dspy.core.errors import DataError, SettingsError
from radio_dspy.core.passages import Passage
from radio_dspy.retrievers.stores import shared
from radio_dspy.retrievers.stores.values import comparable, whole_numbers

ONE = [1.0, 0.0, 0.0]


class Shelf(shared.Store):
    name = "the shelf"

    def _search(self, vectors, k, wanted):
        raise AssertionError("not asked")

    _fetch = _search


@pytest.mark.parametrize(
    "other",
    [ONE[:2], None, ["a", "b", "c"], b"abc", [np.nan, 0.0, 0.0], [0.0, 0.0, 0.0], [np.inf, 0.0, 0.0], [[1.0]], 7.0],
    ids=repr,
)
@pytest.mark.parametrize("metric", [shared.COSINE, shared.INNER_PRODUCT])
def test_a_vector_that_is_none(other, metric):
    sample = [(Passage("a", "Yeast."), ONE), (Passage("b", "Ice."), other)]
    for given in (sample, sample[1:]):
        with pytest.raises(DataError, match="the shelf: "):
            Shelf().check_sample(given, metric, 3)


def test_those_that_are_vectors():
    shelf = Shelf()
    shelf.check_sample(
        [(Passage("a", "Yeast."), ONE), (Passage("b", "Ice."), np.array(ONE, dtype=np.float16))], shared.COSINE
    )
    assert shelf.dimension == 3


@pytest.mark.parametrize(
    ("held", "metadata"),
    [
        ({"year": 1}, {"year": 1}),
        ('{"year": 1}', {"year": 1}),
        (None, {}),
        ("", {}),
        ([1], None),
        ("x", None),
        (7, None),
    ],
    ids=repr,
)
def test_one_field_that_holds_all_metadata(held, metadata):
    row, fields = {"id": "a", "text": "Yeast.", "more": held}, shared.Fields(metadata="more")
    if metadata is not None:
        assert fields.passage(row).metadata == metadata
        return
    with pytest.raises(DataError, match=r"'more' holds .*give another field, or a list of fields"):
        fields.passage(row)


@pytest.mark.parametrize("name", ["PgVector", "Qdrant", "Chroma", "LanceDB", "Milvus"])
@pytest.mark.parametrize("given", [None, 7, "AsyncClient"])
def test_what_is_no_client(name, given):
    kind = getattr(radio, f"{name}Retriever")
    client = type(given, (), {"__getattr__": lambda self, name: self})() if given == "AsyncClient" else given
    between = () if name in ("Chroma", "LanceDB") else ("passages",)
    with pytest.raises(SettingsError, match=f"is needed, got {type(client).__name__}; "):
        kind(client, *between, "all-MiniLM-L6-v2")


@pytest.mark.parametrize(("score", "metric"), [(1.3, shared.INNER_PRODUCT), (1.3, shared.COSINE)])
def test_a_long_vector_beyond_the_sample(score, metric):
    shelf = Shelf()
    shelf.check_sample([(Passage("a", "Yeast."), ONE)], metric)
    shelf._search = lambda *_: [[(Passage("b", "Ice."), score)]]
    if metric == shared.COSINE:
        assert shelf.search([ONE], 1)
        return
    with pytest.raises(SettingsError, match=r"similarity of 1\.3: its vectors are not all of length 1"):
        shelf.search([ONE], 1)


def test_ids_of_whole_numbers():
    given = ["-3", "0", "7", "-0", "007", "+7", "1.0", " 2", "\u00b2", "\u0663", "x", str(1 << 63), "9" * 5000]
    assert whole_numbers(given) == [-3, 0, 7]


@pytest.mark.parametrize(
    ("kind", "kept"),
    [
        (bool_(), [True]),
        (int64(), [1, 2]),
        (float32(), [1, 2.0, 2.5, 1 << 70]),
        (string(), ["1"]),
        (timestamp("s"), [True, 1, 2.0, 2.5, 1 << 70, "1"]),  # the engine says what it takes
    ],
    ids=str,
)
def test_values_that_a_column_can_have(kind, kept):
    assert comparable([True, 1, 2.0, 2.5, 1 << 70, "1"], kind) == kept
