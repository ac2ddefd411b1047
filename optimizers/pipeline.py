"""Train each reranker on its preferences, pass the gate, and report: the part that all optimizers share."""

from __future__ import annotations

import contextlib
import copy
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from radio_dspy.optimizers.mlflow_records import log_compile
from radio_dspy.optimizers.provenance import remember

from radio_dspy.core.errors import DataError
from radio_dspy.core.rankings import Ranking, RankRequest
from radio_dspy.core.redaction import logger_of
from radio_dspy.distillation.candidates.reranker_slots import Slot
from radio_dspy.distillation.gate.decision import Decision, Gate, Judge
from radio_dspy.distillation.preferences.groups import PreferenceGroup
from radio_dspy.distillation.training.settings import TrainingSettings
from radio_dspy.evaluation.calibration import fit_to_rankings
from radio_dspy.evaluation.relevance import METRICS
from radio_dspy.lm.budget import Ledger
from radio_dspy.reporting.comparison import Comparison
from radio_dspy.reporting.report import Report, RerankerReport
from radio_dspy.reporting.writing import keep_report
from radio_dspy.rerankers.rerank import rank_with
from radio_dspy.runs.clock import Clock
from radio_dspy.runs.run import Run

if TYPE_CHECKING:
    from radio_dspy.distillation.train_and_gate import Alignment
    from radio_dspy.models.bi_encoder import PassageVectors
    from radio_dspy.models.engine import Engine
    from radio_dspy.models.weights import RerankerWeights

logger = logger_of(__name__)
_CURVE_POINTS = 500  # of a training in the report


class NoGroupsError(DataError):
    """No preference group came of the questions.

    Attributes:
        left_out: What was left out of them, by reason.
    """

    def __init__(self, message: str, left_out: Mapping[str, int]) -> None:
        super().__init__(message)
        self.left_out = dict(left_out)


@dataclass(frozen=True)
class Lesson:
    """One reranker's preference groups, and the judge of its gate.

    Attributes:
        groups: Preference groups; at least one.
        left_out: What was left out of them, by reason.
        key: Rerankers with equal weights and an equal key learn the same and are trained once.
        judge: Values of the held-out questions.
        metric: What the judge measures.
        recall: Judges a query encoder as a first stage.
        passage_vectors: Gives the vectors of a frozen passage side, where they are known.
        new_passages: About how many passages an LM was asked that the round before did not ask about.
    """

    groups: Sequence[PreferenceGroup]
    left_out: Mapping[str, int]
    key: str
    judge: Judge | None = None
    metric: str = ""
    recall: Judge | None = None
    passage_vectors: Callable[[], PassageVectors | None] = lambda: None
    new_passages: int = 0


@dataclass(frozen=True)
class _Outcome:
    """The best of a reranker's rounds so far, and an account of all."""

    lesson: Lesson
    alignment: Alignment
    earlier: tuple[dict[str, Any], ...]
    best_round: dict[str, Any] | None = None

    @property
    def told(self) -> list[dict[str, Any]]:
        """What each round came to, in JSON types."""
        return [*self.earlier, *([] if self.best_round else [_round(1, self.lesson, self.alignment)])]

    def after(self, lesson: Lesson, alignment: Alignment) -> _Outcome:
        """The better of this and the next round: that with the higher mean at the gate; without a gate the later."""
        rounds = self.told
        now = _round(len(rounds) + 1, lesson, alignment)
        best = self.best_round or rounds[0]
        later = alignment.decision is None or (now["chosen"] != "base" and now["mean"] > (best["mean"] or 0.0))
        return _Outcome(
            lesson if later else self.lesson,
            alignment if later else self.alignment,
            (*rounds, now),
            now if later else best,
        )


def _round(number: int, lesson: Lesson, alignment: Alignment) -> dict[str, Any]:
    decision = alignment.decision
    means = {one.name: one.mean for one in decision.candidates} if decision else {}
    return {
        "round": number,
        "groups": len(lesson.groups),
        "new_passages": lesson.new_passages,
        "chosen": decision.chosen if decision else "trained",
        "mean": means.get(decision.chosen) if decision else None,
        "decision": decision.sentence if decision else "",
    }


