"""sentence-transformers' ranking losses, applied to logits that our models have computed."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from sentence_transformers import CrossEncoder
from sentence_transformers.cross_encoder import losses
from torch import nn

from radio_dspy.core.errors import SettingsError
from radio_dspy.distillation.loss import needed

_LISTS = (losses.LambdaLoss, losses.ListNetLoss, losses.PListMLELoss, losses.ADRMSELoss)
_KINDS: dict[str, Any] = {
    "lambda": losses.LambdaLoss,
    "ranknet": losses.RankNetLoss,
    "adr-mse": losses.ADRMSELoss,
    "margin-mse": losses.MarginMSELoss,
    "listnet": losses.ListNetLoss,
    "plistmle": losses.PListMLELoss,
}


class _Given(CrossEncoder):
    """Stands in for the model of a loss: "reads" a passage, which is a row's number, by looking its logit up."""

    num_labels = 1

    def __init__(self) -> None:
        nn.Module.__init__(self)  # there is nothing to load
        self.logits = torch.zeros(0)

    @property
    def device(self) -> torch.device:
        return self.logits.device

    def preprocess(self, inputs: Any, prompt: str | None = None, **_: Any) -> dict[str, torch.Tensor]:
        return {"rows": torch.tensor([row for _, row in inputs])}

    def forward(self, input: dict[str, torch.Tensor], **_: Any) -> dict[str, torch.Tensor]:  # noqa: A002  # as there
        return {"scores": self.logits.index_select(0, input["rows"].to(self.logits.device))}


class RankingLoss(nn.Module):
    """A loss of sentence-transformers' cross-encoders as a ``Loss``: for every architecture, by the fused scores.

    Args:
        loss: A name of ``_KINDS``, or such an object; its model is not asked.
        temperature: The logits are divided by it.

    Raises:
        SettingsError: For a loss that does not rank by scores.

    Example:
        >>> loss = RankingLoss("ranknet")
        >>> wrong, right = (loss(torch.tensor(one), [2], torch.tensor([1.0, 0.0])) for one in ([0.0, 2.0], [2.0, 0.0]))
        >>> bool(wrong > right)
        True
    """

    contrastive = False
    needs_scores = True

    def __init__(self, loss: Any, temperature: float = 1.0) -> None:
        super().__init__()
        model = _Given()
        if isinstance(loss, str):
            sorting = {"respect_input_order": False} if loss == "plistmle" else {}  # negatives come as they were drawn
            found = _KINDS[loss](model, **sorting)
        elif isinstance(loss, (*_LISTS, losses.MarginMSELoss)):
            found = copy.copy(loss)
            found._modules = {**loss._modules, "model": model}
        else:
            raise SettingsError(
                f"loss: {type(loss).__name__} does not rank a list of passages by scores; give one of "
                f"{[one.__name__ for one in _KINDS.values()]}."
            )
        self.temperature = temperature
        self.about = [type(found).__name__, found.get_config_dict()]
        self._parts = (found, model)

    def forward(self, logits: torch.Tensor, sizes: Sequence[int], scores: torch.Tensor | None = None) -> torch.Tensor:
        """Compute the loss; see ``Loss``.

        Raises:
            ValueError: If there are no teacher scores.
        """
        loss, model = self._parts
        scores = needed(scores, loss)
        model.logits = logits.view(-1).float() / self.temperature
        rows = list(torch.arange(len(model.logits)).split(list(sizes)))
        labels = list(scores.view(-1).float().split(list(sizes)))
        if isinstance(loss, _LISTS):
            return loss([list(range(len(sizes))), [one.tolist() for one in rows]], labels)
        # Pairs come as columns, which only groups of one size have.
        total = logits.new_zeros(())
        for size in sorted(set(sizes)):
            same = [place for place, one in enumerate(sizes) if one == size]
            columns = torch.stack([rows[place] for place in same]).T.tolist()
            total = total + loss([same, *columns], [labels[place] for place in same]) * len(same)
        return total / len(sizes)
