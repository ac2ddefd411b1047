"""Mixing and averaging checkpoints, weight by weight."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from radio_dspy.models.weights import RerankerWeights


def average_weights(parts: Sequence[RerankerWeights], output: Path) -> None:
    """Write the mean of several checkpoints: a uniform model soup (arXiv 2203.05482).

    They must come from the same base, or their mean is no model.

    Args:
        parts: At least one.
        output: The checkpoint folder to write.
    """
    _sum_weights([(one, 1 / len(parts)) for one in parts], output)


def mix_weights(base: RerankerWeights, trained: RerankerWeights, share: float, output: Path) -> None:
    """Write the checkpoint ``(1 - share) * base + share * trained`` (WiSE-FT, arXiv 2109.01903)."""
    _sum_weights([(base, 1 - share), (trained, share)], output)


def _sum_weights(parts: Sequence[tuple[RerankerWeights, float]], output: Path) -> None:
    """Write the weighted sum; what are no weights, such as position ids, is the first one's."""
    import torch

    from radio_dspy.models.cache import open_scorer

    (first, share), *others = parts
    scorer = open_scorer(first)
    mean = {name: one for name, one in scorer.module.state_dict().items() if one.is_floating_point()}
    with torch.no_grad():
        sums = {name: one.float() * share for name, one in mean.items()}
        for other, part in others:
            state = open_scorer(other).module.state_dict()
            for name, value in sums.items():
                value.add_(state[name].float(), alpha=part)
        for name, one in mean.items():
            one.copy_(sums[name])
    scorer.save(output)
