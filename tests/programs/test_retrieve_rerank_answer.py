import asyncio

import dspy
import pytest
from radio_dspy.programs import RetrieveRerankAnswer

from radio_dspy.core.errors import SettingsError
from radio_dspy.rerankers import NoRerank
from tests.conftest import scripted


def test_the_lm_reads_the_reranked_passages(program, topic):
    lm = scripted(answer="the salt")
    question = topic.test[0].question
    with dspy.context(lm=lm):
        result = program(question=question)
    assert result.answer == "the salt"
    assert len(result.passages) == len(result.scores) == 3
    assert result.scores == sorted(result.scores, reverse=True)
    prompt = lm.history[-1]["messages"][-1]["content"]
    places = [prompt.index(passage.text[:40]) for passage in result.passages]
    assert places == sorted(places)


def test_the_reranker_chooses_among_the_candidates(index, topic):
    question = topic.test[0].question
    program = RetrieveRerankAnswer(index, NoRerank(), candidates=4, k=4)
    with dspy.context(lm=scripted(answer="x")):
        assert program(question=question).passages == index(question, k=4).passages


def test_asynchronous_and_batched_calls_agree(program, topic):
    with dspy.context(lm=scripted(answer="x")):
        single = [program(question=one.question) for one in topic.test[:4]]
        gathered = asyncio.run(program.acall(question=topic.test[0].question))
        batch = program.batch(topic.test[:4], num_threads=2, timeout=0, disable_progress_bar=True)
    assert gathered.passages == single[0].passages
    assert [one.passages for one in batch] == [one.passages for one in single]


def test_evaluate_with_our_metrics(program, topic):
    from radio_dspy.evaluation.metrics import dspy_metric, exact_match

    lm = scripted(answer=topic.test[0].answer)
    evaluate = dspy.Evaluate(devset=topic.test[:4], metric=dspy_metric(exact_match), display_progress=False)
    with dspy.context(lm=lm):
        assert evaluate(program).score == 25.0


def test_only_the_prompt_and_the_weights_are_parameters(program):
    assert [name for name, _ in program.named_parameters()] == ["rerank.weights", "answer"]
    assert [name for name, _ in program.named_predictors()] == ["answer"]


def test_k_and_candidates_must_fit(index):
    with pytest.raises(SettingsError, match="1 <= k <= candidates, got k=5 and candidates=3"):
        RetrieveRerankAnswer(index, NoRerank(), candidates=3)
