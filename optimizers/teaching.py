"""Turn questions into preference groups: rationales, the teacher's signals, sampling, and the gate's judge."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from radio_dspy.optimizers.asked import sent
from radio_dspy.optimizers.job import Job, Settings, explained, questions_of, searchable, stored_vectors
from radio_dspy.optimizers.pipeline import Lesson, NoGroupsError

from radio_dspy.core.errors import SettingsError
from radio_dspy.core.rankings import RankRequest
from radio_dspy.core.redaction import logger_of
from radio_dspy.core.validation import is_whole, shown
from radio_dspy.datasets.examples import relevant_of
from radio_dspy.distillation.candidates.observing import Reached, observe
from radio_dspy.distillation.candidates.recording import Observed
from radio_dspy.distillation.candidates.reranker_slots import Slot, copy_to_run
from radio_dspy.distillation.gate.decision import Judge
from radio_dspy.distillation.preferences.building import build_groups
from radio_dspy.distillation.preferences.settings import PreferenceSettings
from radio_dspy.distillation.rationales.settings import PAPER_WEIGHT
from radio_dspy.distillation.rationales.writing import RationaleCounts, explain_several
from radio_dspy.distillation.teacher.lm_signal import LMSignal
from radio_dspy.distillation.teacher.null_passage import check_null
from radio_dspy.distillation.teacher.ranking import each_fused_ranking, fused_rankings
from radio_dspy.distillation.teacher.signals import (
    AnswerSimilarity,
    RationaleSimilarity,
    RetrievalScore,
    Signal,
    check_signals,
)
from radio_dspy.models.weights import RerankerWeights
from radio_dspy.rerankers.rerank import rank_with
from radio_dspy.retrievers.requests import usable
from radio_dspy.retrievers.vector import vector_part

logger = logger_of(__name__)
TRIED = 3  # questions on which a metric is tried before anything is paid for


def candidates_of(optimizer: Settings, job: Job) -> Reached:
    """What each question brings to each reranker, seen by running the program."""
    with job.stage("retrieval"):
        return observe(
            *copy_to_run(job.program),
            job.train,
            job.held_out,
            retriever=optimizer.retriever,
            candidates=optimizer.preferences.candidates,
            num_threads=optimizer.num_threads,
            show_progress=not optimizer.training.disable_tqdm,
            run=job.run,
        )


def try_metric(optimizer: Settings, job: Job) -> None:
    """Judge a few questions before rationales and training are paid for; the gate finds the values kept."""
    if optimizer.gate is None or optimizer.metric is None:
        return
    from radio_dspy.distillation.gate.metrics import MetricJudge

    slot, few = job.slots[0], job.held_out[:TRIED]
    with job.stage("training"):
        MetricJudge(job.program, slot, few, optimizer.metric, optimizer.num_threads, job.run, trial=True)(slot.weights)


def explain_questions(
    optimizer: Settings, job: Job, reached: Reached
) -> tuple[dict[str, tuple[str, ...]], RationaleCounts]:
    """The rationales of every question that the teacher is asked about."""
    labels = (one.relevant for seen in reached.held_out for one in seen.requests)
    asked = [*job.train, *job.held_out] if optimizer.judges_by_teacher(labels) else job.train
    lm = optimizer.rationale_lm
    with job.stage("rationales"):
        return explain_several(
            questions_of(asked),
            job.run,
            lm=sent(lm, job.run, batch=optimizer.batch, engine=optimizer.engine) if lm is not None else None,
            extractor=optimizer.rationales.open_extractor(),
            given=optimizer.rationales.given,
            encoder=job.encoder,
            check=optimizer.rationales.check,
            num_threads=optimizer.num_threads,
            show_progress=not optimizer.training.disable_tqdm,
        )


def teacher_of(optimizer: Settings, job: Job) -> dict[Signal, float]:
    """What makes a passage preferred, with weights (paper, section 3.3)."""
    if optimizer.signals is not None:
        return optimizer.signals
    index = vector_part(job.first_stage)
    asked = optimizer.rationale_lm is not None or bool(optimizer.rationales.given)
    weight = PAPER_WEIGHT if optimizer.rationales.weight is None else optimizer.rationales.weight
    guide = RationaleSimilarity(job.encoder, index=index) if asked else AnswerSimilarity(job.encoder, index=index)
    return {guide: weight, RetrievalScore(): 1 - weight}


def check_teacher(preferences: PreferenceSettings, signals: Mapping[Signal, float] | None, rounds: int) -> None:
    """See that the teacher knows what the preferences ask of it, and that a further round can bring something new.

    Raises:
        SettingsError: If it does not.
    """
    if not is_whole(rounds) or rounds < 1:
        raise SettingsError(f"rounds must be at least 1 and whole, got {shown(rounds)}.")
    if signals is not None:
        check_signals(signals)
    depths = [one.depth for one in signals or () if isinstance(one, LMSignal)]
    if rounds > 1 and not any(depth is not None and depth < preferences.candidates for depth in depths):
        raise SettingsError(
            "rounds= asks an LM about passages that the aligned reranker ranks high and the first stage did not: give "
            "signals= with one that asks about the first passages only, such as AnswerGain(lm, depth=10)."
        )
    if preferences.null_passage:
        check_null(signals)
    if preferences.min_agreement and signals is not None and _comparing(signals) is None:
        raise SettingsError("min_agreement needs signals= with a RationaleSimilarity, whose rationales may agree.")


def agreed(
    requests: Sequence[RankRequest], teacher: Mapping[Signal, float], least: float
) -> tuple[list[RankRequest], dict[str, int]]:
    """The questions whose rationales agree enough, and how many do not, under their reason."""
    signal = _comparing(teacher)
    if not least or signal is None:
        return list(requests), {}
    kept = [one for one, found in zip(requests, signal.agreement(requests), strict=True) if found >= least]
    left = len(requests) - len(kept)
    return kept, {"rationales disagree": left} if left else {}


def _comparing(teacher: Mapping[Signal, float]) -> RationaleSimilarity | None:
    return next((one for one in teacher if isinstance(one, RationaleSimilarity) and one.reads_rationale), None)


def lesson_of(
    optimizer: Settings,
    job: Job,
    number: int,
    slot: Slot,
    used: Sequence[RankRequest],
    observed: tuple[Observed, Observed],
    texts: Mapping[str, tuple[str, ...]],
    teacher: Mapping[Signal, float],
) -> Lesson:
    """Make a reranker's preference groups, and what its gate goes by; ``observed``: in training and held out."""
    seen, held_out = observed
    with job.stage("signals"):
        lesson = _lesson(optimizer, job, _file_name(number), slot, explained(used, seen, texts), teacher)
    judging = _judging(optimizer, job, slot, explained(held_out.requests, held_out, texts), teacher)
    return replace(lesson, **judging)


