"""Fine-tuning a reranker on preference groups."""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from sentence_transformers.util import get_device_name
from tqdm.auto import tqdm
from transformers import TrainingArguments

from radio_dspy.core.errors import DataError, SettingsError
from radio_dspy.core.locks import ThreadLock
from radio_dspy.core.redaction import logger_of
from radio_dspy.distillation.gate.splitting import equal_groups, split_by_group
from radio_dspy.distillation.preferences.groups import PreferenceGroup
from radio_dspy.distillation.training.adapters import adapted, transformers_of
from radio_dspy.distillation.training.checkpoints import TrainingCheckpoints
from radio_dspy.distillation.training.collapse import TrainingWatch
from radio_dspy.distillation.training.settings import Precision, TrainingSettings
from radio_dspy.distillation.training.trainer import NDCG, Flow, GroupLoss, RerankerTrainer
from radio_dspy.lm.parallel import interrupt_later
from radio_dspy.models.bi_encoder import PassageVectors
from radio_dspy.models.cache import open_scorer
from radio_dspy.models.late_interaction import PassageTokens
from radio_dspy.models.randomness import RandomState
from radio_dspy.models.scorer import Scorer
from radio_dspy.models.weights import RerankerWeights

logger = logger_of(__name__)
_ONE_AT_A_TIME = ThreadLock()  # accelerate keeps its state once for the process


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """The outcome of a training.

    Attributes:
        checkpoint: The new folder; None where training was stopped.
        losses: The mean loss of each update, in order.
        updates: Optimizer steps.
        seconds: Wall-clock time.
        stopped: Why training was stopped before its end; empty where it was not.
        runs: Trainings whose weights were averaged; their losses follow one another.
    """

    checkpoint: Path | None
    losses: tuple[float, ...]
    updates: int
    seconds: float
    stopped: str = ""
    runs: int = 1


def train_reranker(
    weights: RerankerWeights,
    groups: Sequence[PreferenceGroup],
    output: Path,
    settings: TrainingSettings | None = None,
    *,
    passage_vectors: PassageVectors | None = None,
    watch: bool = False,
    checkpoints: TrainingCheckpoints | None = None,
) -> TrainingResult:
    """Fine-tune a copy of the weights and write it as a new checkpoint.

    On a CPU the same groups, settings and number of threads give the same weights, bit for bit. The caller's random
    state is left as it was. In a script that ``accelerate launch`` started every process calls this; the first writes.

    Args:
        weights: Where to start; unchanged.
        groups: What to learn.
        output: The checkpoint folder to write; it must not exist.
        settings: How to train; None is the paper's way.
        passage_vectors: With ``tower="query"``: the vectors of all passages of the groups; None computes them.
        watch: Stop when training collapses (see ``CollapseDetector``); then there is no checkpoint, unless a best
            step is to be taken and there was one.
        checkpoints: Where training is saved on its way and goes on from; None saves nothing.

    Raises:
        DataError: If there are no groups, or the loss needs scores that they do not have.
        SettingsError: If the output is there already, ``tower="query"`` meets a cross-encoder, or the model has nothing
            that can be trained that way.
        RadioError: If the loss stops being a number and nobody watches.
    """
    settings = settings or TrainingSettings()
    if not groups:
        raise DataError("There are no preference groups to train on.")
    if output.exists():
        raise SettingsError(f"{output}: already there; checkpoints are never overwritten.")
    loss = settings.open_loss()
    if loss.needs_scores and not all(group.scores for group in groups):
        raise DataError(f"The {settings.loss} loss reads the teacher's scores: give every group its scores.")
    started = time.perf_counter()
    frozen = _frozen(weights, groups, settings, passage_vectors) if settings.tower == "query" else None
    learned, judged = _split(groups, settings)
    own = RandomState(settings.seed)
    with _ONE_AT_A_TIME, contextlib.ExitStack() as stack:
        scorer = stack.enter_context(_trainable(weights, settings, own, frozen))
        if checkpoints is None and settings.load_best_model_at_end:
            place = stack.enter_context(tempfile.TemporaryDirectory())
            checkpoints = TrainingCheckpoints(Path(place), "0" * 16, 2**62)
        arguments = training_arguments(settings, checkpoints.folder if checkpoints else output.parent, len(learned))
        watching = TrainingWatch(watch)
        trainer = _fitted(GroupLoss(scorer, loss), learned, judged, settings, arguments, own, watching, checkpoints)
    stopped = watching.stopped
    if stopped and trainer.state.best_model_checkpoint:
        logger.warning("Training was stopped because %s; the weights of the best step before are taken.", stopped)
        stopped = ""
    if not stopped and arguments.process_index == 0:
        scorer.save(output)
    trainer.accelerator.wait_for_everyone()
    losses = tuple(one for one, _, _ in watching.history)
    return TrainingResult(None if stopped else output, losses, len(losses), time.perf_counter() - started, stopped)


def _frozen(
    weights: RerankerWeights,
    groups: Sequence[PreferenceGroup],
    settings: TrainingSettings,
    passage_vectors: PassageVectors | None,
) -> PassageVectors:
    settings.check(weights.architecture)
    if passage_vectors is not None:
        return passage_vectors
    texts = [text for group in groups for text in group.texts]
    kind = PassageTokens if weights.architecture == "late-interaction" else PassageVectors
    return kind.encode(weights, texts, settings.device)


