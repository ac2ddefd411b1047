"""Which groups make a forward pass, and what the reranker reads of them."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from radio_dspy.core.text import contains_answer, same_words
from radio_dspy.distillation.preferences.groups import PreferenceGroup


class GroupCollator:
    """Makes the input of a forward pass from groups: texts as they are, since the scorer packs them without padding.

    Args:
        stand_in: Takes the place of no groups, with a weight of 0: each process takes part in each forward pass.
        in_batch_negatives: Also take the other groups' positives as negatives.
    """

    def __init__(self, stand_in: PreferenceGroup, in_batch_negatives: bool = False) -> None:
        self._stand_in = stand_in
        self._in_batch_negatives = in_batch_negatives

    def __call__(self, groups: Sequence[PreferenceGroup]) -> dict[str, Any]:
        """``count`` groups: their ``pairs`` one after the other, ``sizes``, and the teacher's ``scores``."""
        taken = groups or [self._stand_in]
        lists = passage_lists(taken, self._in_batch_negatives)
        return {
            "pairs": [(one.query, text) for one, (texts, _) in zip(taken, lists, strict=True) for text in texts],
            "sizes": [len(texts) for texts, _ in lists],
            "scores": torch.tensor([score for _, scores in lists for score in scores]),
            "count": len(groups),
        }


def passage_lists(groups: Sequence[PreferenceGroup], in_batch: bool) -> list[tuple[list[str], list[float]]]:
    """The passages of each group, positive first, with their scores; an in-batch negative scores 0, like the last."""
    lists = []
    for group in groups:
        texts = list(group.texts)
        scores = list(group.scores or [0.0] * len(texts))
        if in_batch:
            # Another group of the same question may hold a passage that is preferred to this group's positive.
            others = dict.fromkeys(
                other.positive for other in groups if other.positive and not same_words(other.query, group.query)
            )  # an empty one is the null passage, which may well help more
            known = [group.query, *texts]
            taken = [
                one
                for one in others
                if not any(same_words(one, text) for text in known) and not contains_answer(one, group.answers)
            ]
            texts += taken
            scores += [0.0] * len(taken)
        lists.append((texts, scores))
    return lists


class DealtGroups(Sampler[list[int]]):
    """The groups of each forward pass of one process, by position; in each epoch in another order.

    The groups of an update are the same whatever the number of processes: they are dealt out among them.

    Args:
        groups: How many there are.
        size: Groups in a forward pass at most.
        accumulation: Forward passes in one update of a single process.
        seed: Decides the order.
        rank: The number of this process.
        processes: How many there are.

    Example:
        >>> list(DealtGroups(5, 2, 2, 42))
        [[4, 3], [0, 1], [2]]
        >>> list(DealtGroups(5, 2, 2, 42, rank=1, processes=2))
        [[3, 1], []]
    """

    def __init__(self, groups: int, size: int, accumulation: int, seed: int, rank: int = 0, processes: int = 1) -> None:
        self._groups, self._size, self._together, self._seed = groups, size, size * accumulation, seed
        self._rank, self._processes = rank, processes
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Trainer."""
        self._epoch = epoch

    def __len__(self) -> int:
        return sum(map(self._passes, range(0, self._groups, self._together)))

    def _passes(self, start: int) -> int:
        """The forward passes of an update, in each process."""
        share = math.ceil(min(self._together, self._groups - start) / self._processes)
        return math.ceil(share / self._size)

    def __iter__(self) -> Iterator[list[int]]:
        order = list(range(self._groups))
        random.Random(f"{self._seed}-{self._epoch}").shuffle(order)
        for start in range(0, self._groups, self._together):
            own = order[start : start + self._together][self._rank :: self._processes]
            yield from (own[one * self._size : (one + 1) * self._size] for one in range(self._passes(start)))


class GroupLoader(DataLoader[PreferenceGroup]):
    """A loader that tells its groups' order the epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Called by Trainer."""
        if isinstance(self.batch_sampler, DealtGroups):
            self.batch_sampler.set_epoch(epoch)
