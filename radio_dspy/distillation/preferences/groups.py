"""A preference: one passage that is preferred over others for a question, from sampling to the trainer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import dspy

from radio_dspy.core.errors import DataError


@dataclass(frozen=True, slots=True)
class PreferenceGroup:
    """One passage that is preferred over others for a question.

    Attributes:
        query: The question alone, without answer or rationale.
        positive: The preferred passage's contents.
        negatives: The contents of those it is preferred over, best first; at least one.
        scores: The teacher's fused scores of the positive and the negatives, for losses that read them.
        answers: Gold answers; an in-batch negative that contains one is left out. Empty checks nothing.
        id: The question's.
        passage_ids: Those of the positive and the negatives; empty where the texts came without.
        random: How many of the negatives, the last ones, were drawn from the whole corpus.

    Example:
        >>> group = PreferenceGroup("why?", "Yeast dies.", ("Ice floats.",), (1.0, 0.2))
        >>> group.as_example().neg_scores
        [0.2]
    """

    query: str
    positive: str
    negatives: tuple[str, ...]
    scores: tuple[float, ...] = ()
    answers: tuple[str, ...] = ()
    id: str = ""
    passage_ids: tuple[str, ...] = ()
    random: int = 0

    def __post_init__(self) -> None:
        if not self.negatives:
            raise DataError(f"{self.query!r}: no negatives; a preference needs at least one.")
        for what, values in (("scores", self.scores), ("passage ids", self.passage_ids)):
            if values and len(values) != 1 + len(self.negatives):
                raise DataError(f"{self.query!r}: {len(values)} {what} for {1 + len(self.negatives)} passages.")

    @property
    def texts(self) -> tuple[str, ...]:
        """The contents of all its passages, the positive first."""
        return (self.positive, *self.negatives)

    def as_dict(self) -> dict[str, Any]:
        """The line of ``groups.jsonl``: passages by id."""
        sampled = len(self.passage_ids) - self.random
        return {
            "id": self.id,
            "query": self.query,
            "positive": self.passage_ids[0],
            "negatives": list(self.passage_ids[1:sampled]),
            "random": list(self.passage_ids[sampled:]),
            "scores": [round(score, 6) for score in self.scores],
        }

    def as_example(self) -> dspy.Example:
        """The group as ``load_groups`` returns it: for ``GroupFinetune``, and for FlagEmbedding by ``write_groups``."""
        fields: dict[str, Any] = {"question": self.query, "pos": [self.positive], "neg": list(self.negatives)}
        if self.id:
            fields["id"] = self.id
        if self.scores:
            fields |= {"pos_scores": [self.scores[0]], "neg_scores": list(self.scores[1:])}
        return dspy.Example(**fields).with_inputs("question")
