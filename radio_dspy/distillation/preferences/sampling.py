"""Sample which passage is preferred over which (paper, section 3.4; the authors' sampling scripts)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

from radio_dspy.core.errors import DataError, SettingsError
from radio_dspy.core.passages import NULL_PASSAGE
from radio_dspy.core.rankings import Ranking, first_repeated
from radio_dspy.core.validation import is_whole, shown

Sampling = Literal["shift", "shift_all_neg", "iteration", "all"]
Sampled = tuple[str, tuple[str, ...]]  # ids of a group's positive and of its negatives
# A sampling of one's own: ids best first -> (positive, negatives) of each group.
SamplingFunction = Callable[[Sequence[str]], Iterable[tuple[str, Sequence[str]]]]
DEPTH = 20  # the first 20 of the fused list
SHIFT_NEGATIVES = (3, 4, 6, 9, 13, 18)  # positions, best first, counted from 0: shifts of 1, 2, 3, 4, 5 after the first
ALL_NEGATIVES_FROM = 3
BLOCK = 5


def preference_groups(
    ranking: Ranking | Sequence[str],
    sampling: Sampling | SamplingFunction = "shift",
    depth: int = DEPTH,
    *,
    block: int = BLOCK,
    negative_range: tuple[int, int] | None = None,
) -> list[Sampled]:
    """Turn a fused ranking into preferences: (positive, negatives) pairs of passage ids.

    ``shift`` (the paper's) takes the first passage as the positive and those at positions 3, 4, 6, 9, 13 and 18 as its
    negatives. ``shift_all_neg`` takes every passage from position 3 on. ``iteration`` cuts the list into blocks; within
    a block every passage but the last is preferred over all that follow it. ``all`` (ours, for listwise losses) takes
    the first passage against every other.

    Where the list is too short for a position, that position is left out; where none is left, the last passage is the
    one negative. A single passage prefers nothing and gives no group.

    Args:
        ranking: A ``Ranking``, or passage ids, best first.
        sampling: One of the names above, or a function from ids (best first) to (positive, negatives) pairs.
        depth: Only the first ``depth`` passages are used; at least 2.
        block: The block length of ``iteration``; at least 2.
        negative_range: Keep only negatives at positions ``first`` to ``last - 1`` of the list, counted from 0; a group
            that keeps none is dropped. None keeps all, as the paper does.

    Raises:
        SettingsError: If a setting is out of range.
        DataError: If an id appears twice, or an own sampling names an id that is not in the list.

    Example:
        >>> preference_groups([f"p{i}" for i in range(20)])
        [('p0', ('p3', 'p4', 'p6', 'p9', 'p13', 'p18'))]
    """
    if not all(is_whole(one) and one >= 2 for one in (depth, block)):
        raise SettingsError(f"depth and block must be at least 2 and whole, got {shown(depth)} and {shown(block)}.")
    if negative_range is not None and not _is_window(negative_range):
        raise SettingsError(
            f"negative_range must be (first, last) with 0 <= first < last, got {shown(negative_range)}."
        )
    if not callable(sampling) and not (isinstance(sampling, str) and sampling in get_args(Sampling)):
        raise SettingsError(f"sampling must be one of {get_args(Sampling)} or a function, got {shown(sampling)}.")
    if isinstance(ranking, str) or not isinstance(ranking, Ranking | Sequence):
        raise DataError(f"Expected a Ranking or a list of ids, got {shown(ranking)}.")
    ids = list(ranking.ids if isinstance(ranking, Ranking) else ranking)
    for position, one in enumerate(ids):
        if not isinstance(one, str):
            raise DataError(f"The ranking holds {shown(one)} at position {position}; passage ids are strings.")
    if len(set(ids)) != len(ids):
        raise DataError(f"The ranking holds {first_repeated(ids)!r} twice.")
    ids = ids[:depth]
    if len(ids) < 2:
        return []
    groups = _sample(ids, sampling, block)
    if negative_range is None:
        return groups
    window = set(ids[slice(*negative_range)])
    kept = ((positive, tuple(one for one in negatives if one in window)) for positive, negatives in groups)
    return [(positive, negatives) for positive, negatives in kept if negatives]


def _is_window(value: Any) -> bool:
    return isinstance(value, Sequence) and len(value) == 2 and all(map(is_whole, value)) and 0 <= value[0] < value[1]


def _sample(ids: list[str], sampling: Sampling | SamplingFunction, block: int) -> list[Sampled]:
    if callable(sampling):
        pairs = [(positive, tuple(negatives)) for positive, negatives in sampling(tuple(ids))]
        unknown = {one for positive, negatives in pairs for one in (positive, *negatives)} - set(ids)
        if unknown:
            raise DataError(f"The sampling function named {sorted(unknown)[0]!r}, which is not in the ranking.")
        for positive, negatives in pairs:
            if positive in negatives:
                raise DataError(f"The sampling function named {positive!r} as positive and as its negative.")
        return [(positive, negatives) for positive, negatives in pairs if negatives]
    if sampling == "shift":
        negatives = tuple(ids[position] for position in SHIFT_NEGATIVES if position < len(ids))
        return [(ids[0], negatives or (ids[-1],))]
    if sampling == "shift_all_neg":
        return [(ids[0], tuple(ids[ALL_NEGATIVES_FROM:]) or (ids[-1],))]
    if sampling == "all":
        return [(ids[0], tuple(ids[1:]))]
    blocks = (ids[start : start + block] for start in range(0, len(ids), block))
    return [(one[i], tuple(one[i + 1 :])) for one in blocks for i in range(len(one) - 1)]


def with_null_groups(groups: Sequence[Sampled], fused: Mapping[str, float], *, listwise: bool) -> list[Sampled]:
    """The groups with the null passage in them, so that the reranker learns where nothing helps.

    It becomes a negative of each positive that ranks above it, and the positive of a group of its own against the
    passages that rank below it. ``listwise`` puts it into the one list instead, at its place.

    Args:
        groups: What was sampled of the candidates.
        fused: The fused scores, by passage id; the null passage's among them.
        listwise: Whether the groups are lists, of which none is split.

    Example:
        >>> with_null_groups([("a", ("b", "c"))], {"a": 1.0, "b": 0.6, "(null)": 0.5, "c": 0.1}, listwise=False)
        [('a', ('b', 'c', '(null)')), ('(null)', ('c',))]
        >>> with_null_groups([("a", ("b",))], {"a": 0.4, "b": 0.1, "(null)": 0.5}, listwise=False)
        [('(null)', ('a', 'b'))]
    """
    null, made = NULL_PASSAGE.id, []
    for positive, negatives in groups:
        if listwise:
            first, *others = sorted((positive, *negatives, null), key=lambda one: -fused[one])
            made.append((first, tuple(others)))
            continue
        if fused[positive] > fused[null]:
            made.append((positive, (*negatives, null)))
        if below := tuple(one for one in (positive, *negatives) if fused[one] < fused[null]):
            made.append((null, below))
    return made