def _split(
    groups: Sequence[PreferenceGroup], settings: TrainingSettings
) -> tuple[list[PreferenceGroup], list[PreferenceGroup]]:
    """The groups to learn from, and those that the steps are judged by."""
    if settings.eval_steps is None:
        return list(groups), []
    return split_by_group(groups, equal_groups([one.query for one in groups]), settings.seed)


@contextlib.contextmanager
def _trainable(
    weights: RerankerWeights, settings: TrainingSettings, own: RandomState, frozen: PassageVectors | None
) -> Iterator[Scorer]:
    """A copy of the model as it is while it is trained; after the block it is a plain one again."""
    with contextlib.ExitStack() as stack:
        with own.drawing():
            scorer = open_scorer(weights, settings.device, frozen=frozen)
            if not any(one.requires_grad for one in scorer.module.parameters()):
                raise SettingsError(f"{weights.checkpoint}: all its weights are fixed, so there is nothing to train.")
            stack.enter_context(reading_at_most(scorer.module, settings.max_length))
            stack.enter_context(recomputing(scorer.module, settings.gradient_checkpointing))
            first = os.environ.get("RANK", "0") == "0"  # one of several processes keeps the adapters
            stack.enter_context(adapted(scorer.module, settings.lora, settings.save_adapter if first else None))
        yield scorer


def _fitted(
    model: GroupLoss,
    learned: Sequence[PreferenceGroup],
    judged: Sequence[PreferenceGroup],
    settings: TrainingSettings,
    arguments: TrainingArguments,
    own: RandomState,
    watch: TrainingWatch,
    checkpoints: TrainingCheckpoints | None,
) -> RerankerTrainer:
    """Train in place, from the last checkpoint if there is one."""
    quiet = settings.disable_tqdm or arguments.process_index > 0
    with (
        tqdm(desc="training", unit="update", disable=quiet) as bar,
        interrupt_later("update") as watch.interrupted,
    ):
        with RandomState(settings.seed).drawing():  # Trainer seeds the process's generators
            trainer = RerankerTrainer(
                model,
                learned,
                settings,
                arguments,
                own=own,
                watch=watch,
                flow=Flow(bar, checkpoints, watch),
                checkpoints=checkpoints,
                judged=judged,
            )
        if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
            raise SettingsError("FSDP and DeepSpeed cut the model into shards, which are not gathered here; use DDP.")
        last = checkpoints.last() if checkpoints is not None else None
        if last is not None:
            logger.info("Training goes on from %s.", last.name)
        trainer.train(resume_from_checkpoint=str(last) if last else None)
        model.reranker.eval()
    if watch.asked:  # in another process
        raise KeyboardInterrupt
    return trainer


def training_arguments(settings: TrainingSettings, folder: Path, groups: int) -> TrainingArguments:
    """The settings as Trainer reads them.

    Args:
        settings: The settings.
        folder: Where loggers write that have no other place.
        groups: How many are learnt from.
    """
    device = torch.device(settings.device or get_device_name())
    dtype = _autocast_type(settings.precision, device.type)
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=settings.num_train_epochs,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        warmup_steps=settings.warmup_steps,
        per_device_train_batch_size=settings.per_device_train_batch_size,
        optim="adamw_torch",
        bf16=dtype == torch.bfloat16,
        fp16=dtype == torch.float16,
        use_cpu=device.type == "cpu",
        seed=settings.seed % 2**32,
        disable_tqdm=settings.disable_tqdm,
        report_to=list(settings.report_to) or "none",
        logging_steps=1,
        logging_nan_inf_filter=False,
        eval_strategy="no" if settings.eval_steps is None else "steps",
        eval_steps=settings.eval_steps,
        save_strategy="best" if settings.load_best_model_at_end else "no",
        load_best_model_at_end=settings.load_best_model_at_end,
        metric_for_best_model=None if settings.eval_steps is None else f"eval_{NDCG}",
        greater_is_better=True,
        remove_unused_columns=False,
        restore_callback_states_from_checkpoint=True,
    )
    arguments.gradient_accumulation_steps = math.ceil(settings.accumulation(groups) / arguments.world_size)
    arguments._n_gpu = min(arguments.n_gpu, 1)  # several devices take processes of their own, by accelerate
    if arguments.world_size == 1 and device.index is not None:
        arguments.distributed_state.device = arguments.__dict__["_setup_devices"] = device
    return arguments


@contextlib.contextmanager
def reading_at_most(module: Any, max_length: int) -> Iterator[None]:
    """Bound the inputs while training; the checkpoint reads as far as its base does."""
    own = {one: one.max_seq_length for one in transformers_of(module)}
    for one, length in own.items():
        one.max_seq_length = min(length or max_length, max_length)
    try:
        yield
    finally:
        for one, length in own.items():
            one.max_seq_length = length


@contextlib.contextmanager
def recomputing(module: Any, switched_on: bool) -> Iterator[None]:
    """Compute activations again for the backward pass instead of keeping them."""
    models = [one.model for one in transformers_of(module)] if switched_on else []
    kind = "activation" if all(hasattr(one, "activation_checkpointing_enable") for one in models) else "gradient"
    for one in models:
        getattr(one, f"{kind}_checkpointing_enable")({"use_reentrant": False})
    try:
        yield
    finally:
        for one in models:
            getattr(one, f"{kind}_checkpointing_disable")()


def _autocast_type(precision: Precision, device: str) -> torch.dtype | None:
    if precision == "auto":
        if device != "cuda":
            return None
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
