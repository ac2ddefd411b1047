"""The one seam between training and its loss, and the losses by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Protocol, get_args

from radio_dspy.errors import SettingsError

if TYPE_CHECKING:
    import torch

LossName = Literal["infonce", "listwise", "margin"]


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


def open_loss(loss: LossName | Loss, temperature: float = 1.0, target_temperature: float = 0.05) -> Loss:
    """A loss by its name, or one's own as it is.

    Raises:
        SettingsError: If there is no loss of that name.
    """
    if callable(loss):
        return loss
    if loss not in get_args(LossName):
        raise SettingsError(f"loss must be one of {get_args(LossName)} or a loss of your own, got {loss!r}.")
    if loss == "listwise":
        from radio_dspy.distillation.listwise import ListwiseKL

        return ListwiseKL(temperature, target_temperature)
    if loss == "margin":
        from radio_dspy.distillation.margin import MarginInfoNCE

        return MarginInfoNCE(temperature)
    from radio_dspy.distillation.infonce import InfoNCE

    return InfoNCE(temperature)


def rows_of(values: torch.Tensor, sizes: Sequence[int], padding: float) -> torch.Tensor:
    """Groups as the rows of a float32 matrix of shape (groups, largest size), padded at the end.

    Raises:
        ValueError: If the sizes do not add up or a group holds a single passage.
    """
    from torch.nn.utils.rnn import pad_sequence

    if sum(sizes) != values.numel() or min(sizes, default=0) < 2:
        raise ValueError(f"Groups of sizes {list(sizes)} (each at least 2) do not fit {values.numel()} values.")
    return pad_sequence(list(values.view(-1).float().split(list(sizes))), batch_first=True, padding_value=padding)
