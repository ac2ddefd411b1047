"""Checks that the programs share."""

from __future__ import annotations

from typing import Any

import dspy

from radio_dspy.core.errors import SettingsError
from radio_dspy.lm.replies import Reply


def check_counts(candidates: int, k: int) -> None:
    """Refuse to read more passages than are retrieved.

    Raises:
        SettingsError: If ``1 <= k <= candidates`` does not hold.
    """
    if not 1 <= k <= candidates:
        raise SettingsError(f"Need 1 <= k <= candidates, got k={k} and candidates={candidates}.")


def check_parts(retriever: Any, rerank: Any) -> None:
    """Refuse a name in place of a module.

    Raises:
        SettingsError: If retriever or rerank cannot be called.
    """
    if not callable(retriever):
        raise SettingsError(
            f"retriever must be a module, got {retriever!r:.80}; give FaissRetriever.load(folder), or one you built."
        )
    if not callable(rerank):
        raise SettingsError(f"rerank must be a module, got {rerank!r:.80}; give Rerank(name), or NoRerank().")


def answered(reply: Reply, ranked: Any, **more: Any) -> dspy.Prediction:
    """A program's prediction: the answer, and the passages with their scores.

    A reply that cannot be read is an empty answer, and ``unreadable`` says what came back.
    """
    if reply.unreadable:
        more["unreadable"] = reply.unreadable
    answer = "" if reply.value is None else reply.value
    return dspy.Prediction(answer=answer, passages=ranked.passages, scores=ranked.scores, **more)
