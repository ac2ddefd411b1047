"""Rationales and LM signals in batches: shuffled, failed and expired lines, limits, and a kill at every moment."""

import json
import os
import signal
import subprocess
import sys
import time

import dspy
import pytest

from radio_dspy.core.errors import BudgetError, LanguageModelError, SettingsError
from radio_dspy.core.passages import Passage
from radio_dspy.core.rankings import RankRequest
from radio_dspy.distillation.rationales.extractor import RationaleExtractor
from radio_dspy.distillation.rationales.writing import explain
from radio_dspy.distillation.teacher.lm_signals import AnswerCorrectness
from radio_dspy.lm.batches import batched
from radio_dspy.lm.budget import Ledger
from radio_dspy.lm.limits import Budget
from radio_dspy.runs.run import Run
from tests.conftest import ROOT
from tests.stub_batches import BatchServer
from tests.stub_servers import COMPLETION_TOKENS, PROMPT_TOKENS

MODELS = {"openai": "openai/gpt-4o-mini", "anthropic": "anthropic/claude-sonnet-4-5"}
PRICES = {"openai": (0.15, 0.6), "anthropic": (3, 15)}  # of a million tokens
both = pytest.mark.parametrize("provider", MODELS)
QUESTIONS = [(f"q{number}", f"Why is jug {number} cold?", [f"reason {number}"]) for number in range(40)]


def brain(prompt: str) -> str:
    """A rationale that names the answer; the first sample of jug 7 does not."""
    number = prompt.partition("jug ")[2].partition(" ")[0]
    useless = number == "7" and brain.useless
    brain.useless = brain.useless and not useless
    reason = "I cannot help." if useless else f"It is reason {number}, and nothing else."
    return f"[[ ## rationale ## ]]\n{reason}\n\n[[ ## completed ## ]]"


@pytest.fixture(autouse=True)
def _fresh():
    brain.useless = True


def lm_of(server: BatchServer, model: str = MODELS["openai"]) -> dspy.LM:
    return dspy.LM(model, api_base=f"{server.url}/v1", api_key="sk-MARKED-KEY", cache=False, num_retries=0)


def in_batches(lm: dspy.LM, run: Run) -> dspy.LM:
    return batched(lm, lambda record: run.append_record("batches", record), lambda: run.records("batches"))


def written(lm: dspy.LM, run: Run, budget: Budget | None = None) -> tuple[dict[str, str], Ledger]:
    ledger = Ledger(budget)
    how = {"extractor": RationaleExtractor(), "given": {}, "show_progress": False, "num_threads": 2}
    with ledger.stage("rationales"):
        return explain(QUESTIONS, run, lm=lm, **how)[0], ledger


def fate(number: int) -> int | str:
    """A tenth of the lines fails, a tenth expires; a line that is sent again fares as its new number says."""
    return {3: 500, 6: "expired", 9: 400}.get(number % 20, 200) if number < len(QUESTIONS) else (500, 200)[number % 2]


@both
def test_failed_and_expired_lines_are_asked_again_and_then_alone(tmp_path, provider):
    with BatchServer(brain) as server:
        expected, _ = written(lm_of(server, MODELS[provider]), Run(tmp_path / "singly"))
    brain.useless = True
    with BatchServer(brain, fate) as server:
        run = Run(tmp_path / "run")
        found, ledger = written(in_batches(lm_of(server, MODELS[provider]), run), run)
        paid = [count for prompt, count in server.bought.items() if "jug 7 " not in prompt]
        alone = len(server.calls)
    assert found == expected
    assert set(paid) == {1}
    assert 1 <= alone < 8  # the 400s, and what failed twice
    spent = ledger.stages["rationales"]
    assert spent.failed == sum(fate(number) != 200 for number in range(len(server.lines)))
    assert spent.calls == len(server.lines) + alone
    sent, received = PRICES[provider]
    price = (PROMPT_TOKENS * sent + COMPLETION_TOKENS * received) / 1e6
    answered = len(server.lines) - spent.failed
    assert spent.cost == pytest.approx(price * (answered / 2 + alone))


