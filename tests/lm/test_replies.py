"""A reply that cannot be read is counted wherever an LM is asked; the user's own mistakes are not taken for one."""

import dspy
import pytest

import radio_dspy as radio
from radio_dspy.evaluation.relevance import answer_each
from radio_dspy.lm.replies import what_came
from radio_dspy.lm.waiting import LONGEST_PAUSE, bounded_waits
from tests.fault_server import FaultServer

NESTED = ["[" * 1500, '{"x":' * 400, ""]


@pytest.fixture
def nested(request):
    with FaultServer(lambda prompt: request.param) as server:
        yield dspy.LM("openai/small", api_base=f"{server.url}/v1", api_key="none", cache=False, num_retries=0)


everything = pytest.mark.parametrize("nested", NESTED, indirect=True, ids=lambda text: f"{text[:6]!r} * n")


@everything
def test_a_rationale_is_empty(nested):
    with dspy.context(lm=nested):
        found = radio.RationaleExtractor()(question="Why?", answers=["so"])
    assert found.rationale == ""
    assert found.unreadable


@everything
def test_an_lms_order_is_the_one_that_was_there(nested):
    with dspy.context(lm=nested):
        assert radio.LMRerank()("Why?", ["a", "b", "c"]).indices == [0, 1, 2]


@everything
def test_a_program_has_no_answer(index, nested):
    with dspy.context(lm=nested):
        for kind in (radio.RetrieveRerankAnswer, radio.MultiHop):
            assert kind(index, radio.NoRerank(), candidates=3, k=1)(question="Why?").answer == ""


@everything
def test_an_evaluation_counts_it_as_wrong(index, topic, nested):
    program = radio.RetrieveRerankAnswer(index, radio.NoRerank(), candidates=3, k=1)
    answers, scores = answer_each(program, topic.test[:2], nested, show_progress=False)
    assert answers == ["", ""]
    assert scores["token_f1"] == [0.0, 0.0]


@pytest.mark.parametrize("error", [ValueError("mine"), RecursionError("mine"), KeyError("mine")], ids=repr)
def test_an_error_of_the_users_own_code_is_raised(error):
    def raised():
        try:
            raise error
        except Exception as caught:
            return caught

    with pytest.raises(type(error), match="mine"):
        what_came(raised())


def test_a_servers_pause_of_days_is_not_waited_for():
    from dspy.clients import execution

    error = dspy.LMRateLimitError("slow down", provider="x", status=429)
    error.retry_after = 100_000.0
    with bounded_waits(), pytest.raises(dspy.LMRateLimitError):
        execution._delay(error, 1)
    with bounded_waits():
        error.retry_after = 0.01
        assert execution._delay(error, 1) <= LONGEST_PAUSE
