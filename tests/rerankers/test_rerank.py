import asyncio

import numpy as np
import pytest

from radio_dspy.core.errors import CheckpointError, DataError, SettingsError
from radio_dspy.core.passages import Passage
from radio_dspy.core.rankings import RankRequest
from radio_dspy.models import bi_encoder, cache, cross_encoder
from radio_dspy.rerankers import NoRerank, Rerank
from tests.conftest import ENCODER

QUERY = "why did the dough not rise?"
TEXTS = ["Ice floats on water.", "Yeast dies in hot water.", "The dough lay in a bowl."]


def test_bi_encoder_scores_are_cosines(small):
    ranked = Rerank(small, architecture="bi-encoder")(QUERY, TEXTS)
    expected = small.encode_passages(TEXTS) @ small.encode_queries([QUERY])[0]
    assert ranked.indices == np.argsort(-expected).tolist()
    assert ranked.scores == pytest.approx(sorted(expected, reverse=True), abs=1e-5)


def test_cross_encoder_scores_are_those_of_sentence_transformers():
    import torch
    from sentence_transformers import CrossEncoder

    from radio_dspy.models.files import weights

    rerank = Rerank(ENCODER, architecture="cross-encoder", max_length=64, new_head=True)
    ranked = rerank(QUERY, TEXTS)
    torch.manual_seed(0)  # the head is fresh: seeded alike it is the same one
    peer = CrossEncoder(weights(ENCODER), num_labels=1, max_length=64, activation_fn=torch.nn.Identity())
    expected = peer.predict([(QUERY, text) for text in TEXTS])
    assert ranked.scores == pytest.approx(sorted(expected, reverse=True), abs=1e-5)


@pytest.mark.parametrize("architecture", ["bi-encoder", "cross-encoder"])
def test_logits_agree_with_scores(architecture):
    scorer = cache.open_scorer(Rerank(ENCODER, architecture, max_length=64, new_head=True).weights)
    pairs = [(QUERY, text) for text in TEXTS]
    scale = bi_encoder.COSINE_TEMPERATURE if architecture == "bi-encoder" else 1.0
    assert (scorer.logits(pairs) * scale).detach().numpy() == pytest.approx(scorer.score(pairs), abs=1e-5)


def test_passages_come_back_as_they_were_given():
    items = [Passage("a", TEXTS[0]), {"text": TEXTS[1]}, TEXTS[2]]
    ranked = Rerank(ENCODER, "bi-encoder")(QUERY, items)
    assert sorted(map(id, ranked.passages)) == sorted(map(id, items))
    assert ranked.passages == [items[i] for i in ranked.indices]


def test_k_cuts_and_none_keeps_all():
    rerank = Rerank(ENCODER, "bi-encoder", k=2)
    assert len(rerank(QUERY, TEXTS).passages) == 2
    assert len(rerank(QUERY, TEXTS, k=1).scores) == 1
    assert len(Rerank(ENCODER, "bi-encoder")(QUERY, TEXTS).passages) == 3
    assert Rerank(ENCODER, "bi-encoder")(QUERY, []).passages == []


def test_many_questions_in_one_batch_rank_as_one_by_one():
    passages = tuple(Passage(str(i), text) for i, text in enumerate(TEXTS))
    requests = [RankRequest(q, q, passages, (0.0,) * 3) for q in (QUERY, "why does ice float?")]
    for architecture in ("bi-encoder", "cross-encoder"):
        rerank = Rerank(ENCODER, architecture, max_length=64, new_head=True)
        for request, ranking in zip(requests, rerank.rank_all(requests), strict=True):
            single = rerank(request.query, list(passages))
            assert list(ranking.passages) == single.passages
            assert ranking.scores == pytest.approx(single.scores, abs=1e-5)


def test_asynchronous_calls():
    rerank = Rerank(ENCODER, "bi-encoder")
    assert asyncio.run(rerank.acall(QUERY, TEXTS)).passages == rerank(QUERY, TEXTS).passages
    assert asyncio.run(NoRerank().acall(QUERY, TEXTS)).passages == TEXTS


def test_copies_and_states_hold_names_only(monkeypatch):
    rerank = Rerank(ENCODER, "bi-encoder")
    rerank(QUERY, TEXTS)

    def forbidden(*args):
        raise AssertionError("a copy loaded a model")

    monkeypatch.setattr(cache, "_shared_scorer", forbidden)
    copied = rerank.deepcopy()
    copied.weights = copied.weights.with_checkpoint("elsewhere")
    assert rerank.weights.checkpoint != "elsewhere"
    state = rerank.dump_state()
    assert set(state) == {"weights"}
    assert all(value in (None, []) or isinstance(value, str) for value in state["weights"].values())
    fresh = Rerank("some/other-model")
    fresh.load_state(state)
    assert fresh.weights.dump_state() == rerank.weights.dump_state()


