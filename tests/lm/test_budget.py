"""What LM calls cost, and limits that hold: against a server that reports usage."""

import threading

import dspy
import pytest

from radio_dspy.core.errors import BudgetError, LanguageModelError, SettingsError
from radio_dspy.distillation.rationales.extractor import RationaleExtractor
from radio_dspy.distillation.rationales.writing import explain
from radio_dspy.lm.budget import Ledger, Spending, price_of, usage_of_block
from radio_dspy.lm.calls import ask_each, call_each
from radio_dspy.lm.limits import Budget
from radio_dspy.runs.run import Run
from tests.conftest import scripted
from tests.stub_servers import BROKEN, COMPLETION_TOKENS, KEY, PROMPT_TOKENS, StubServer

RATIONALE = "[[ ## rationale ## ]]\nYeast dies in hot water.\n[[ ## completed ## ]]"


@pytest.fixture(scope="module")
def server():
    with StubServer(lambda prompt: RATIONALE) as stub:
        yield stub


@pytest.fixture
def lm(server):
    server.calls.clear()
    server.faults.clear()
    return dspy.LM("openai/gpt-4o-mini", api_base=f"{server.url}/v1", api_key=KEY, num_retries=0, cache=False)


def ask(lm, items, ledger, *, num_threads=1, kept=None):
    extractor = RationaleExtractor(max_tokens=20)
    with ledger.stage("rationales"):
        ask_each(
            lm,
            items,
            lambda item: extractor(question=f"Why {item}?", answers=["yeast"]).rationale,
            lambda item, text: (kept if kept is not None else []).append(item),
            title="t",
            unit="u",
            kept="All is kept.",
            num_threads=num_threads,
            show_progress=False,
        )


def test_calls_tokens_and_price_are_booked_by_stage(lm):
    ledger = Ledger()
    ask(lm, range(3), ledger)
    with ledger.stage("other"), dspy.context(lm=lm):
        dspy.Predict("question -> rationale")(question="Why?")
    price = (PROMPT_TOKENS * 0.15 + COMPLETION_TOKENS * 0.6) / 1e6
    assert ledger.as_dict() == {
        "rationales": {
            "calls": 3,
            "cached": 0,
            "failed": 0,
            "prompt_tokens": 3 * PROMPT_TOKENS,
            "completion_tokens": 3 * COMPLETION_TOKENS,
            "cost": pytest.approx(3 * price),
        },
        "other": {
            "calls": 1,
            "cached": 0,
            "failed": 0,
            "prompt_tokens": PROMPT_TOKENS,
            "completion_tokens": COMPLETION_TOKENS,
            "cost": pytest.approx(price),
        },
    }
    assert ledger.total.calls == 4


def test_cached_calls_are_free_and_do_not_count_against_the_limit(server, lm):
    cached = dspy.LM("openai/gpt-4o-mini", api_base=f"{server.url}/v1", api_key=KEY, num_retries=0)
    ask(cached, range(4), Ledger())
    ledger = Ledger(Budget(max_calls=2))
    ask(cached, range(6), ledger)
    assert ledger.total == Spending(2, 4, 0, 2 * PROMPT_TOKENS, 2 * COMPLETION_TOKENS, pytest.approx(ledger.total.cost))
    assert len(server.calls) == 6


def test_cached_calls_of_many_threads_wait_for_each_other_and_all_pass(server, lm):
    cached = dspy.LM("openai/gpt-4o-mini", api_base=f"{server.url}/v1", api_key=KEY, num_retries=0)
    ask(cached, range(100, 112), Ledger())
    ledger = Ledger(Budget(max_calls=1))
    ask(cached, range(100, 112), ledger, num_threads=4)
    assert (ledger.total.calls, ledger.total.cached) == (0, 12)


@pytest.mark.parametrize("num_threads", [1, 8])
def test_no_call_beyond_max_calls_and_what_was_bought_is_kept(server, lm, num_threads):
    kept: list[int] = []
    ledger = Ledger(Budget(max_calls=7))
    with pytest.raises(BudgetError, match=r"max_calls=7 is reached\. All is kept\."):
        ask(lm, range(50), ledger, num_threads=num_threads, kept=kept)
    assert len(server.calls) == len(kept) == ledger.total.calls == 7


def test_the_limit_holds_over_all_stages(server, lm):
    ledger = Ledger(Budget(max_calls=3))
    ask(lm, range(2), ledger)
    with pytest.raises(BudgetError), ledger.stage("other"), dspy.context(lm=lm):
        call_each(lambda item: dspy.Predict("question -> rationale")(question=str(item)), range(5), 2)
    assert len(server.calls) == 3
    assert ledger.stages["other"].calls == 1


