"""Fine-tune a program's reranker on preference groups that are there already: no LM, no index, the same gate."""

from __future__ import annotations

import copy
import json
import logging
from os import PathLike

import dspy
from dspy.teleprompt.teleprompt import Teleprompter
from radio_dspy.optimizers.job import Clock, told
from radio_dspy.optimizers.provenance import remember, training_settings

from radio_dspy.comparison import Comparison
from radio_dspy.distillation.gate import Gate, as_gate
from radio_dspy.distillation.given_groups import rank_requests_of, text_groups
from radio_dspy.distillation.seats import Seat, retriever_of, seats_of
from radio_dspy.distillation.settings import TrainingSettings
from radio_dspy.distillation.splitting import question_groups, split_by_group
from radio_dspy.encoders import TextEncoder, as_encoder
from radio_dspy.errors import DataError, SettingsError
from radio_dspy.flagembedding import load_groups
from radio_dspy.report import Report
from radio_dspy.reporting.writing import keep_report
from radio_dspy.rerankers.rerank import rank_with
from radio_dspy.retrievers.aligned import query_encoder
from radio_dspy.retrievers.faiss import FaissRetriever
from radio_dspy.runs import Run

logger = logging.getLogger(__name__)

NEGATIVES = 7  # FlagEmbedding's default: groups of eight


