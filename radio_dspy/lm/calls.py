"""Ask an LM many questions: failures, refusals and the key of a call."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import dspy

from radio_dspy.core.credentials import learn
from radio_dspy.core.errors import BudgetError, LanguageModelError
from radio_dspy.core.redaction import cause_of, hide_in, presentable, told
from radio_dspy.lm.batches import ask_in_batches
from radio_dspy.lm.budget import StopSpending, learning_secrets
from radio_dspy.lm.parallel import each_in_threads
from radio_dspy.lm.secrets import check_keys
from radio_dspy.lm.waiting import LONGEST_PAUSE, bounded_waits, pause

T = TypeVar("T")
R = TypeVar("R")
_HOPELESS_AFTER = 3  # refused or unreadable in a row from the start: then it is not the questions


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

    def unreadable(self, came: str, tries: int = 1, hint: str = "") -> None:
        """Take in a reply that cannot be read; raise where nothing that can be used has come yet.

        Args:
            came: What came back.
            tries: How often the LM was asked for it.
            hint: What to do about it.
        """
        self._count += tries
        if self._count >= _HOPELESS_AFTER and self.in_doubt:
            raise dspy.LMProviderError(
                f"its first {self._count} replies hold nothing that can be used, now {came}.{hint}"
            )


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

    check_keys(lm)
    lock = threading.Lock()
    bar = tqdm(total=len(items), desc=title, unit=unit, disable=None if show_progress else True)

    def one(item: T) -> None:
        result = _readable(lambda: ask(item), getattr(lm, "num_retries", 0))
        keep(item, result)  # without the lock: the disk may be slower than the LM, and threads share its syncs
        with lock:
            bar.update()

    # Bulk work: it belongs neither into a program's trace nor into the LM's history.
    quiet = dspy.context(lm=lm, trace=None, disable_history=True)
    with learning_secrets(lm), quiet, bar, _without_truncation_warnings():
        try:
            if not ask_in_batches(lm, items, one, num_threads):
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
    for attempt in range(retries):  # not tenacity: Ctrl-C ends the pause, and then no further call is made
        try:
            return call()
        except dspy.LMProviderError as error:
            # Its subclasses say what went wrong, and DSPy has tried again whatever may pass.
            if type(error) is not dspy.LMProviderError or error.status != 200:
                raise
            if not pause(min(2.0**attempt, LONGEST_PAUSE)):
                raise
    return call()


def call_each(function: Callable[[T], R], items: Sequence[T], num_threads: int) -> list[R]:
    """``each_in_threads`` for calls of an LM.

    Raises:
        BudgetError: If the limit of an enclosing ``Ledger`` stage is reached; calls in flight end first.
        KeyboardInterrupt: After Ctrl-C; calls in flight end first, unless it comes a second time.
    """
    try:
        with bounded_waits():
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


class LMFailedError(dspy.LMError, LanguageModelError):
    """Caught by ``except LanguageModelError`` and by ``except dspy.LMError``; made by ``lm_failure``."""

    def __init__(self, message: str, **told: Any) -> None:
        dspy.LMError.__init__(self, presentable(message), **told)


def lm_failure(text: str, error: dspy.LMError, lm: Any = None) -> LMFailedError:
    """An error with this text, and with what DSPy's own tells of who failed and how.

    Args:
        text: What failed and what to do next.
        error: What DSPy raised; known secrets are taken out of it, since it becomes the context of this one.
        lm: The LM, where it is known: LiteLLM's errors leave out the first part of its name.

    Example:
        >>> lm_failure("openai/x failed. Wait.", dspy.LMRateLimitError("slow", provider="openai", status=429)).status
        429
    """
    learn(lm)
    hide_in(error)
    failure = LMFailedError(
        text,
        code=error.code,
        provider=error.provider,
        provider_code=error.provider_code,
        status=error.status,
        request_id=error.request_id,
        retry_after=error.retry_after,
    )
    failure.model = getattr(lm, "model", None) or error.model  # given above, it would be put before the text
    return failure


# What decides a reply. Addresses, keys and time-outs do not, and never reach a hash or a file.
_SAMPLING_SETTINGS = frozenset(
    ("temperature", "top_p", "top_k", "max_tokens", "max_completion_tokens", "seed", "stop", "n", "reasoning_effort")
)


def call_key(lm: dspy.LM, settings: Mapping[str, Any], asked: Sequence[Any]) -> str:
    """A hash of all that decides a reply: the LM, its sampling settings, and what is asked."""
    sampling = {name: value for name, value in settings.items() if name in _SAMPLING_SETTINGS}
    text = json.dumps([lm.model, sampling, *asked], sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:24]
