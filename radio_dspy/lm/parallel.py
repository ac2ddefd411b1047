"""Parallel map that keeps DSPy's settings and stops cleanly on Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import dspy

from radio_dspy.core.redaction import hide_in, logger_of
from radio_dspy.lm.budget import StopSpending

T = TypeVar("T")
R = TypeVar("R")


def usable_cores() -> int:
    """The cores that this process may use, which can be fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def each_in_threads(function: Callable[[T], R], items: Sequence[T], num_threads: int) -> list[R]:
    """The results for all items, in their order; none is asked twice.

    The first failure is raised as it is: what still waits is not begun, and what is under way ends first. The same
    holds after Ctrl-C, unless it comes a second time.

    Args:
        function: What to do with an item.
        items: The items.
        num_threads: How many at the same time; 1 stays in this thread.

    Raises:
        KeyboardInterrupt: After Ctrl-C.
    """
    failures: list[BaseException] = []
    slots = threading.Semaphore(num_threads)

    def one(item: T) -> Any:
        with slots:
            if not failures and not stopped.is_set():
                try:
                    return function(item)
                except (Exception, StopSpending) as error:
                    failures.append(error)
        return None

    results: list[Any] = [None] * len(items)
    todo = iter(enumerate(items))
    taking, over = threading.Lock(), threading.Event()

    def work() -> None:
        while not (failures or stopped.is_set() or over.is_set()):
            with taking:
                position, item = next(todo, (-1, items[0]))
            if position < 0:
                return
            results[position] = one(item)

    with interrupt_later("call") as stopped:
        if num_threads == 1 or len(items) < 2:
            results = [one(item) for item in items]
        else:
            # DSPy holds each task that it is given, and looks at all of them when one ends: so it gets one a thread.
            # Without a time-out: it would ask again for what takes longer than two minutes.
            run = dspy.Parallel(num_threads=num_threads, disable_progress_bar=True, timeout=0)
            try:
                run([(work, ())] * min(num_threads, len(items)))
            except Exception:
                if not stopped.is_set():
                    raise
                for _ in range(num_threads):  # DSPy leaves at once, and the calls in flight are paid for
                    slots.acquire()
                slots.release(num_threads)
            finally:
                over.set()  # whatever ended DSPy's wait, also an application's own handler of Ctrl-C
    if failures:
        hide_in(failures[0])
        raise failures[0]
    return results


logger = logger_of(__name__)
_open_blocks: list[threading.Event] = []  # the events of the blocks of ``interrupt_later`` that are open


def interrupted() -> bool:
    """Whether Ctrl-C came in a block of ``interrupt_later`` that is still open, in whatever thread."""
    return any(event.is_set() for event in list(_open_blocks))


@contextlib.contextmanager
def interrupt_later(unit: str) -> Iterator[threading.Event]:
    """Inside the block the first Ctrl-C only sets an event; a second one interrupts at once.

    The block looks at the event between two records and leaves; ``KeyboardInterrupt`` is raised when it has. Outside
    the main thread, and where the application has a handler of its own, nothing is changed.

    Args:
        unit: What is being finished, for the message.

    Yields:
        The event.

    Example:
        >>> with interrupt_later("call") as interrupted:
        ...     done = [one for one in range(3) if not interrupted.is_set()]
        >>> done
        [0, 1, 2]
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread() or (
        signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield event
        return

    def note(number: int, frame: Any) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()
        logger.warning("Interrupted: the %s in hand is finished first; Ctrl-C once more stops at once.", unit)

    signal.signal(signal.SIGINT, note)
    _open_blocks.append(event)
    try:
        yield event
    finally:
        _open_blocks.remove(event)
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if event.is_set():
        raise KeyboardInterrupt
