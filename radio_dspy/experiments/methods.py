"""Rank the test questions of a row by its method."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dspy

from radio_dspy.core.errors import SettingsError
from radio_dspy.core.files import sha256_of, write_json
from radio_dspy.core.rankings import Ranking, RankRequest
from radio_dspy.distillation.teacher.ranking import fused_rankings
from radio_dspy.evaluation.relevance import compare
from radio_dspy.experiments.agreement import agreement
from radio_dspy.experiments.baselines import TRAINED, TRAINER, finetune_on_answers
from radio_dspy.experiments.materials import Materials, Questions
from radio_dspy.experiments.records import hash_of_settings
from radio_dspy.experiments.settings import RowSettings
from radio_dspy.lm.budget import Ledger
from radio_dspy.models.weights import RerankerWeights
from radio_dspy.programs.tasks import open_program
from radio_dspy.rerankers.rerank import Rerank
from radio_dspy.retrievers.bm25 import BM25Retriever
from radio_dspy.retrievers.hybrid import reciprocal_rank_fusion
from radio_dspy.retrievers.requests import rank_requests, usable
from radio_dspy.runs.journal import read_object

if TYPE_CHECKING:
    from radio_dspy.distillation.teacher.signals import Signal

_SHOWN_TO_THE_COMPILE = 20  # test questions for its own report, where there is no gate: they decide nothing
_MARK = ".radio-dspy-training"  # in a folder that is removed after its training
LISTWISE_WINDOW, LISTWISE_STEP = 10, 5  # passages that an LM orders at a time
_MAX_WORDS = 60  # of a passage that an LM orders: a small one reads no more


@dataclass(frozen=True)
class Task:
    """One row with one seed.

    Attributes:
        settings: The row's.
        seed: Of training.
        questions: Learnt from and judged by.
        requests: The test questions with the first stage's candidates.
        folder: Where checkpoints and records of the training go.
        ledger: Where LM calls are booked.
    """

    settings: RowSettings
    seed: int
    questions: Questions
    requests: list[RankRequest]
    folder: Path
    ledger: Ledger


@dataclass(frozen=True)
class Outcome:
    """What a method made of the test questions.

    Attributes:
        rankings: One for each.
        told: What goes into the record beside the metrics.
    """

    rankings: Sequence[Ranking]
    told: dict[str, Any] = field(default_factory=dict)


def base_reranker(materials: Materials, settings: RowSettings) -> Rerank:
    """The reranker to start from; the first stage's own encoder keeps its prefixes."""
    checkpoint, first_stage = settings.reranker.checkpoint, settings.first_stage
    shared = settings.reranker.architecture == "bi-encoder" and checkpoint == first_stage.encoder
    own = materials.encoder(first_stage) if shared else checkpoint
    return Rerank(own, settings.reranker.architecture, new_head=True)  # a row may compare architectures


def run_method(materials: Materials, task: Task) -> Outcome:
    """Rank the test questions by the row's method."""
    methods: dict[str, Callable[[Materials, Task], Outcome]] = {
        "radio": _radio,
        "first-stage": lambda _, task: Outcome([one.ranking() for one in task.requests]),
        "base": lambda materials, task: Outcome(base_reranker(materials, task.settings).rank_all(task.requests)),
        "bm25": _bm25,
        "rrf": _rrf,
        "off-the-shelf": _off_the_shelf,
        "lm-listwise": _lm_listwise,
        "answer-passages": _answer_passages,
        "teacher": _teachers_order,
        "labelled-passages": _labelled,
        "no-passages": lambda _, task: Outcome([Ranking(one.query, (), ()) for one in task.requests]),
    }
    return methods[task.settings.method](materials, task)


def _bm25(materials: Materials, task: Task) -> Outcome:
    data = task.settings.data
    if not any(one.relevant for one in task.requests):
        raise SettingsError(
            f"method: {task.settings.method} finds passages of its own, which only labelled questions can judge; "
            f"{data.test or data.train} has no labels."
        )
    retriever = BM25Retriever(materials.corpus(data, data.test_corpus or data.corpus))
    return Outcome(retriever.search([one.query for one in task.requests], task.settings.first_stage.candidates))


def _labelled(materials: Materials, task: Task) -> Outcome:
    """The labelled passages and no others, in the base reranker's order: the most that any reranker could give."""
    data = task.settings.data
    corpus = {one.id: one for one in materials.corpus(data, data.test_corpus or data.corpus)}
    own = []
    for request in task.requests:
        if not request.relevant:
            raise SettingsError(f"method: labelled-passages: question {request.id!r} has no labels; leave it out.")
        passages = tuple(corpus[key] for key in sorted(request.relevant))
        own.append(replace(request, candidates=passages, scores=(0.0,) * len(passages)))
    return Outcome(base_reranker(materials, task.settings).rank_all(own))


