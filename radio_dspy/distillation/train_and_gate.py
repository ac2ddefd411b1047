"""Aligning one reranker: groups, training, gate."""

from __future__ import annotations

import functools
import gc
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from radio_dspy.core.errors import RadioError
from radio_dspy.core.redaction import logger_of
from radio_dspy.distillation.gate.decision import Decision, Gate, Judge, pass_gate
from radio_dspy.distillation.preferences.groups import PreferenceGroup
from radio_dspy.distillation.training.averaging import average_weights
from radio_dspy.distillation.training.checkpoints import TrainingCheckpoints, remove_checkpoints, training_key
from radio_dspy.distillation.training.launching import launch
from radio_dspy.distillation.training.reranker import TrainingResult, train_reranker
from radio_dspy.distillation.training.settings import TrainingSettings
from radio_dspy.models.bi_encoder import PassageVectors
from radio_dspy.models.weights import RerankerWeights
from radio_dspy.runs.records import TrainingLine, reader_of
from radio_dspy.runs.run import Run

if TYPE_CHECKING:
    from radio_dspy.models.engine import Engine

logger = logger_of(__name__)


@dataclass(frozen=True)
class Alignment:
    """The outcome for one reranker.

    Attributes:
        weights: To be used from now on; the base's where the gate chose it.
        training: What training did.
        decision: What the gate decided; None without a gate.
    """

    weights: RerankerWeights
    training: TrainingResult
    decision: Decision | None


def align(
    base: RerankerWeights,
    groups: Sequence[PreferenceGroup],
    run: Run,
    settings: TrainingSettings,
    *,
    gate: Gate | None = None,
    judge: Judge | None = None,
    metric: str = "",
    recall: Judge | None = None,
    passage_vectors: PassageVectors | None = None,
    engine: Engine | None = None,
) -> Alignment:
    """Train a reranker on its groups and let the gate decide what is returned.

    A training that the run has finished before, from the same base on the same groups with the same settings, is not
    done again; one that was interrupted goes on from its last checkpoint.

    Args:
        base: Where to start; unchanged.
        groups: What to learn.
        run: Where checkpoints are kept.
        settings: How to train.
        gate: The rules; None returns what was trained.
        judge: Values of the held-out questions; needed with a gate.
        metric: What the judge measures.
        recall: Judges the query encoder as a first stage.
        passage_vectors: As for ``train_reranker``.
        engine: Where to train, if it has trainers.

    Raises:
        RadioError: If training diverges and there is no gate.
    """
    results = []
    for each in settings.each_run():
        results.append(
            _trained(
                base,
                groups,
                run,
                each,
                passage_vectors=passage_vectors,
                watch=gate is not None,
                engine=engine,
            )
        )
        if results[-1].checkpoint is None:
            sentence = f"Returned the base: training was stopped because {results[-1].stopped}; lower learning_rate."
            logger.warning(sentence)
            return Alignment(base, results[-1], Decision("base", sentence, metric, 0))
    trained, result = _averaged(base, results, run)
    if settings.tower == "query":
        trained = trained.with_checkpoint(trained.checkpoint, base.passage_side)
    if gate is None:
        return Alignment(trained, result, None)
    if judge is None:
        raise RadioError("A gate needs a judge.")
    checkpoint, decision = pass_gate(base, trained, judge, metric, gate, run, recall=recall)
    if checkpoint is None:
        return Alignment(base, result, decision)
    return Alignment(trained.with_checkpoint(checkpoint), result, decision)


def _averaged(
    base: RerankerWeights, results: Sequence[TrainingResult], run: Run
) -> tuple[RerankerWeights, TrainingResult]:
    """The mean of the checkpoints, and what all trainings together did."""
    parts = [base.with_checkpoint(str(one.checkpoint)) for one in results]
    if len(parts) == 1:
        return parts[0], results[0]
    with run.new_checkpoint() as path:
        average_weights(parts, path)
        mean = base.with_checkpoint(run.keep_checkpoint(path))
    losses = tuple(loss for one in results for loss in one.losses)
    seconds = sum(one.seconds for one in results)
    return mean, TrainingResult(Path(mean.checkpoint), losses, len(losses), seconds, runs=len(results))


def _trained(
    base: RerankerWeights,
    groups: Sequence[PreferenceGroup],
    run: Run,
    settings: TrainingSettings,
    *,
    passage_vectors: PassageVectors | None,
    watch: bool,
    engine: Engine | None,
) -> TrainingResult:
    """Train, or take what ``training.jsonl`` says of the same training."""
    key = training_key(base, groups, settings, watch=watch)
    if (known := _recorded(run, key)) is not None:
        return known
    engine = engine if engine is not None and engine.trainers else None
    train = train_reranker if engine is None and not settings.launcher else functools.partial(launch, engine=engine)
    with run.new_checkpoint() as path:
        result = train(
            base,
            groups,
            path,
            settings,
            passage_vectors=passage_vectors,
            watch=watch,
            checkpoints=TrainingCheckpoints(run.path, key, settings.save_steps),
        )
        if result.checkpoint is not None:
            result = replace(result, checkpoint=run.keep_checkpoint(path))
    run.append_record(
        "training",
        {
            "key": key,
            "checkpoint": result.checkpoint and result.checkpoint.name,
            "losses": [loss if math.isfinite(loss) else None for loss in result.losses],
            "seconds": result.seconds,
            "stopped": result.stopped,
        },
    )
    remove_checkpoints(run.path)
    gc.collect()  # the trained modules hold each other: without it their memory waits for Python's next sweep
    return result


def _recorded(run: Run, key: str) -> TrainingResult | None:
    """A training that the run has finished before, where its checkpoint is still there."""
    for record in run.records("training", reader_of(TrainingLine)):
        if record["key"] != key:
            continue
        losses = tuple(math.nan if loss is None else loss for loss in record["losses"])
        kept = run.checkpoint(record["checkpoint"])
        if kept is not None or (record["checkpoint"] is None and record["stopped"]):
            return TrainingResult(kept, losses, len(losses), record["seconds"], record["stopped"])
    return None
