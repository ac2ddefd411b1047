"""What a compile will ask of LMs is said before, and limits end it where they should."""

import dspy
import pytest
from radio_dspy.programs import MultiHop, RetrieveRerankAnswer

from radio_dspy.core.errors import BudgetError, DataError, SettingsError
from radio_dspy.distillation import AnswerCorrectness, AnswerLikelihood, LMRanking, RetrievalScore
from radio_dspy.lm.adapters import DispatchingAdapter
from radio_dspy.rerankers import LMRerank
from tests.conftest import UnaskedLM
from tests.settings import radio_of
from tests.stub_servers import COMPLETION_TOKENS, KEY, PROMPT_TOKENS, StubServer

REPLY = "[[ ## rationale ## ]]\nNo use.\n[[ ## answer ## ]]\nyeast\n[[ ## completed ## ]]"
QUICK = {"epochs": 1, "learning_rate": 3e-5, "max_length": 64, "candidates": 10}


@pytest.fixture(scope="module")
def server():
    with StubServer(lambda prompt: REPLY) as stub:
        yield stub


@pytest.fixture
def lm(server):
    server.calls.clear()
    return dspy.LM("openai/gpt-4o-mini", api_base=f"{server.url}/v1", api_key=KEY, max_tokens=50, cache=False)


def by_stage(estimate):
    return {one.stage: (one.calls, one.calls_at_most) for one in estimate.stages}


def test_the_estimate_is_what_the_compile_then_spends(server, lm, program, topic, tmp_path):
    folder = tmp_path / "run"
    optimizer = radio_of(lm, false_negatives=None, check=False, run_dir=folder, **QUICK)
    estimate = optimizer.estimate(program, trainset=topic.train[:6], valset=topic.test)
    assert by_stage(estimate) == {"rationales": (6, 6)}
    assert (server.calls, folder.exists()) == ([], False)
    optimizer.compile(program, trainset=topic.train[:6], valset=topic.test)
    assert optimizer.report.spending["rationales"]["calls"] == len(server.calls) == 6
    sent = sum(len(message["content"]) for call in server.calls for message in call.body["messages"])
    assert estimate.stages[0].prompt_tokens == pytest.approx(sent / 4.3, rel=0.3)  # characters a token
    assert optimizer.estimate(program, trainset=topic.train[:6], valset=topic.test).stages == ()
    assert str(optimizer.estimate(program, trainset=topic.train[:6], valset=topic.test)) == "No LM is asked."


def test_what_each_setting_adds(lm, program, topic):
    train, held_out = topic.train[:4], topic.test[:10]
    unlabelled = [one.without("relevant") for one in held_out]

    def stages(valset=held_out, program=program, **settings):
        return by_stage(radio_of(lm, **QUICK, **settings).estimate(program, trainset=train, valset=valset))

    assert stages() == {"rationales": (4, 8)}
    assert stages(valset=unlabelled) == {"rationales": (14, 28)}, "the teacher judges"
    assert stages(valset=unlabelled, gate=False) == {"rationales": (4, 8)}
    assert stages(rationales={train[0].id: "Yeast dies.", train[1].id: " "}) == {"rationales": (3, 6)}
    answers = sum(len(one.answers) for one in train)
    for signal, calls in (
        (AnswerCorrectness(lm, depth=5), 20),
        (AnswerCorrectness(lm), 40),
        (AnswerLikelihood(lm, depth=2), 2 * answers),
        (LMRanking(LMRerank(window=4, step=2), lm), 16),
    ):
        assert stages(signals={signal: 0.5, RetrievalScore(): 0.5})["signals"] == (calls, calls), signal.name
    with dspy.context(lm=lm):
        assert "retrieval" not in stages()
        assert stages(metric=lambda example, prediction: 1.0)["training"] == (50, 50)
        hops = MultiHop(program.retriever, program.rerank)
        assert stages(program=hops)["retrieval"] == (28, 28)


def test_nothing_is_asked_for_an_estimate(program, topic):
    with dspy.context(lm=UnaskedLM({"": {"answer": "never"}})):
        optimizer = radio_of(UnaskedLM({"": {"rationale": "never"}}), **QUICK)
        estimate = optimizer.estimate(program, trainset=topic.train[:4])
    assert estimate.cost is None
    assert "unknown" in str(estimate)


