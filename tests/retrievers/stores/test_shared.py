"""Vectors of a store are looked at before it is used."""

import numpy as np
import pytest

from radio_dspy.core.errors import DataError
from radio_dspy.core.passages import Passage
from radio_dspy.retrievers.stores import shared

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
