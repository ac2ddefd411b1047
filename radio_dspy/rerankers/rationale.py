"""Rerank by similarity to a rationale."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

import dspy

from radio_dspy.core.errors import DataError
from radio_dspy.core.passages import texts_of
from radio_dspy.core.validation import checked_text
from radio_dspy.lm.signatures import RationaleGuidedRerank
from radio_dspy.models.encoder import TextEncoder
from radio_dspy.models.open_encoder import as_encoder
from radio_dspy.models.vector_cache import similarities
from radio_dspy.rerankers.rerank import _check_k, ranked

_SPECIAL_TOKENS = 8  # of an encoder, at most
_QUESTION = 0.25  # of the window
_ANSWERED = 0.75  # of the window, for question and answers where a rationale follows
_ENDS = ".?!\u3002\uff1f\uff01\u0964\u061f\u06d4\u1362"  # of a sentence


def guide(question: str, answers: Sequence[str], rationale: str = "") -> str:
    """The text whose vector passages are compared with: ``question. answers. rationale`` (paper, section 3.3).

    Example:
        >>> guide("Why is the jug cold?", ["evaporation"], "Vapour takes heat along.")
        'Why is the jug cold? evaporation. Vapour takes heat along.'
    """
    parts = [question.strip(), ", ".join(one.strip() for one in answers if one.strip()), rationale.strip()]
    return " ".join(part if part[-1] in _ENDS else f"{part}." for part in parts if part)


def fitting_guide(encoder: TextEncoder, question: str, answers: Sequence[str], rationale: str = "") -> str:
    """The guide as ``guide`` writes it; where the encoder would not read as far as the answers, with less before them.

    Of many answers the first are kept, so that a rationale is read; of a long question the start, at least a quarter of
    the encoder's window. A rationale that is too long for the rest is cut by the encoder.
    """
    whole, window = guide(question, answers, rationale), encoder.window
    if window is None or len(whole.encode()) + _SPECIAL_TOKENS <= window:  # a token has at least a byte
        return whole
    if encoder.count_tokens(whole) <= window:
        return whole
    room = window * (_ANSWERED if rationale.strip() else 1.0)
    answers = [one for one in answers if one.strip()]
    further = range(2, len(answers) + 1)
    said = answers[
        : 1 + bisect_left(further, True, key=lambda n: encoder.count_tokens(guide(question, answers[:n])) > room)
    ]
    if encoder.count_tokens(guide(question, said)) <= window:
        return guide(question, said, rationale)

    def shortened(kept: int) -> str:
        return guide(question.strip()[:kept], said, rationale)

    def fits(kept: int) -> bool:
        return (
            encoder.count_tokens(shortened(kept)) <= window
            or encoder.count_tokens(question[:kept]) <= window * _QUESTION
        )

    return shortened(bisect_left(range(len(question)), True, key=lambda kept: not fits(kept + 1)))


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
        query = self.encoder.encode_queries([fitting_guide(self.encoder, question, answers, rationale)])[0]
        scores = similarities(self.encoder.encode_passages(texts_of(passages)), query, self.encoder.name).tolist()
        found = ranked(passages, scores, k)
        return dspy.Prediction(passages=found.passages, scores=found.scores, order=found.indices)