PRICE = (PROMPT_TOKENS * 0.15 + COMPLETION_TOKENS * 0.6) / 1e6  # of gpt-4o-mini


@pytest.mark.parametrize(
    ("limit", "more", "bought"),
    [({"max_calls": 4}, {"max_calls": 4}, 4), ({"max_cost": 2.5 * PRICE}, {"max_cost": 1.0}, 3)],
)
def test_a_compile_ends_at_a_limit_and_goes_on_with_more(server, lm, program, topic, tmp_path, limit, more, bought):
    settings = {**QUICK, "run_dir": tmp_path, "false_negatives": None, "check": False, "gate": False}
    with pytest.raises(BudgetError, match=rf"{next(iter(limit))}=.* is reached.*same run_dir"):
        radio_of(lm, **limit, **settings).compile(program, trainset=topic.train[:6], valset=topic.test)
    assert len((tmp_path / "rationales.jsonl").read_text().splitlines()) == len(server.calls) == bought
    optimizer = radio_of(lm, **more, **settings)
    optimizer.compile(program, trainset=topic.train[:6], valset=topic.test)
    assert len(server.calls) == 6
    spent = optimizer.report.spending["rationales"]
    assert (optimizer.report.rationales["reused"], spent["calls"]) == (bought, 6 - bought)
    assert spent["cost"] == pytest.approx((6 - bought) * PRICE)


def test_signals_keep_their_scores_at_the_limit(server, lm, program, topic, tmp_path):
    signals = {AnswerCorrectness(lm, depth=3, keep=tmp_path / "scores.jsonl"): 1.0}
    settings = {**QUICK, "signals": signals, "gate": False, "false_negatives": None, "check": False}
    with pytest.raises(BudgetError, match=r"max_calls=5 is reached.*scores\.jsonl"):
        radio_of(max_calls=5, **settings).compile(program, trainset=topic.train[:3], valset=topic.test)
    optimizer = radio_of(max_calls=4, **settings)
    optimizer.compile(program, trainset=topic.train[:3], valset=topic.test)
    assert len(server.calls) == 9
    assert optimizer.report.spending["signals"]["calls"] == 4


def test_the_users_own_program_and_metric_are_stopped_too(server, lm, program, topic):
    settings = {**QUICK, "metric": lambda example, prediction: 1.0, "max_calls": 8}
    with dspy.context(lm=lm), pytest.raises(BudgetError, match="max_calls=8"):
        radio_of(**settings).compile(program, trainset=topic.train[:4], valset=topic.test)
    assert len(server.calls) == 8


def test_an_lm_by_its_name(program, topic):
    optimizer = radio_of("openai/gpt-4o-mini", **QUICK)
    assert optimizer.estimate(program, trainset=topic.train[:4], valset=topic.test).stages[0].cost > 0


def test_an_estimate_inside_the_block_of_the_embedded_lm(program, topic):
    """There a dispatching adapter is in force, which picks by the LM."""
    embedded = dspy.LM("radio-local-12345678/model", api_base="http://127.0.0.1:9", max_tokens=50)
    with dspy.context(adapter=DispatchingAdapter(), lm=embedded):
        estimate = radio_of(embedded, **QUICK).estimate(program, trainset=topic.train[:4], valset=topic.test)
        asked = radio_of("openai/gpt-4o-mini", **QUICK).estimate(program, trainset=topic.train[:4], valset=topic.test)
    assert (estimate.cost, estimate.stages[-1].calls) == (0.0, 4)
    assert asked.stages[-1].prompt_tokens > estimate.stages[-1].prompt_tokens, "the chat adapter writes more"


def test_names_and_rows_in_place_of_objects_are_named(program, topic, small):
    with pytest.raises(SettingsError, match="retriever must be a module, got 'index'"):
        RetrieveRerankAnswer("index", program.rerank)
    with pytest.raises(SettingsError, match="rerank must be a module, got 'all-MiniLM-L6-v2'"):
        RetrieveRerankAnswer(program.retriever, "all-MiniLM-L6-v2")
    rows = [{"question": "Why?", "answers": ["yeast"]}]
    with pytest.raises(DataError, match="Example 0 is a dict"):
        radio_of(**QUICK).compile(program, trainset=rows, valset=topic.test)
    with pytest.raises(DataError, match="Example 0 is a dict"):
        radio_of(**QUICK).compile(program, trainset=topic.train[:4], valset=rows)
