"""RADIO: align a program's reranker with the reasons that lead to the answer (ACL Findings 2025, arXiv 2412.08519)."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from os import PathLike
from typing import TYPE_CHECKING, Any

import dspy
from dspy.teleprompt.teleprompt import Teleprompter
from radio_dspy.optimizers.estimate import Estimate, estimate
from radio_dspy.optimizers.job import (
    Clock,
    Job,
    check_ids,
    explained,
    index_vectors,
    listed,
    questions_of,
    searchable,
    skipped,
    told,
    without_idle_seats,
)
from radio_dspy.optimizers.provenance import remember_training
from radio_dspy.optimizers.resume import keeping_scores, taken_up

from radio_dspy.comparison import Comparison
from radio_dspy.distillation.extractor import RationaleExtractor
from radio_dspy.distillation.gate import Gate, as_gate
from radio_dspy.distillation.groups import DEPTH, Sampling, SamplingFunction
from radio_dspy.distillation.guards import NO_GUARD, FalseNegatives
from radio_dspy.distillation.losses import Loss, LossName
from radio_dspy.distillation.observation import Reached, observe
from radio_dspy.distillation.preferences import (
    GroupSettings,
    QuestionGroup,
    build_groups,
    distinct_questions,
    each_fused_ranking,
    fused_rankings,
    usable,
)
from radio_dspy.distillation.rationales import RationaleCounts, explain
from radio_dspy.distillation.seats import Seat, retriever_of, seats_of
from radio_dspy.distillation.settings import (
    PAPER_EPOCHS,
    PAPER_GROUPS_PER_STEP,
    PAPER_LEARNING_RATE,
    PAPER_MAX_LENGTH,
    PAPER_WEIGHT_DECAY,
    LoraSettings,
    Precision,
    Tower,
    TrainingSettings,
)
from radio_dspy.distillation.signals import AnswerSimilarity, RationaleSimilarity, RetrievalScore, Signal
from radio_dspy.distillation.splitting import question_groups, split_by_group
from radio_dspy.encoders import TextEncoder, as_encoder
from radio_dspy.errors import DataError, SettingsError
from radio_dspy.passages import RankRequest
from radio_dspy.report import Report
from radio_dspy.reporting.writing import keep_report
from radio_dspy.rerankers.rerank import rank_with
from radio_dspy.retrievers.base import Retriever
from radio_dspy.retrievers.faiss import FaissRetriever
from radio_dspy.runs import Run
from radio_dspy.spending import Ledger

if TYPE_CHECKING:
    from radio_dspy.distillation.alignment import Alignment

logger = logging.getLogger(__name__)

PAPER_CANDIDATES = 50  # section 3.1: candidates a training question
PAPER_RATIONALE_WEIGHT = 0.5  # section 3.3: w


class RADIO(Teleprompter):
    """Distils the reasons for the gold answers into a program's trainable reranker.

    For each training question: retrieve candidates, let the LM explain the gold answer, score the candidates by their
    similarity to ``question. answers. rationale``, fuse that with the retrieval score, sample preference groups, and
    fine-tune the reranker on them by InfoNCE. Prompts and demonstrations of the student are left alone.

    Args:
        rationale_lm: Who explains the answers: any ``dspy.LM``, or its LiteLLM name. None asks no LM: the guide is
            ``question. answers``.
        encoder: Compares passages with the guide: an ``Encoder`` or ``RemoteEncoder``, or the name of one. None takes
            the retriever's.
        rationale_weight: Weight ``w`` of the guide against the retrieval score, in [0, 1]; the paper's 0.5.
        signals: What makes a passage preferred, each with its weight, in place of guide and retrieval score.
        sampling: ``"shift"`` (the paper's), ``"shift_all_neg"``, ``"iteration"``, ``"all"``, or an own function; None
            is ``"all"`` for the listwise loss and ``"shift"`` for the others.
        depth: How much of the fused list is sampled from; None is all candidates for the listwise loss and the paper's
            20 for the others.
        hard_negatives: Positions (first, last) of the fused list that negatives come from; None is the sampling's own.
        random_negatives: Passages drawn from the whole corpus for each group; the paper has none.
        in_batch_negatives: Also take the other groups' positives as negatives; the paper does not.
        guards: Leave out false negatives and useless rationales: True, a ``FalseNegatives`` with thresholds of one's
            own, or False for exactly the paper's way.
        confident_share: Learn from this part of the questions only: those where the teacher's first passage stands
            highest above its second. The paper takes all; half costs half, for about the same gain (docs/ablation.md).
        candidates: Passages retrieved for a training question; the paper's 50.
        epochs: Passes over the groups; the paper's 2.
        learning_rate: The paper's 6e-5; small sets and bi-encoders do better with less.
        max_length: Longest input in tokens; the paper's 512.
        groups_per_step: Groups in a forward pass; the paper's 16.
        accumulation_steps: Forward passes an update; None is the paper's 4, fewer for few questions.
        weight_decay: AdamW's; the paper's 0.01.
        loss: ``"infonce"`` (the paper's), ``"listwise"`` (KL to the fused scores), ``"margin"``, or a ``Loss``.
        temperature: The loss's; the paper's 1.
        target_temperature: The listwise loss's, for the fused scores.
        tower: What a bi-encoder trains: ``"both"`` its shared encoder, ``"query"`` the query side alone. Then passage
            vectors are taken from the index, and ``aligned_retriever`` searches that index with the trained query side.
        lora: Train low-rank adapters (``pip install 'radio-dspy[lora]'``), for large rerankers.
        gate: Return the trained weights, or a mixture with the base, only where they beat the base on held-out
            questions: True, a ``Gate`` with rules of one's own, or False to return what was trained.
        metric: What the gate judges by: ``metric(example, prediction)`` on the program's own predictions. None is
            nDCG@10: against labels where held-out questions have ``relevant`` ids, else against the fused teacher.
        precision: ``"auto"``, ``"fp32"``, ``"bf16"`` or ``"fp16"``.
        averaged_runs: Train so many times, each in another order, and average the weights: steadier and a little better
            than one run, at so many times the cost (docs/ablation.md). The paper trains once.
        device: Where to train; None chooses.
        rationales: Rationales that are there already, by question id; the LM is asked only for the others.
        extractor: Asks for the rationales; None is ``RationaleExtractor()``.
        retriever: The first stage; None takes the one inside the student, or records what reaches each ``Rerank``
            while the student runs on the questions.
        num_threads: LM calls in flight at the same time.
        max_calls: LM calls that a ``compile`` may make; cached ones are free. One more ends it with a ``BudgetError``,
            and what was bought is kept in ``run_dir``. None has no limit.
        max_cost: The same in US dollars by LiteLLM's price list; calls in flight may still add theirs.
        run_dir: Folder for records and checkpoints. A folder that is there is taken up again: what fits is not asked or
            trained twice, and the end is that of a run in one go (see docs/runs.md). None takes a temporary one.
        checkpoint_updates: Updates between two training checkpoints in ``run_dir``; None saves about every five
            minutes, so that a shorter training saves none.
        seed: Decides the order of training and the held-out part.
        show_progress: Show progress bars.

    After ``compile``, ``report`` holds rankings before and after, the gate's decision, counts, tokens and seconds;
    ``report.html`` in ``run_dir`` is a page to read and to search (docs/reports.md).

    Example:
        >>> from radio_dspy import FaissRetriever, Rerank, RetrieveRerankAnswer, datasets
        >>> data = datasets.demo()
        >>> kitchen = lambda rows: [one for one in rows if one.id.startswith("kit")]  # one topic, to be quick
        >>> retriever = FaissRetriever.build(kitchen(data.passages), encoder="all-MiniLM-L6-v2")
        >>> rerank = Rerank("all-MiniLM-L6-v2", architecture="bi-encoder")
        >>> student = RetrieveRerankAnswer(retriever, rerank, candidates=10)
        >>> optimizer = RADIO(epochs=1, learning_rate=3e-5, max_length=64, candidates=10, show_progress=False)
        >>> aligned = optimizer.compile(student, trainset=kitchen(data.train)[:8], valset=kitchen(data.test))
        >>> sorted(optimizer.report.metrics)
        ['aligned', 'base', 'first_stage']
        >>> optimizer.report.decision.startswith("Returned the ")
        True
    """

    def __init__(
        self,
        rationale_lm: dspy.LM | str | None = None,
        encoder: TextEncoder | str | None = None,
        *,
        rationale_weight: float = PAPER_RATIONALE_WEIGHT,
        signals: Mapping[Signal, float] | None = None,
        sampling: Sampling | SamplingFunction | None = None,
        depth: int | None = None,
        hard_negatives: tuple[int, int] | None = None,
        random_negatives: int = 0,
        in_batch_negatives: bool = False,
        guards: bool | FalseNegatives = True,
        confident_share: float = 1.0,
        candidates: int = PAPER_CANDIDATES,
        epochs: int = PAPER_EPOCHS,
        learning_rate: float = PAPER_LEARNING_RATE,
        max_length: int = PAPER_MAX_LENGTH,
        groups_per_step: int = PAPER_GROUPS_PER_STEP,
        accumulation_steps: int | None = None,
        weight_decay: float = PAPER_WEIGHT_DECAY,
        loss: LossName | Loss = "infonce",
        temperature: float = 1.0,
        target_temperature: float = 0.05,
        tower: Tower = "both",
        lora: LoraSettings | None = None,
        gate: bool | Gate = True,
        metric: Callable[..., Any] | None = None,
        precision: Precision = "auto",
        averaged_runs: int = 1,
        device: str | None = None,
        rationales: Mapping[str, str] | None = None,
        extractor: RationaleExtractor | None = None,
        retriever: Retriever | None = None,
        num_threads: int = 1,
        max_calls: int | None = None,
        max_cost: float | None = None,
        run_dir: str | PathLike[str] | None = None,
        checkpoint_updates: int | None = None,
        seed: int = 42,
        show_progress: bool = True,
    ) -> None:
        super().__init__()
        if not 0 <= rationale_weight <= 1:
            raise SettingsError(f"rationale_weight must lie in [0, 1], got {rationale_weight}.")
        if candidates < 2 or num_threads < 1:
            raise SettingsError(f"Need candidates >= 2 and num_threads >= 1, got {candidates} and {num_threads}.")
        if checkpoint_updates is not None and checkpoint_updates < 1:
            raise SettingsError(f"checkpoint_updates must be at least 1, or None; got {checkpoint_updates}.")
        if signals is not None and not signals:
            raise SettingsError("signals is empty; give at least one signal with its weight, or None.")
        self.rationale_lm = dspy.LM(rationale_lm) if isinstance(rationale_lm, str) else rationale_lm
        self.encoder = as_encoder(encoder) if encoder is not None else None
        self.rationale_weight = rationale_weight
        self.signals = dict(signals) if signals is not None else None
        self.candidates = candidates
        self.guards = bool(guards)
        self.gate = as_gate(gate)
        self.metric = metric
        if rationales is not None and not isinstance(rationales, Mapping):
            raise SettingsError(f"rationales go by question id: give a dict, got {type(rationales).__name__}.")
        self.rationales = dict(rationales or {})
        self.extractor = extractor or RationaleExtractor()
        self.retriever = retriever
        self.num_threads = num_threads
        Ledger(max_calls, max_cost)  # raises for limits out of range
        self.max_calls = max_calls
        self.max_cost = max_cost
        self.run_dir = run_dir
        self.checkpoint_updates = checkpoint_updates
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
            loss=loss,
            temperature=temperature,
            target_temperature=target_temperature,
            tower=tower,
            in_batch_negatives=in_batch_negatives,
            lora=lora,
            precision=precision,
            averaged_runs=averaged_runs,
            seed=seed,
            device=device,
        )
        contrastive = self.training.open_loss().contrastive
        guard = guards if isinstance(guards, FalseNegatives) else FalseNegatives() if guards else NO_GUARD
        self.grouping = GroupSettings(
            sampling=sampling or ("shift" if contrastive else "all"),
            depth=depth or (DEPTH if contrastive else candidates),
            hard_negatives=hard_negatives,
            random_negatives=random_negatives,
            confident_share=confident_share,
            guard=guard if contrastive else NO_GUARD,  # a listwise loss has no negatives that could be false
            seed=seed,
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
            BudgetError: If ``max_calls`` or ``max_cost`` is reached; the same holds.
            RunError: If another process is writing in ``run_dir``, or the folder is another thing's.
            KeyboardInterrupt: After Ctrl-C, when the call or update in hand is finished and kept.
        """
        job = self._job(student, trainset, valset)
        with taken_up(self, job):
            return self._compile(job)

    def _compile(self, job: Job) -> dspy.Module:
        """Go through the stages; each takes from the run folder what is there already."""
        with job.stage("retrieval"):
            reached = observe(
                job.program,
                job.seats,
                job.train,
                job.held_out,
                retriever=self.retriever,
                candidates=self.candidates,
                num_threads=self.num_threads,
                show_progress=self.show_progress,
                run=job.run,
            )
        job, reached = without_idle_seats(job, reached)
        used = [usable(seen.requests) for seen in reached.train]
        if not any(requests for requests, _ in used):
            raise DataError(
                f"None of the {len(job.train)} training questions can be used: {used[0][1]}. Answers are an "
                "example's `answers` (or `answer`); load_questions reads them from golden_answers or answers."
            )
        judged = reached.held_out[0].requests
        with job.clock("evaluation"):  # before anything is paid for: the base must load
            rows = {
                "first_stage": [one.ranking() for one in judged],
                "base": rank_with(job.seats[0].weights, judged, self.training.device),
            }
        texts, counts = self._explain(job, reached)
        signals = self._teacher(job)
        with keeping_scores(signals, job.run):
            parts = self._align_all(job, reached, [requests for requests, _ in used], texts, signals)
        with job.clock("evaluation"):
            rows["aligned"] = rank_with(job.seats[0].weights, judged, self.training.device)
            comparison = Comparison(judged, rows)
            metrics = comparison.means
        first, *others = parts
        self.report = Report(
            metrics=metrics,
            relevance=comparison.judgement.source,
            questions={
                "train": len(job.train),
                "used": len({reached.train[0].question_of[one.id] for one in used[0][0]}),
                "skipped": skipped(job, reached, used[0][1]),
                "judged": comparison.judgement.judged,
                "recorded": reached.recorded,
            },
            rationales=asdict(counts),
            **first,
            others=others,
            seconds=job.clock.seconds,
            spending=job.ledger.as_dict(),
            run_dir=str(job.run.path),
        )
        job.run.write("report", self.report.as_dict())
        remember_training(self, job, self.report, signals)
        keep_report(job.run, comparison)
        return job.program

    def estimate(
        self, student: dspy.Module, *, trainset: list[dspy.Example], valset: list[dspy.Example] | None = None
    ) -> Estimate:
        """What ``compile`` with the same arguments will ask of LMs; nothing is asked, and nothing is written.

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
        return estimate(self, self._job(student, trainset, valset))

    def _job(
        self, student: dspy.Module, trainset: Sequence[dspy.Example], valset: Sequence[dspy.Example] | None
    ) -> Job:
        """Copy the student and sort the questions; nothing is computed yet."""
        trainset, valset = listed(trainset, "trainset"), listed(valset or (), "valset")
        program = student.deepcopy()
        seats = seats_of(program, student)
        for seat in seats:
            self.training.check(seat.weights.architecture)
        first_stage = self.retriever or retriever_of(program)
        encoder = self.encoder or (first_stage.encoder if isinstance(first_stage, FaissRetriever) else None)
        if encoder is None:
            raise SettingsError("Give RADIO an encoder=: the retriever has none to share.")
        train, held_out = self._split(trainset, valset, encoder)
        ledger = Ledger(self.max_calls, self.max_cost)
        job = Job(program, seats, train, held_out, first_stage, encoder, Run(self.run_dir), Clock(), ledger)
        check_ids(job, self.rationales)
        if self.gate is not None and self.gate.retrieval:  # before anything is paid for
            for seat in seats:
                searchable(job, seat, self.training.tower)
        return job

    def _split(
        self, trainset: Sequence[dspy.Example], valset: Sequence[dspy.Example] | None, encoder: TextEncoder
    ) -> tuple[list[dspy.Example], list[dspy.Example]]:
        """The questions to learn from and to judge by; without a valset a part of the trainset is kept for it."""
        if not trainset:
            raise DataError("trainset is empty; give questions with their answers.")
        for examples in (trainset, valset or ()):
            distinct_questions(examples)  # raises for what is no question
        if valset:
            shared = {one.get("question") for one in trainset} & {one.get("question") for one in valset}
            if shared:
                logger.warning("%d questions are in trainset and valset: the report will flatter.", len(shared))
            return list(trainset), list(valset)
        if len(trainset) < 2:
            raise DataError("A trainset of one question leaves nothing to judge by; give a valset or more questions.")
        groups = question_groups([one.question for one in trainset], encoder)
        return split_by_group(trainset, groups, self.seed)

    def _explain(self, job: Job, reached: Reached) -> tuple[dict[str, str], RationaleCounts]:
        """A rationale for every question that the teacher is asked about."""
        labels = (one.relevant for seen in reached.held_out for one in seen.requests)
        asked = [*job.train, *job.held_out] if self.judges_by_teacher(labels) else job.train
        with job.stage("rationales"):
            return explain(
                questions_of(asked),
                job.run,
                lm=self.rationale_lm,
                extractor=self.extractor,
                given=self.rationales,
                encoder=job.encoder,
                check=self.guards,
                num_threads=self.num_threads,
                show_progress=self.show_progress,
            )

    def judges_by_teacher(self, labels: Iterable[Collection[str]]) -> bool:
        """Whether the gate goes by the teacher, which then needs the held-out questions' rationales as well."""
        return self.gate is not None and self.metric is None and not any(labels)

    def _teacher(self, job: Job) -> dict[Signal, float]:
        """What makes a passage preferred, with weights (paper, section 3.3)."""
        if self.signals is not None:
            return self.signals
        index = job.first_stage if isinstance(job.first_stage, FaissRetriever) else None
        asked = self.rationale_lm is not None or bool(self.rationales)
        guide = RationaleSimilarity(job.encoder, index=index) if asked else AnswerSimilarity(job.encoder, index=index)
        return {guide: self.rationale_weight, RetrievalScore(): 1 - self.rationale_weight}

    def _align_all(
        self,
        job: Job,
        reached: Reached,
        used: Sequence[list[RankRequest]],
        texts: Mapping[str, str],
        teacher: Mapping[Signal, float],
    ) -> list[dict[str, Any]]:
        """Align every seat and say for each what happened; equal weights that learn the same are trained once."""
        corpus = getattr(job.first_stage, "passages", ())
        done: dict[str, Alignment] = {}
        parts = []
        for number, seat in enumerate(job.seats):
            with job.stage("signals"):
                requests = explained(used[number], reached.train[number], texts)
                fused = each_fused_ranking(requests, teacher)
                groups, left_out = build_groups(requests, fused, self.grouping, corpus=corpus)
                name = "groups" if number == 0 else f"groups-{number + 1}"
                written = job.run.write_records(name, (group.as_dict() for group in groups))
                del requests, fused  # training needs the memory
            if not groups:
                raise DataError(
                    f"{seat.name}: no preference group came of {len(used[number])} questions; left out: {left_out}."
                )
            key = json.dumps([seat.weights.dump_state(), written], sort_keys=True)
            if key not in done:
                judged = explained(reached.held_out[number].requests, reached.held_out[number], texts)
                done[key] = self._align(job, seat, groups, judged, teacher)
            parts.append(told(seat, len(groups), left_out, done[key]))
            seat.assign(copy.copy(done[key].weights))
        return parts

    def _align(
        self,
        job: Job,
        seat: Seat,
        groups: Sequence[QuestionGroup],
        judged: Sequence[RankRequest],
        teacher: Mapping[Signal, float],
    ) -> Alignment:
        """Train one seat and pass the gate."""
        from radio_dspy.distillation import judges
        from radio_dspy.distillation.alignment import align

        device = self.training.device
        passing: dict[str, Any] = {}
        if self.gate is not None:
            if self.metric is not None:
                by = judges.by_metric(job.program, seat, job.held_out, self.metric, self.num_threads, job.run)
                passing = {"judge": by, "metric": getattr(self.metric, "__name__", "metric")}
            elif any(one.relevant for one in judged):
                passing = {"judge": judges.by_labels(judged, device), "metric": "nDCG@10 against labels"}
            else:
                judged = usable(judged)[0]
                by = judges.by_teacher(judged, fused_rankings(judged, teacher), device)
                passing = {"judge": by, "metric": "nDCG@10 against the teacher"}
            if self.gate.retrieval:
                passing["recall"] = judges.by_recall(searchable(job, seat, self.training.tower), judged)
        with job.stage("training"):
            return align(
                seat.weights,
                [group.texts() for group in groups],
                job.run,
                self.training,
                gate=self.gate,
                passage_vectors=index_vectors(job, seat, groups) if self.training.tower == "query" else None,
                checkpoint_updates=self.checkpoint_updates,
                show_progress=self.show_progress,
                **passing,
            )
