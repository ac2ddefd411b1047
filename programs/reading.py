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


def texts_of(passages: Iterable[Any]) -> list[str]:
    """The passages as the LM reads them."""
    return [as_passage(item, position).contents for position, item in enumerate(passages)]
