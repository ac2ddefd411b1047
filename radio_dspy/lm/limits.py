"""The budget for LM calls."""

from __future__ import annotations

from dataclasses import dataclass

from radio_dspy.core.errors import SettingsError


@dataclass(frozen=True)
class Budget:
    """What LM calls may cost in all.

    Attributes:
        max_calls: How many calls may be made. Never exceeded, also with several threads. Cached calls are free, but
            once the limit is reached none begins: whether a cache answers a call shows only when it is made.
        max_cost: US dollars by LiteLLM's price list. No call begins once they are spent; calls in flight may still add
            theirs.

    Example:
        >>> Budget(max_calls=1000, max_cost=2.5).max_calls
        1000
    """

    max_calls: int | None = None
    max_cost: float | None = None

    def __post_init__(self) -> None:
        if self.max_calls is not None and self.max_calls < 0:
            raise SettingsError(f"max_calls must be at least 0, or None for no limit; got {self.max_calls}.")
        if self.max_cost is not None and not self.max_cost >= 0:
            raise SettingsError(f"max_cost must be at least 0 dollars, or None for no limit; got {self.max_cost}.")
