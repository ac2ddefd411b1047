"""What the programs share: how many passages go where, and what the LM reads of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from radio_dspy.errors import SettingsError
from radio_dspy.passages import as_passage


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


def texts_of(passages: Iterable[Any]) -> list[str]:
    """The passages as the LM reads them."""
    return [as_passage(item, position).contents for position, item in enumerate(passages)]
