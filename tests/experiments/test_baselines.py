"""What an aligned reranker is held against."""

import pytest

from radio_dspy import Passage, Ranking, RankRequest
from radio_dspy.core.errors import DataError
from radio_dspy.distillation.training.settings import TrainingSettings
from radio_dspy.experiments.baselines import (
    FixedRankings,
    answer_triplets,
    finetune_on_answers,
)

A, B, C = Passage("a", "Yeast dies in hot water."), Passage("b", "Ice floats."), Passage("c", "Yeast is alive.")


def test_rankings_that_are_there_are_given():
    assert FixedRankings({"q": Ranking("q", (C, A), (2.0, 1.0))})("q", k=1).passages == [C]


def test_triplets_are_the_first_with_and_the_first_without_the_answer():
    requests = [
        RankRequest("1", "what floats?", (A, B, C), (3.0, 2.0, 1.0), answers=("ice",)),
        RankRequest("2", "none holds it?", (A, B), (2.0, 1.0), answers=("sand",)),
    ]
    assert answer_triplets(requests) == {
        "anchor": ["what floats?"],
        "positive": [B.contents],
        "negative": [A.contents],
    }


def test_without_any_answer_there_is_nothing_to_learn(tmp_path):
    requests = [RankRequest("2", "none holds it?", (A, B), (2.0, 1.0), answers=("sand",))]
    with pytest.raises(DataError, match="None of the 1 training questions"):
        finetune_on_answers("all-MiniLM-L6-v2", requests, TrainingSettings(), 1, tmp_path)
