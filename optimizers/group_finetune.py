"""Fine-tune a program's reranker on precomputed preference groups, without an LM or an index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from os import PathLike
from typing import TYPE_CHECKING, Any

import dspy
from dspy.teleprompt.teleprompt import Teleprompter
from radio_dspy.optimizers.arguments import with_moved
from radio_dspy.optimizers.mlflow_records import known_to_mlflow
from radio_dspy.optimizers.pipeline import Lesson, Pipeline
from radio_dspy.optimizers.provenance import training_settings
from radio_dspy.optimizers.resume import taken_up

from radio_dspy.core.errors import DataError, SettingsError
from radio_dspy.core.modules import check_module
from radio_dspy.core.redaction import logger_of
from radio_dspy.datasets.groups import load_groups
from radio_dspy.distillation.candidates.reranker_slots import Slot, slots_of
from radio_dspy.distillation.gate.decision import Gate, as_gate
from radio_dspy.distillation.gate.splitting import equal_groups, question_groups, split_by_group
from radio_dspy.distillation.preferences.from_groups import groups_of, rank_requests_of
from radio_dspy.distillation.training.settings import TrainingSettings
from radio_dspy.models.encoder import TextEncoder
from radio_dspy.models.open_encoder import as_encoder
from radio_dspy.reporting.report import Report
from radio_dspy.retrievers.aligned import query_encoder
from radio_dspy.retrievers.base import retriever_of
from radio_dspy.retrievers.vector import vector_part
from radio_dspy.runs.identity import hash_of
from radio_dspy.runs.run import Run

if TYPE_CHECKING:
    from radio_dspy.distillation.preferences.groups import PreferenceGroup

logger = logger_of(__name__)

NEGATIVES = 7  # FlagEmbedding's default: groups of eight


@known_to_mlflow
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
        run_dir: Folder for checkpoints and report; None takes a new one in the user's cache folder.
        **moved: Arguments of the first release, which say in a warning where they are given now.

    After ``compile``, ``report`` holds rankings of the held-out groups before and after, and the gate's decision.

    Example:
        >>> from radio_dspy import Rerank
        >>> from radio_dspy.distillation import TrainingSettings
        >>> rows = [{"query": f"why is jug {i} cool?", "pos": ["Vapour."], "neg": ["Ice.", "Red."]} for i in range(24)]
        >>> groups = load_groups(rows)
        >>> settings = TrainingSettings(num_train_epochs=1, learning_rate=3e-5, max_length=32)
        >>> optimizer, rerank = GroupFinetune(settings), Rerank("all-MiniLM-L6-v2", "bi-encoder")
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
        **moved: Any,
    ) -> None:
        super().__init__()
        if negatives is not None and negatives < 1:
            raise SettingsError(f"negatives must be at least 1, or None for all; got {negatives}.")
        settings = with_moved(type(self).__name__, moved, {"training": training or TrainingSettings()})
        self.training: TrainingSettings = settings["training"]
        self.negatives = negatives
        self.gate = as_gate(gate)
        if self.gate is not None and self.gate.retrieval:
            raise SettingsError("Gate(retrieval=True) needs passages of an index by id; groups hold texts.")
        self.encoder = as_encoder(encoder) if encoder is not None else None
        self.run_dir = run_dir
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
            RunError: If another process is writing in ``run_dir``, or the folder is another thing's, such as a run of
                ``RADIO``.
            KeyboardInterrupt: After Ctrl-C, when the update in hand is finished and kept.
        """
        run = Run(self.run_dir)
        run.check(type(self).__name__)  # before any question is encoded
        check_module(student)
        program = student.deepcopy()
        slots = slots_of(program, student)
        for slot in slots:
            self.training.check(slot.weights.architecture)
        train, held_out = self._split(program, slots[0], trainset, valset)
        made = groups_of(train, self.negatives, self.training.seed)
        if not made[0]:
            raise DataError(f"None of the {len(train)} training groups can be used: {made[2]}.")
        with taken_up(run, self._described(slots, train, held_out), type(self).__name__):
            self.report = self._train(Pipeline(run, self.training, self.gate), slots, made, len(train), held_out)
        return program

    def _described(
        self, slots: Sequence[Slot], train: Sequence[dspy.Example], held_out: Sequence[dspy.Example]
    ) -> dict[str, Any]:
        """Everything that decides the result, as JSON types; no path and no key."""
        return {
            "groups": [hash_of([one.toDict() for one in rows]) for rows in (train, held_out)],
            "negatives": self.negatives,
            **training_settings(self.training),
            "device": self.training.device,
            "base": {slot.name: [slot.weights.base, slot.weights.fingerprint] for slot in slots},
            "gate": asdict(self.gate) if self.gate else None,
        }

    def _train(
        self,
        pipeline: Pipeline,
        slots: Sequence[Slot],
        made: tuple[list[PreferenceGroup], dict[str, int], dict[str, int]],
        given: int,
        held_out: Sequence[dspy.Example],
    ) -> Report:
        """Train every slot, pass the gate, and report."""
        from radio_dspy.distillation.gate.metrics import by_labels, judged_by

        groups, left_out, skipped = made
        judged = rank_requests_of(held_out)
        rows = {"base": pipeline.rank(slots[0], judged)}  # before anything is trained: the base must load
        gate = self.gate or Gate()
        judge = by_labels(judged, self.training.device, gate)
        lesson = Lesson(groups, left_out, "groups", judge=judge, metric=judged_by(gate, "the groups"))
        parts = pipeline.align(slots, lambda number, slot: lesson)
        settings = {"sampling": "as given", "negatives": self.negatives, **training_settings(self.training)}
        return pipeline.conclude(
            slots,
            parts,
            judged,
            rows,
            questions={"train": given, "used": given - sum(skipped.values()), "skipped": skipped, "recorded": False},
            rationales={},
            how={"teacher": {}, "encoder": None, "rationale_lm": None, "settings": settings},
        )

    def _split(
        self, program: dspy.Module, slot: Slot, trainset: list[dspy.Example], valset: list[dspy.Example] | None
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
        encoder = self.encoder or _encoder_of(program, slot)
        groups = question_groups(texts, encoder) if encoder else equal_groups(texts)
        return split_by_group(train, groups, self.training.seed)


def _encoder_of(program: dspy.Module, slot: Slot) -> TextEncoder | None:
    store = vector_part(retriever_of(program))
    if store is not None:
        return store.encoder
    return query_encoder(slot.weights) if slot.weights.architecture == "bi-encoder" else None
