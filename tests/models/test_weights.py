import copy
from dataclasses import FrozenInstanceError

import pytest

from radio_dspy.core.errors import CheckpointError
from radio_dspy.models.cache import _shared_scorer, score_lists
from radio_dspy.models.files import fingerprint
from radio_dspy.models.shared import forget_models
from radio_dspy.models.weights import RerankerWeights
from tests.conftest import ENCODER


def test_nothing_can_be_set():
    weights = RerankerWeights("owner/model")
    with pytest.raises(FrozenInstanceError):
        weights.checkpoint = "elsewhere"


def test_a_changed_copy_keeps_everything_else():
    weights = RerankerWeights("owner/model", "bi-encoder", max_length=64).with_training({"release": "1"})
    trained = weights.with_checkpoint("run/reranker-1")
    assert {**trained.dump_state(), "checkpoint": "owner/model"} == weights.dump_state()
    both = trained.with_checkpoint("run/reranker-2", "index")
    assert (both.checkpoint, both.passage_side, both.base) == ("run/reranker-2", "index", "owner/model")
    assert both.with_checkpoint("run/reranker-3").passage_side == "index"
    assert both.untrained().dump_state() == RerankerWeights("owner/model", "bi-encoder", max_length=64).dump_state()
    with pytest.raises(CheckpointError):
        RerankerWeights("./gone").untrained()


def test_weights_are_equal_where_they_score_alike():
    weights = RerankerWeights("owner/model")
    assert weights == copy.deepcopy(weights).with_training({"release": "1"})
    assert hash(weights) == hash(weights.with_checkpoint("owner/model"))
    for other in (
        weights.with_checkpoint("other"),
        weights.with_checkpoint("owner/model", "passages"),
        RerankerWeights("owner/model", "bi-encoder"),
        RerankerWeights("owner/model", max_length=64),
    ):
        assert other != weights


def test_a_scorer_is_loaded_once_for_equal_weights_and_again_for_others_loaded_in_place(small):
    forget_models()
    weights = RerankerWeights(small, "bi-encoder")
    (first,) = score_lists(weights, [("why?", ["because"])])
    score_lists(weights.with_training({"release": "1"}), [("why?", ["because"])])
    assert _shared_scorer.cache_info().misses == 1
    weights.load_state(RerankerWeights(ENCODER, "bi-encoder").dump_state())
    (second,) = score_lists(weights, [("why?", ["because"])])
    assert second != first
    assert score_lists(RerankerWeights(small, "bi-encoder"), [("why?", ["because"])])[0] == first
    forget_models()
    assert _shared_scorer.cache_info().currsize == 0


def test_files_are_hashed_again_where_asked(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    before = fingerprint(str(tmp_path))
    (tmp_path / "config.json").write_text('{"hidden_size": 8}')
    assert fingerprint(str(tmp_path)) == before
    assert fingerprint(str(tmp_path), again=True) != before
