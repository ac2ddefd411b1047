"""The InfoNCE loss over preference groups (paper, section 3.4, equation of the preference loss)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from radio_dspy.distillation.losses import rows_of


class InfoNCE(nn.Module):
    """Cross-entropy of each group's logits against its positive, averaged over the groups.

    For a group with logits ``s_0`` (the positive) and ``s_1 ... s_n``:
    ``-log(exp(s_0 / t) / sum_i exp(s_i / t))``. Groups may differ in size; there are no in-batch negatives.

    Args:
        temperature: ``t``; the paper uses none, which is 1.

    Example:
        >>> loss = InfoNCE()
        >>> round(loss(torch.tensor([2.0, -1.0, 0.5]), [3]).item(), 3)
        0.241
    """

    contrastive = True
    needs_scores = False

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, got {temperature}.")
        self.temperature = temperature

    def forward(self, logits: torch.Tensor, sizes: Sequence[int], scores: torch.Tensor | None = None) -> torch.Tensor:
        """Compute the loss; see ``Loss``. The scores are not read."""
        rows = rows_of(logits, sizes, -torch.inf)
        positives = torch.zeros(len(sizes), dtype=torch.long, device=logits.device)
        return cross_entropy(rows / self.temperature, positives)
