"""Turn questions into preference groups: rationales, the teacher's signals, sampling, and the gate's judge."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from radio_dspy.optimizers.asked import sent
from radio_dspy.optimizers.job import Job, Settings, explained, questions_of, searchable, stored_vectors
from radio_dspy.optimizers.pipeline import Lesson, NoGroupsError

from radio_dspy.core.passages import RankRequest
from radio_dspy.distillation.candidates.observing import Reached
from radio_dspy.distillation.candidates.recording import Observed
from radio_dspy.distillation.candidates.reranker_slots import Slot
from radio_dspy.distillation.gate.decision import Judge
from radio_dspy.distillation.preferences.building import build_groups
from radio_dspy.distillation.rationales.settings import PAPER_WEIGHT
from radio_dspy.distillation.rationales.writing import RationaleCounts, explain
from radio_dspy.distillation.teacher.ranking import each_fused_ranking, fused_rankings
from radio_dspy.distillation.teacher.signals import AnswerSimilarity, RationaleSimilarity, RetrievalScore, Signal
from radio_dspy.retrievers.requests import usable
from radio_dspy.retrievers.vector import vector_part

TRIED = 3  # questions on which a metric is tried before anything is paid for


def try_metric(optimizer: Settings, job: Job) -> None:
    """Judge a few questions before rationales and training are paid for; the gate finds the values kept."""
    if optimizer.gate is None or optimizer.metric is None:
        return
    from radio_dspy.distillation.gate.metrics import MetricJudge

    slot, few = job.slots[0], job.held_out[:TRIED]
    with job.stage("training"):
        MetricJudge(job.program, slot, few, optimizer.metric, optimizer.num_threads, job.run, trial=True)(slot.weights)


def explain_questions(optimizer: Settings, job: Job, reached: Reached) -> tuple[dict[str, str], RationaleCounts]:
    """A rationale for every question that the teacher is asked about."""
    labels = (one.relevant for seen in reached.held_out for one in seen.requests)
    asked = [*job.train, *job.held_out] if optimizer.judges_by_teacher(labels) else job.train
    lm = optimizer.rationale_lm
    with job.stage("rationales"):
        return explain(
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


def lesson_of(
    optimizer: Settings,
    job: Job,
    number: int,
    slot: Slot,
    used: Sequence[RankRequest],
    observed: tuple[Observed, Observed],
    texts: Mapping[str, str],
    teacher: Mapping[Signal, float],
) -> Lesson:
    """Make a reranker's preference groups, and what its gate goes by; ``observed``: in training and held out."""
    seen, held_out = observed
    with job.stage("signals"):
        requests = explained(used, seen, texts)
        fused = each_fused_ranking(requests, teacher)
        corpus = getattr(job.first_stage, "passages", ())
        groups, left_out = build_groups(
            requests, fused, optimizer.preferences, corpus=corpus, seed=optimizer.training.seed
        )
        name = "groups" if number == 0 else f"groups-{number + 1}"
        written = job.run.write_records(name, (group.as_dict() for group in groups))
    if not groups:
        raise NoGroupsError(
            f"{slot.name}: no preference group came of {len(used)} questions; left out: {left_out}.", left_out
        )
    vectors = (
        functools.partial(stored_vectors, job, slot, groups) if optimizer.training.tower == "query" else lambda: None
    )
    judging = _judging(optimizer, job, slot, explained(held_out.requests, held_out, texts), teacher)
    return Lesson(groups, left_out, written, passage_vectors=vectors, **judging)


def _judging(
    optimizer: Settings, job: Job, slot: Slot, judged: Sequence[RankRequest], teacher: Mapping[Signal, float]
) -> dict[str, Any]:
    """What the gate goes by: the metric, labels, or else the teacher."""
    from radio_dspy.distillation.gate import metrics as judges

    if optimizer.gate is None:
        return {}
    device = optimizer.training.device
    if optimizer.metric is not None:
        by: Judge = judges.MetricJudge(
            job.program, slot, job.held_out, optimizer.metric, optimizer.num_threads, job.run
        )
        found = {"judge": by, "metric": getattr(optimizer.metric, "__name__", "metric")}
    elif any(one.relevant for one in judged):
        found = {"judge": judges.by_labels(judged, device), "metric": "nDCG@10 against labels"}
    else:
        judged = usable(judged)[0]
        by = judges.by_teacher(judged, fused_rankings(judged, teacher), device)
        found = {"judge": by, "metric": "nDCG@10 against the teacher"}
    if optimizer.gate.retrieval:
        found["recall"] = judges.by_recall(searchable(job, slot, optimizer.training.tower), judged)
    return found
