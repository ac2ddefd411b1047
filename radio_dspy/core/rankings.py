"""Rankings of passages, and questions with the candidates that are to be ranked."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from radio_dspy.core.errors import DataError
from radio_dspy.core.html import html_table, shortened
from radio_dspy.core.passages import Passage
from radio_dspy.core.validation import checked_text, finite_scores

_SHOWN_CHARACTERS = 300  # of a text, in a notebook


def best_first(scores: Sequence[float]) -> list[int]:
    """The positions of scores, highest first; equal scores keep their order.

    Example:
        >>> best_first([0.1, 0.7, 0.1])
        [1, 0, 2]
    """
    return sorted(range(len(scores)), key=lambda position: -scores[position])


@dataclass(frozen=True, slots=True)
class Ranking:
    """Passages in order, best first, each with its score.

    Attributes:
        query: What the passages were ranked for.
        passages: Best first.
        scores: One finite number for each passage, on the ranker's own scale.
    """

    query: str
    passages: tuple[Passage, ...]
    scores: tuple[float, ...]

    def __post_init__(self) -> None:
        finite_scores(self.scores, f"{self.query!r:.80}")
        if len(self.passages) != len(self.scores):
            raise DataError(f"{self.query!r:.80}: {len(self.passages)} passages but {len(self.scores)} scores.")

    def __len__(self) -> int:
        return len(self.passages)

    @property
    def ids(self) -> tuple[str, ...]:
        """The passages' ids, best first."""
        return tuple(passage.id for passage in self.passages)

    def top(self, k: int | None) -> Ranking:
        """The first ``k`` passages; all of them when ``k`` is None."""
        return Ranking(self.query, self.passages[:k], self.scores[:k])

    def _repr_html_(self) -> str:
        rows = [
            [str(rank), f"{score:.3f}", one.id, one.title, shortened(one.text, _SHOWN_CHARACTERS)]
            for rank, (one, score) in enumerate(zip(self.passages, self.scores, strict=True), start=1)
        ]
        return html_table(shortened(self.query, _SHOWN_CHARACTERS), ["", "score", "id", "title", "text"], rows)

    @classmethod
    def from_scores(cls, query: str, passages: Sequence[Passage], scores: Iterable[float]) -> Ranking:
        """Order passages by score; equal scores keep the order in which they came."""
        values = finite_scores(scores, f"{query!r:.80}")
        if len(values) != len(passages):
            raise DataError(f"{query!r:.80}: {len(passages)} passages but {len(values)} scores.")
        order = best_first(values)
        return cls(query, tuple(passages[i] for i in order), tuple(values[i] for i in order))


@dataclass(frozen=True, slots=True)
class RankRequest:
    """One question with its candidates: what a signal scores and a reranker orders.

    Attributes:
        id: The question's id; everything about the question is joined by it.
        query: The question as the retriever saw it.
        candidates: The retrieved passages, in the first stage's order.
        scores: The first stage's scores, aligned with ``candidates``.
        answers: Gold answers; empty where they are unknown.
        rationale: Why the answer holds, as the LM wrote it; empty where there is none.
        more_rationales: Further samples of the rationale; see ``RationaleExtractor(n=)``.
        relevant: Ids of passages labelled as needed for the answer; used to evaluate, never to train unless asked for.
        copies: Ids of passages that are the question itself and therefore no candidates.
        grades: How relevant passages are, by their ids, where the labels say more than yes or no.
    """

    id: str
    query: str
    candidates: tuple[Passage, ...]
    scores: Sequence[float]
    answers: tuple[str, ...] = ()
    rationale: str = ""
    relevant: frozenset[str] = field(default_factory=frozenset)
    copies: frozenset[str] = field(default_factory=frozenset)
    grades: Mapping[str, float] = field(default_factory=dict)
    more_rationales: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        checked_text(self.query, f"Question {self.id!r}")
        finite_scores(self.scores, f"Question {self.id!r}")
        if len(self.candidates) != len(self.scores):
            raise DataError(f"Question {self.id!r}: {len(self.candidates)} candidates but {len(self.scores)} scores.")
        doubled = first_repeated(passage.id for passage in self.candidates)
        if doubled is not None:
            raise DataError(
                f"Question {self.id!r}: candidate {doubled!r} appears twice; give every passage its own id."
            )

    @property
    def gains(self) -> dict[str, float]:
        """What each judged passage is worth: its grade, or 1 where it is relevant without one."""
        judged = {key: one for key, one in self.grades.items() if key in self.relevant or one <= 0}
        return {**dict.fromkeys(sorted(self.relevant), 1.0), **judged}

    def ranking(self) -> Ranking:
        """The candidates in the first stage's order."""
        return Ranking(self.query, self.candidates, tuple(self.scores))


def first_repeated(values: Iterable[Hashable]) -> Any:
    """The first value that comes again; None where each comes once."""
    seen: set[Hashable] = set()
    return next((one for one in values if one in seen or seen.add(one)), None)  # type: ignore[func-returns-value]
