"""Count what LM calls cost, stage by stage, and stop at a limit."""

from __future__ import annotations

import contextlib
import functools
import itertools
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import dspy
from dspy.utils.callback import ACTIVE_CALL_ID, BaseCallback
from dspy.utils.usage_tracker import UsageTracker

from radio_dspy.core.credentials import learn
from radio_dspy.core.quiet import quiet_litellm
from radio_dspy.core.redaction import watch_logs
from radio_dspy.lm.adapters import LOCAL_PROVIDER
from radio_dspy.lm.limits import Budget
from radio_dspy.lm.secrets import hiding_secrets

BATCH_SHARE = 0.5  # of the price: what OpenAI, Azure, Google, Amazon and Anthropic ask for requests in batches
_TOKENS = ("prompt_tokens", "completion_tokens")  # what a server reports; less than none would pay for other calls


class StopSpending(BaseException):
    """Raised before a call that the limit forbids; ``call_each`` turns it into a ``BudgetError``.

    DSPy's callbacks, its adapters and many programs swallow every ``Exception``. A spent budget must end the call all
    the same, as Ctrl-C does.
    """


@dataclass
class Spending:
    """The LM calls of one stage.

    Attributes:
        calls: Calls made, whether answered or not.
        cached: Calls that DSPy's response cache answered: they cost nothing and are not among ``calls``.
        failed: Of the calls made, those that ended in an error.
        prompt_tokens: Sent, as the provider reports.
        completion_tokens: Received, as the provider reports.
        cost: US dollars by LiteLLM's price list; None where it knows no price for one of the calls.
    """

    calls: int = 0
    cached: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = 0.0

    def add(self, other: Spending) -> None:
        """Add another stage's spending."""
        for name in ("calls", "cached", "failed", *_TOKENS):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.cost = None if self.cost is None or other.cost is None else self.cost + other.cost


