import pytest

from radio_dspy.core.errors import DataError
from radio_dspy.core.passages import Passage, Ranking, RankRequest, as_passage


def test_ranking_orders_by_score_and_keeps_ties_in_place():
    passages = [Passage(one, one) for one in "abcd"]
    ranking = Ranking.from_scores("q", passages, [0.1, 0.9, 0.1, 0.5])
    assert ranking.ids == ("b", "d", "a", "c")
    assert ranking.scores == (0.9, 0.5, 0.1, 0.1)
    assert ranking.top(2).ids == ("b", "d")


def test_values_are_frozen():
    with pytest.raises(AttributeError):
        Passage("a", "text").text = "other"


@pytest.mark.parametrize(
    "item",
    [
        Passage("7", "Ice floats."),
        {"text": "Ice floats.", "id": 7},
        {"long_text": "Ice floats.", "node_id": "7"},
        type("Found", (), {"text": "Ice floats.", "id": "7"})(),
    ],
)
def test_as_passage_reads_what_retrievers_return(item):
    assert as_passage(item, 7) == Passage("7", "Ice floats.")


def test_as_passage_splits_flashrag_contents():
    assert as_passage({"id": "a", "contents": "Ice\nIt floats."}) == Passage("a", "It floats.", "Ice")


def test_a_request_with_a_doubled_candidate_names_it():
    with pytest.raises(DataError, match=r"'q1'.*'a' appears twice"):
        RankRequest("q1", "why?", (Passage("a", "x"), Passage("a", "y")), (1.0, 0.5))
