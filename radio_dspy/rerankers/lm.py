"""Listwise reranking by an LM."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import dspy

from radio_dspy.core.errors import SettingsError
from radio_dspy.core.passages import texts_of
from radio_dspy.core.text import first_words
from radio_dspy.core.validation import checked_text
from radio_dspy.lm.predictors import Predict
from radio_dspy.lm.replies import aread, read
from radio_dspy.lm.signatures import RankPassages, RationaleGuidedRerank
from radio_dspy.rerankers.rerank import _check_k

_NUMBER = re.compile(r"(?<![\w.-])\d{1,9}(?!\w)")


class LMRerank(dspy.Module):
    """Asks an LM for the order of the passages, window by window (RankGPT: Sun et al. 2023, section 3.2).

    A window of passages slides from the back of the list to the front; after each reply the window's passages stand in
    the LM's order, so that a good passage is carried forward from window to window. Without answers and rationale the
    LM is asked by ``RankPassages``, with either of them by ``RationaleGuidedRerank``. Replies are repaired by
    ``repair_order``: only given passages come back, each exactly once.

    Args:
        window: How many passages the LM sees at a time; RankGPT's 20.
        step: How far the window moves, less than ``window``; RankGPT's 10.
        k: How many passages a call returns when it does not say; None returns all.
        max_words: How many words of a passage the LM sees (syllables where a script writes no spaces); None shows the
            whole.

    Example:
        >>> from dspy.utils import DummyLM
        >>> rerank = LMRerank()
        >>> with dspy.context(lm=DummyLM([{"order": "[1, 0]"}])):
        ...     ranked = rerank("why did the dough not rise?", ["Ice floats.", "Yeast dies in hot water."])
        >>> ranked.passages, ranked.scores, ranked.indices
        (['Yeast dies in hot water.', 'Ice floats.'], [1.0, 0.5], [1, 0])
    """

    def __init__(self, *, window: int = 20, step: int = 10, k: int | None = None, max_words: int | None = None) -> None:
        super().__init__()
        _check_k(k)
        if not 1 <= step < window:
            raise SettingsError(f"Need 1 <= step < window, so that windows overlap; got step={step}, window={window}.")
        if max_words is not None and max_words < 1:
            raise SettingsError(f"max_words must be at least 1, or None for whole passages; got {max_words}.")
        self.rank = Predict(RankPassages)
        self.rank_guided = Predict(RationaleGuidedRerank)
        self.window = window
        self.step = step
        self.k = k
        self.max_words = max_words

    def forward(
        self,
        query: str,
        passages: Sequence[Any],
        k: int | None = None,
        answers: Sequence[str] | None = None,
        rationale: str = "",
    ) -> dspy.Prediction:
        """Order passages, best first.

        Args:
            query: The question.
            passages: ``Passage`` objects, strings, or mappings with ``text``; they are returned as they came.
            k: How many to return; None takes the module's own ``k``.
            answers: Accepted answers, where they are known.
            rationale: Why the answer holds, where it is known.

        Returns:
            A prediction with ``passages``, ``scores`` (1 / rank: an LM gives an order and no scale), ``indices`` into
            the given list, and ``unreadable``: how many of the ``windows`` kept their order, as their replies named no
            passage.

        Raises:
            DataError: If a passage holds no text.
            dspy.LMError: If the LM cannot be reached or refuses.
        """
        sorting = self._begin(query, passages, k, answers, rationale)
        for start, end in sorting.windows:
            sorting.take(start, end, read(sorting.predict, "order", **sorting.inputs(start, end)).value)
        return sorting.prediction()

    async def aforward(
        self,
        query: str,
        passages: Sequence[Any],
        k: int | None = None,
        answers: Sequence[str] | None = None,
        rationale: str = "",
    ) -> dspy.Prediction:
        """Order passages asynchronously; see ``forward``."""
        sorting = self._begin(query, passages, k, answers, rationale)
        for start, end in sorting.windows:
            reply = await aread(sorting.predict, "order", **sorting.inputs(start, end))
            sorting.take(start, end, reply.value)
        return sorting.prediction()

    def _begin(
        self, query: str, passages: Sequence[Any], k: int | None, answers: Sequence[str] | None, rationale: str
    ) -> _Sorting:
        _check_k(k)
        checked_text(query, "The query")
        texts = texts_of(passages)
        if self.max_words is not None:
            texts = [first_words(text, self.max_words) for text in texts]
        guide = {"answers": list(answers or ()), "rationale": rationale} if answers or rationale else {}
        return _Sorting(
            predict=self.rank_guided if guide else self.rank,
            fields={"question": query, **guide},
            passages=passages,
            texts=texts,
            windows=windows_of(len(texts), self.window, self.step),
            k=k or self.k,
            order=list(range(len(texts))),
        )


@dataclass
class _Sorting:
    """One call while the window moves: all of it but the waiting for the LM."""

    predict: dspy.Predict
    fields: dict[str, Any]
    passages: Sequence[Any]
    texts: list[str]
    windows: list[tuple[int, int]]
    k: int | None
    order: list[int]
    unreadable: int = 0

    def inputs(self, start: int, end: int) -> dict[str, Any]:
        # The number is written out: adapters show a list without numbers, or count from 1.
        shown = [f"[{number}] {self.texts[position]}" for number, position in enumerate(self.order[start:end])]
        return {**self.fields, "passages": shown}

    def take(self, start: int, end: int, given: Any) -> None:
        part = self.order[start:end]
        if not _usable(given, len(part)):
            self.unreadable += 1
        self.order[start:end] = [part[number] for number in repair_order(given, len(part))]

    def prediction(self) -> dspy.Prediction:
        kept = self.order[: self.k]
        return dspy.Prediction(
            passages=[self.passages[position] for position in kept],
            scores=[1.0 / rank for rank in range(1, len(kept) + 1)],
            indices=kept,
            windows=len(self.windows),
            unreadable=self.unreadable,
        )


def repair_order(order: Any, n: int) -> list[int]:
    """Make a permutation of ``0 .. n - 1`` of what an LM gave as one.

    Numbers out of range, repeats and whatever is not a number are dropped; missing numbers follow in their former
    order. Strings are searched for numbers, so ``"[2] > [0]"`` is read as 2, 0.

    Example:
        >>> repair_order([2, 2, 7, "0"], 4)
        [2, 0, 1, 3]
        >>> repair_order("[2] > [0]", 3)
        [2, 0, 1]
    """
    named = _usable(order, n)
    taken = set(named)
    return named + [number for number in range(n) if number not in taken]


def _usable(order: Any, n: int) -> list[int]:
    """The numbers in range, each once."""
    return list(dict.fromkeys(number for number in _numbers(order) if 0 <= number < n))


def _numbers(value: Any) -> Iterator[int]:
    if isinstance(value, str):
        yield from map(int, _NUMBER.findall(value))
    elif isinstance(value, int) and not isinstance(value, bool):
        yield value
    elif isinstance(value, float) and value.is_integer():
        yield int(value)
    elif isinstance(value, Iterable):
        for one in value:
            yield from _numbers(one)


def windows_of(n: int, window: int, step: int) -> list[tuple[int, int]]:
    """(start, end) of every window, from the back of ``n`` passages to the front; the last one starts at 0."""
    if n < 2:  # nothing to order
        return []
    windows = [(max(0, n - window), n)]
    while windows[-1][0] > 0:
        end = windows[-1][1] - step
        windows.append((max(0, end - window), end))
    return windows
