"""The losses: InfoNCE as in the paper, with margins and with several positives, and a listwise one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from radio_dspy.core.errors import SettingsError
from radio_dspy.distillation.loss import Loss, LossName, needed


def open_loss(loss: LossName | Loss, temperature: float = 1.0, target_temperature: float = 0.05) -> Loss:
    """A loss by its name, one of sentence-transformers' for cross-encoders, or one's own as it is.

    Raises:
        SettingsError: If there is no loss of that name, or sentence-transformers' does not rank by scores.
    """
    if callable(loss) and not type(loss).__module__.startswith("sentence_transformers."):
        return loss
    if not callable(loss) and loss not in get_args(LossName):
        raise SettingsError(f"loss must be one of {get_args(LossName)} or a loss of your own, got {loss!r}.")
    if loss == "listwise":
        return ListwiseKL(temperature, target_temperature)
    if loss == "margin":
        return MarginInfoNCE(temperature)
    if loss == "multi-positive":
        return MultiPositiveInfoNCE(temperature)
    if loss == "infonce":
        return InfoNCE(temperature)
    from radio_dspy.distillation.ranking_losses import RankingLoss

    return RankingLoss(loss, temperature)


def rows_of(values: torch.Tensor, sizes: Sequence[int], padding: float) -> torch.Tensor:
    """Groups as the rows of a float32 matrix of shape (groups, largest size), padded at the end.

    Raises:
        ValueError: If the sizes do not add up or a group holds a single passage.
    """
    from torch.nn.utils.rnn import pad_sequence

    if sum(sizes) != values.numel() or min(sizes, default=0) < 2:
        raise ValueError(f"Groups of sizes {list(sizes)} (each at least 2) do not fit {values.numel()} values.")
    return pad_sequence(list(values.view(-1).float().split(list(sizes))), batch_first=True, padding_value=padding)


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
        scores = needed(scores, self)
        inside = rows_of(torch.ones_like(logits), sizes, 0.0).bool()
        student = (rows_of(logits, sizes, -torch.inf) / self.temperature).log_softmax(-1)
        teacher = (rows_of(scores, sizes, -torch.inf) / self.target_temperature).log_softmax(-1)
        # Outside a list both are -inf, whose difference is not a number.
        gaps = (teacher - student).masked_fill(~inside, 0.0)
        return (teacher.exp() * gaps).sum(-1).mean()


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
        scores = needed(scores, self)
        rows = rows_of(logits, sizes, -torch.inf) / self.temperature
        teacher = rows_of(scores, sizes, torch.inf)  # the padding gets no margin
        margins = (teacher[:, :1] - teacher[:, 1:]).clamp(min=0)
        counts = torch.tensor([size - 1 for size in sizes], device=rows.device)
        mean = margins.sum(-1, keepdim=True) / counts[:, None]
        weights = margins / mean.clamp(min=torch.finfo(mean.dtype).tiny)
        rows = torch.cat([rows[:, :1], rows[:, 1:] + weights.log()], dim=-1)
        return (rows.logsumexp(-1) - rows[:, 0]).mean()


class MultiPositiveInfoNCE(InfoNCE):
    """InfoNCE with several positives: those that the teacher scores within a margin of the first, which is one.

    ``-log(sum_{i in P} exp(s_i / t) / sum_i exp(s_i / t))``: the likelihood that a positive is taken, whichever; none
    of them is pushed below another. With one positive it is InfoNCE. A group of positives alone adds nothing. Source:
    utility-focused annotation (Zhang et al. 2025, arXiv 2504.05220), "summed marginal likelihood".

    Args:
        temperature: ``t``; 1 as in the paper's InfoNCE.
        margin: Of the fused scores; the same that ``FalseNegatives`` takes for "as good as the positive".

    Example:
        >>> loss = MultiPositiveInfoNCE()
        >>> round(loss(torch.tensor([2.0, -1.0, 0.5]), [3], torch.tensor([1.0, 0.97, 0.2])).item(), 4)
        0.1927
    """

    needs_scores = True
    several_positives = True

    def __init__(self, temperature: float = 1.0, margin: float = 0.05) -> None:
        super().__init__(temperature)
        if not 0 <= margin < 1:
            raise ValueError(f"margin must lie in [0, 1), got {margin}.")
        self.margin = margin

    def forward(self, logits: torch.Tensor, sizes: Sequence[int], scores: torch.Tensor | None = None) -> torch.Tensor:
        """Compute the loss; see ``Loss``.

        Raises:
            ValueError: If there are no teacher scores.
        """
        scores = needed(scores, self)
        rows = rows_of(logits, sizes, -torch.inf) / self.temperature
        teacher = rows_of(scores, sizes, -torch.inf)  # the padding is no positive
        positives = rows.masked_fill(teacher < teacher[:, :1] - self.margin, -torch.inf)
        return (rows.logsumexp(-1) - positives.logsumexp(-1)).mean()