class Ledger:
    """Books every LM call inside its stages and ends them at a limit.

    Calls are seen through DSPy's callbacks and usage tracking, so that it does not matter who makes them: a signal, an
    adapter's second try, or the user's own program. The limit holds over all stages.

    Args:
        budget: The limits; None has none.

    Example:
        >>> from dspy.utils import DummyLM
        >>> ledger = Ledger(Budget(max_calls=10))
        >>> with ledger.stage("answers"), dspy.context(lm=DummyLM([{"answer": "Kiel"}])):
        ...     answer = dspy.Predict("question -> answer")(question="Where?").answer
        >>> answer, ledger.stages["answers"].calls
        ('Kiel', 1)
    """

    def __init__(self, budget: Budget | None = None) -> None:
        self.budget = budget or Budget()
        self.stages: dict[str, Spending] = {}
        self._in_flight = 0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[Spending]:
        """Book the block's calls under a name; a name may come again.

        The secrets of every LM that is asked are learnt, and kept out of what the block raises.
        """
        spent = self.stages.setdefault(name, Spending())
        book = _Book(self, name, spent)
        callbacks = [*dspy.settings.callbacks, book]
        with hiding_secrets(), dspy.context(callbacks=callbacks, usage_tracker=_PassingTracker(book)):
            yield spent

    @property
    def total(self) -> Spending:
        """All stages together."""
        total = Spending()
        for spent in self.stages.values():
            total.add(spent)
        return total

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """The stages that made calls, as JSON types."""
        return {name: asdict(spent) for name, spent in self.stages.items() if spent.calls or spent.cached}

    def _begin(self, stage: str, model: str) -> None:
        """Let a call begin, or end the stage."""
        with self._changed:
            if self.budget.max_cost is not None:
                if price_of(model, 1, 1) is None:
                    raise StopSpending(
                        f"{stage}: max_cost is set, but LiteLLM knows no price for {model}: set max_calls."
                    )
                if (spent := self.total.cost) is None:
                    raise StopSpending(f"{stage}: max_cost is set, but calls were made whose use was not reported.")
                if spent >= self.budget.max_cost:
                    raise StopSpending(f"{stage}: max_cost={self.budget.max_cost:g} is reached: ${spent:.4f} spent.")
            while (
                self.budget.max_calls is not None
                and (made := self.total.calls) + self._in_flight >= self.budget.max_calls
            ):
                if made >= self.budget.max_calls:
                    raise StopSpending(f"{stage}: max_calls={self.budget.max_calls} is reached.")
                self._changed.wait()  # a call in flight may turn out to be a cached one
            self._in_flight += 1

    def _end(self, spent: Spending, *, made: bool, failed: bool) -> None:
        with self._changed:
            self._in_flight -= 1
            spent.calls += made
            spent.cached += not made
            spent.failed += failed
            self._changed.notify_all()

    def _charge(self, spent: Spending, model: str, usage: dict[str, Any], share: float = 1.0) -> None:
        prompt, completion = (max(0, int(usage.get(name) or 0)) for name in _TOKENS)
        cost = price_of(model, prompt, completion) if prompt or completion else None  # not reported: not known
        cost = None if cost is None else cost * share
        with self._changed:
            spent.prompt_tokens += prompt
            spent.completion_tokens += completion
            spent.cost = None if spent.cost is None or cost is None else spent.cost + cost

    def _room(self, stage: str, model: str, sizes: Sequence[tuple[int, int]]) -> int:
        """How many of these requests (tokens sent, received at most) a batch may hold; raises where it is none."""
        with self._changed:
            count, limits = len(sizes), self.budget
            if limits.max_calls is not None:
                count = min(count, limits.max_calls - self.total.calls - self._in_flight)
                if count < 1:
                    raise StopSpending(f"{stage}: max_calls={limits.max_calls} is reached.")
            if limits.max_cost is None:
                return count
            spent, prices = self.total.cost, [price_of(model, *size) for size in sizes[:count]]
            if spent is None or None in prices:
                raise StopSpending(f"{stage}: max_cost is set, but the price of {model} is not known: set max_calls.")
            dearest = itertools.accumulate((one or 0.0) * BATCH_SHARE for one in prices)
            count = sum(spent + one <= limits.max_cost for one in dearest)
            if count < 1:
                raise StopSpending(
                    f"{stage}: max_cost={limits.max_cost:g} leaves no room for one more in a batch: ${spent:.4f} spent."
                )
            return count


class _Learning(BaseCallback):
    """Learns the secrets of every LM that is asked, also of one that only a metric or a program knows of."""

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        learn(instance, inputs.get("kwargs"))
        watch_logs()


@contextlib.contextmanager
def learning_secrets(*things: Any) -> Iterator[None]:
    """As ``hiding_secrets``, also of every LM that the block asks."""
    with hiding_secrets(*things), dspy.context(callbacks=[*dspy.settings.callbacks, _Learning()]):
        yield


class _Book(_Learning):
    """Sees each call's start and end, and between them whether anything was used: a cached call uses nothing."""

    def __init__(self, ledger: Ledger, stage: str, spent: Spending) -> None:
        self._ledger = ledger
        self._stage = stage
        self._spent = spent
        self._used: set[str] = set()  # ids of calls; adding and discarding are atomic
        self._begun: set[str] = set()

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        super().on_lm_start(call_id, instance, inputs)
        self._ledger._begin(self._stage, instance.model)
        self._begun.add(call_id)

    def use(self, model: str, usage: dict[str, Any]) -> None:
        """Take in what one call used."""
        self._used.add(str(ACTIVE_CALL_ID.get()))
        self._ledger._charge(self._spent, model, usage)

    def on_lm_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        if call_id not in self._begun:
            return
        self._begun.discard(call_id)
        made = exception is not None or call_id in self._used
        self._used.discard(call_id)
        self._ledger._end(self._spent, made=made, failed=exception is not None)

    def room(self, model: str, sizes: Sequence[tuple[int, int]]) -> int:
        """How many requests the next batch may hold; see ``Ledger``."""
        return self._ledger._room(self._stage, model, sizes)

    def settle(self, model: str, usage: dict[str, Any], *, failed: bool) -> None:
        """Book a request of a batch, which costs half as much; one that failed costs nothing."""
        with self._ledger._changed:
            self._spent.calls += 1
            self._spent.failed += failed
        if not failed:
            self._ledger._charge(self._spent, model, usage, BATCH_SHARE)


