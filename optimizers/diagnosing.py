"""Look at a few questions before anything is trained; see ``RADIO.diagnose``."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

import dspy
from radio_dspy.optimizers.asked import asked_elsewhere
from radio_dspy.optimizers.diagnosis import Agreement, Diagnosis, agreement_of, recommend
from radio_dspy.optimizers.estimate import StageEstimate, passage_length, rationale_stage, signal_stage
from radio_dspy.optimizers.job import Job, Settings, explained, questions_of
from radio_dspy.optimizers.opening import open_job
from radio_dspy.optimizers.teaching import candidates_of, explain_questions, teacher_of

from radio_dspy.core.errors import DataError, SettingsError
from radio_dspy.core.rankings import Ranking, RankRequest
from radio_dspy.core.validation import is_whole, shown
from radio_dspy.distillation.teacher.gains import AnswerGain, SetGain
from radio_dspy.distillation.teacher.lm_signal import LMSignal
from radio_dspy.distillation.teacher.lm_signals import AnswerCorrectness, AnswerLikelihood
from radio_dspy.distillation.teacher.ranking import fused_rankings
from radio_dspy.distillation.teacher.rationale_quality import RationaleQuality, rationale_quality
from radio_dspy.distillation.teacher.signals import AnswerSimilarity, RationaleSimilarity, RetrievalScore, Signal
from radio_dspy.evaluation.metrics import ranking_metrics
from radio_dspy.evaluation.relevance import judge
from radio_dspy.retrievers.requests import usable
from radio_dspy.retrievers.vector import vector_part

NDCG = "ndcg@10"
_DEPTH = 10  # passages a question, of the LM signals in the table of costs


def diagnose(optimizer: Settings, student: dspy.Module, trainset: Sequence[dspy.Example], questions: int) -> Diagnosis:
    """See ``RADIO.diagnose``."""
    if not is_whole(questions) or questions < 2:
        raise SettingsError(f"questions must be at least 2 and whole, got {shown(questions)}.")
    whole = open_job(optimizer, student, trainset, None, encodes=False)
    everyone = [*whole.train, *whole.held_out]
    rng = random.Random(optimizer.training.seed)
    sample = rng.sample(everyone, min(questions, len(everyone)))
    job = replace(whole, train=sample, held_out=sample[:1])  # the look at a program needs one
    signals = teacher_of(optimizer, job)
    with job.run.exclusive("RADIO"), asked_elsewhere(signals, job.run, batch=optimizer.batch, engine=optimizer.engine):
        requests, quality = _requests(optimizer, job, signals)
        return _diagnosed(optimizer, job, requests, signals, quality, questions_of(everyone))


def _requests(
    optimizer: Settings, job: Job, signals: Mapping[Signal, float]
) -> tuple[list[RankRequest], RationaleQuality | None]:
    """The questions with candidates and rationales, and what the rationales are worth."""
    reached = candidates_of(optimizer, job)
    found, reasons = usable(reached.train[0].requests)
    if not found:
        raise DataError(f"None of the {len(job.train)} questions looked at can be used: {reasons}.")
    texts, _ = explain_questions(optimizer, job, reached)
    lm = optimizer.rationale_lm
    quality = None
    if lm is not None:
        with job.stage("rationales"):
            quality = rationale_quality(
                questions_of(job.train),
                {key: one[0] for key, one in texts.items() if one},
                dspy.settings.lm or lm,
                run=job.run,
                num_threads=optimizer.num_threads,
            )
    return explained(found, reached.train[0], texts), quality


def _diagnosed(
    optimizer: Settings,
    job: Job,
    requests: list[RankRequest],
    signals: Mapping[Signal, float],
    quality: RationaleQuality | None,
    everyone: Sequence[tuple[str, str, Sequence[str]]],
) -> Diagnosis:
    verdict = judge(requests)
    kept = [(row, ids) for row, ids in enumerate(verdict.relevant) if ids is not None]

    def values(rankings: Sequence[Ranking]) -> list[float]:
        if not kept:
            return []
        return ranking_metrics([rankings[row].ids for row, _ in kept], [ids for _, ids in kept], (NDCG,))[NDCG]

    base = values(job.pipeline.rank(job.slots[0], requests))
    stages = _stages(optimizer, job, signals, everyone)
    calls = {name: 0 if stage is None else stage.calls for name, stage in stages.items()}
    found = {}
    with job.stage("signals"):
        for one in _looked_at(job, signals):
            ndcg = values(fused_rankings(requests, {one: 1.0}))
            found[one.name] = agreement_of(one.name, ndcg, base, calls.get(one.name, 0), type(one).__name__)
        if len(signals) > 1:
            total = sum(calls.get(one.name, 0) for one in signals)
            found["teacher"] = agreement_of("teacher", values(fused_rankings(requests, signals)), base, total)
        agreed = _agreement(requests, signals)
    diagnosis = Diagnosis(
        questions=len(job.train),
        judged=len(kept),
        relevance=verdict.source,
        candidates=max(len(one.candidates) for one in requests),
        found=_share_found([(requests[row], ids) for row, ids in kept]),
        rows=(
            agreement_of("first_stage", values([one.ranking() for one in requests]), base),
            agreement_of("base", base, base),
            agreement_of("best", values(_ideal(requests, verdict.relevant)), base),
        ),
        signals=tuple(sorted(found.values(), key=lambda one: -one.ndcg)),
        rationales=quality,
        agreement=agreed,
        choices=tuple(stage for stage in stages.values() if stage is not None),
        calls=sum(spent["calls"] for spent in job.pipeline.ledger.as_dict().values()),
    )
    return replace(diagnosis, recommendation=recommend(diagnosis))


def _share_found(judged: Sequence[tuple[RankRequest, frozenset[str]]]) -> float:
    """The part of the questions that have a relevant passage among their candidates."""
    found = sum(any(one.id in ids for one in request.candidates) for request, ids in judged)
    return found / max(1, len(judged))


def _ideal(requests: Sequence[RankRequest], relevant: Sequence[frozenset[str] | None]) -> list[Ranking]:
    """The candidates with the relevant ones first."""
    return [
        Ranking.from_scores(one.query, one.candidates, [float(passage.id in (ids or ())) for passage in one.candidates])
        for one, ids in zip(requests, relevant, strict=True)
    ]


def _looked_at(job: Job, signals: Mapping[Signal, float]) -> list[Signal]:
    """The teacher's signals, and two that cost nothing to compare them with."""
    free = (AnswerSimilarity(job.encoder, index=vector_part(job.first_stage)), RetrievalScore())
    names = {one.name for one in signals}
    return [*signals, *(one for one in free if one.name not in names)]


