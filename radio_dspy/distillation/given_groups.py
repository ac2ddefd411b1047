"""Groups that are there already: what to train on, and questions to judge by."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import dspy

from radio_dspy.passages import Passage, RankRequest

if TYPE_CHECKING:
    from radio_dspy.distillation.training import TextGroup


def text_groups(
    examples: Sequence[dspy.Example], negatives: int | None, seed: int
) -> tuple[list[TextGroup], dict[str, int], dict[str, int]]:
    """What ``train_reranker`` learns from: a group for each positive, against the negatives of its line.

    Args:
        examples: As ``load_groups`` returns them.
        negatives: How many negatives are drawn for a positive; None takes all.
        seed: Decides which.

    Returns:
        The groups; how many negatives were left out, by reason; how many examples gave no group, by reason.
    """
    from radio_dspy.distillation.training import TextGroup

    left_out: Counter[str] = Counter()
    skipped: Counter[str] = Counter()
    groups = []
    for number, example in enumerate(examples):
        positives, others = _distinct(example)
        left_out["repeats a positive"] += sum(text in positives for text in dict.fromkeys(example.neg))
        if not others:
            skipped["without a negative"] += 1
        for place, (positive, score) in enumerate(positives.items() if others else ()):
            drawn = list(others)
            if negatives is not None and negatives < len(drawn):
                drawn = random.Random(f"{seed}-{number}-{place}").sample(drawn, negatives)
            scores = () if score is None else (score, *(others[text] for text in drawn))
            groups.append(TextGroup(example.question, positive, tuple(drawn), scores))
    return groups, dict(+left_out), dict(skipped)


def rank_requests_of(examples: Sequence[dspy.Example]) -> list[RankRequest]:
    """Groups as questions to judge by: every passage of a line is a candidate, its positives are the relevant ones.

    The positives come last: a reranker that cannot tell passages apart keeps the order, and that must not flatter it.
    """
    requests = []
    for number, example in enumerate(examples):
        positives, others = _distinct(example)
        passages = [Passage(f"neg-{i}", text) for i, text in enumerate(others)]
        passages += [Passage(f"pos-{i}", text) for i, text in enumerate(positives)]
        if others:
            requests.append(
                RankRequest(
                    id=f"{number}",
                    query=example.question,
                    candidates=tuple(passages),
                    scores=(0.0,) * len(passages),
                    relevant=frozenset(f"pos-{i}" for i in range(len(positives))),
                )
            )
    return requests


def _distinct(example: dspy.Example) -> tuple[dict[str, Any], dict[str, Any]]:
    """The positives and the other passages of a group, each text once, with its score or None."""
    positives = dict(zip(example.pos, example.get("pos_scores") or [None] * len(example.pos), strict=True))
    negatives = dict(zip(example.neg, example.get("neg_scores") or [None] * len(example.neg), strict=True))
    return positives, {text: score for text, score in negatives.items() if text not in positives}
