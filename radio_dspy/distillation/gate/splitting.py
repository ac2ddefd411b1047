"""Hold questions out for judging, with near-duplicates on one side."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

from radio_dspy.core.errors import DataError
from radio_dspy.models.encoder import TextEncoder

T = TypeVar("T")
HELD_OUT = 0.2  # of the questions
MIN_HELD_OUT = 10  # below that nothing can be told from noise; never more than half of the questions
SAME_QUESTION = 0.9  # cosine from which two questions count as one question asked twice
_ROWS, _COLUMNS = 1024, 4096  # compared at a time: memory does not grow with the questions


def question_groups(texts: Sequence[str], encoder: TextEncoder, *, threshold: float = SAME_QUESTION) -> list[int]:
    """A group number for each question: questions whose vectors are closer than ``threshold`` share one.

    Closeness is passed on: if a is close to b and b to c, all three are one group.

    Example:
        >>> from radio_dspy import Encoder
        >>> groups = question_groups(["Why is ice slippery?", "why is ice so slippery?", "Who baked it?"],
        ...                          Encoder("all-MiniLM-L6-v2"))
        >>> groups[0] == groups[1] != groups[2]
        True
    """
    import numpy as np

    vectors = encoder.encode_queries(texts)
    parents = list(range(len(texts)))

    def root(one: int) -> int:
        while parents[one] != one:
            parents[one] = one = parents[parents[one]]
        return one

    for start in range(0, len(texts), _ROWS):
        for onward in range(start, len(texts), _COLUMNS):  # closeness is mutual: half of the pairs are enough
            close = vectors[start : start + _ROWS] @ vectors[onward : onward + _COLUMNS].T >= threshold
            for row, other in np.argwhere(close):
                first, second = root(start + int(row)), root(onward + int(other))
                parents[max(first, second)] = min(first, second)
    return [root(one) for one in range(len(texts))]


def equal_groups(texts: Sequence[str]) -> list[int]:
    """A group number for each question, where only equal ones share one: nothing is encoded.

    Example:
        >>> equal_groups(["Who?", "Why?", "Who?"])
        [0, 1, 0]
    """
    first: dict[str, int] = {}
    return [first.setdefault(text, number) for number, text in enumerate(texts)]


def split_by_group(items: Sequence[T], groups: Sequence[int], seed: int) -> tuple[list[T], list[T]]:
    """Keep back about a fifth of the items (at least 10, at most half), whole groups at a time.

    Returns:
        The items to learn from and those kept back, each in their order.

    Raises:
        DataError: If all items are one group: nothing can be kept back.
    """
    wanted = min(len(items) // 2, max(round(len(items) * HELD_OUT), MIN_HELD_OUT))
    members: dict[int, list[int]] = {}
    for position, group in enumerate(groups):
        members.setdefault(group, []).append(position)
    order = sorted(members)
    random.Random(seed).shuffle(order)
    kept: set[int] = set()
    for group in order:
        if len(kept) + len(members[group]) <= max(1, wanted):
            kept.update(members[group])
    for group in sorted(order, key=lambda one: len(members[one])):  # too few to judge by: rather more than a fifth
        whole = kept.union(members[group])
        if len(kept) < min(wanted, MIN_HELD_OUT) and len(whole) <= len(items) // 2:
            kept = whole
    if not kept or len(kept) == len(items):
        raise DataError(
            f"The {len(items)} training questions are almost alike: none can be kept back to judge by. Give a valset."
        )
    return [one for i, one in enumerate(items) if i not in kept], [one for i, one in enumerate(items) if i in kept]
