"""RADIO: align a program's reranker with the reasons that lead to the answer (ACL Findings 2025, arXiv 2412.08519)."""

from __future__ import annotations

import copy
import json
import logging
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from os import PathLike
from typing import TYPE_CHECKING

import dspy
from dspy.teleprompt.teleprompt import Teleprompter

from radio_dspy.distillation.extractor import RationaleExtractor
from radio_dspy.distillation.groups import DEPTH, Sampling, SamplingFunction, preference_groups
from radio_dspy.distillation.preferences import build_groups, rank_requests, usable
from radio_dspy.distillation.rationales import explain
from radio_dspy.distillation.settings import (
    PAPER_EPOCHS,
    PAPER_GROUPS_PER_STEP,
    PAPER_LEARNING_RATE,
    PAPER_MAX_LENGTH,
    PAPER_WEIGHT_DECAY,
    Precision,
    TrainingSettings,
)
from radio_dspy.distillation.signals import AnswerSimilarity, RationaleSimilarity, RetrievalScore, Signal
from radio_dspy.encoders import Encoder, as_encoder
from radio_dspy.errors import DataError, SettingsError
from radio_dspy.evaluation import compare, judge
from radio_dspy.report import Report
from radio_dspy.rerankers.rerank import Rerank
from radio_dspy.rerankers.weights import RerankerWeights
from radio_dspy.retrievers.base import Retriever
from radio_dspy.retrievers.faiss import FaissRetriever
from radio_dspy.runs import Run

if TYPE_CHECKING:
    from radio_dspy.distillation.training import TextGroup, TrainingResult

logger = logging.getLogger(__name__)

PAPER_CANDIDATES = 50  # section 3.1: candidates a training question
PAPER_RATIONALE_WEIGHT = 0.5  # section 3.3: w
ANSWER_CANDIDATES = 20  # section 3.5: candidates at answering time
HELD_OUT = 0.2  # of the trainset, where no valset is given