class FurtherRounds:
    """Makes the lessons of on-policy rounds: LMs are asked also about what the reranker at hand ranks first.

    Source: R3 (arXiv 2510.24652) and RRPO, whose teachers look at what the current reranker ranks high.

    Args:
        optimizer: The settings.
        job: The program and its questions.
        requests: The training questions of each reranker, with their rationales.
        teacher: The signals with their weights.
    """

    def __init__(
        self,
        optimizer: Settings,
        job: Job,
        requests: Callable[[int], Sequence[RankRequest]],
        teacher: Mapping[Signal, float],
    ) -> None:
        self._optimizer, self._job, self._requests, self._teacher = optimizer, job, requests, teacher
        self._firsts: dict[int, list[dict[str, tuple[str, ...]]]] = {}  # rankings of the rounds before, by slot

    def __call__(self, number: int, slot: Slot, weights: RerankerWeights) -> Lesson:
        """The lesson of the next round, from the weights that the round before chose."""
        with self._job.stage("signals"), contextlib.ExitStack() as stack:
            requests = self._requests(number)
            asking = [one for one in self._teacher if isinstance(one, LMSignal)]
            depth = max(one.depth or 0 for one in asking)
            ranked = rank_with(weights, requests, self._optimizer.training.device)
            before = self._firsts.setdefault(number, [])
            new = sum(
                len(set(ranking.ids[:depth]) - _asked_before(request, depth, before))
                for request, ranking in zip(requests, ranked, strict=True)
            )
            before.append({request.id: ranking.ids[:depth] for request, ranking in zip(requests, ranked, strict=True)})
            for signal in asking:
                stack.enter_context(signal.also_about(*before))
            name = f"{_file_name(number)}-round-{len(before) + 1}"
            lesson = _lesson(self._optimizer, self._job, name, slot, requests, self._teacher)
        return replace(lesson, new_passages=new)


