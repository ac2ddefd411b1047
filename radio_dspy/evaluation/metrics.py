"""Answer metrics (FlashRAG's) and ranking metrics (trec_eval's, through ir-measures)."""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from radio_dspy.core.errors import DataError
from radio_dspy.core.rankings import first_repeated
from radio_dspy.core.text import folded
from radio_dspy.datasets.options import option_letters
from radio_dspy.evaluation.measures import measure_of
from radio_dspy.evaluation.mmlu import CATEGORIES, category_of

AnswerMetric = Callable[[str, Sequence[str]], float]
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
# FlashRAG gives no partial credit against these (evaluator/metrics.py, F1_Score).
_CLOSED_ANSWERS = frozenset({"yes", "no", "noanswer"})


def normalize_answer(text: str) -> str:
    """Lower-case, drop ASCII punctuation and English articles, and fold white space (SQuAD's normalisation).

    Letters that Unicode writes in two ways, composed or not, are the same.
    """
    composed = unicodedata.normalize("NFC", text)
    return " ".join(_ARTICLES.sub(" ", composed.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """1.0 if the normalised prediction equals one of the answers, else 0.0.

    Args:
        prediction: The program's answer.
        answers: Accepted answers; a lone string counts as one answer.

    Example:
        >>> exact_match("The Bart Millard.", ["bart millard"])
        1.0
    """
    guess = normalize_answer(prediction)
    return float(any(guess == normalize_answer(answer) for answer in _as_list(answers)))


def sub_exact_match(prediction: str, answers: Sequence[str]) -> float:
    """1.0 if one of the normalised answers occurs inside the normalised prediction (FlashRAG's ``acc``)."""
    guess = normalize_answer(prediction)
    return float(any(normalize_answer(answer) in guess for answer in _as_list(answers)))


def token_f1(prediction: str, answers: Sequence[str]) -> float:
    """The best token F1 of the normalised prediction against any of the answers, in [0, 1].

    A yes, no or noanswer on either side scores 0 unless both sides are equal, as in FlashRAG and HotpotQA.
    """
    return max(
        (_pair_f1(normalize_answer(prediction), normalize_answer(one)) for one in _as_list(answers)), default=0.0
    )


def _pair_f1(guess: str, gold: str) -> float:
    if guess != gold and (guess in _CLOSED_ANSWERS or gold in _CLOSED_ANSWERS):
        return 0.0
    guess_tokens, gold_tokens = guess.split(), gold.split()
    common = sum((Counter(guess_tokens) & Counter(gold_tokens)).values())
    if not common:
        return 0.0
    precision, recall = common / len(guess_tokens), common / len(gold_tokens)
    return 2 * precision * recall / (precision + recall)


def accuracy(prediction: str, answers: Sequence[str]) -> float:
    """1.0 if the predicted letter is the right one, case and white space folded, else 0.0 (MMLU's measure).

    An empty prediction, which is what ``MultipleChoice`` gives for an unreadable reply, is wrong.

    Example:
        >>> accuracy(" b", ["B"]), accuracy("", ["B"])
        (1.0, 0.0)
    """
    guess = _fold(prediction)
    return float(bool(guess) and any(guess == _fold(answer) for answer in _as_list(answers)))


def accuracy_by_category(subjects: Sequence[str], correct: Sequence[float]) -> dict[str, float]:
    """Accuracy in each of MMLU's four categories, every question counted once.

    Args:
        subjects: For each question its subject, for example ``abstract_algebra``.
        correct: For each question 1 or 0 (or True or False); aligned with ``subjects``.

    Returns:
        ``STEM``, ``humanities``, ``social sciences`` and ``other``, as far as there are questions of it, then ``all``.

    Raises:
        DataError: If the two lists differ in length or a subject is unknown.

    Example:
        >>> accuracy_by_category(["astronomy", "anatomy", "virology"], [1, 0, 1])
        {'STEM': 1.0, 'other': 0.5, 'all': 0.6666666666666666}
    """
    if len(subjects) != len(correct):
        raise DataError(f"{len(subjects)} subjects but {len(correct)} results.")
    results: dict[str, list[float]] = {category: [] for category in CATEGORIES}
    for subject, result in zip(subjects, correct, strict=True):
        results[category_of(subject)].append(float(result))
    found = {category: values for category, values in results.items() if values}
    return mean_metrics({**found, "all": [float(result) for result in correct]})


def dspy_metric(metric: AnswerMetric) -> Callable[..., float]:
    """Turn an answer metric into one that ``dspy.Evaluate`` and every DSPy optimizer, GEPA included, can call.

    The result reads ``example.answers`` (or ``example.answer``) and ``prediction.answer``; ``accuracy`` also takes the
    number or the text of one of ``example.choices`` for its letter.

    Example:
        >>> import dspy
        >>> metric = dspy_metric(exact_match)
        >>> metric(dspy.Example(question="q", answers=["Rome"]), dspy.Prediction(answer="rome"))
        1.0
    """

    def scored(gold: Any, pred: Any, trace: Any = None, pred_name: str | None = None, pred_trace: Any = None) -> float:
        answers = gold.get("answers") or gold.get("golden_answers") or gold.get("answer") or []
        if metric is accuracy and gold.get("choices"):
            answers = option_letters(_as_list(answers), gold["choices"])
        return metric(str(pred.answer or ""), answers)

    scored.__name__ = getattr(metric, "__name__", "metric")
    return scored


def ndcg_at(ranked: Sequence[str], relevant: Iterable[str], k: int = 10) -> float:
    """NDCG at ``k`` with binary relevance and log2 discount, as trec_eval computes it.

    Args:
        ranked: Passage ids, best first.
        relevant: Ids of the relevant passages, whether or not they were retrieved.
        k: Cut-off, at least 1.

    Returns:
        A value in [0, 1]; 0 where nothing is relevant.

    Example:
        >>> round(ndcg_at(["b", "a", "c"], {"a"}, k=10), 4)
        0.6309
    """
    return ranking_metrics([ranked], [relevant], (f"ndcg@{k}",))[f"ndcg@{k}"][0]


def recall_at(ranked: Sequence[str], relevant: Iterable[str], k: int = 10) -> float:
    """The part of the relevant passages that is among the first ``k``; arguments as for ``ndcg_at``."""
    return ranking_metrics([ranked], [relevant], (f"recall@{k}",))[f"recall@{k}"][0]


def mrr(ranked: Sequence[str], relevant: Iterable[str]) -> float:
    """One over the rank of the first relevant passage (counted from 1), 0 if none was ranked."""
    return ranking_metrics([ranked], [relevant], ("mrr",))["mrr"][0]


def ranking_metrics(
    rankings: Sequence[Sequence[str]],
    relevant: Sequence[Iterable[str] | Mapping[str, int]],
    metrics: Sequence[str] = ("ndcg@10", "recall@5", "mrr"),
) -> dict[str, list[float]]:
    """Score many rankings at once.

    Args:
        rankings: For each question, passage ids, best first.
        relevant: For each question, ids of its relevant passages, or their gains by id (whole numbers, linear in nDCG
            as in trec_eval); aligned with ``rankings``.
        metrics: Names such as ``ndcg@10``, ``recall@5``, ``mrr``, or any of ir-measures': ``RR@10``, ``P(rel=2)@5``.

    Returns:
        For each metric, one value for each question, in their order.

    Raises:
        ValueError: If the two lists differ in length, or an id is ranked twice.
        SettingsError: If a metric is unknown.
    """
    import ir_measures

    if len(rankings) != len(relevant):
        raise ValueError(f"{len(rankings)} rankings but {len(relevant)} sets of relevant ids.")
    for ids in rankings:
        if len(set(ids)) != len(ids):
            raise ValueError(f"A ranking holds an id twice: {first_repeated(ids)!r}.")
    names_of: dict[Any, list[str]] = {}  # a measure may be asked for by two names
    for name in metrics:
        names_of.setdefault(measure_of(name), []).append(name)
    # trec_eval ends an id at a NUL: it is given numbers in place of ids.
    numbers: dict[str, str] = {}
    qrels = [
        ir_measures.Qrel(str(q), numbers.setdefault(one, str(len(numbers))), gain)
        for q, ids in enumerate(relevant)
        for one, gain in (ids.items() if isinstance(ids, Mapping) else ((one, 1) for one in ids))
    ]
    # trec_eval breaks ties by id: the rank itself is given as the score.
    run = [
        ir_measures.ScoredDoc(str(q), numbers.setdefault(one, str(len(numbers))), float(-rank))
        for q, ids in enumerate(rankings)
        for rank, one in enumerate(ids)
    ]
    values = {name: [0.0] * len(rankings) for name in metrics}
    for result in ir_measures.iter_calc(list(names_of), qrels, run) if qrels and run else ():
        for name in names_of[result.measure]:
            values[name][int(result.query_id)] = float(result.value)
    return values


def mean_metrics(values: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """The mean of each metric over the questions."""
    return {name: sum(scores) / len(scores) if scores else 0.0 for name, scores in values.items()}


def _fold(letter: str) -> str:
    return " ".join(folded(letter).split())


def _as_list(answers: Sequence[str] | str) -> Sequence[str]:
    return [answers] if isinstance(answers, str) else answers