def _teachers_order(materials: Materials, task: Task) -> Outcome:
    """The teacher's own order of the test questions' candidates: it knows the answers, and a student is to learn it."""
    settings = task.settings
    texts: dict[str, str] = {}
    told: dict[str, Any] = {}
    if settings.explained:
        with task.ledger.stage("rationales"):
            texts, counts = materials.rationales(settings, task.questions.test, _guide_encoder(materials, settings))
        told["rationales"] = asdict(counts)
    signals = _signals(materials, settings, test=True)
    requests = [replace(one, rationale=texts.get(one.id, "")) for one in task.requests]
    with task.ledger.stage("signals"):
        rankings = fused_rankings(requests, _weighted(signals, settings))
        if name := settings.teacher.compared_with:
            told["agreement"] = {"with": name, **agreement(rankings, requests, signals[name].score(requests))}
    return Outcome(rankings, told)


def _rrf(materials: Materials, task: Task) -> Outcome:
    lexical = _bm25(materials, task).rankings
    pairs = zip(task.requests, lexical, strict=True)
    k = task.settings.first_stage.candidates
    return Outcome([reciprocal_rank_fusion([one.ranking(), other], k) for one, other in pairs])


def _off_the_shelf(materials: Materials, task: Task) -> Outcome:
    from radio_dspy.rerankers.remote import as_reranker

    return Outcome(as_reranker(str(task.settings.reranker.other)).rank_all(task.requests))


def _lm_listwise(materials: Materials, task: Task) -> Outcome:
    from radio_dspy.rerankers.lm import LMRerank

    lm = _asked(materials, task.settings)
    rerank = LMRerank(window=LISTWISE_WINDOW, step=LISTWISE_STEP, max_words=_MAX_WORDS)
    rankings, unreadable, windows = [], 0, 0
    with task.ledger.stage("reranking"), dspy.context(lm=lm, trace=None, disable_history=True):
        for one in task.requests:
            found = rerank(one.query, list(one.candidates))
            rankings.append(Ranking(one.query, tuple(found.passages), tuple(found.scores)))
            unreadable, windows = unreadable + found.unreadable, windows + found.windows
    return Outcome(rankings, {"windows": windows, "unreadable_windows": unreadable})


def _answer_passages(materials: Materials, task: Task) -> Outcome:
    settings = task.settings
    if settings.reranker.architecture != "bi-encoder":
        raise SettingsError("method: answer-passages fine-tunes a bi-encoder; give reranker.architecture: bi-encoder.")
    depth = settings.preferences.candidates
    train, _ = usable(rank_requests(task.questions.train, materials.retriever(settings), depth))
    started = time.perf_counter()
    base = base_reranker(materials, settings).weights.checkpoint
    _mark(task.folder)
    trained, used = finetune_on_answers(base, train, settings.training, task.seed, task.folder)
    told = {"training": {"groups": used}, "training_seconds": time.perf_counter() - started}
    outcome = Outcome(Rerank(trained, "bi-encoder").rank_all(task.requests), told)
    for name in (TRAINED, TRAINER):
        shutil.rmtree(task.folder / name, ignore_errors=True)
    if [one.name for one in task.folder.iterdir()] == [_MARK]:
        shutil.rmtree(task.folder)
    return outcome


def _mark(folder: Path) -> None:
    """Make a folder whose training is removed after it, or take one that an earlier start has left.

    Raises:
        SettingsError: If it holds something else.
    """
    if folder.is_dir() and any(folder.iterdir()) and not (folder / _MARK).is_file():
        raise SettingsError(
            f"{folder}: not a training of an experiment; nothing was changed there. Give another --out."
        )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _MARK).touch()


def _radio(materials: Materials, task: Task) -> Outcome:
    """Align, or take what a row with the same training has aligned already."""
    rerank = base_reranker(materials, task.settings)
    kept = task.folder / "trained.json"
    if kept.is_file():
        saved = read_object(kept, "remove it to train again")
        rerank.weights.load_state(saved.get("weights") or {})
        told = {**(saved.get("told") or {}), "reused_training": True}
    else:
        rerank.weights, told = _align(materials, task, rerank)
        write_json(kept, {"weights": rerank.weights.dump_state(), "told": told})
    return Outcome(rerank.rank_all(task.requests), told)