class RADIO(Teleprompter):
    """Distils the reasons for the gold answers into a program's trainable reranker.

    For each training question: retrieve candidates, let the LM explain the gold answer, score the candidates by their
    similarity to ``question. answers. rationale``, fuse that with the retrieval score, sample preference groups, and
    fine-tune the reranker on them by InfoNCE. Prompts and demonstrations of the student are left alone.

    Args:
        rationale_lm: Who explains the answers: any ``dspy.LM``. None asks no LM: the guide is ``question. answers``.
        encoder: Compares passages with the guide: an ``Encoder``, a folder or a hub name. None takes the retriever's.
        rationale_weight: Weight ``w`` of the guide against the retrieval score, in [0, 1]; the paper's 0.5.
        sampling: ``"shift"`` (the paper's), ``"shift_all_neg"``, ``"iteration"``, or a function of one's own.
        depth: How much of the fused list is sampled from; the paper's 20.
        candidates: Passages retrieved for a training question; the paper's 50.
        epochs: Passes over the groups; the paper's 2.
        learning_rate: The paper's 6e-5; small sets and bi-encoders do better with less.
        max_length: Longest input in tokens; the paper's 512.
        groups_per_step: Groups in a forward pass; the paper's 16.
        accumulation_steps: Forward passes an update; None is the paper's 4, fewer for few questions.
        weight_decay: AdamW's; the paper's 0.01.
        temperature: InfoNCE's; the paper's 1.
        precision: ``"auto"``, ``"fp32"``, ``"bf16"`` or ``"fp16"``.
        device: Where to train; None chooses.
        rationales: Rationales that are there already, by question id; the LM is asked only for the others.
        extractor: Asks for the rationales; None is ``RationaleExtractor()``.
        retriever: The first stage; None takes the one inside the student.
        num_threads: LM calls in flight at the same time.
        run_dir: Folder for records and checkpoints. A folder that is there is taken up again: rationales that fit are
            not bought twice. None takes a temporary one.
        seed: Decides the order of training and the held-out part.
        show_progress: Show progress bars.

    After ``compile``, ``report`` holds rankings before and after, counts, calls, tokens and seconds.

    Example:
        >>> from radio_dspy import FaissRetriever, Rerank, RetrieveRerankAnswer, datasets
        >>> data = datasets.demo()
        >>> retriever = FaissRetriever.build(data.passages[:52], encoder="all-MiniLM-L6-v2")
        >>> student = RetrieveRerankAnswer(retriever, Rerank("all-MiniLM-L6-v2", architecture="bi-encoder"))
        >>> optimizer = RADIO(epochs=1, learning_rate=3e-5, max_length=128, show_progress=False)
        >>> aligned = optimizer.compile(student, trainset=data.train[:16], valset=data.test[:10])
        >>> sorted(optimizer.report.metrics)
        ['aligned', 'base', 'first_stage']
    """

    def __init__(
        self,
        rationale_lm: dspy.LM | None = None,
        encoder: Encoder | str | None = None,
        *,
        rationale_weight: float = PAPER_RATIONALE_WEIGHT,
        sampling: Sampling | SamplingFunction = "shift",
        depth: int = DEPTH,
        candidates: int = PAPER_CANDIDATES,
        epochs: int = PAPER_EPOCHS,
        learning_rate: float = PAPER_LEARNING_RATE,
        max_length: int = PAPER_MAX_LENGTH,
        groups_per_step: int = PAPER_GROUPS_PER_STEP,
        accumulation_steps: int | None = None,
        weight_decay: float = PAPER_WEIGHT_DECAY,
        temperature: float = 1.0,
        precision: Precision = "auto",
        device: str | None = None,
        rationales: Mapping[str, str] | None = None,
        extractor: RationaleExtractor | None = None,
        retriever: Retriever | None = None,
        num_threads: int = 1,
        run_dir: str | PathLike[str] | None = None,
        seed: int = 42,
        show_progress: bool = True,
    ) -> None:
        super().__init__()
        if not 0 <= rationale_weight <= 1:
            raise SettingsError(f"rationale_weight must lie in [0, 1], got {rationale_weight}.")
        if candidates < 2 or num_threads < 1:
            raise SettingsError(f"Need candidates >= 2 and num_threads >= 1, got {candidates} and {num_threads}.")
        preference_groups([], sampling, depth)  # raises for a sampling or depth that does not exist
        self.rationale_lm = rationale_lm
        self.encoder = as_encoder(encoder) if encoder is not None else None
        self.rationale_weight = rationale_weight
        self.sampling = sampling
        self.depth = depth
        self.candidates = candidates
        self.rationales = dict(rationales or {})
        self.extractor = extractor or RationaleExtractor()
        self.retriever = retriever
        self.num_threads = num_threads
        self.run_dir = run_dir
        self.seed = seed
        self.show_progress = show_progress
        self.report: Report | None = None
        self.training = TrainingSettings(
            epochs=epochs,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            groups_per_step=groups_per_step,
            accumulation_steps=accumulation_steps,
            max_length=max_length,
            temperature=temperature,
            precision=precision,
            seed=seed,
            device=device,
        )

    def compile(
        self,
        student: dspy.Module,
        *,
        trainset: list[dspy.Example],
        teacher: dspy.Module | list[dspy.Module] | None = None,
        valset: list[dspy.Example] | None = None,
    ) -> dspy.Module:
        """Return an aligned copy of the student; the student stays as it is.

        Args:
            student: A program that holds one or more ``Rerank`` modules.
            trainset: Questions with gold ``answers`` (or ``answer``).
            teacher: Not used; accepted because DSPy's optimizers share one signature.
            valset: Questions to judge by; None keeps a part of the trainset for it. Questions are judged by their
                ``relevant`` passage ids, or, where no question has any, by passages that contain an answer.

        Raises:
            SettingsError: If the student has no trainable reranker or no retriever can be found.
            DataError: If no training question can be used.
            LanguageModelError: If the LM fails; what it had written is kept in ``run_dir``.
        """
        program = student.deepcopy()
        rerankers = _rerankers(program)
        retriever = self.retriever or _retriever_of(program)
        signals = self._signals(retriever)
        clock = _Clock()
        run = Run(self.run_dir)
        train, held_out = self._split(trainset, valset)

        with clock("retrieval"):
            found = rank_requests(train, retriever, self.candidates)
            requests, skipped = usable(found)
            if len(found) < len(train):
                skipped["repeated"] = len(train) - len(found)
            judged = rank_requests(held_out, retriever, getattr(program, "candidates", ANSWER_CANDIDATES))
        if not requests:
            raise DataError(f"None of the {len(train)} training questions can be used: {skipped}.")
        with clock("evaluation"):  # before anything is paid for: the base must load
            rows = {"first_stage": [one.ranking() for one in judged], "base": rerankers[0].rank_all(judged)}
        with clock("rationales"):
            requests, counts = explain(
                requests,
                run,
                lm=self.rationale_lm,
                extractor=self.extractor,
                given=self.rationales,
                num_threads=self.num_threads,
                show_progress=self.show_progress,
            )
        with clock("signals"):
            groups = build_groups(requests, signals, sampling=self.sampling, depth=self.depth)
            run.write_records("groups", (group.as_dict() for group in groups))
        if not groups:
            raise DataError(f"The sampling gave no preference group for any of {len(requests)} questions.")
        with clock("training"):
            result = self._train(rerankers, [group.texts() for group in groups], run)
        with clock("evaluation"):
            rows["aligned"] = rerankers[0].rank_all(judged)
            verdict = judge(judged)
            self.report = Report(
                metrics=compare(rows, judged),
                relevance=verdict.source,
                questions={"train": len(train), "used": len(requests), "skipped": skipped, "judged": verdict.judged},
                rationales=asdict(counts),
                groups=len(groups),
                training={
                    "architecture": rerankers[0].weights.architecture,
                    "base": rerankers[0].weights.base,
                    "updates": result.updates,
                    "first_loss": result.losses[0],
                    "last_loss": result.losses[-1],
                },
                seconds=clock.seconds,
                run_dir=str(run.path),
            )
        run.write("report", self.report.as_dict())
        return program

    def _split(
        self, trainset: Sequence[dspy.Example], valset: Sequence[dspy.Example] | None
    ) -> tuple[list[dspy.Example], list[dspy.Example]]:
        """The questions to learn from and to judge by; without a valset a fifth of the trainset is kept for it."""
        if not trainset:
            raise DataError("trainset is empty; give questions with their answers.")
        if valset:
            shared = {one.get("question") for one in trainset} & {one.get("question") for one in valset}
            if shared:
                logger.warning("%d questions are in trainset and valset: the report will flatter.", len(shared))
            return list(trainset), list(valset)
        if len(trainset) < 2:
            raise DataError("A trainset of one question leaves nothing to judge by; give a valset or more questions.")
        shuffled = list(trainset)
        random.Random(self.seed).shuffle(shuffled)
        kept = max(1, round(len(shuffled) * HELD_OUT))
        return shuffled[kept:], shuffled[:kept]

    def _signals(self, retriever: Retriever) -> dict[Signal, float]:
        """What makes a passage preferred, with weights (paper, section 3.3)."""
        index = retriever if isinstance(retriever, FaissRetriever) else None
        encoder = self.encoder or (index.encoder if index else None)
        if encoder is None:
            raise SettingsError("Give RADIO an encoder=: the retriever has none to share.")
        asked = self.rationale_lm is not None or bool(self.rationales)
        guide = RationaleSimilarity(encoder, index=index) if asked else AnswerSimilarity(encoder, index=index)
        return {guide: self.rationale_weight, RetrievalScore(): 1 - self.rationale_weight}

    def _train(self, rerankers: Sequence[Rerank], groups: Sequence[TextGroup], run: Run) -> TrainingResult:
        """Train each distinct checkpoint once and point every reranker that holds it to the new one."""
        from radio_dspy.distillation.training import train_reranker

        started: dict[str, RerankerWeights] = {}
        for rerank in rerankers:
            started.setdefault(_state_key(rerank.weights), copy.copy(rerank.weights))
        trained: dict[str, str] = {}
        results = []
        for key, weights in started.items():
            with run.new_checkpoint() as path:
                results.append(train_reranker(weights, groups, path, self.training, show_progress=self.show_progress))
                trained[key] = str(run.keep_checkpoint(path))
        for weights, key in {id(one.weights): (one.weights, _state_key(one.weights)) for one in rerankers}.values():
            weights.checkpoint = trained[key]
        return results[0]


def _state_key(weights: RerankerWeights) -> str:
    return json.dumps(weights.dump_state(), sort_keys=True)


def _rerankers(program: dspy.Module) -> list[Rerank]:
    found = [module for _, module in program.named_sub_modules(Rerank)]
    if not found:
        raise SettingsError(
            "The student holds no trainable reranker. Add one, for example "
            "`self.rerank = radio_dspy.Rerank('BAAI/bge-reranker-base')`, and call it on the retrieved passages."
        )
    return found


def _retriever_of(program: dspy.Module) -> Retriever:
    found = next((module for _, module in program.named_sub_modules(Retriever)), None)
    if found is None:
        raise SettingsError(
            "The student holds no radio_dspy retriever to take candidates from; give RADIO(retriever=...)."
        )
    return found


class _Clock:
    """Adds up wall-clock seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = round(self.seconds.get(stage, 0.0) + time.perf_counter() - started, 3)
