import pytest

from radio_dspy.core.errors import DataError
from radio_dspy.core.passages import Passage
from radio_dspy.core.rankings import Ranking, RankRequest


def test_ranking_orders_by_score_and_keeps_ties_in_place():
    passages = [Passage(one, one) for one in "abcd"]
    ranking = Ranking.from_scores("q", passages, [0.1, 0.9, 0.1, 0.5])
    assert ranking.ids == ("b", "d", "a", "c")
    assert ranking.scores == (0.9, 0.5, 0.1, 0.1)
    assert ranking.top(2).ids == ("b", "d")


def test_a_request_with_a_doubled_candidate_names_it():
    with pytest.raises(DataError, match=r"'q1'.*'a' appears twice"):
        RankRequest("q1", "why?", (Passage("a", "x"), Passage("a", "y")), (1.0, 0.5))
