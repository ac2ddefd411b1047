"""Pauses between two tries of an LM call: Ctrl-C ends them, and none is longer than a minute."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from typing import Any

from dspy.clients import execution

from radio_dspy.core.locks import ThreadLock
from radio_dspy.lm.parallel import interrupted

LONGEST_PAUSE = 60.0  # seconds, as DSPy's own between two tries
_SLICE = 0.2
_LOCK = ThreadLock()
_blocks = 0
_own_delay: Any = None


def pause(seconds: float) -> bool:
    """Wait; False where Ctrl-C came meanwhile: then the call is not to be made again."""
    end = time.monotonic() + seconds
    while not interrupted():
        left = end - time.monotonic()
        if left <= 0:
            return True
        time.sleep(min(left, _SLICE))
    return False


@contextlib.contextmanager
def bounded_waits() -> Iterator[None]:
    """Inside the block DSPy's pauses between two tries are those of ``pause``, and of a minute at most.

    DSPy waits as long as a server's ``Retry-After`` says, be it a day, and has no setting for it. The one function that
    decides the pause is replaced for the length of the block; blocks may overlap in several threads.
    """
    global _blocks, _own_delay
    with _LOCK:
        _blocks += 1
        if _blocks == 1:
            _own_delay = getattr(execution, "_delay", None)
            if _own_delay is not None:
                execution._delay = _bounded_delay
    try:
        yield
    finally:
        with _LOCK:
            _blocks -= 1
            if _blocks == 0 and _own_delay is not None:
                execution._delay = _own_delay


def _bounded_delay(error: Any, attempt: int) -> float:
    """The seconds that DSPy still has to wait; raises the error where it is not to try again."""
    hint = getattr(error, "retry_after", None)
    seconds = min(2.0 ** min(attempt, 6), LONGEST_PAUSE)
    if isinstance(hint, int | float) and hint >= 0:
        seconds = float(hint)
    if not seconds <= LONGEST_PAUSE:
        note = f" (the server asks to wait {seconds:,.0f} seconds; a run waits {LONGEST_PAUSE:.0f}: start again later)"
        error.args = (f"{error}{note}", *error.args[1:])
        error.message = f"{error.message}{note}"
        raise error
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        if not pause(seconds):
            raise error from None
        return 0.0
    return seconds
