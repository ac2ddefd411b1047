"""How well two views of the same candidates agree."""

import pytest

from radio_dspy.core.passages import Passage
from radio_dspy.core.rankings import Ranking, RankRequest
from radio_dspy.experiments.agreement import agreement

PASSAGES = tuple(Passage(name, name) for name in "abcd")


@pytest.mark.parametrize(
    ("given", "theirs", "correlation", "first"),
    [
        ([4, 3, 2, 1], [0.4, 0.3, 0.2, 0.0], 1.0, 0.175),
        ([1, 2, 3, 4], [4, 3, 2, 1], -1.0, -1.5),
        ([1, 0, 0, 0], [9, 1, 2, 3], 0.775, 5.25),  # equal scores share a rank: scipy.stats.spearmanr says 0.7746
        ([5, 5, 5, 5], [1, 2, 3, 4], None, -1.5),  # an order that tells nothing apart has no correlation
    ],
)
def test_one_question(given, theirs, correlation, first):
    request = RankRequest("q", "why?", PASSAGES, (0.0,) * 4)
    told = agreement([Ranking.from_scores("why?", PASSAGES, given)], [request], [theirs])
    assert told["each"] == [None if correlation is None else pytest.approx(correlation, abs=1e-3)]
    assert told["of_the_first"][0] == pytest.approx(first)
    assert told["of_the_best"][0] == pytest.approx(max(theirs) - sum(theirs) / 4)
    assert told["questions"] == (correlation is not None)
    assert (told["rank_correlation"] is None) == (correlation is None)
