"""Noticing that training has gone wrong, while there is still time to stop."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

WINDOW = 8  # updates looked at together: one bad step is noise
MIN_SPREAD = 1e-3  # of a group's logits, as a part of the spread that the base had
LEARNT = 0.98  # a loss below this part of the chance loss shows that something had been learnt


class CollapseDetector:
    """Watches the losses and scores of training and says when to stop.

    A run has collapsed when, over the last updates,

    - a loss is not a number;
    - the scores no longer tell the passages of a group apart: their spread fell below a thousandth of the base's;
    - the mean loss is back at or above that of equal scores (``ln(group size)`` for InfoNCE) although it had been
      below it before: what was learnt, or what the base knew, is lost.

    Example:
        >>> detector = CollapseDetector()
        >>> detector.look(float("nan"), chance=1.9, spread=1.0)
        'the loss became nan at update 1'
    """

    def __init__(self) -> None:
        self._losses: deque[float] = deque(maxlen=WINDOW)
        self._spreads: deque[float] = deque(maxlen=WINDOW)
        self._base_spread: float | None = None
        self._was_below = False
        self._updates = 0

    def look(self, loss: float, chance: float, spread: float) -> str:
        """Take in one update.

        Args:
            loss: Its mean loss.
            chance: The loss that equal scores would have had.
            spread: The mean standard deviation of the logits within a group.

        Returns:
            Why to stop; empty where all is well.
        """
        self._updates += 1
        if not (math.isfinite(loss) and math.isfinite(spread)):
            return f"the loss became {loss} at update {self._updates}"
        if self._base_spread is None:
            self._base_spread = spread
        self._losses.append(loss / chance if chance > 0 else 0.0)
        self._spreads.append(spread)
        if len(self._losses) < WINDOW:
            self._was_below |= self._updates == 1 and self._losses[0] < LEARNT
            return ""
        mean_loss, mean_spread = sum(self._losses) / WINDOW, sum(self._spreads) / WINDOW
        if mean_spread < MIN_SPREAD * self._base_spread:
            return f"the scores of a group's passages became equal (spread {mean_spread:.1e}) at update {self._updates}"
        if mean_loss < LEARNT:
            self._was_below = True
        elif self._was_below and mean_loss >= 1:
            return (
                f"the loss is back at that of equal scores ({mean_loss:.2f} of it over {WINDOW} updates) "
                f"at update {self._updates}"
            )
        return ""


def spread_of(logits: torch.Tensor, sizes: Sequence[int]) -> float:
    """The mean standard deviation of the logits within a group."""
    groups = logits.detach().view(-1).float().split(list(sizes))
    return sum(float(group.std(correction=0)) for group in groups) / len(sizes)
