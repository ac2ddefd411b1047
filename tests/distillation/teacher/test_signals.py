import numpy as np
import pytest

from radio_dspy import BM25Retriever, HybridRetriever
from radio_dspy.core.errors import DataError, SettingsError
from radio_dspy.core.passages import Passage
from radio_dspy.core.rankings import RankRequest
from radio_dspy.distillation import AnswerContainment, AnswerSimilarity, Labels, RationaleSimilarity, RetrievalScore
from radio_dspy.distillation.preferences.building import build_groups
from radio_dspy.distillation.teacher.ranking import fused_rankings
from radio_dspy.models.encoder import Encoder
from radio_dspy.rerankers import RationaleRerank
from radio_dspy.retrievers.requests import rank_requests, usable
from tests.conftest import ENCODER

HEAT = Passage("heat", "Vapour takes heat along.", "Evaporation")
REQUEST = RankRequest(
    "q",
    "Why did the jug stay cold?",
    (Passage("jug", "The jug stood in the kitchen."), HEAT, Passage("cold", "It was a cold day.")),
    (0.9, 0.5, 0.4),
    answers=("evaporation",),
    rationale="Water seeps through the clay, turns to vapour and takes heat along.",
    relevant=frozenset({"heat"}),
)


def test_rationale_similarity_is_the_dot_product_of_guide_and_passage(small):
    guide = (
        "Why did the jug stay cold? evaporation. Water seeps through the clay, turns to vapour and takes heat along."
    )
    expected = small.encode_passages(REQUEST.candidates) @ small.encode_queries([guide])[0]
    (scores,) = RationaleSimilarity(small).score([REQUEST])
    assert scores == pytest.approx(expected, abs=1e-5)
    assert scores.argmax() == 1


def test_stored_vectors_give_the_same_scores_as_encoding(index, topic):
    requests = rank_requests(topic.train[:4], index, 10)
    encoded = RationaleSimilarity(index.encoder).score(requests)
    stored = RationaleSimilarity(index.encoder, index=index).score(requests)
    assert np.concatenate(stored) == pytest.approx(np.concatenate(encoded), abs=1e-5)


def test_an_index_of_another_encoder_is_not_used(index):
    other = Encoder(ENCODER, passage_prefix="passage: ")
    assert RationaleSimilarity(other, index=index)._index is None
    assert RationaleSimilarity(index.encoder, index=index)._index is index
    words = BM25Retriever(index.passages)
    assert RationaleSimilarity(index.encoder, index=HybridRetriever([words, index]))._index is index
    with pytest.raises(SettingsError, match="index= needs a retriever that searches by vectors, got BM25Retriever"):
        RationaleSimilarity(index.encoder, index=words)


def test_the_other_signals():
    assert RetrievalScore().score([REQUEST])[0] == pytest.approx([0.9, 0.5, 0.4])
    assert Labels().score([REQUEST])[0].tolist() == [0, 1, 0]
    answer, rationale = AnswerSimilarity(ENCODER).score([REQUEST])[0], RationaleSimilarity(ENCODER).score([REQUEST])[0]
    assert answer[1] != pytest.approx(rationale[1], abs=1e-4)


def test_answer_containment_asks_for_whole_words():
    passages = (Passage("title", "Vapour takes heat along.", "The Evaporation"), Passage("part", "re-evaporations"))
    (scores,) = AnswerContainment().score([RankRequest("q", "Why?", passages, (1.0, 0.9), ("an evaporation", "cold"))])
    assert scores.dtype == np.float32
    assert scores.tolist() == [1, 0]
    assert AnswerContainment().score([RankRequest("q", "Why?", passages, (1.0, 0.9))])[0].tolist() == [0, 0]


def test_rationale_rerank_orders_like_the_signal():
    ranked = RationaleRerank(ENCODER)(
        question=REQUEST.query, answers=REQUEST.answers, rationale=REQUEST.rationale, passages=list(REQUEST.candidates)
    )
    scores = RationaleSimilarity(ENCODER).score([REQUEST])[0]
    assert ranked.order == np.argsort(-scores).tolist()
    assert ranked.passages[0] is HEAT
    assert ranked.scores == pytest.approx(sorted(scores, reverse=True), abs=1e-5)


def test_groups_are_joined_by_id_with_their_texts():
    (group,), counts = build_groups([REQUEST], fused_rankings([REQUEST], {Labels(): 1.0}))
    assert group.as_dict() == {
        "id": "q",
        "query": REQUEST.query,
        "positive": "heat",
        "negatives": ["cold"],
        "random": [],
        "scores": [1.0, 0.0],
    }
    assert group.positive == HEAT.contents
    assert group.negatives == ("It was a cold day.",)
    assert counts == {}


def test_questions_that_cannot_be_used_are_counted():
    one = RankRequest("one", "q", (HEAT,), (1.0,), answers=("a",))
    none = RankRequest("none", "q", REQUEST.candidates, REQUEST.scores)
    kept, skipped = usable([REQUEST, one, none])
    assert kept == [REQUEST]
    assert skipped == {"with fewer than two candidates": 1, "without an answer": 1}


def test_examples_without_ids_get_stable_ones_and_clashes_are_named(index):
    import dspy

    example = dspy.Example(question="Why did the dough not rise?", answer="hot water killed the yeast")
    first, again = (rank_requests([example], index, 3)[0] for _ in range(2))
    assert first.id == again.id
    assert first.answers == ("hot water killed the yeast",)
    clash = [dspy.Example(id="q", question="one"), dspy.Example(id="q", question="two")]
    with pytest.raises(DataError, match="Two questions share the id 'q'"):
        rank_requests(clash, index, 3)