def _agreement(requests: Sequence[RankRequest], signals: Mapping[Signal, float]) -> float | None:
    if not any(one.more_rationales for one in requests):
        return None
    comparing = (one for one in signals if isinstance(one, RationaleSimilarity) and one.reads_rationale)
    found = [value for one in comparing for value in one.agreement(requests)]
    return sum(found) / len(found) if found else None


def _stages(
    optimizer: Settings, job: Job, signals: Mapping[Signal, float], everyone: Sequence[tuple[str, str, Sequence[str]]]
) -> dict[str, StageEstimate | None]:
    """What each teacher would cost on all training questions, by signal name: this one's, and others of the LM's."""
    lm = optimizer.rationale_lm or dspy.settings.lm
    length = passage_length(job)
    own = {one.name: one for one in signals if isinstance(one, LMSignal)}
    others: dict[str, LMSignal] = {}
    if lm is not None:
        known = (AnswerCorrectness(lm, depth=_DEPTH), AnswerGain(lm, depth=_DEPTH), SetGain(lm))
        others = {one.name: one for one in known}
    found: dict[str, StageEstimate | None] = {}
    if optimizer.rationale_lm is not None:
        stage = rationale_stage(everyone, 0, job, optimizer.rationale_lm, optimizer.rationales)
        found["rationale"] = stage and replace(stage, note="rationales")
    for name, signal in {**others, **own}.items():
        stage = signal_stage(signal, everyone, length, optimizer.preferences, optimizer.rounds)
        depth = "" if signal.depth is None else f", first {signal.depth} passages"
        needs = "; needs log-probabilities" if isinstance(signal, AnswerLikelihood | SetGain) else ""
        found[name] = replace(stage, note=f"{type(signal).__name__}{depth}{needs}")
    return found


__all__ = ["Agreement", "Diagnosis", "diagnose"]