class Pipeline:
    """One compile: its run folder, its clock, its budget, and the stages that all optimizers share.

    Args:
        run: Where records and checkpoints go.
        training: How to train.
        gate: The gate's rules; None returns what was trained.
        ledger: Books LM calls; None has no limit.
        engine: Where to train, if it has trainers.
    """

    def __init__(
        self,
        run: Run,
        training: TrainingSettings,
        gate: Gate | None,
        ledger: Ledger | None = None,
        engine: Engine | None = None,
    ) -> None:
        self.run = run
        self.training = training
        self.gate = gate
        self.ledger = ledger or Ledger()
        self.engine = engine
        self.clock = Clock()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage, book its LM calls, and note both in the run's log."""
        started = time.perf_counter()
        with self.clock(name), self.ledger.stage(name) as spent:
            calls = spent.calls
            try:
                yield
            finally:
                with contextlib.suppress(OSError):  # a full disk must not hide what went wrong in the stage
                    seconds = round(time.perf_counter() - started, 3)
                    self.run.log("stage", stage=name, seconds=seconds, calls=spent.calls - calls)

    def rank(self, slot: Slot, requests: Sequence[RankRequest]) -> list[Ranking]:
        """Rank the questions by a reranker as it is now."""
        with self.clock("evaluation"):
            return rank_with(slot.weights, requests, self.training.device)

    def align(
        self,
        slots: Sequence[Slot],
        lesson_of: Callable[[int, Slot], Lesson],
        next_lesson: Callable[[int, Slot, RerankerWeights], Lesson] | None = None,
        rounds: int = 1,
    ) -> list[RerankerReport]:
        """Train every reranker and let the gate decide which weights it gets.

        Args:
            slots: The program's rerankers.
            lesson_of: Makes the lesson of the reranker with this number; only one is held.
            next_lesson: Makes that of a further round, from the weights that the round before chose.
            rounds: How often each reranker is trained, always from the base. The best round at the gate is taken.
        """
        done: dict[str, _Outcome] = {}
        parts = []
        for number, slot in enumerate(slots):
            lesson = lesson_of(number, slot)
            key = json.dumps([slot.weights.dump_state(), lesson.key], sort_keys=True)
            if key not in done:
                done[key] = found = _Outcome(lesson, self._align(slot, lesson), ())
                if next_lesson is not None:
                    for _ in range(1, rounds):
                        try:
                            again = next_lesson(number, slot, found.alignment.weights)
                        except NoGroupsError as error:  # the rounds before stay what they are
                            logger.warning("No further round: %s", error)
                            break
                        again = replace(again, judge=lesson.judge, metric=lesson.metric, recall=lesson.recall)
                        found = found.after(again, self._align(slot, again))
                    done[key] = found
            lesson = lesson if done[key].lesson.key == lesson.key else done[key].lesson
            parts.append(_account(slot, lesson, done[key].alignment, done[key].told if rounds > 1 else []))
            slot.assign(copy.copy(done[key].alignment.weights))
        return parts

    def _align(self, slot: Slot, lesson: Lesson) -> Alignment:
        from radio_dspy.distillation.train_and_gate import align

        with self.stage("training"):
            return align(
                slot.weights,
                lesson.groups,
                self.run,
                self.training,
                gate=self.gate,
                judge=lesson.judge,
                metric=lesson.metric,
                recall=lesson.recall,
                passage_vectors=lesson.passage_vectors(),
                engine=self.engine,
            )

    def conclude(
        self,
        slots: Sequence[Slot],
        parts: Sequence[RerankerReport],
        judged: Sequence[RankRequest],
        rows: Mapping[str, Sequence[Ranking]],
        *,
        questions: Mapping[str, Any],
        rationales: Mapping[str, Any],
        how: Mapping[str, Any],
    ) -> Report:
        """Rank the held-out questions again, report, and note in the trained weights how they came to be.

        Args:
            slots: The program's rerankers, as ``align`` left them.
            parts: What ``align`` gave.
            judged: The held-out questions of the first reranker.
            rows: Rankings of these from before training, by name; ``aligned`` is added.
            questions: Counts for the report; ``judged`` is added.
            rationales: Counts for the report.
            how: As for ``remember``.
        """
        measures = dict.fromkeys((*METRICS, *(self.gate.measures if self.gate else ())))
        comparison = Comparison(judged, {**rows, "aligned": self.rank(slots[0], judged)}, metrics=tuple(measures))
        with self.clock("evaluation"):
            metrics = comparison.means
            calibration = fit_to_rankings(comparison.rows["aligned"], comparison.judgement.relevant)
        report = Report(
            metrics=metrics,
            relevance=comparison.judgement.source,
            questions={**questions, "judged": comparison.judgement.judged},
            rationales=dict(rationales),
            rerankers=list(parts),
            seconds=self.clock.seconds,
            spending=self.ledger.as_dict(),
            run_dir=str(self.run.path),
            calibration=calibration,
        )
        self.run.write("report", report.as_dict())
        remember(slots, report, how)
        keep_report(self.run, report, comparison.records)
        log_compile(report, how, self.run.path)
        return report


def untrained(slots: Sequence[Slot], error: NoGroupsError) -> list[RerankerReport]:
    """The report's entries if there was nothing to train on: what was paid for until then is reported, too."""
    decision = Decision("base", f"Returned nothing: {error}", "", 0).as_dict()
    return [RerankerReport(one.name, 0, _training(one), error.left_out, decision) for one in slots]


def _account(slot: Slot, lesson: Lesson, done: Alignment, rounds: list[dict[str, Any]]) -> RerankerReport:
    return RerankerReport(
        reranker=slot.name,
        groups=len(lesson.groups),
        left_out=dict(lesson.left_out),
        training=_training(
            slot, done.training.losses, done.training.updates, done.training.runs, done.training.stopped
        ),
        gate=done.decision.as_dict() if done.decision else None,
        rounds=rounds,
    )


def _training(
    slot: Slot, losses: Sequence[float] = (), updates: int = 0, runs: int = 1, stopped: str = ""
) -> dict[str, Any]:
    finite = [loss for loss in losses if math.isfinite(loss)]  # others have no place in JSON
    return {
        "architecture": slot.weights.architecture,
        "base": slot.weights.base,
        "base_fingerprint": slot.weights.fingerprint,
        "updates": updates,
        "first_loss": finite[0] if finite else None,
        "last_loss": finite[-1] if finite else None,
        "losses": _curve(losses, runs),
        "runs": runs,
        "stopped": stopped,
    }


def _curve(losses: Sequence[float], runs: int) -> list[float | None]:
    """The losses, of long trainings the means of as many updates each; None where one is not a number."""
    every = -(-len(losses) // (_CURVE_POINTS * runs)) or 1
    length = -(-len(losses) // runs) or 1
    means = [sum(part) / len(part) for one in _parts(losses, length) for part in _parts(one, every)]
    return [mean if math.isfinite(mean) else None for mean in means]


def _parts(values: Sequence[float], size: int) -> list[Sequence[float]]:
    return [values[start : start + size] for start in range(0, len(values), size)]
