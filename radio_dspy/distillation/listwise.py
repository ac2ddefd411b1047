"""Listwise distillation: the reranker's distribution over a list follows the teacher's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from radio_dspy.distillation.losses import rows_of


class ListwiseKL(nn.Module):
    """KL divergence from the teacher's softmax to the reranker's, averaged over the lists.

    With ``p = softmax(fused / u)`` and ``q = softmax(logits / t)`` over a list: ``sum_i p_i (log p_i - log q_i)``.
    Source: the loss of REPLUG LSR (Shi et al. 2023, section 4.3), here with RADIO's fused scores as the teacher.

    Args:
        temperature: ``t``.
        target_temperature: ``u``; fused scores lie in [0, 1], so 0.05 puts most of the mass on the best few of a list.

    Example:
        >>> loss = ListwiseKL(target_temperature=1.0)
        >>> round(loss(torch.tensor([0.0, 0.0]), [2], torch.tensor([1.0, 0.0])).item(), 4)
        0.1109
    """

    contrastive = False
    needs_scores = True

    def __init__(self, temperature: float = 1.0, target_temperature: float = 0.05) -> None:
        super().__init__()
        if not temperature > 0 or not target_temperature > 0:
            raise ValueError(f"Temperatures must be above 0, got {temperature} and {target_temperature}.")
        self.temperature = temperature
        self.target_temperature = target_temperature

    def forward(self, logits: torch.Tensor, sizes: Sequence[int], scores: torch.Tensor | None = None) -> torch.Tensor:
        """Compute the loss; see ``Loss``.

        Raises:
            ValueError: If there are no teacher scores.
        """
        if scores is None:
            raise ValueError("ListwiseKL follows the teacher's scores: give a score for each logit.")
        inside = rows_of(torch.ones_like(logits), sizes, 0.0).bool()
        student = (rows_of(logits, sizes, -torch.inf) / self.temperature).log_softmax(-1)
        teacher = (rows_of(scores, sizes, -torch.inf) / self.target_temperature).log_softmax(-1)
        # Outside a list both are -inf, whose difference is not a number.
        gaps = (teacher - student).masked_fill(~inside, 0.0)
        return (teacher.exp() * gaps).sum(-1).mean()
