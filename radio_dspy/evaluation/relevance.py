"""Judging rankings and answers on held-out questions."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import dspy

from radio_dspy.core.errors import DataError
from radio_dspy.core.rankings import Ranking, RankRequest
from radio_dspy.core.redaction import cause_of, told
from radio_dspy.core.text import contains_answer, telling
from radio_dspy.datasets.examples import answers_of, letters_of
from radio_dspy.evaluation.measures import whole_gains
from radio_dspy.evaluation.metrics import (
    accuracy,
    accuracy_by_category,
    exact_match,
    mean_metrics,
    ranking_metrics,
    sub_exact_match,
    token_f1,
)
from radio_dspy.evaluation.mmlu import CATEGORY_OF, category_of
from radio_dspy.lm.budget import learning_secrets
from radio_dspy.lm.calls import lm_failure
from radio_dspy.lm.replies import what_came
from radio_dspy.lm.secrets import check_keys, lms_of
from radio_dspy.lm.waiting import bounded_waits

METRICS = ("ndcg@10", "recall@5", "mrr")
_ANSWER_METRICS = {"exact_match": exact_match, "sub_exact_match": sub_exact_match, "token_f1": token_f1}


@dataclass(frozen=True, slots=True)
class Judgement:
    """The questions that can be judged, and the relevant passages of each.

    Attributes:
        source: ``"labels"``: passages labelled as needed; ``"answers"``: candidates that contain a gold answer, where
            no question has labels.
        relevant: For each question its relevant ids, None where it cannot be judged.
        gains: For each question what its judged passages are worth; empty where all that are relevant are worth 1.
    """

    source: Literal["labels", "answers"]
    relevant: tuple[frozenset[str] | None, ...]
    gains: tuple[Mapping[str, int], ...] = ()

    @property
    def judged(self) -> int:
        """How many questions can be judged."""
        return sum(ids is not None for ids in self.relevant)


def judge(requests: Sequence[RankRequest]) -> Judgement:
    """Decide what is relevant: the labels where there are any, else the candidates that contain an answer."""
    if any(request.relevant for request in requests):
        gains = tuple(whole_gains(one.gains) for one in requests) if any(one.grades for one in requests) else ()
        # A question whose passages were all judged to be worth nothing counts as 0, as in trec_eval.
        return Judgement("labels", tuple(one.relevant if one.gains else None for one in requests), gains)
    return Judgement("answers", tuple(map(_containing, requests)))


def compare(
    rows: Mapping[str, Sequence[Ranking]], requests: Sequence[RankRequest], metrics: Sequence[str] = METRICS
) -> dict[str, dict[str, float]]:
    """Score several rankings of the same candidates.

    Args:
        rows: For each row (a reranker) one ranking a question, aligned with ``requests``.
        requests: The questions.
        metrics: Names as for ``radio_dspy.evaluation.metrics.ranking_metrics``; where labels have grades these are
            the gains.

    Returns:
        For each row the mean of each metric over the questions that can be judged.
    """
    per_question = compare_each(rows, requests, metrics)
    return {row: mean_metrics(values) for row, values in per_question.items()}


def compare_each(
    rows: Mapping[str, Sequence[Ranking]],
    requests: Sequence[RankRequest],
    metrics: Sequence[str] = METRICS,
    *,
    judgement: Judgement | None = None,
) -> dict[str, dict[str, list[float]]]:
    """As ``compare``, with the value of every judged question in place of the mean.

    Args:
        rows: As for ``compare``.
        requests: As for ``compare``.
        metrics: As for ``compare``.
        judgement: What ``judge`` says of the requests, where it was asked already.
    """
    verdict = judgement or judge(requests)
    gains: Sequence[Mapping[str, int] | frozenset[str] | None] = verdict.gains or verdict.relevant
    kept = [(i, gains[i] or ()) for i, ids in enumerate(verdict.relevant) if ids is not None]
    return {
        row: ranking_metrics([rankings[i].ids for i, _ in kept], [ids for _, ids in kept], metrics)
        for row, rankings in rows.items()
    }


def answer_metrics(
    program: dspy.Module, examples: Sequence[dspy.Example], lm: dspy.LM, *, show_progress: bool = True
) -> dict[str, float]:
    """Answer every question that has gold answers and score the answers.

    A program whose ``forward`` takes ``choices``, such as ``MultipleChoice``, is given each question's and is judged by
    the letter.

    Returns:
        The means of ``exact_match``, ``sub_exact_match`` and ``token_f1``, each in [0, 1]. For multiple choice
        ``accuracy``, and where every question's ``metadata`` has one of MMLU's subjects as ``subject`` also
        ``accuracy STEM`` and so on, as far as there are questions of the category.

    Raises:
        DataError: Before the LM is asked anything: if the program needs choices and a question has none, or if only
            some of the subjects are MMLU's.
    """
    answered = [example for example in examples if answers_of(example)]
    subjects = _mmlu_subjects(answered) if _takes_choices(program, answered) else []
    _, scores = answer_each(program, answered, lm, show_progress=show_progress)
    by_category = accuracy_by_category(subjects, scores["accuracy"]) if subjects else {}
    by_category.pop("all", None)
    return mean_metrics(scores) | {f"accuracy {category}": value for category, value in by_category.items()}


def answer_each(
    program: dspy.Module, examples: Sequence[dspy.Example], lm: dspy.LM, *, show_progress: bool = True
) -> tuple[list[str], dict[str, list[float]]]:
    """As ``answer_metrics``: the answers, and each metric's value for every question that has gold answers."""
    from tqdm.auto import tqdm

    answered = [example for example in examples if answers_of(example)]
    from radio_dspy.lm.calls import Refusals

    multiple = _takes_choices(program, answered)
    golds = [letters_of(example) if multiple else answers_of(example) for example in answered]
    answers: list[str] = []
    lms, refusals = list({id(one): one for one in (lm, *lms_of(program))}.values()), Refusals()

    def answer_of(example: dspy.Example) -> str:
        inputs = {name: example[name] for name in (("question", "choices") if multiple else ("question",))}
        try:
            given = program(**inputs)
            answer, came = str(given.answer or ""), str(given.get("unreadable") or "")
        except dspy.LMInvalidRequestError:
            raise
        except Exception as error:  # a reply that cannot be read as an answer is a wrong answer
            answer, came = "", what_came(error, *lms)
        if came:
            refusals.unreadable(came)
        else:
            refusals.answered()
        return answer

    check_keys(*lms)
    with learning_secrets(*lms), dspy.context(lm=lm, trace=None, disable_history=True), bounded_waits():
        for example in tqdm(answered, desc="answers", unit="question", disable=None if show_progress else True):
            try:
                answers.append(answer_of(example))
            except dspy.LMError as error:
                text = f"{lm.model} failed ({told(error, *lms)}) on question {example.get('id') or example.question!r}."
                raise lm_failure(text, error, lm) from cause_of(error, *lms)
    scores = {
        name: [metric(answer, gold) for answer, gold in zip(answers, golds, strict=True)]
        for name, metric in ({"accuracy": accuracy} if multiple else _ANSWER_METRICS).items()
    }
    return answers, scores


def _takes_choices(program: dspy.Module, examples: Sequence[dspy.Example]) -> bool:
    """Whether the program is to be called with ``choices``, which then every question must have."""
    if "choices" not in inspect.signature(type(program).forward).parameters:
        return False
    for example in examples:
        if not example.get("choices"):
            raise DataError(
                f"{type(program).__name__} answers multiple choice, but question "
                f"{example.get('id') or example.question!r} has no 'choices'."
            )
    return True


def _mmlu_subjects(examples: Sequence[dspy.Example]) -> list[str]:
    """Every question's subject; none where a question has no subject, or none of them is MMLU's."""
    metadata = [example.get("metadata") for example in examples]
    subjects = [str(one.get("subject") or "") if isinstance(one, Mapping) else "" for one in metadata]
    if not all(subjects) or not any(subject in CATEGORY_OF for subject in subjects):
        return []
    for subject in subjects:
        category_of(subject)
    return subjects


def _containing(request: RankRequest) -> frozenset[str] | None:
    answers = telling(request.answers, 1)  # "no" stands in passages about anything
    if not answers:
        return None
    return frozenset(passage.id for passage in request.candidates if contains_answer(passage, answers))
