import dspy
import numpy as np
import pytest

from radio_dspy import LMRerank, NoRerank, RemoteRerank, Rerank, RetrieveRerankAnswer
from radio_dspy.core.errors import DataError
from radio_dspy.core.passages import Passage
from radio_dspy.core.rankings import Ranking, RankRequest
from radio_dspy.distillation import RerankerScore, RetrievalScore
from radio_dspy.distillation.teacher.ranking import fused_rankings
from tests.conftest import scripted
from tests.settings import radio_of
from tests.stub_endpoints import StubEndpoint, score

PASSAGES = (
    Passage("ice", "Ice floats on water."),
    Passage("heat", "The yeast did die in hot water.", "Baking"),
    Passage("bowl", "The dough lay in a bowl."),
)
REQUESTS = [
    RankRequest("one", "why did the yeast die?", PASSAGES, (0.9, 0.5, 0.4), answers=("hot water",)),
    RankRequest("two", "what is in the bowl?", PASSAGES[::-1], (0.8, 0.7, 0.6), answers=("dough",)),
    RankRequest("three", "nothing", (), ()),
]


def test_scores_are_the_rerankers_in_the_candidates_order(small):
    rerank = Rerank(small, "bi-encoder")
    found = RerankerScore(rerank).score(REQUESTS)
    for request, scores in zip(REQUESTS, found, strict=True):
        ranked = rerank(request.query, list(request.candidates))
        expected = dict(zip(ranked.indices, ranked.scores, strict=True))
        assert scores.dtype == np.float32
        assert scores == pytest.approx([expected[i] for i in range(len(request.candidates))], abs=1e-5)


def test_a_hosted_reranker_teaches(topic, index, small):
    with StubEndpoint() as stub:
        remote = RemoteRerank("cohere/rerank-v3.5", api_base=stub.url, api_key="sk-none")
        first, second, third = RerankerScore(remote).score(REQUESTS)
        texts = [passage.contents for passage in PASSAGES]
        assert first == pytest.approx([score(REQUESTS[0].query, text) for text in texts])
        assert second == pytest.approx([score(REQUESTS[1].query, text) for text in texts[::-1]])
        assert third.shape == (0,)
        student = RetrieveRerankAnswer(index, Rerank(small, "bi-encoder"), candidates=5)
        optimizer = radio_of(
            signals={RerankerScore(remote): 0.5, RetrievalScore(): 0.5}, candidates=6, epochs=1, max_length=64,
            gate=False,
        )  # fmt: skip
        aligned = optimizer.compile(student, trainset=topic.train[:12], valset=topic.test)
    assert aligned.rerank.weights.checkpoint != student.rerank.weights.checkpoint
    assert {len(call.texts) for call in stub.calls} == {3, 6}


def test_modules_without_rank_all_are_called_for_each_question():
    request = REQUESTS[0]
    with dspy.context(lm=scripted(order="[1, 2, 0]"), trace=[]):
        (scores,) = RerankerScore(LMRerank(k=1)).score([request])
        assert dspy.settings.trace == []
    assert scores == pytest.approx([1 / 3, 1, 1 / 2])
    assert RerankerScore(NoRerank(k=1)).score(REQUESTS)[0].tolist() == [0, -1, -2]


def test_its_name_stands_in_the_fused_list():
    (ranking,) = fused_rankings(REQUESTS[:1], {RerankerScore(NoRerank()): 1.0})
    assert ranking.ids == ("ice", "heat", "bowl")
    assert RerankerScore.name == "reranker"


def test_a_reranker_that_leaves_passages_out_is_named():
    class Short:
        def rank_all(self, requests):
            return [Ranking(one.query, one.candidates[:2], (1.0, 0.5)) for one in requests]

    with pytest.raises(DataError, match=r"'one': .* no score for candidate 'bowl'"):
        RerankerScore(Short()).score(REQUESTS[:1])
