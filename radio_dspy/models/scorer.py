"""The interface of the models behind rerankers, for scoring and for training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from radio_dspy.core.redaction import logger_of
from radio_dspy.models.computing import ScoringPrecision

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

    Scores = npt.NDArray[np.float32]

logger = logger_of(__name__)
T = TypeVar("T")
Pairs = Sequence[tuple[str, str]]
_SCORING_BATCH = 32
# In fewer bits a pass takes so little time that what surrounds it counts: fewer and larger ones, as far as memory goes.
_LOWERED_BATCH, _LOWERED_CHARACTERS = 256, 32_768
_TRAINING_CHUNK = 16


class Scorer(Protocol):
    """Scores (query, passage) pairs; higher is better."""

    def score(self, pairs: Pairs) -> Scores:
        """Scores for inference, float32 of shape (number of pairs,)."""

    def logits(self, pairs: Pairs) -> torch.Tensor:
        """Scores that gradients flow through, float32 of shape (number of pairs,)."""

    @property
    def module(self) -> torch.nn.Module:
        """The torch module that is trained."""

    def save(self, folder: Path) -> None:
        """Write a checkpoint that loads again (safetensors, tokenizer, settings)."""


def _batch_size(module: Any, longest: int, precision: ScoringPrecision) -> int:
    """Texts in a forward pass, the longest of which has so many characters."""
    if precision == "fp32" or not module._can_flatten_inputs():
        return _SCORING_BATCH
    return min(max(_SCORING_BATCH, _LOWERED_CHARACTERS // max(longest, 1)), _LOWERED_BATCH)


def _in_batches(
    module: Any, items: list[T], length: Callable[[T], int], forward: Callable[[list[T]], torch.Tensor]
) -> torch.Tensor:
    """Run all items at once where they are packed; else chunks of similar length, so that little padding is computed.

    The rows come back in the items' order.
    """
    import torch

    if module._can_flatten_inputs():
        return forward(items)
    return torch.stack(_chunked(module, items, length, lambda chunk: list(forward(chunk).unbind())))


def _chunked(
    module: Any, items: list[T], length: Callable[[T], int], forward: Callable[[list[T]], list[torch.Tensor]]
) -> list[torch.Tensor]:
    """As ``_in_batches``, for what has a tensor of its own shape for each item."""
    if module._can_flatten_inputs():
        return forward(items)
    order = sorted(range(len(items)), key=lambda place: length(items[place]))
    chunks = [order[start : start + _TRAINING_CHUNK] for start in range(0, len(order), _TRAINING_CHUNK)]
    found = [one for chunk in chunks for one in forward([items[place] for place in chunk])]
    return [found[place] for place in sorted(range(len(order)), key=order.__getitem__)]


def _rows(matrix: torch.Tensor, rows: list[int]) -> torch.Tensor:
    """Pick rows. Unlike ``matrix[rows]`` the gradient adds up in a fixed order, so that training repeats to the bit."""
    import torch

    return matrix.index_select(0, torch.tensor(rows, device=matrix.device))


def _on_device(features: dict[str, Any], module: Any) -> dict[str, Any]:
    from sentence_transformers.util import batch_to_device

    return batch_to_device(features, module.device)
