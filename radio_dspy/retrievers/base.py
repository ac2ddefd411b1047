"""What every first-stage retriever offers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import dspy

from radio_dspy.errors import SettingsError
from radio_dspy.passages import Ranking, checked_text, is_whole, shown


def checked_k(k: Any) -> int:
    """How many passages to find.

    Raises:
        SettingsError: If it is no whole number of at least 1.
    """
    if not is_whole(k) or k < 1:
        raise SettingsError(f"k must be at least 1, got {shown(k)}; give a whole number.")
    return int(k)


class Retriever(dspy.Module):
    """A first stage: finds the passages that a reranker then orders. Subclasses write ``search``."""

    def __init__(self, k: int = 20) -> None:
        super().__init__()
        self.k = k

    def search(self, queries: Sequence[str], k: int) -> list[Ranking]:
        """Find the ``k`` best passages for each query."""
        # No abstract method: DSPy's modules have a metaclass of their own, which does not go with ABC's.
        raise NotImplementedError(f"{type(self).__name__} must define search(queries, k).")

    def forward(self, query: str, k: int | None = None) -> dspy.Prediction:
        """Retrieve for one query.

        Args:
            query: What to look for.
            k: How many passages, at least 1; None takes the retriever's own ``k``.

        Returns:
            A prediction with ``passages`` (best first, each with ``id``, ``title``, ``text``) and ``scores``.
        """
        return self._retrieve(query, k)

    async def aforward(self, query: str, k: int | None = None) -> dspy.Prediction:
        """Retrieve for one query without blocking the event loop; see ``forward``."""
        return await asyncio.to_thread(self._retrieve, query, k)

    def _retrieve(self, query: str, k: int | None) -> dspy.Prediction:
        depth = checked_k(self.k if k is None else k)
        checked_text(query, "The query")
        ranking = self.search([query], depth)[0]
        return dspy.Prediction(passages=list(ranking.passages), scores=list(ranking.scores))
