"""Use precomputed preference groups for training and for judging."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import dspy

from radio_dspy.core.passages import Passage
from radio_dspy.core.rankings import RankRequest
from radio_dspy.core.text import same_words
from radio_dspy.distillation.preferences.groups import PreferenceGroup


def groups_of(
    examples: Sequence[dspy.Example], negatives: int | None, seed: int
) -> tuple[list[PreferenceGroup], dict[str, int], dict[str, int]]:
    """Make a preference group for each positive, against the negatives of its line.

    Args:
        examples: As ``load_groups`` returns them.
        negatives: How many negatives are drawn for a positive; None takes all.
        seed: Decides which.

    Returns:
        The groups; how many negatives were left out, by reason; how many examples gave no group, by reason.
    """
    left_out: Counter[str] = Counter()
    skipped: Counter[str] = Counter()
    groups = []
    for number, example in enumerate(examples):
        positives, others, reasons = _distinct(example)
        left_out.update(reasons)
        if not positives or not others:
            skipped["without a negative" if positives else "without a positive"] += 1
        for place, (positive, score) in enumerate(positives.items() if others else ()):
            drawn = list(others)
            if negatives is not None and negatives < len(drawn):
                drawn = random.Random(f"{seed}-{number}-{place}").sample(drawn, negatives)
            scores = () if score is None else (score, *(others[text] for text in drawn))
            groups.append(PreferenceGroup(example.question, positive, tuple(drawn), scores))
    return groups, dict(+left_out), dict(skipped)


def rank_requests_of(examples: Sequence[dspy.Example]) -> list[RankRequest]:
    """Groups as questions to judge by: every passage of a line is a candidate, its positives are the relevant ones.

    The positives come last: a reranker that cannot tell passages apart keeps the order, and that must not flatter it.
    """
    requests = []
    for number, example in enumerate(examples):
        positives, others, _ = _distinct(example)
        passages = [Passage(f"neg-{i}", text) for i, text in enumerate(others)]
        passages += [Passage(f"pos-{i}", text) for i, text in enumerate(positives)]
        if positives and others:
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


def _distinct(example: dspy.Example) -> tuple[dict[str, Any], dict[str, Any], Counter[str]]:
    """The positives and the other passages of a group, each text once, with its score or None; why others are left out.

    The question itself is neither, and no passage with a positive's words is a negative.
    """
    positives = dict(zip(example.pos, example.get("pos_scores") or [None] * len(example.pos), strict=True))
    negatives = dict(zip(example.neg, example.get("neg_scores") or [None] * len(example.neg), strict=True))
    reasons: Counter[str] = Counter()

    def kept(texts: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
        found = {}
        for text, score in texts.items():
            if same_words(text, example.question):
                reasons["the question itself"] += 1
            elif text in others or any(same_words(text, other) for other in others):
                reasons["repeats a positive"] += 1
            else:
                found[text] = score
        return found

    return kept(positives, {}), kept(negatives, positives), reasons
