"""InfoNCE that trusts a negative as far as the teacher does."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from radio_dspy.distillation.infonce import InfoNCE
from radio_dspy.distillation.losses import rows_of


class MarginInfoNCE(InfoNCE):
    """InfoNCE whose negatives weigh what the teacher puts between them and the positive.

    With the margins ``m_i = fused_0 - fused_i`` and ``w_i = m_i / mean(m)`` (none below 0):
    ``-log(exp(s_0 / t) / (exp(s_0 / t) + sum_i w_i exp(s_i / t)))``. With equal margins it is InfoNCE; a negative that
    the teacher finds as good as the positive is left out, and a group without any margin adds nothing.

    Args:
        temperature: ``t``; 1 as in the paper's InfoNCE.

    Example:
        >>> loss = MarginInfoNCE()
        >>> logits = torch.tensor([2.0, -1.0, 0.5])
        >>> round(loss(logits, [3], torch.tensor([1.0, 0.2, 0.2])).item(), 3)
        0.241
        >>> round(loss(logits, [3], torch.tensor([1.0, 0.2, 1.0])).item(), 3)
        0.095
    """

    needs_scores = True

    def forward(self, logits: torch.Tensor, sizes: Sequence[int], scores: torch.Tensor | None = None) -> torch.Tensor:
        """Compute the loss; see ``Loss``.

        Raises:
            ValueError: If there are no teacher scores.
        """
        if scores is None:
            raise ValueError("MarginInfoNCE weighs by the teacher's scores: give a score for each logit.")
        rows = rows_of(logits, sizes, -torch.inf) / self.temperature
        teacher = rows_of(scores, sizes, torch.inf)  # the padding gets no margin
        margins = (teacher[:, :1] - teacher[:, 1:]).clamp(min=0)
        counts = torch.tensor([size - 1 for size in sizes], device=rows.device)
        mean = margins.sum(-1, keepdim=True) / counts[:, None]
        weights = margins / mean.clamp(min=torch.finfo(mean.dtype).tiny)
        rows = torch.cat([rows[:, :1], rows[:, 1:] + weights.log()], dim=-1)
        return (rows.logsumexp(-1) - rows[:, 0]).mean()