class GroupFinetune(Teleprompter):
    """Trains a program's reranker on groups of preferred and other passages, such as FlagEmbedding's lines.

    Where ``RADIO`` finds out by an LM which passages are to be preferred, here the trainset says so. Training, gate and
    report are the same: what does not rank held-out groups better is not returned.

    Args:
        training: How to train; None is the paper's way. The losses ``"listwise"`` and ``"margin"`` read ``pos_scores``
            and ``neg_scores``, which every group must have then.
        negatives: Negatives drawn for each positive; None takes all. Groups are judged with all of them.
        gate: Return the trained weights, or a mixture with the base, only where they beat the base on held-out groups:
            True, a ``Gate`` with rules of one's own, or False to return what was trained.
        encoder: Tells which questions are near-duplicates, so that a split keeps them on one side. None takes the
            program's retriever's or the bi-encoder's own; a cross-encoder alone counts equal questions only.
        run_dir: Folder for checkpoints and report; None takes a temporary one.
        show_progress: Show progress bars.

    After ``compile``, ``report`` holds rankings of the held-out groups before and after, and the gate's decision.

    Example:
        >>> from radio_dspy import Rerank
        >>> from radio_dspy.distillation import TrainingSettings
        >>> rows = [{"query": f"why is jug {i} cool?", "pos": ["Vapour."], "neg": ["Ice.", "Red."]} for i in range(24)]
        >>> groups = load_groups(rows)
        >>> settings = TrainingSettings(epochs=1, learning_rate=3e-5, max_length=32)
        >>> optimizer, rerank = GroupFinetune(settings, show_progress=False), Rerank("all-MiniLM-L6-v2", "bi-encoder")
        >>> aligned = optimizer.compile(rerank, trainset=groups[:12], valset=groups[12:])
        >>> optimizer.report.decision.startswith("Returned the ")
        True
    """

    def __init__(
        self,
        training: TrainingSettings | None = None,
        *,
        negatives: int | None = NEGATIVES,
        gate: bool | Gate = True,
        encoder: TextEncoder | str | None = None,
        run_dir: str | PathLike[str] | None = None,
        show_progress: bool = True,
    ) -> None:
        super().__init__()
        if negatives is not None and negatives < 1:
            raise SettingsError(f"negatives must be at least 1, or None for all; got {negatives}.")
        self.training = training or TrainingSettings()
        self.negatives = negatives
        self.gate = as_gate(gate)
        if self.gate is not None and self.gate.retrieval:
            raise SettingsError("Gate(retrieval=True) needs passages of an index by id; groups hold texts.")
        self.encoder = as_encoder(encoder) if encoder is not None else None
        self.run_dir = run_dir
        self.show_progress = show_progress
        self.report: Report | None = None

    def compile(
        self,
        student: dspy.Module,
        *,
        trainset: list[dspy.Example],
        teacher: dspy.Module | list[dspy.Module] | None = None,
        valset: list[dspy.Example] | None = None,
    ) -> dspy.Module:
        """Return a copy of the student with a trained reranker; the student stays as it is.

        Args:
            student: A program that holds one or more ``Rerank`` modules, or a ``Rerank`` itself. Each is trained.
            trainset: Groups: examples with ``question`` (or ``query``), ``pos`` and ``neg``; see ``load_groups``.
            teacher: Not used; accepted because DSPy's optimizers share one signature.
            valset: Groups to judge by; None keeps a part of the trainset for it.

        Raises:
            SettingsError: If the student has no trainable reranker.
            DataError: If an example is no group, or none can be used.
            RadioError: If training diverges and there is no gate.
        """
        from radio_dspy.distillation.alignment import Alignment, align
        from radio_dspy.distillation.judges import by_labels

        program = student.deepcopy()
        seats = seats_of(program, student)
        for seat in seats:
            self.training.check(seat.weights.architecture)
        train, held_out = self._split(program, seats[0], trainset, valset)
        groups, left_out, skipped = text_groups(train, self.negatives, self.training.seed)
        if not groups:
            raise DataError(f"None of the {len(train)} training groups can be used: {skipped}.")
        run, clock, device = Run(self.run_dir), Clock(), self.training.device
        judged = rank_requests_of(held_out)
        with clock("evaluation"):  # before anything is trained: the base must load
            rows = {"base": rank_with(seats[0].weights, judged, device)}
        done: dict[str, Alignment] = {}
        parts = []
        for seat in seats:
            key = json.dumps(seat.weights.dump_state(), sort_keys=True)
            if key not in done:  # equal weights learn the same
                with clock("training"):
                    done[key] = align(
                        seat.weights,
                        groups,
                        run,
                        self.training,
                        gate=self.gate,
                        judge=by_labels(judged, device),
                        metric="nDCG@10 against the groups",
                        show_progress=self.show_progress,
                    )
            parts.append(told(seat, len(groups), left_out, done[key]))
            seat.assign(copy.copy(done[key].weights))
        with clock("evaluation"):
            rows["aligned"] = rank_with(seats[0].weights, judged, device)
            comparison = Comparison(judged, rows)
        first, *others = parts
        self.report = Report(
            metrics=comparison.means,
            relevance="labels",
            questions={
                "train": len(train),
                "used": len(train) - sum(skipped.values()),
                "skipped": skipped,
                "judged": len(judged),
                "recorded": False,
            },
            rationales={},
            **first,
            others=others,
            seconds=clock.seconds,
            run_dir=str(run.path),
        )
        run.write("report", self.report.as_dict())
        settings = {"sampling": "as given", "negatives": self.negatives, **training_settings(self.training)}
        remember(seats, self.report, {"teacher": {}, "encoder": None, "rationale_lm": None, "settings": settings})
        keep_report(run, comparison)
        return program

    def _split(
        self, program: dspy.Module, seat: Seat, trainset: list[dspy.Example], valset: list[dspy.Example] | None
    ) -> tuple[list[dspy.Example], list[dspy.Example]]:
        """The groups to learn from and to judge by."""
        train = load_groups(example.toDict() for example in trainset)
        if any(example.get("prompt") for example in train):
            logger.warning("The groups' own prompts are not read: give the reranker Encoder(..., query_prefix=).")
        if valset:
            return train, load_groups(example.toDict() for example in valset)
        if len(train) < 2:
            raise DataError("A trainset of one group leaves nothing to judge by; give a valset or more groups.")
        texts = [example.question for example in train]
        encoder = self.encoder or _encoder_of(program, seat)
        first: dict[str, int] = {}
        equal = [first.setdefault(text, number) for number, text in enumerate(texts)]
        return split_by_group(train, question_groups(texts, encoder) if encoder else equal, self.training.seed)


def _encoder_of(program: dspy.Module, seat: Seat) -> TextEncoder | None:
    retriever = retriever_of(program)
    if isinstance(retriever, FaissRetriever):
        return retriever.encoder
    return query_encoder(seat.weights) if seat.weights.architecture == "bi-encoder" else None