def test_no_call_begins_once_max_cost_is_spent(server, lm):
    price = (PROMPT_TOKENS * 0.15 + COMPLETION_TOKENS * 0.6) / 1e6
    ledger = Ledger(Budget(max_cost=2.5 * price))
    with pytest.raises(BudgetError, match=r"max_cost=.* is reached: \$0\.0001 spent"):
        ask(lm, range(10), ledger)
    assert len(server.calls) == 3


def test_a_limit_in_dollars_needs_a_price(server):
    unknown = dspy.LM("openai/our-own", api_base=f"{server.url}/v1", api_key=KEY, cache=False)
    server.calls.clear()
    with pytest.raises(BudgetError, match="knows no price for openai/our-own: set max_calls"):
        ask(unknown, range(3), Ledger(Budget(max_cost=1.0)))
    assert server.calls == []
    ledger = Ledger(Budget(max_calls=5))
    ask(unknown, range(3), ledger)
    assert ledger.total.cost is None


def test_a_limit_in_dollars_needs_reported_usage(server):
    """Else nothing would ever be spent."""
    ledger = Ledger(Budget(max_cost=1.0))
    silent = scripted(rationale="Yeast dies.")  # reports no usage
    silent.model = "openai/gpt-4o-mini"
    with pytest.raises(BudgetError, match="whose use was not reported"):
        ask(silent, range(5), ledger)
    assert ledger.total.calls == 1


def test_failed_calls_are_counted(server, lm):
    server.faults.append(BROKEN)
    ledger = Ledger()
    with pytest.raises(LanguageModelError):
        ask(lm, range(3), ledger)
    assert (ledger.total.calls, ledger.total.failed) == (1, 1)


def test_a_program_that_swallows_every_exception_is_stopped_all_the_same(server, lm):
    def stubborn(item):
        for _ in range(10):
            try:
                dspy.Predict("question -> rationale")(question=str(item))
            except Exception:  # as agents do with their tools
                continue

    with pytest.raises(BudgetError), Ledger(Budget(max_calls=4)).stage("agent"), dspy.context(lm=lm):
        call_each(stubborn, range(3), 1)
    assert len(server.calls) == 4


def test_an_outer_usage_tracker_sees_the_calls_at_once(lm):
    with dspy.track_usage() as outer, Ledger().stage("inner"), dspy.context(lm=lm):
        with usage_of_block() as used:
            dspy.Predict("question -> rationale")(question="Why?")
        assert outer.get_total_tokens()["openai/gpt-4o-mini"]["prompt_tokens"] == PROMPT_TOKENS
    assert (used.calls, used.tokens["completion_tokens"]) == (1, COMPLETION_TOKENS)


def test_the_first_sample_is_kept_where_the_limit_forbids_a_second(server, lm, tmp_path):
    """It was paid for; with a higher limit the run goes on behind it, and asks for the second."""
    questions = [("a", "Why?", ["unnamed"]), ("b", "Why then?", ["unnamed"])]
    run = Run(tmp_path)
    extractor = RationaleExtractor(max_tokens=20)
    with Ledger(Budget(max_calls=1)).stage("rationales"), pytest.raises(BudgetError, match="same run_dir"):
        explain(questions, run, lm=lm, extractor=extractor, given={}, show_progress=False)
    (record,) = run.read_records("rationales")
    assert (record["id"], record["rationale"], record["problem"]) == ("a", "Yeast dies in hot water.", "answer missing")
    _, counts = explain(questions, run, lm=lm, extractor=extractor, given={}, show_progress=False)
    assert (counts.reused, counts.written, len(server.calls)) == (0, 2, 4)


def test_threads_share_one_ledger(server, lm):
    ledger = Ledger(Budget(max_calls=40))
    errors: list[BaseException] = []

    def work():
        try:
            ask(lm, range(30), ledger)
        except BudgetError as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.calls) == ledger.total.calls == 40
    assert errors


def test_prices():
    assert price_of("openai/gpt-4o-mini", 1_000_000, 1_000_000) == pytest.approx(0.75)
    assert price_of("radio-local/smollm2", 1000, 1000) == 0.0
    assert price_of("nobody/nothing", 1, 1) is None


def test_limits_out_of_range_are_errors():
    with pytest.raises(SettingsError, match="max_calls must be at least 0"):
        Ledger(Budget(max_calls=-1))
    with pytest.raises(SettingsError, match="max_cost"):
        Ledger(Budget(max_cost=float("nan")))


def test_a_model_without_a_price_is_not_told_on_the_terminal(capfd, monkeypatch):
    import litellm

    monkeypatch.setattr(litellm, "suppress_debug_info", False)
    assert price_of("stub/model-of-no-provider", 1, 1) is None
    assert capfd.readouterr() == ("", "")
