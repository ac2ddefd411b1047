"""The interface of a loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    import torch

LossName = Literal[
    "infonce",
    "multi-positive",
    "listwise",
    "margin",
    "lambda",
    "ranknet",
    "adr-mse",
    "margin-mse",
    "listnet",
    "plistmle",
]


class Loss(Protocol):
    """Compares a batch of groups' logits with what the teacher prefers.

    Attributes:
        contrastive: Whether the passages after the first count as negatives. A false negative harms such a loss; one
            that only follows the teacher's scores knows none.
        needs_scores: Whether the teacher's fused scores are read.
    """

    contrastive: bool
    needs_scores: bool

    def __call__(self, logits: torch.Tensor, sizes: Sequence[int], scores: torch.Tensor | None = None) -> torch.Tensor:
        """Compute the loss.

        Args:
            logits: Float tensor of shape (sum of sizes,): the groups one after the other, each with its positive first.
            sizes: How many logits each group has; at least 2 each.
            scores: The teacher's fused scores, of the same shape.

        Returns:
            A scalar: the mean over the groups.
        """


def needed(scores: torch.Tensor | None, loss: object) -> torch.Tensor:
    """The teacher's scores, for a loss that goes by them.

    Raises:
        ValueError: If there are none.
    """
    if scores is None:
        raise ValueError(f"{type(loss).__name__} goes by the teacher's scores: give a score for each logit.")
    return scores