def test_a_signal_goes_the_same_way(tmp_path):
    passages = (Passage("a", "jug 1 reads"), Passage("b", "jug 2 reads"))
    request = RankRequest("q", "Which reason?", passages, (0.4, 0.3), answers=("reason 2",))

    def reader(prompt: str) -> str:
        return f"[[ ## answer ## ]]\nreason {2 if 'jug 2' in prompt else 9}\n\n[[ ## completed ## ]]"

    with BatchServer(reader) as server:
        run, signal_ = Run(tmp_path), AnswerCorrectness(lm_of(server))
        single = signal_.score([request])[0].tolist()
        with signal_.kept_in(run), signal_.asking(in_batches(signal_.lm, run)):
            assert signal_.score([request])[0].tolist() == single
            assert len(server.lines) == 2
            assert signal_.score([request])[0].tolist() == single  # kept
        assert len(server.batches) == 1


@pytest.mark.parametrize(
    ("budget", "lines"), [(Budget(max_calls=15), 15), (Budget(max_cost=0.0), 0), (Budget(max_cost=0.0005), 1)]
)
def test_a_batch_holds_no_more_than_the_budget_allows(tmp_path, budget, lines):
    with BatchServer(brain) as server:
        run = Run(tmp_path)
        with pytest.raises(BudgetError, match="max_"):
            written(in_batches(lm_of(server), run), run, budget)
        assert len(server.lines) == lines if budget.max_calls else len(server.lines) >= lines
        before = set(server.bought)
        written(in_batches(lm_of(server), run), run)
        assert {count for prompt, count in server.bought.items() if prompt in before and "jug 7 " not in prompt} <= {1}


def test_what_cannot_be_asked_in_batches_is_refused_before_it_is_asked(tmp_path):
    with BatchServer(brain) as server:
        with pytest.raises(SettingsError, match="no batches that are known"):
            in_batches(lm_of(server, "ollama_chat/x"), Run(tmp_path))
        server.refuses = True
        for provider, model in MODELS.items():
            run = Run(tmp_path / provider)
            with pytest.raises(LanguageModelError, match="takes no batch") as error:
                written(in_batches(lm_of(server, model), run), run)
            assert "MARKED" not in str(error.value)


PARAMS = {"model": "claude-sonnet-4-5", "max_tokens": 9, "messages": [{"role": "user", "content": "Another's jug 1."}]}
CHILD = """
import sys, dspy
from tests.lm.test_batches import lm_of, in_batches, written
from types import SimpleNamespace
from radio_dspy.runs.run import Run
run = Run(sys.argv[2])
found, ledger = written(in_batches(lm_of(SimpleNamespace(url=sys.argv[1]), sys.argv[3]), run), run)
print(len([one for one in found.values() if one]))
"""


def child(server: BatchServer, run: str, model: str) -> subprocess.Popen:
    command = [sys.executable, "-c", CHILD, server.url, run, model]
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE)


@pytest.mark.parametrize("id_lost", [False, True])
@both
def test_a_kill_between_sending_and_fetching_loses_nothing(tmp_path, provider, id_lost):
    model = MODELS[provider]
    with BatchServer(brain) as server:
        if provider == "anthropic":  # another program's, of as many requests
            server.message_batch([{"custom_id": f"{number}", "params": PARAMS} for number in range(len(QUESTIONS))])
        server.released.clear()
        first = child(server, str(tmp_path / "run"), model)
        journal = tmp_path / "run" / "batches.jsonl"
        end = time.monotonic() + 60
        while not (journal.exists() and '"batch":' in journal.read_text()) and time.monotonic() < end:
            time.sleep(0.05)
        first.send_signal(signal.SIGKILL)
        first.wait()
        records = journal.read_text().splitlines(keepends=True)
        assert [set(json.loads(one)) & {"keys", "batch"} for one in records] == [{"keys"}, {"batch"}]
        if id_lost:  # killed after the provider took the batch, and before its id was written
            journal.write_text(records[0])
        server.released.set()
        second = child(server, str(tmp_path / "run"), model)
        out, _ = second.communicate(timeout=120)
        assert out.split()[-1] == b"40"
        assert len(server.batches) == 2 + (provider == "anthropic")  # the second sample of jug 7 has one of its own
        assert {
            count for prompt, count in server.bought.items() if "Why is jug" in prompt and "jug 7 " not in prompt
        } == {1}
        assert not server.calls