def _asked_before(request: RankRequest, depth: int, firsts: Sequence[Mapping[str, tuple[str, ...]]]) -> set[str]:
    return {one.id for one in request.candidates[:depth]} | {key for ids in firsts for key in ids[request.id]}


def _file_name(number: int) -> str:
    return "groups" if number == 0 else f"groups-{number + 1}"


def _lesson(
    optimizer: Settings,
    job: Job,
    name: str,
    slot: Slot,
    requests: Sequence[RankRequest],
    teacher: Mapping[Signal, float],
) -> Lesson:
    """The preference groups of a round, which the run keeps under ``name``; what the gate goes by is to be added."""
    preferences = optimizer.preferences
    certain, unsure = agreed(requests, teacher, preferences.min_agreement)
    groups, left_out = build_groups(
        certain,
        each_fused_ranking(certain, teacher, null_passage=preferences.null_passage),
        preferences,
        corpus=getattr(job.first_stage, "passages", ()),
        seed=optimizer.training.seed,
        run=job.run,
        num_threads=optimizer.num_threads,
    )
    left_out = {**left_out, **unsure}
    written = job.run.write_records(name, (group.as_dict() for group in groups))
    if not groups:
        raise NoGroupsError(
            f"{slot.name}: no preference group came of {len(requests)} questions; left out: {left_out}.", left_out
        )
    vectors = (
        functools.partial(stored_vectors, job, slot, groups) if optimizer.training.tower == "query" else lambda: None
    )
    return Lesson(groups, left_out, written, passage_vectors=vectors)


def _judging(
    optimizer: Settings, job: Job, slot: Slot, judged: Sequence[RankRequest], teacher: Mapping[Signal, float]
) -> dict[str, Any]:
    """What the gate goes by: the metric, labels, or else the teacher."""
    from radio_dspy.distillation.gate import metrics as judges

    gate = optimizer.gate
    if gate is None:
        return {}
    device = optimizer.training.device
    if optimizer.metric is not None:
        by: Judge = judges.MetricJudge(
            job.program, slot, job.held_out, optimizer.metric, optimizer.num_threads, job.run
        )
        found = {"judge": by, "metric": getattr(optimizer.metric, "__name__", "metric")}
    elif any(one.relevant for one in judged):
        found = {"judge": judges.by_labels(judged, device, gate), "metric": judges.judged_by(gate, "labels")}
    else:
        if any(relevant_of(one) for one in job.held_out):
            logger.warning(
                "%s: the labels (relevant) of the held-out questions are not used, the gate follows the teacher: they "
                "name passages by id, and the passages that reach this reranker bring none. Give it passages with "
                "their ids, or the passages' texts as labels.",
                slot.name,
            )
        judged = usable(judged)[0]
        by = judges.by_teacher(judged, fused_rankings(judged, teacher), device, gate)
        found = {"judge": by, "metric": judges.judged_by(gate, "the teacher")}
    if gate.retrieval:
        found["recall"] = judges.by_recall(searchable(job, slot, optimizer.training.tower), judged)
    return found
