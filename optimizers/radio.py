"""RADIO: align a program's reranker with the reasons that lead to the answer (ACL Findings 2025, arXiv 2412.08519)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict
from os import PathLike
from typing import Any

import dspy
from dspy.teleprompt.teleprompt import Teleprompter
from radio_dspy.optimizers.arguments import with_moved, with_shortcuts
from radio_dspy.optimizers.asked import RationaleLM, asked_elsewhere, lm_of, opened_lm, threads_of
from radio_dspy.optimizers.diagnosis import Diagnosis
from radio_dspy.optimizers.estimate import Estimate, estimate
from radio_dspy.optimizers.job import Job, copies, explained, skipped, without_idle_slots
from radio_dspy.optimizers.mlflow_records import known_to_mlflow
from radio_dspy.optimizers.opening import open_job
from radio_dspy.optimizers.pipeline import NoGroupsError, untrained
from radio_dspy.optimizers.provenance import model_name, settings_of
from radio_dspy.optimizers.resume import described, taken_up
from radio_dspy.optimizers.teaching import (
    FurtherRounds,
    candidates_of,
    check_teacher,
    explain_questions,
    lesson_of,
    teacher_of,
    try_metric,
)

from radio_dspy.core.errors import DataError, SettingsError
from radio_dspy.distillation.gate.decision import Gate, as_gate, check_judging
from radio_dspy.distillation.loss import Loss, LossName
from radio_dspy.distillation.preferences.settings import PreferenceSettings
from radio_dspy.distillation.rationales.settings import RationaleSettings
from radio_dspy.distillation.teacher.signals import Signal
from radio_dspy.distillation.training.settings import TrainingSettings
from radio_dspy.evaluation.metric_values import check_metric
from radio_dspy.lm.limits import Budget
from radio_dspy.models.encoder import TextEncoder
from radio_dspy.models.engine import Engine
from radio_dspy.models.files import weights_name
from radio_dspy.models.open_encoder import as_encoder
from radio_dspy.reporting.report import Report
from radio_dspy.retrievers.base import Retriever
from radio_dspy.retrievers.requests import usable
from radio_dspy.runs.run import Run


@known_to_mlflow
class RADIO(Teleprompter):
    """Distils the reasons for the gold answers into a program's trainable reranker.

    For each training question: retrieve candidates, let the LM explain the gold answer, score the candidates by their
    similarity to ``question. answers. rationale``, fuse that with the retrieval score, sample preference groups, and
    fine-tune the reranker on them by InfoNCE. Prompts and demonstrations of the student are left alone.

    Args:
        rationale_lm: Who explains the answers: any ``dspy.LM``, or its LiteLLM name. None takes ``dspy.settings.lm``;
            False asks no LM: the guide is ``question. answers``.
        encoder: Compares passages with the guide: an ``Encoder`` or ``RemoteEncoder``, or the name of one. None takes
            the retriever's.
        signals: What makes a passage preferred, each with its weight; None is the guide and the retrieval score.
        preferences: How preference groups are made; None is the paper's way, with false negatives left out.
        loss: ``"infonce"`` (the paper's), ``"multi-positive"``, ``"listwise"`` (KL to the fused scores), ``"margin"``,
            another name that ``TrainingSettings`` lists, or a ``Loss``.
        training: How the reranker is fine-tuned; None is the paper's way.
        gate: Return the trained weights, or a mixture with the base, only where they beat the base on held-out
            questions: True, a ``Gate`` with rules of one's own, or False to return what was trained.
        metric: What the gate judges by: ``metric(example, prediction)`` on the program's own predictions. None is
            nDCG@10: against labels where held-out questions have ``relevant`` ids, else against the fused teacher.
        budget: What LM calls may cost. One more ends ``compile`` with a ``BudgetError``, and what was paid for is
            kept in ``run_dir``. None has no limit.
        retriever: The first stage; None takes the one inside the student, or records what reaches each ``Rerank``
            while the student runs on the questions.
        rationales: Precomputed rationales by question id (the LM is asked only for the others), or
            ``RationaleSettings``.
        rounds: How often to train. After the first time, signals that ask an LM about the first ``depth`` passages are
            also asked about those that the aligned reranker newly ranks among its own first, and training begins again
            from the base. Every round passes the gate; the best is taken. The paper's is 1.
        run_dir: Folder for records and checkpoints. An existing run is resumed: nothing that still fits is asked or
            trained twice, and the result is that of a run in one go (see docs/runs.md). None takes a new one in the
            user's cache folder (``RADIO_DSPY_CACHE``).
        answer_field: The examples' field that holds the gold answers; None looks for ``answers``, ``golden_answers``,
            ``answer``, ``response`` and ``output``.
        num_threads: LM calls in flight at the same time; None takes ``dspy.settings.num_threads``.
        batch: Ask for rationales and LM signals in batches, at half the price and within a day.
        engine: Where encoders, LM calls and, with its ``trainers``, training run, such as a ``RayEngine``; None is this
            process. Batches go from here.
        seed: Decides the order of training and the held-out part; like the next three a shortcut into ``training``.
        epochs: Passes over the groups; the paper's 2.
        learning_rate: The paper's 6e-5; small sets and bi-encoders do better with less.
        max_length: Longest input in tokens; the paper's 512.
        **moved: Arguments of the first release, which say in a warning where they are given now.

    After ``compile``, ``report`` holds rankings before and after, the gate's decision, counts, tokens and seconds;
    ``report.html`` in ``run_dir`` is a page to read and to search (docs/reports.md).

    Example:
        >>> from radio_dspy import FaissRetriever, PreferenceSettings, Rerank, RetrieveRerankAnswer, datasets
        >>> data = datasets.demo()
        >>> kitchen = lambda rows: [one for one in rows if one.id.startswith("kit")]  # one topic, to be quick
        >>> retriever = FaissRetriever.build(kitchen(data.passages), encoder="all-MiniLM-L6-v2")
        >>> rerank = Rerank("all-MiniLM-L6-v2", architecture="bi-encoder")
        >>> student = RetrieveRerankAnswer(retriever, rerank, candidates=10)
        >>> preferences = PreferenceSettings(candidates=10)
        >>> optimizer = RADIO(False, preferences=preferences, epochs=1, learning_rate=3e-5, max_length=64)
        >>> aligned = optimizer.compile(student, trainset=kitchen(data.train)[:8], valset=kitchen(data.test))
        >>> sorted(optimizer.report.metrics)
        ['aligned', 'base', 'first_stage']
        >>> optimizer.report.decision.startswith("Returned the ")
        True
    """

    def __init__(
        self,
        rationale_lm: RationaleLM = None,
        encoder: TextEncoder | str | None = None,
        *,
        signals: Mapping[Signal, float] | None = None,
        preferences: PreferenceSettings | None = None,
        loss: LossName | Loss | None = None,
        training: TrainingSettings | None = None,
        gate: bool | Gate = True,
        metric: Callable[..., Any] | None = None,
        budget: Budget | None = None,
        retriever: Retriever | None = None,
        rationales: RationaleSettings | Mapping[str, str] | None = None,
        rounds: int = 1,
        run_dir: str | PathLike[str] | None = None,
        answer_field: str | None = None,
        num_threads: int | None = None,
        batch: bool = False,
        engine: Engine | None = None,
        seed: int | None = None,
        epochs: int | None = None,
        learning_rate: float | None = None,
        max_length: int | None = None,
        **moved: Any,
    ) -> None:
        super().__init__()
        if num_threads is not None and num_threads < 1:
            raise SettingsError(f"num_threads must be at least 1, got {num_threads}.")
        if not isinstance(rationales, RationaleSettings):
            rationales = RationaleSettings(given=rationales or {})
        settings: dict[str, Any] = {
            "preferences": preferences or PreferenceSettings(),
            "training": training or TrainingSettings(),
            "rationales": rationales,
            "budget": budget or Budget(),
        }
        settings = with_moved(type(self).__name__, moved, settings) if moved else settings
        self.training: TrainingSettings = with_shortcuts(
            settings["training"],
            loss=loss,
            seed=seed,
            num_train_epochs=epochs,
            learning_rate=learning_rate,
            max_length=max_length,
        )
        criterion = self.training.open_loss()
        self.preferences: PreferenceSettings = settings["preferences"].for_loss(
            criterion.contrastive, several_positives=getattr(criterion, "several_positives", False)
        )
        self.rationales: RationaleSettings = settings["rationales"]
        self.budget: Budget = settings["budget"]
        if signals is not None and self.rationales.weight is not None:
            raise SettingsError(
                "signals have weights of their own; a weight of rationales beside them would do nothing."
            )
        check_teacher(self.preferences, signals, rounds)
        self.rounds = rounds
        self.given_lm = opened_lm(rationale_lm)
        self.encoder = as_encoder(encoder) if encoder is not None else None
        self.signals = dict(signals) if signals is not None else None
        self.gate = as_gate(gate)
        if metric is not None:
            check_metric(metric)
            check_judging(self.gate, metric)
        self.metric = metric
        self.retriever = retriever
        self.answer_field = answer_field
        self._num_threads = num_threads
        self.batch = batch
        self.engine = engine
        self.run_dir = run_dir
        self.report: Report | None = None

    @property
    def rationale_lm(self) -> dspy.LM | None:
        """Who is asked for rationales now; None where nobody is."""
        return lm_of(self.given_lm, self.signals)

    @property
    def num_threads(self) -> int:
        """LM calls in flight at the same time."""
        return threads_of(self._num_threads)

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
            trainset: Questions with gold answers; see ``answer_field``.
            teacher: Not used; accepted because DSPy's optimizers share one signature.
            valset: Questions to judge by; None keeps a part of the trainset for it. Questions are judged by their
                ``relevant`` passage ids, or, where no question has any, by passages that contain an answer.

        Raises:
            SettingsError: If the student has no trainable reranker or no retriever can be found.
            DataError: If no training question can be used.
            LanguageModelError: If the LM fails; what it had written is kept in ``run_dir``.
            BudgetError: If ``max_calls`` or ``max_cost`` is reached; the same holds.
            RunError: If another process is writing in ``run_dir``, or the folder is another thing's.
            KeyboardInterrupt: After Ctrl-C, when the call or update in hand is finished and kept.
        """
        Run(self.run_dir).check()  # before any question is encoded
        job = open_job(self, student, trainset, valset)
        with taken_up(job.run, described(self, job)):
            self.report = self._compile(job)
        return job.program

    def _compile(self, job: Job) -> Report:
        """Go through the stages; each reuses what the run folder holds."""
        reached = candidates_of(self, job)
        job, reached = without_idle_slots(job, reached)
        used = [usable(seen.requests) for seen in reached.train]
        if not any(requests for requests, _ in used):
            raise DataError(
                f"None of the {len(job.train)} training questions can be used: {used[0][1]}. Answers are an example's "
                "`answers` (or `answer`, `response`, `output`), or what RADIO(answer_field=) names."
            )
        judged = reached.held_out[0].requests
        # Before anything is paid for: the base must load, and the metric must give values.
        rows = {"first_stage": [one.ranking() for one in judged], "base": job.pipeline.rank(job.slots[0], judged)}
        try_metric(self, job)
        texts, counts = explain_questions(self, job, reached)
        signals = teacher_of(self, job)
        conclude = functools.partial(
            job.pipeline.conclude,
            job.slots,
            judged=judged,
            rows=rows,
            questions={
                "train": len(job.train),
                "used": len({reached.train[0].question_of[one.id] for one in used[0][0]}),
                "skipped": skipped(job, reached, used[0][1]),
                "recorded": reached.recorded,
                **copies(reached),
            },
            rationales=asdict(counts),
            how={
                "teacher": {signal.name: float(weight) for signal, weight in signals.items()},
                "encoder": weights_name(job.encoder.name),
                "rationale_lm": model_name(self.rationale_lm),
                "settings": settings_of(self.preferences, self.training, self.rationales, self.rounds),
            },
        )
        try:
            with asked_elsewhere(signals, job.run, batch=self.batch, engine=self.engine):
                parts = job.pipeline.align(
                    job.slots,
                    lambda number, slot: lesson_of(
                        self, job, number, slot, used[number][0], (reached.train[number], reached.held_out[number]),
                        texts, signals,
                    ),
                    FurtherRounds(
                        self, job, lambda number: explained(used[number][0], reached.train[number], texts), signals
                    ),
                    self.rounds,
                )  # fmt: skip
        except NoGroupsError as error:
            self.report = conclude(untrained(job.slots, error))
            raise
        return conclude(parts)

    def estimate(
        self, student: dspy.Module, *, trainset: list[dspy.Example], valset: list[dspy.Example] | None = None
    ) -> Estimate:
        """Estimate the LM calls of ``compile`` with the same arguments; nothing is asked, and nothing is written.

        Rationales that ``run_dir`` keeps are not counted again. Prices are LiteLLM's.

        Example:
            >>> from radio_dspy import FaissRetriever, Rerank, RetrieveRerankAnswer, datasets
            >>> data = datasets.demo()
            >>> kitchen = lambda rows: [one for one in rows if one.id.startswith("kit")]
            >>> retriever = FaissRetriever.build(kitchen(data.passages), encoder="all-MiniLM-L6-v2")
            >>> student = RetrieveRerankAnswer(retriever, Rerank("all-MiniLM-L6-v2", architecture="bi-encoder"))
            >>> optimizer = RADIO(dspy.LM("openai/gpt-4o-mini", api_key="..."))
            >>> bill = optimizer.estimate(student, trainset=kitchen(data.train)[:10], valset=kitchen(data.test))
            >>> bill.calls, bill.calls_at_most, bill.cost < 0.01
            (10, 20, True)
        """
        return estimate(self, open_job(self, student, trainset, valset, encodes=False), guessed_split=not valset)

    def diagnose(self, student: dspy.Module, trainset: list[dspy.Example], *, questions: int = 50) -> Diagnosis:
        """Say before any training whether it is likely to help, with whom as the teacher, and what that would cost.

        Looks at up to ``questions`` of the training questions: what the reranker lacks of the best order of its
        candidates, how well each signal agrees with labels (or with passages that contain an answer), and whether the
        rationales help the LM to the answer. Nothing is trained. Where the optimizer has an LM, it is asked for these
        questions' rationales and signals, and twice a question about the rationale; ``run_dir`` keeps what it said for
        ``compile``.

        Args:
            student: The program.
            trainset: The training questions.
            questions: How many of them are looked at.

        Raises:
            DataError: If no question can be used.
            SettingsError: As for ``compile``.
            BudgetError: If a limit is reached.

        Example:
            >>> from radio_dspy import FaissRetriever, Rerank, RetrieveRerankAnswer, datasets
            >>> data = datasets.demo()
            >>> kitchen = lambda rows: [one for one in rows if one.id.startswith("kit")]
            >>> retriever = FaissRetriever.build(kitchen(data.passages), encoder="all-MiniLM-L6-v2")
            >>> student = RetrieveRerankAnswer(retriever, Rerank("all-MiniLM-L6-v2", architecture="bi-encoder"))
            >>> found = RADIO(False).diagnose(student, kitchen(data.train))
            >>> found.calls, found.headroom > 0.1, found.recommendation.startswith(("Train", "Do not train"))
            (0, True, True)
        """
        from radio_dspy.optimizers.diagnosing import diagnose

        return diagnose(self, student, trainset, questions)

    def judges_by_teacher(self, labels: Iterable[Collection[str]]) -> bool:
        """Whether the gate goes by the teacher, which then needs the held-out questions' rationales as well."""
        return self.gate is not None and self.metric is None and not any(labels)
