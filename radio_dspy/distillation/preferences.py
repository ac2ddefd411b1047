"""From questions to training groups: retrieval, signals, fusion and sampling, joined by id."""

from __future__ import annotations

import hashlib
import math
import random
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dspy

from radio_dspy.datasets import answer_texts, relevant_of
from radio_dspy.distillation.fusion import fused_ranking
from radio_dspy.distillation.groups import DEPTH, PreferenceGroup, Sampling, SamplingFunction, preference_groups
from radio_dspy.distillation.guards import NO_GUARD, FalseNegatives, telling, without_false_negatives
from radio_dspy.distillation.signals import Signal, score_all
from radio_dspy.errors import DataError, SettingsError
from radio_dspy.passages import Passage, Ranking, RankRequest, best_first, checked_text, contains_answer, plain_text
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
    questions = distinct_questions(examples)
    texts = [example.question for example in questions.values()]
    rankings: list[Ranking] = []
    for start in range(0, len(texts), _SEARCH_BATCH):
        rankings += retriever.search(texts[start : start + _SEARCH_BATCH], candidates)
    return [
        RankRequest(
            id=key,
            query=ranking.query,
            candidates=ranking.passages,
            scores=array("d", ranking.scores),  # a tuple of so many floats takes four times as much
            answers=answer_texts(example),
            relevant=relevant_of(example),
        )
        for (key, example), ranking in zip(questions.items(), rankings, strict=True)
    ]


def distinct_questions(examples: Sequence[dspy.Example]) -> dict[str, dspy.Example]:
    """Each question once, by its id.

    Raises:
        DataError: For what is no example, one without a question, an id that two different questions share, and a
            text that cannot be written.
    """
    questions: dict[str, dspy.Example] = {}
    for position, example in enumerate(examples):
        if not isinstance(example, dspy.Example):
            raise DataError(
                f"Example {position} is a {type(example).__name__}; give dspy.Example objects, such as "
                "radio_dspy.load_questions makes of rows with 'question' and 'answers'."
            )
        text = example.get("question")
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"Example {position} has no 'question' (it has {sorted(example.keys())}).")
        key = checked_text(question_id(example), f"Example {position}, id")
        checked_text(text, f"Question {key!r}")
        if key in questions and questions[key].question != text:
            raise DataError(f"Two questions share the id {key!r}: {questions[key].question!r:.60} and {text!r:.60}.")
        questions.setdefault(key, example)
    return questions


