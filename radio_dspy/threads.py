"""Doing one thing with many items in threads that know DSPy's settings."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import dspy

from radio_dspy.interrupts import interrupt_later
from radio_dspy.spending import StopSpending

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
            if not failures and not interrupted.is_set():
                try:
                    return function(item)
                except (Exception, StopSpending) as error:
                    failures.append(error)
        return None

    results: list[R] = []
    with interrupt_later("call") as interrupted:
        if num_threads == 1 or len(items) < 2:
            results = [one(item) for item in items]
        else:
            # Without a time-out: DSPy would ask again for what takes longer than two minutes.
            run = dspy.Parallel(num_threads=num_threads, disable_progress_bar=True, timeout=0)
            try:
                results = run([(one, (item,)) for item in items])
            except Exception:
                if not interrupted.is_set():
                    raise
                for _ in range(num_threads):  # DSPy leaves at once, and the calls in flight are paid for
                    slots.acquire()
    if failures:
        raise failures[0]
    return results
