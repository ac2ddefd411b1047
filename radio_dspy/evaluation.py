"""Judging rankings and answers on held-out questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import dspy
from dspy.utils.exceptions import AdapterParseError

from radio_dspy.datasets import answers_of
from radio_dspy.metrics import (
    exact_match,
    mean_metrics,
    normalize_answer,
    ranking_metrics,
    sub_exact_match,
    token_f1,
)
from radio_dspy.passages import Passage, Ranking, RankRequest

METRICS = ("ndcg@10", "recall@5", "mrr")
_ANSWER_METRICS = {"exact_match": exact_match, "sub_exact_match": sub_exact_match, "token_f1": token_f1}


@dataclass(frozen=True, slots=True)
class Judgement:
    """Which questions can be judged, and what counts as relevant for each.

    Attributes:
        source: ``"labels"``: passages labelled as needed; ``"answers"``: candidates that contain a gold answer, where
            no question has labels.
        relevant: For each question its relevant ids, None where it cannot be judged.
    """

    source: Literal["labels", "answers"]
    relevant: tuple[frozenset[str] | None, ...]

    @property
    def judged(self) -> int:
        """How many questions can be judged."""
        return sum(ids is not None for ids in self.relevant)


def judge(requests: Sequence[RankRequest]) -> Judgement:
    """Decide what is relevant: the labels where there are any, else the candidates that contain an answer."""
    if any(request.relevant for request in requests):
        return Judgement("labels", tuple(request.relevant or None for request in requests))
    return Judgement("answers", tuple(_containing(request) if request.answers else None for request in requests))


def contains_answer(passage: Passage, answers: Sequence[str]) -> bool:
    """Whether a normalised answer occurs in the normalised passage as whole words."""
    text = f" {normalize_answer(passage.contents)} "
    return any(f" {normalize_answer(answer)} " in text for answer in answers if normalize_answer(answer))


def compare(
    rows: Mapping[str, Sequence[Ranking]], requests: Sequence[RankRequest], metrics: Sequence[str] = METRICS
) -> dict[str, dict[str, float]]:
    """Score several rankings of the same candidates.

    Args:
        rows: For each row (a reranker) one ranking a question, aligned with ``requests``.
        requests: The questions.
        metrics: Names as for ``radio_dspy.metrics.ranking_metrics``.

    Returns:
        For each row the mean of each metric over the questions that can be judged.
    """
    per_question = compare_each(rows, requests, metrics)
    return {row: mean_metrics(values) for row, values in per_question.items()}


def compare_each(
    rows: Mapping[str, Sequence[Ranking]], requests: Sequence[RankRequest], metrics: Sequence[str] = METRICS
) -> dict[str, dict[str, list[float]]]:
    """As ``compare``, with the value of every judged question in place of the mean."""
    verdict = judge(requests)
    kept = [(i, ids) for i, ids in enumerate(verdict.relevant) if ids is not None]
    return {
        row: ranking_metrics([rankings[i].ids for i, _ in kept], [ids for _, ids in kept], metrics)
        for row, rankings in rows.items()
    }


def answer_metrics(
    program: dspy.Module, examples: Sequence[dspy.Example], lm: dspy.LM, *, show_progress: bool = True
) -> dict[str, float]:
    """Answer every question that has gold answers and score the answers.

    Returns:
        The means of ``exact_match``, ``sub_exact_match`` and ``token_f1``, each in [0, 1].
    """
    from tqdm.auto import tqdm

    answered = [example for example in examples if answers_of(example)]
    totals = dict.fromkeys(_ANSWER_METRICS, 0.0)
    with dspy.context(lm=lm, trace=None, disable_history=True):
        for example in tqdm(answered, desc="answers", unit="question", disable=not show_progress):
            try:
                answer = str(program(question=example.question).answer or "")
            except AdapterParseError:  # a reply that cannot be read as an answer is a wrong answer
                answer = ""
            for name, metric in _ANSWER_METRICS.items():
                totals[name] += metric(answer, answers_of(example))
    return {name: total / max(1, len(answered)) for name, total in totals.items()}


def _containing(request: RankRequest) -> frozenset[str]:
    return frozenset(passage.id for passage in request.candidates if contains_answer(passage, request.answers))