def question_id(example: dspy.Example) -> str:
    """A question's id; one without gets one made from its text.

    Raises:
        DataError: If it is a number that is none, such as NaN, or true or false.
    """
    text = str(example.get("question") or "")
    key = example.get("id")
    if key is None or key == "":
        return f"q-{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:12]}"
    return plain_text(key, f"Question {text!r:.60}, id") if isinstance(key, int | float) else str(key)


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
        scores: The teacher's scores of the positive and of each negative.
        random: Further negatives from anywhere in the corpus; they score 0, like the last candidate.
        checked: Whether in-batch negatives are checked for the answer, too.
    """

    request: RankRequest
    group: PreferenceGroup
    scores: tuple[float, ...]
    random: tuple[Passage, ...] = ()
    checked: bool = True

    def as_dict(self) -> dict[str, Any]:
        """The record as JSON types."""
        return {
            "id": self.request.id,
            "query": self.request.query,
            "positive": self.group.positive,
            "negatives": list(self.group.negatives),
            "random": [passage.id for passage in self.random],
            "scores": [round(score, 6) for score in self._all_scores()],
        }

    def texts(self) -> TextGroup:
        """The group with its texts, ready to train on."""
        from radio_dspy.distillation.training import TextGroup

        contents = {passage.id: passage.contents for passage in self.request.candidates}
        negatives = tuple(contents[one] for one in self.group.negatives)
        return TextGroup(
            self.request.query,
            contents[self.group.positive],
            (*negatives, *(passage.contents for passage in self.random)),
            self._all_scores(),
            tuple(telling(self.request.answers)) if self.checked else (),
        )

    def _all_scores(self) -> tuple[float, ...]:
        return self.scores + (0.0,) * len(self.random)


@dataclass(frozen=True)
class GroupSettings:
    """How preference groups are made of the fused lists.

    Attributes:
        sampling: As for ``preference_groups``.
        depth: As for ``preference_groups``.
        hard_negatives: As for ``preference_groups``.
        random_negatives: Passages drawn from the whole corpus for each group; 0 is the paper's.
        guard: Which negatives are left out.
        confident_share: Which part of the questions is kept: those whose first passage stands highest above the second
            in the fused list, where the teacher is most often right; 1 keeps all, as the paper does.
        seed: Decides the random negatives.
    """

    sampling: Sampling | SamplingFunction = "shift"
    depth: int = DEPTH
    hard_negatives: tuple[int, int] | None = None
    random_negatives: int = 0
    guard: FalseNegatives = NO_GUARD
    confident_share: float = 1.0
    seed: int = 42

    def __post_init__(self) -> None:
        preference_groups([], self.sampling, self.depth, hard_negatives=self.hard_negatives)  # raises for bad ones
        if self.random_negatives < 0:
            raise SettingsError(f"random_negatives must be at least 0, got {self.random_negatives}.")
        if not 0 < self.confident_share <= 1:
            raise SettingsError(f"confident_share must lie above 0 and up to 1, got {self.confident_share}.")


def fused_rankings(requests: Sequence[RankRequest], signals: Mapping[Signal, float]) -> list[Ranking]:
    """Score and fuse: the teacher's ranking of every question's candidates.

    Raises:
        DataError: If a signal gives a score that is not a finite number; question and passage are named.
    """
    return list(each_fused_ranking(requests, signals))


def each_fused_ranking(requests: Sequence[RankRequest], signals: Mapping[Signal, float]) -> Iterator[Ranking]:
    """As ``fused_rankings``, one after the other: of many questions they would take more memory than training does."""
    weights = {signal.name: weight for signal, weight in signals.items()}
    if len(weights) != len(signals):
        raise DataError(f"Signals must have different names, got {[signal.name for signal in signals]}.")
    for request, scores in zip(requests, score_all(list(signals), requests), strict=True):
        yield fused_ranking(request, scores, weights)


def build_groups(
    requests: Sequence[RankRequest],
    rankings: Iterable[Ranking],
    settings: GroupSettings | None = None,
    *,
    corpus: Sequence[Passage] = (),
) -> tuple[list[QuestionGroup], dict[str, int]]:
    """Sample the preference groups of every question, in the questions' order.

    Args:
        requests: Questions with their candidates.
        rankings: The teacher's ranking of each, of which only one is held; see ``each_fused_ranking``.
        settings: How groups are made; None is the paper's way.
        corpus: Where random negatives come from.

    Returns:
        The groups, and what was left out, by reason: negatives by the guard, groups of which nothing stayed, and
        questions on which the teacher is unsure.

    Raises:
        SettingsError: If random negatives are asked for and there is no corpus to draw from.
    """
    settings = settings or GroupSettings()
    if settings.random_negatives and not corpus:
        raise SettingsError("random_negatives needs a corpus: give RADIO(retriever=...) one that has `passages`.")
    made = []
    gaps = []
    for request, ranking in zip(requests, rankings, strict=True):
        made.append(_groups_of(request, ranking, settings, corpus))
        gaps.append(ranking.scores[0] - ranking.scores[1] if len(ranking) > 1 else 0.0)
    kept = math.ceil(settings.confident_share * len(gaps))
    confident = sorted(best_first(gaps)[:kept])  # ties go to the earlier question
    left_out = Counter({"unsure question": len(gaps) - len(confident)})
    for position in confident:
        left_out.update(made[position][1])
    return [group for position in confident for group in made[position][0]], dict(+left_out)


def _groups_of(
    request: RankRequest, ranking: Ranking, settings: GroupSettings, corpus: Sequence[Passage]
) -> tuple[list[QuestionGroup], Counter[str]]:
    """The groups of one question, and what was left out."""
    left_out: Counter[str] = Counter()
    fused = dict(zip(ranking.ids, ranking.scores, strict=True))
    sampled = preference_groups(ranking, settings.sampling, settings.depth, hard_negatives=settings.hard_negatives)
    sampled = without_false_negatives(request, sampled, fused, settings.guard, left_out)
    groups = []
    for number, group in enumerate(sampled):
        drawn = _draw(request, corpus, settings, number, left_out) if settings.random_negatives else ()
        scores = tuple(fused[one] for one in (group.positive, *group.negatives))
        groups.append(QuestionGroup(request, group, scores, drawn, settings.guard.with_answer))
    return groups, left_out


def _draw(
    request: RankRequest, corpus: Sequence[Passage], settings: GroupSettings, number: int, left_out: Counter[str]
) -> tuple[Passage, ...]:
    """Random negatives: not among the candidates, and without an answer where the guard looks."""
    known = {passage.id for passage in request.candidates}
    drawn = random.Random(f"{settings.seed}-{request.id}-{number}").sample(
        corpus, min(len(corpus), settings.random_negatives)
    )
    kept = [passage for passage in drawn if passage.id not in known]
    if settings.guard.with_answer:
        clean = [passage for passage in kept if not contains_answer(passage, telling(request.answers))]
        left_out["contains an answer"] += len(kept) - len(clean)
        kept = clean
    return tuple(kept)