def _align(materials: Materials, task: Task, rerank: Rerank) -> tuple[RerankerWeights, dict[str, Any]]:
    from radio_dspy.distillation.rationales.settings import RationaleSettings
    from radio_dspy.optimizers.radio import RADIO

    settings, questions = task.settings, task.questions
    by = settings.gate.by
    train, held_out = questions.train, questions.held_out
    if by == "teacher":  # which judges where no question has labels
        held_out = [_without_labels(one) for one in held_out]
        train = train if held_out else [_without_labels(one) for one in train]
    retriever = materials.retriever(settings)
    guide = _guide_encoder(materials, settings)
    started = time.perf_counter()
    texts: dict[str, str] = {}
    counts: dict[str, Any] = {}
    if settings.explained:
        with task.ledger.stage("rationales"):
            explained = train + (held_out if by == "teacher" else [])
            texts, found = materials.rationales(settings, explained, guide)
        counts = asdict(found)
    rationale_seconds = time.perf_counter() - started
    signals = _weighted(_signals(materials, settings), settings)
    with task.ledger.stage("signals"):
        teacher = _teacher(rank_requests(train, retriever, settings.preferences.candidates), texts, signals)
    optimizer = RADIO(
        rationale_lm=False,  # written above
        encoder=guide,
        signals=signals,
        preferences=settings.preferences,
        training=replace(settings.training, seed=task.seed, disable_tqdm=not materials.show_progress),
        rationales=RationaleSettings(
            given={key: text for key, text in texts.items() if text}, check=settings.rationale.check
        ),
        gate=by != "none",
        run_dir=task.folder,
    )
    first_stage = settings.first_stage
    student = open_program(settings.generator.task, retriever, rerank, candidates=first_stage.candidates, k=1, hops=1)
    # With a gate and no questions of its own RADIO keeps a part of the training questions.
    judged = held_out or None if by != "none" else questions.test[:_SHOWN_TO_THE_COMPILE]
    started = time.perf_counter()
    aligned: Any = optimizer.compile(student, trainset=train, valset=judged)
    if optimizer.report is None:
        raise RuntimeError("compile ended without a report")
    report = optimizer.report
    told = {
        "rationales": counts,
        "teacher": teacher,
        "groups": sha256_of(task.folder / "groups.jsonl")[:16],
        "training": {"groups": report.groups, **{k: v for k, v in report.training.items() if k != "losses"}},
        "gate": {"chosen": report.gate["chosen"], "sentence": report.gate["sentence"]} if report.gate else None,
        "rationale_seconds": rationale_seconds,
        "training_seconds": time.perf_counter() - started,
    }
    return aligned.rerank.weights, told


def _guide_encoder(materials: Materials, settings: RowSettings) -> Any:
    from radio_dspy.models.open_encoder import as_encoder

    name = settings.teacher.encoder
    return as_encoder(name) if name else materials.encoder(settings.first_stage)


def _signals(materials: Materials, settings: RowSettings, *, test: bool = False) -> dict[str, Signal]:
    """The teacher's signals by their names, and the one that it is compared with."""
    from radio_dspy.distillation.teacher.lm_signals import AnswerCorrectness, AnswerLikelihood
    from radio_dspy.distillation.teacher.signals import (
        AnswerContainment,
        AnswerSimilarity,
        Labels,
        RationaleSimilarity,
        RetrievalScore,
    )

    encoder, index = _guide_encoder(materials, settings), materials.retriever(settings, test=test)
    depth, scores = settings.teacher.depth, materials.out / "scores"
    progress = materials.show_progress
    make: dict[str, Callable[[], Signal]] = {
        "retrieval": RetrievalScore,
        "rationale": lambda: RationaleSimilarity(encoder, index=index),
        "answer": lambda: AnswerSimilarity(encoder, index=index),
        "containment": AnswerContainment,
        "labels": Labels,
        "likelihood": lambda: AnswerLikelihood(
            _asked(materials, settings), depth=depth, keep=scores / "likelihood.jsonl", show_progress=progress
        ),
        "correctness": lambda: AnswerCorrectness(
            _asked(materials, settings), depth=depth, keep=scores / "correctness.jsonl", show_progress=progress
        ),
    }
    names = [*settings.teacher.signals, settings.teacher.compared_with]
    return {name: make[name]() for name in dict.fromkeys(names) if name is not None}


def _weighted(signals: Mapping[str, Signal], settings: RowSettings) -> dict[Signal, float]:
    return {signals[name]: weight for name, weight in settings.teacher.signals.items()}


def _asked(materials: Materials, settings: RowSettings) -> dspy.LM:
    lm = materials.lm(settings.teacher.lm, settings.data, max_tokens=settings.generator.max_tokens)
    if lm is None:
        raise SettingsError("teacher.lm: none, but a signal or method asks an LM; give local or a LiteLLM name.")
    return lm


def _teacher(
    requests: Sequence[RankRequest], texts: dict[str, str], signals: dict[Signal, float]
) -> dict[str, Any] | None:
    """How well the teacher orders the training questions' candidates, where these have labels."""
    kept, _ = usable([replace(one, rationale=texts.get(one.id, "")) for one in requests])
    kept = [one for one in kept if one.relevant]
    if not kept:
        return None
    rows = {"teacher": fused_rankings(kept, signals), "first_stage": [one.ranking() for one in kept]}
    means = compare(rows, kept, ("ndcg@10",))
    return {"questions": len(kept), **{f"{row} ndcg@10": values["ndcg@10"] for row, values in means.items()}}


def _without_labels(one: dspy.Example) -> dspy.Example:
    return dspy.Example(**{**one.toDict(), "relevant": []}).with_inputs(*one.inputs().keys())


def training_folder(out: Path, settings: RowSettings, seed: int, data: dict[str, str]) -> Path:
    """Where a row is trained; rows with the same training share it."""
    judging = {settings.data.test, settings.data.test_corpus, settings.generator.lm}
    judging -= {settings.data.corpus, settings.data.train, *settings.teaching_lms}
    used = {name: value for name, value in data.items() if name not in judging}
    return out / "trainings" / f"{hash_of_settings({**settings.trained_by(), 'hashes': used})}-{seed}"
