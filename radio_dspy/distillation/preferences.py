"""From questions to training groups: retrieval, signals, fusion and sampling, joined by id."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dspy

from radio_dspy.datasets import answers_of
from radio_dspy.distillation.fusion import fused_ranking
from radio_dspy.distillation.groups import DEPTH, PreferenceGroup, Sampling, SamplingFunction, preference_groups
from radio_dspy.distillation.signals import Signal, score_all
from radio_dspy.errors import DataError
from radio_dspy.passages import Ranking, RankRequest
from radio_dspy.retrievers.base import Retriever

if TYPE_CHECKING:
    from radio_dspy.distillation.training import TextGroup

_SEARCH_BATCH = 256


def rank_requests(examples: Sequence[dspy.Example], retriever: Retriever, candidates: int) -> list[RankRequest]:
    """Retrieve the candidates of every question.

    Args:
        examples: Questions; ``id``, ``answers`` (or ``answer``) and ``relevant`` are taken along where they are there.
            A question without an id gets one made from its text.
        retriever: The first stage.
        candidates: How many passages to retrieve.

    Raises:
        DataError: For an example without a question, and for an id that two different questions share.
    """
    questions: dict[str, dspy.Example] = {}
    for position, example in enumerate(examples):
        text = example.get("question")
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"Example {position} has no 'question' (it has {sorted(example.keys())}).")
        key = str(example.get("id") or f"q-{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:12]}")
        if key in questions and questions[key].question != text:
            raise DataError(f"Two questions share the id {key!r}: {questions[key].question!r:.60} and {text!r:.60}.")
        questions.setdefault(key, example)
    texts = [example.question for example in questions.values()]
    rankings: list[Ranking] = []
    for start in range(0, len(texts), _SEARCH_BATCH):
        rankings += retriever.search(texts[start : start + _SEARCH_BATCH], candidates)
    return [
        RankRequest(
            id=key,
            query=ranking.query,
            candidates=ranking.passages,
            scores=ranking.scores,
            answers=answers_of(example),
            relevant=frozenset(map(str, example.get("relevant") or ())),
        )
        for (key, example), ranking in zip(questions.items(), rankings, strict=True)
    ]


def usable(requests: Sequence[RankRequest]) -> tuple[list[RankRequest], dict[str, int]]:
    """The questions that can be learnt from, and how many cannot, by reason."""
    skipped: Counter[str] = Counter()
    kept = []
    for request in requests:
        if not request.answers:
            skipped["without an answer"] += 1
        elif len(request.candidates) < 2:
            skipped["with fewer than two candidates"] += 1
        else:
            kept.append(request)
    return kept, dict(skipped)


@dataclass(frozen=True, slots=True)
class QuestionGroup:
    """A preference group with its question, as it is kept in ``groups.jsonl``.

    Attributes:
        request: The question and its candidates.
        group: The preference, by passage id.
    """

    request: RankRequest
    group: PreferenceGroup

    def as_dict(self) -> dict[str, Any]:
        """The record as JSON types."""
        return {
            "id": self.request.id,
            "query": self.request.query,
            "positive": self.group.positive,
            "negatives": list(self.group.negatives),
        }

    def texts(self) -> TextGroup:
        """The group with its texts, ready to train on."""
        from radio_dspy.distillation.training import TextGroup

        contents = {passage.id: passage.contents for passage in self.request.candidates}
        negatives = tuple(contents[one] for one in self.group.negatives)
        return TextGroup(self.request.query, contents[self.group.positive], negatives)


def build_groups(
    requests: Sequence[RankRequest],
    signals: Mapping[Signal, float],
    *,
    sampling: Sampling | SamplingFunction = "shift",
    depth: int = DEPTH,
) -> list[QuestionGroup]:
    """Score, fuse and sample: the preference groups of every question, in the questions' order.

    Args:
        requests: Questions with their candidates.
        signals: Each signal with its weight.
        sampling: As for ``preference_groups``.
        depth: As for ``preference_groups``.

    Raises:
        DataError: If a signal gives a score that is not a finite number; question and passage are named.
    """
    weights = {signal.name: weight for signal, weight in signals.items()}
    if len(weights) != len(signals):
        raise DataError(f"Signals must have different names, got {[signal.name for signal in signals]}.")
    return [
        QuestionGroup(request, group)
        for request, scores in zip(requests, score_all(list(signals), requests), strict=True)
        for group in preference_groups(fused_ranking(request, scores, weights), sampling, depth)
    ]
