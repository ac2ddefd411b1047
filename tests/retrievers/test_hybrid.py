import copy

import pytest

from radio_dspy import BM25Retriever, FaissRetriever, HybridRetriever, Passage, Ranking
from radio_dspy.core.errors import CheckpointError, SettingsError
from radio_dspy.retrievers.base import retriever_of
from radio_dspy.retrievers.hybrid import reciprocal_rank_fusion
from radio_dspy.retrievers.vector import vector_part

A, B, C = Passage("a", "Yeast dies in hot water."), Passage("b", "Ice floats."), Passage("c", "Yeast is alive.")


def test_fusion_by_hand():
    fused = reciprocal_rank_fusion([Ranking("q", (A, B), (2.0, 1.0)), Ranking("q", (B, C), (9.0, 8.0))], 2)
    assert fused.ids == ("b", "a")
    assert fused.scores == (pytest.approx(1 / 62 + 1 / 61), pytest.approx(1 / 61))


def test_equal_scores_keep_the_order_of_the_parts():
    fused = reciprocal_rank_fusion([Ranking("q", (A, B), (2.0, 1.0)), Ranking("q", (C,), (9.0,))])
    assert fused.ids == ("a", "c", "b")


@pytest.fixture(scope="module")
def words(topic):
    return BM25Retriever(topic.passages)


@pytest.fixture(scope="module")
def hybrid(index, words):
    return HybridRetriever([index, words])


def test_it_fuses_what_its_parts_find(hybrid, index, words, topic):
    questions = [one.question for one in topic.train[:5]]
    by_hand = zip(index.search(questions, 10), words.search(questions, 10), strict=True)
    assert hybrid.search(questions, 10) == [reciprocal_rank_fusion(pair, 10) for pair in by_hand]
    deep = HybridRetriever([index, words], depth=30)
    by_hand = zip(index.search(questions, 30), words.search(questions, 30), strict=True)
    assert deep.search(questions, 10) == [reciprocal_rank_fusion(pair, 10) for pair in by_hand]


def test_filters_reach_every_part(topic, small):
    passages = [Passage(one.id, one.text, one.title, {"even": row % 2 == 0}) for row, one in enumerate(topic.passages)]
    found = HybridRetriever([FaissRetriever.build(passages, small), BM25Retriever(passages)])
    assert all(one.metadata["even"] for one in found(topic.train[0].question, k=9, filter={"even": True}).passages)


def test_an_optimizer_finds_its_encoder_and_vectors(hybrid, index, words, program):
    program.retriever = hybrid
    assert retriever_of(program) is hybrid
    assert vector_part(hybrid) is index
    assert hybrid.encoder is index.encoder
    assert HybridRetriever([words, words]).encoder is None
    assert copy.deepcopy(hybrid).retrievers[0].store is index.store


def test_saved_and_loaded_it_ranks_the_same(hybrid, index, words, topic, small, tmp_path):
    questions = [one.question for one in topic.train[:5]]
    hybrid.save(tmp_path / "hybrid")
    assert HybridRetriever.load(tmp_path / "hybrid", small).search(questions, 9) == hybrid.search(questions, 9)


def test_a_part_in_a_store_is_given_again(index, words, topic, tmp_path):
    from radio_dspy import VectorRetriever

    stored = VectorRetriever(index.store, index.encoder)
    both = HybridRetriever([stored, words], depth=12)
    both.save(tmp_path / "hybrid")
    assert sorted(one.name for one in (tmp_path / "hybrid").iterdir()) == ["1", "manifest.json"]
    loaded = HybridRetriever.load(tmp_path / "hybrid", stores=[stored])
    assert loaded.search(["why?"], 9) == both.search(["why?"], 9)
    with pytest.raises(SettingsError, match="1 of its parts lie in stores, got 0"):
        HybridRetriever.load(tmp_path / "hybrid")


def test_what_cannot_be_fused(index, words, tmp_path):
    with pytest.raises(SettingsError, match="at least two of our retrievers"):
        HybridRetriever([index])
    with pytest.raises(SettingsError, match="fusion must be 'rrf'"):
        HybridRetriever([index, words], fusion="mean")
    (tmp_path / "manifest.json").write_text('{"format": 1, "kind": "hybrid", "fusion": "rrf", "parts": ["x"]}')
    with pytest.raises(CheckpointError, match="no manifest of a hybrid"):
        HybridRetriever.load(tmp_path)


def test_a_part_that_is_a_link_is_refused(tmp_path, index, small):
    HybridRetriever([index, BM25Retriever(index.passages)]).save(tmp_path / "both")
    (tmp_path / "both" / "0").rename(tmp_path / "elsewhere")
    (tmp_path / "both" / "0").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="0: is a link"):
        HybridRetriever.load(tmp_path / "both", small)