def test_reset_keeps_what_was_learnt():
    rerank = Rerank(ENCODER, "bi-encoder")
    rerank.weights = rerank.weights.with_checkpoint("runs/first/reranker-abc")
    assert rerank.reset_copy().weights.checkpoint == "runs/first/reranker-abc"


def test_a_state_of_something_else_is_refused():
    with pytest.raises(CheckpointError, match="Not a state of reranker weights"):
        Rerank(ENCODER, "bi-encoder").weights.load_state({"demos": []})


def test_what_cannot_be_reranked():
    with pytest.raises(DataError, match="Passage 1 holds no text"):
        Rerank(ENCODER, "bi-encoder")(QUERY, ["text", {"id": 7}])
    with pytest.raises(SettingsError, match="architecture must be one of"):
        Rerank(ENCODER, "colbert")
    with pytest.raises(SettingsError, match="k must be at least 1"):
        Rerank(ENCODER, "bi-encoder", k=0)
    with pytest.raises(CheckpointError, match="no such folder"):
        Rerank("./nowhere")


def test_a_folder_without_a_model_is_named(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    for architecture in ("bi-encoder", "cross-encoder"):
        with pytest.raises(CheckpointError, match="cannot be loaded as a"):
            Rerank(str(tmp_path), architecture, new_head=True)(QUERY, TEXTS)


def test_an_encoder_taken_for_a_cross_encoder_is_told_once(small, tmp_path, caplog):
    cross_encoder._warn_of_a_new_head.cache_clear()
    taken = Rerank(small.name, "cross-encoder", new_head=True)
    for _ in range(2):
        cross_encoder.CrossEncoderScorer(taken.weights)
    told = [record.getMessage() for record in caplog.records if "no head that scores pairs" in record.getMessage()]
    assert len(told) == 1
    assert told[0].startswith(small.name)
    cross_encoder.CrossEncoderScorer(taken.weights).save(tmp_path / "with-head")
    caplog.clear()
    cross_encoder.CrossEncoderScorer(Rerank(str(tmp_path / "with-head")).weights)
    assert "no head" not in caplog.text


class TestScores:
    @pytest.fixture
    def logits(self, monkeypatch):
        """What the model gives, whatever it is."""
        given = [2.0, -1.0, 800.0, -800.0]
        monkeypatch.setattr("radio_dspy.rerankers.rerank.score_lists", lambda *_: [np.array(given, dtype=np.float32)])
        return given

    @pytest.mark.parametrize(
        ("settings", "scores"),
        [
            ({}, [800, 2, -1, -800]),
            ({"activation": "sigmoid"}, [1, 0.8808, 0.2689, 0]),
            ({"activation": "sigmoid", "min_score": 0.5}, [1, 0.8808]),
            ({"min_score": -1}, [800, 2, -1]),
            ({"min_score": 1000}, []),
        ],
    )
    def test_activation_and_bound(self, small, logits, settings, scores):
        found = Rerank(small.name, "cross-encoder", new_head=True, **settings)(QUERY, ["a", "b", "c", "d"])
        np.testing.assert_allclose(found.scores, scores, atol=1e-4)
        assert found.passages == ["c", "a", "b", "d"][: len(scores)]
        assert found.indices == [2, 0, 1, 3][: len(scores)]

    @pytest.mark.parametrize("activation", [None, "sigmoid"])
    def test_what_scores_less_than_an_empty_text_is_left_out(self, small, logits, activation):
        rerank = Rerank(small.name, "cross-encoder", new_head=True, min_score="null", activation=activation)
        found = rerank(QUERY, ["a", "b", "c"])  # the fourth logit is the empty text's
        assert found.passages == ["c", "a", "b"]
        logits[3] = 1.5
        assert rerank(QUERY, ["a", "b", "c"]).passages == ["c", "a"]

    def test_a_probability_needs_the_curve_of_a_training(self, small, logits):
        rerank = Rerank(small, activation="probability", min_score=0.5)
        with pytest.raises(SettingsError, match="have no calibration"):
            rerank(QUERY, ["a", "b", "c", "d"])
        curve = {"kind": "platt", "scores": [-1.0, 2.0], "probabilities": [0.1, 0.7]}
        rerank.weights = rerank.weights.with_training({"calibration": curve})
        found = rerank(QUERY, ["a", "b", "c", "d"])
        np.testing.assert_allclose(found.scores, [1, 0.7], atol=1e-4)
        assert found.passages == ["c", "a"]

    def test_what_is_no_setting(self, small):
        for settings, message in (
            ({"activation": "softmax"}, "activation must be one of"),
            ({"min_score": "0.5"}, "min_score must be a number"),
        ):
            with pytest.raises(SettingsError, match=message):
                Rerank(small, **settings)
        with pytest.raises(SettingsError, match="for a cross-encoder's logits"):
            Rerank(small, activation="sigmoid")(QUERY, ["a"])
