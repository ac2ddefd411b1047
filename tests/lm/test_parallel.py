"""Bulk calls in threads: each item once, in order, and in time and memory that go with the number of items."""

import tracemalloc
from collections import Counter

import pytest

from radio_dspy.lm.parallel import each_in_threads

MANY = 30_000


def test_many_items_cost_what_they_hold():
    tracemalloc.start()
    found = each_in_threads(lambda number: number % 7, range(MANY), 4)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == [number % 7 for number in range(MANY)]
    assert peak < 100 * MANY


@pytest.mark.parametrize("threads", [1, 4])
def test_what_fails_ends_the_others_and_none_is_asked_twice(threads):
    seen: Counter[int] = Counter()

    def fails(number: int) -> None:
        seen[number] += 1
        if number == 10:
            raise ValueError("the tenth")

    with pytest.raises(ValueError, match="the tenth"):
        each_in_threads(fails, range(MANY), threads)
    assert set(seen.values()) == {1}
    assert len(seen) < MANY
