"""What the programs share: the checks of what they are made of."""

from __future__ import annotations

from typing import Any

from radio_dspy.errors import SettingsError


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
