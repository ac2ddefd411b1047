"""Doing one thing with many items in threads that know DSPy's settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import dspy

from radio_dspy.spending import StopSpending

T = TypeVar("T")
R = TypeVar("R")


def each_in_threads(function: Callable[[T], R], items: Sequence[T], num_threads: int) -> list[R]:
    """The results for all items, in their order; none is asked twice.

    The first failure is raised as it is: what still waits is not begun, and what is under way ends first.

    Args:
        function: What to do with an item.
        items: The items.
        num_threads: How many at the same time; 1 stays in this thread.
    """
    if num_threads == 1 or len(items) < 2:
        return [function(item) for item in items]
    failures: list[BaseException] = []

    def one(item: T) -> Any:
        if not failures:
            try:
                return function(item)
            except (Exception, StopSpending) as error:
                failures.append(error)
        return None

    # Without a time-out: DSPy would ask again for what takes longer than two minutes.
    run = dspy.Parallel(num_threads=num_threads, disable_progress_bar=True, timeout=0)
    results: list[R] = run([(one, (item,)) for item in items])
    if failures:
        raise failures[0]
    return results
