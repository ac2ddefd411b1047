"""Reranking by a rationale: the teacher's view, with an encoder."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import dspy

from radio_dspy.encoders import TextEncoder, as_encoder
from radio_dspy.errors import DataError
from radio_dspy.passages import checked_text, texts_of
from radio_dspy.rerankers.rerank import _check_k, ranked
from radio_dspy.signatures import RationaleGuidedRerank


def guide(question: str, answers: Sequence[str], rationale: str = "") -> str:
    """The text whose vector passages are compared with: ``question. answers. rationale`` (paper, section 3.3).

    Example:
        >>> guide("Why is the jug cold?", ["evaporation"], "Vapour takes heat along.")
        'Why is the jug cold? evaporation. Vapour takes heat along.'
    """
    parts = [question.strip(), ", ".join(one.strip() for one in answers), rationale.strip()]
    return " ".join(part if part[-1] in ".?!" else f"{part}." for part in parts if part)


class RationaleRerank(dspy.Module):
    """``RationaleGuidedRerank`` carried out by an encoder: passages by similarity to ``question. answers. rationale``.

    It needs the answer, so it teaches and judges; it does not serve. Source: paper, section 3.3.

    Args:
        encoder: An ``Encoder`` or ``RemoteEncoder``, or the name of one.

    Example:
        >>> teacher = RationaleRerank("all-MiniLM-L6-v2")
        >>> ranked = teacher(
        ...     question="Why is the milk still fresh?",
        ...     answers=["evaporation"],
        ...     rationale="Evaporation from the wet clay cools the jug.",
        ...     passages=["The jug stood in the kitchen.", "Evaporation cools a wet surface."],
        ... )
        >>> ranked.passages[0]
        'Evaporation cools a wet surface.'
    """

    signature = RationaleGuidedRerank

    def __init__(self, encoder: TextEncoder | str) -> None:
        super().__init__()
        self.encoder = as_encoder(encoder)

    def forward(
        self, question: str, answers: Sequence[str], rationale: str, passages: Sequence[Any], k: int | None = None
    ) -> dspy.Prediction:
        """Order passages, best first.

        Returns:
            A prediction with ``passages`` as they came, ``scores`` (cosines) and ``order``, the signature's output.
        """
        return self._rank(question, answers, rationale, passages, k)

    async def aforward(
        self, question: str, answers: Sequence[str], rationale: str, passages: Sequence[Any], k: int | None = None
    ) -> dspy.Prediction:
        """Order passages without blocking the event loop; see ``forward``."""
        return await asyncio.to_thread(self._rank, question, answers, rationale, passages, k)

    def _rank(
        self, question: str, answers: Sequence[str], rationale: str, passages: Sequence[Any], k: int | None
    ) -> dspy.Prediction:
        _check_k(k)
        checked_text(question, "The question")
        checked_text(rationale, "The rationale")
        answers = [answers] if isinstance(answers, str) else answers
        if not isinstance(answers, Sequence):
            raise DataError(f"The answers must be a list of strings, got {type(answers).__name__}.")
        for position, answer in enumerate(answers):
            checked_text(answer, f"Answer {position}")
        query = self.encoder.encode_queries([guide(question, answers, rationale)])[0]
        scores = (self.encoder.encode_passages(texts_of(passages)) @ query).tolist()
        found = ranked(passages, scores, k)
        return dspy.Prediction(passages=found.passages, scores=found.scores, order=found.indices)
