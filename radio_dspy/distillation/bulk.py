"""Asking an LM about many things: failures, refusals, and what is kept, in one place."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import dspy

from radio_dspy.errors import BudgetError
from radio_dspy.failures import lm_failure
from radio_dspy.redaction import cause_of, told
from radio_dspy.spending import StopSpending
from radio_dspy.threads import each_in_threads

T = TypeVar("T")
R = TypeVar("R")

_HOPELESS_AFTER = 3  # refused in a row from the start: then it is not the questions
_LONGEST_PAUSE = 60.0  # seconds, as DSPy's own between two tries


class Refusals:
    """Tells a question that the provider refuses from an LM that refuses everything."""

    def __init__(self) -> None:
        self._count = 0
        self._answered = threading.Event()

    def answered(self) -> None:
        """An answer came: from now on a refusal is one question's."""
        self._answered.set()

    @property
    def in_doubt(self) -> bool:
        """Whether nothing was answered yet: what was refused may be no question's fault."""
        return not self._answered.is_set()

    def take(self, error: Exception) -> None:
        """Take in a refusal; raise it again where the others will be refused as well."""
        self._count += 1
        if (self._count >= _HOPELESS_AFTER and self.in_doubt) or isinstance(error, dspy.LMUnsupportedModelError):
            raise error


def ask_each(
    lm: dspy.LM,
    items: Sequence[T],
    ask: Callable[[T], R],
    keep: Callable[[T, R], None],
    *,
    title: str,
    unit: str,
    kept: str,
    num_threads: int = 1,
    show_progress: bool = True,
) -> None:
    """Ask about every item and hand each result on the moment it is there.

    How often a call is tried again, and with what pauses, is the LM's ``num_retries``: DSPy tries again after lost
    connections, time-outs, 429 and 5xx, this function after replies that are no JSON. What still fails then ends the
    run: the calls that are still queued would fail as well. The first item is asked alone, so that a wrong key or
    name costs one call and not one for each thread.

    Args:
        lm: Who is asked.
        items: What about.
        ask: One item's call; what it raises is a failure.
        keep: Called once for each item, by the thread that asked: several may be at it at the same time.
        title: Of the progress bar.
        unit: Of the progress bar.
        kept: What becomes of earlier results, for the message of a failure.
        num_threads: Calls in flight at the same time.
        show_progress: Show a progress bar.

    Raises:
        LanguageModelError: If the LM fails, also a ``dspy.LMError``; any other error as it is.
        BudgetError: If the limit of an enclosing ``Ledger`` stage is reached.
    """
    from tqdm.auto import tqdm

    lock = threading.Lock()
    bar = tqdm(total=len(items), desc=title, unit=unit, disable=not show_progress)

    def one(item: T) -> None:
        result = _readable(lambda: ask(item), getattr(lm, "num_retries", 0))
        keep(item, result)  # without the lock: the disk may be slower than the LM, and threads share its syncs
        with lock:
            bar.update()

    # Bulk work: it belongs neither into a program's trace nor into the LM's history.
    with dspy.context(lm=lm, trace=None, disable_history=True), bar, _without_truncation_warnings():
        try:
            call_each(one, items[:1], 1)
            call_each(one, items[1:], num_threads)
        except BudgetError as error:
            raise BudgetError(f"{error} {kept}") from None
        except dspy.LMError as error:
            raise lm_failure(f"{lm.model} failed ({told(error, lm)}). {kept}", error, lm) from cause_of(error, lm)


def _readable(call: Callable[[], R], retries: int) -> R:
    """Make a call again, at most ``retries`` times, where the reply is a gateway's page or nothing.

    DSPy's own engine gives such replies up at once; LiteLLM calls them server errors, which DSPy tries again.
    """
    for attempt in range(retries):
        try:
            return call()
        except dspy.LMProviderError as error:
            # Its subclasses say what went wrong, and DSPy has tried again whatever may pass.
            if type(error) is not dspy.LMProviderError or error.status != 200:
                raise
            time.sleep(min(2.0**attempt, _LONGEST_PAUSE))
    return call()


def call_each(function: Callable[[T], R], items: Sequence[T], num_threads: int) -> list[R]:
    """``each_in_threads`` for calls of an LM.

    Raises:
        BudgetError: If the limit of an enclosing ``Ledger`` stage is reached; calls in flight end first.
        KeyboardInterrupt: After Ctrl-C; calls in flight end first, unless it comes a second time.
    """
    try:
        return each_in_threads(function, items, num_threads)
    except StopSpending as stop:
        raise BudgetError(str(stop)) from None


@contextlib.contextmanager
def _without_truncation_warnings() -> Iterator[None]:
    """A reply that ends at its limit is meant to: no warning for each of thousands."""

    def keep(record: logging.LogRecord) -> bool:
        return "truncated" not in record.getMessage()

    lm_logger = logging.getLogger("dspy.clients.lm")
    lm_logger.addFilter(keep)
    try:
        yield
    finally:
        lm_logger.removeFilter(keep)