@contextlib.contextmanager
def unbooked() -> Iterator[_Book | None]:
    """Inside the block no call is booked: what a batch answers is booked when it arrives. Yields who books outside."""
    callbacks = dspy.settings.callbacks
    book = next((one for one in reversed(callbacks) if isinstance(one, _Book)), None)
    others = [one for one in callbacks if not isinstance(one, _Book)]
    with dspy.context(callbacks=others, usage_tracker=None):
        yield book


@contextlib.contextmanager
def booked_by(book: _Book | None) -> Iterator[None]:
    """Inside a block of ``unbooked`` the calls of this one are booked."""
    with dspy.context(usage_tracker=None):
        tracker = _PassingTracker(book)
    callbacks = [*dspy.settings.callbacks, *([book] if book else [])]
    with dspy.context(callbacks=callbacks, usage_tracker=tracker):
        yield


class _PassingTracker(UsageTracker):
    """Usage of a block's calls; ``dspy.track_usage`` passes it on only when its block ends, this one at once."""

    def __init__(self, book: _Book | None = None) -> None:
        super().__init__()
        self.calls = 0
        self.tokens = dict.fromkeys(_TOKENS, 0)
        self._book = book
        self._outer = dspy.settings.usage_tracker
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: dict[int, Any]) -> _PassingTracker:
        return self  # DSPy copies the tracker for each of its threads; what they use belongs to the same block

    def add_usage(self, lm: str, usage_entry: dict[str, Any]) -> None:
        """Called by DSPy for each call that its cache did not answer, also where no usage is reported."""
        with self._lock:
            super().add_usage(lm, usage_entry)
            self.calls += 1
            for name in self.tokens:
                self.tokens[name] += max(0, int(usage_entry.get(name) or 0))
        if self._book is not None:
            self._book.use(lm, usage_entry)
        if self._outer is not None:
            self._outer.add_usage(lm, usage_entry)


UsageOfBlock = _PassingTracker


@contextlib.contextmanager
def usage_of_block() -> Iterator[_PassingTracker]:
    """What the block's calls use, by themselves: ``calls`` that no cache answered, and their ``tokens``."""
    tracker = _PassingTracker()
    with dspy.context(usage_tracker=tracker):
        yield tracker


def price_of(model: str, prompt_tokens: int, completion_tokens: int) -> float | None:
    """US dollars for a call by LiteLLM's price list, without discounts; None where it knows no price.

    The embedded LM costs nothing.

    Example:
        >>> price_of("openai/gpt-4o-mini", 1_000_000, 0), price_of("openai/no-such-model", 1, 1)
        (0.15, None)
    """
    rates = _rates(model)
    return None if rates is None else round(prompt_tokens * rates[0] + completion_tokens * rates[1], 12)


@functools.lru_cache(maxsize=64)
def _rates(model: str) -> tuple[float, float] | None:
    """Dollars a token sent and received."""
    if model.startswith(LOCAL_PROVIDER):
        return 0.0, 0.0
    litellm = quiet_litellm()
    try:
        return litellm.cost_per_token(model=model, prompt_tokens=1, completion_tokens=0)[0], litellm.cost_per_token(
            model=model, prompt_tokens=0, completion_tokens=1
        )[1]
    except Exception:  # LiteLLM raises a bare Exception for a model that it does not know
        return None
