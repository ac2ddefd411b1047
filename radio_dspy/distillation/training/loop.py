"""Fine-tuning a reranker on preference groups."""

from __future__ import annotations

import contextlib
import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from sentence_transformers.base.modules import Transformer
from tqdm.auto import tqdm
from transformers import get_linear_schedule_with_warmup

from radio_dspy.core.errors import DataError, RadioError, SettingsError
from radio_dspy.core.redaction import logger_of
from radio_dspy.core.text import contains_answer, same_words
from radio_dspy.distillation.loss import Loss
from radio_dspy.distillation.preferences.groups import PreferenceGroup
from radio_dspy.distillation.training.checkpoints import Trainee, TrainingCheckpoints
from radio_dspy.distillation.training.collapse import CollapseDetector, spread_of
from radio_dspy.distillation.training.settings import LoraSettings, Precision, TrainingSettings
from radio_dspy.lm.parallel import interrupt_later
from radio_dspy.models.bi_encoder import PassageVectors
from radio_dspy.models.cache import open_scorer
from radio_dspy.models.randomness import RandomState
from radio_dspy.models.scorer import Scorer
from radio_dspy.models.weights import RerankerWeights

logger = logger_of(__name__)
MAX_GRADIENT_NORM = 1.0  # the default of the Hugging Face trainer, which the authors' script runs


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What training did.

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
    state is left as it was.

    Args:
        weights: Where to start; unchanged.
        groups: What to learn.
        output: The checkpoint folder to write; it must not exist.
        settings: How to train; None is the paper's way.
        passage_vectors: With ``tower="query"``: the vectors of all passages of the groups; None computes them.
        watch: Stop when training collapses (see ``CollapseDetector``); then there is no checkpoint.
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
    criterion = settings.open_loss()
    if criterion.needs_scores and not all(group.scores for group in groups):
        raise DataError(f"The {settings.loss} loss reads the teacher's scores: give every group its scores.")
    started = time.perf_counter()
    frozen = _frozen(weights, groups, settings, passage_vectors) if settings.tower == "query" else None
    own = RandomState(settings.seed)
    with contextlib.ExitStack() as stack:
        with own.drawing():
            scorer = open_scorer(weights, settings.device, frozen=frozen)
            if not any(one.requires_grad for one in scorer.module.parameters()):
                raise SettingsError(f"{weights.checkpoint}: all its weights are fixed, so there is nothing to train.")
            stack.enter_context(reading_at_most(scorer.module, settings.max_length))
            stack.enter_context(_adapted(scorer.module, settings.lora))
        losses, stopped = _fit(scorer, groups, criterion, settings, own, watch, checkpoints)
    if not stopped:
        scorer.save(output)
    checkpoint = None if stopped else output
    return TrainingResult(checkpoint, tuple(losses), len(losses), time.perf_counter() - started, stopped)


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
    return PassageVectors.encode(weights, texts, settings.device)


def _fit(
    scorer: Scorer,
    groups: Sequence[PreferenceGroup],
    criterion: Loss,
    settings: TrainingSettings,
    own: RandomState,
    watch: bool,
    checkpoints: TrainingCheckpoints | None,
) -> tuple[list[float], str]:
    """Train in place; return the losses and why it was stopped."""
    module = scorer.module.float()  # weights stored in half precision would lose most small updates
    device = next(module.parameters()).device.type
    dtype = _autocast_type(settings.precision, device)
    steps = planned_updates(settings, len(groups))
    optimizer, schedule = open_optimizer(module, settings, len(steps))
    scaler = torch.amp.GradScaler(device, enabled=dtype == torch.float16)
    history: list[tuple[float, float, float]] = []
    trainee = Trainee(module, optimizer, schedule, scaler, history)
    with own.drawing():
        if checkpoints is not None and checkpoints.restore(trainee, len(steps)):
            logger.info("Training goes on after update %d of %d.", len(history), len(steps))
    detector = CollapseDetector()
    for seen in history if watch else ():
        detector.look(*seen)
    module.train()
    with (
        tqdm(
            total=len(steps), initial=len(history), desc="training", unit="update", disable=settings.disable_tqdm
        ) as bar,
        interrupt_later("update") as interrupted,
    ):
        for rows in steps[len(history) :]:
            batches = [[groups[place] for place in batch] for batch in rows]
            with own.drawing():
                history.append(_losses(scorer, batches, criterion, settings, scaler, dtype, watch))
                if watch and (reason := detector.look(*history[-1])):
                    return [loss for loss, _, _ in history], reason
                _step(trainee, settings, dtype)
                bar.update()
                bar.set_postfix(loss=f"{history[-1][0]:.3f}")
                stop, last = interrupted.is_set(), len(history) == len(steps)  # asked once: what ends it was saved
                if checkpoints is not None and (stop or (not last and checkpoints.due(len(history)))):
                    checkpoints.save(trainee)
            if stop:
                break
    module.eval()
    return [loss for loss, _, _ in history], ""


def _losses(
    scorer: Scorer,
    batches: Sequence[Sequence[PreferenceGroup]],
    criterion: Loss,
    settings: TrainingSettings,
    scaler: Any,
    dtype: torch.dtype | None,
    watch: bool,
) -> tuple[float, float, float]:
    """Add up the gradients of one update; return its loss and, where watched, that of equal scores and the spread."""
    device = next(scorer.module.parameters()).device.type
    count = sum(map(len, batches))
    total = chance = spread = 0.0
    for batch in batches:
        part = len(batch) / count  # every group weighs the same, also in a short last batch
        lists = _lists(batch, settings.in_batch_negatives)
        sizes = [len(texts) for texts, _ in lists]
        with _autocast(device, dtype):
            listed = zip(batch, lists, strict=True)
            pairs = [(one.query, text) for one, (texts, _) in listed for text in texts]
            logits = scorer.logits(pairs)
            scores = logits.new_tensor([score for _, values in lists for score in values])
            teacher = scores if criterion.needs_scores else None
            loss = criterion(logits, sizes, teacher) * part
        scaler.scale(loss).backward()
        total += loss.item()
        if watch:
            chance += criterion(torch.zeros_like(logits), sizes, teacher).item() * part
            spread += spread_of(logits, sizes) * part
    return total, chance, spread


def _step(trainee: Trainee, settings: TrainingSettings, dtype: torch.dtype | None) -> None:
    """Move the weights by the gradients of one update."""
    total, module, optimizer = trainee.history[-1][0], trainee.module, trainee.optimizer
    if not math.isfinite(total):
        raise RadioError(
            f"The loss became {total} at update {len(trainee.history)}: training diverged. Lower learning_rate "
            f"(now {settings.learning_rate:g})" + (" or use precision='fp32'." if dtype else ".")
        )
    trainee.scaler.unscale_(optimizer)
    torch.nn.utils.clip_grad_norm_(module.parameters(), MAX_GRADIENT_NORM)
    trainee.scaler.step(optimizer)
    trainee.scaler.update()
    optimizer.zero_grad(set_to_none=True)
    trainee.schedule.step()


def open_optimizer(module: torch.nn.Module, settings: TrainingSettings, updates: int) -> tuple[Any, Any]:
    """AdamW over what is trained, and the schedule of its learning rate for so many updates."""
    optimizer = torch.optim.AdamW(_decay_groups(module, settings.weight_decay), lr=settings.learning_rate)
    return optimizer, get_linear_schedule_with_warmup(optimizer, 0, updates)


def planned_updates(settings: TrainingSettings, groups: int) -> list[list[list[int]]]:
    """For every update its forward passes, and for each of these its groups by position.

    Example:
        >>> settings = TrainingSettings(1, per_device_train_batch_size=2, gradient_accumulation_steps=2)
        >>> planned_updates(settings, 5)
        [[[4, 3], [0, 1]], [[2]]]
    """
    accumulation = settings.accumulation(groups)
    size = settings.per_device_train_batch_size
    steps = []
    for epoch in range(settings.num_train_epochs):
        order = list(range(groups))
        random.Random(f"{settings.seed}-{epoch}").shuffle(order)
        batches = [order[start : start + size] for start in range(0, groups, size)]
        steps += [batches[start : start + accumulation] for start in range(0, len(batches), accumulation)]
    return steps


def _lists(groups: Sequence[PreferenceGroup], in_batch: bool) -> list[tuple[list[str], list[float]]]:
    """The passages of each group, positive first, with their scores; an in-batch negative scores 0, like the last."""
    lists = []
    for group in groups:
        texts = list(group.texts)
        scores = list(group.scores or [0.0] * len(texts))
        if in_batch:
            # Another group of the same question may hold a passage that is preferred to this group's positive.
            others = dict.fromkeys(other.positive for other in groups if not same_words(other.query, group.query))
            known = [group.query, *texts]
            taken = [
                one
                for one in others
                if not any(same_words(one, text) for text in known) and not contains_answer(one, group.answers)
            ]
            texts += taken
            scores += [0.0] * len(taken)
        lists.append((texts, scores))
    return lists


@contextlib.contextmanager
def _adapted(module: Any, lora: LoraSettings | None) -> Iterator[None]:
    """With ``lora``, train low-rank adapters inside the block and merge them into the weights after it."""
    if lora is None:
        yield
        return
    from radio_dspy.distillation.training.lora import add_adapters, merge_adapters

    add_adapters(module, lora)
    yield
    merge_adapters(module)


@contextlib.contextmanager
def reading_at_most(module: Any, max_length: int) -> Iterator[None]:
    """Bound the inputs while training; the checkpoint reads as far as its base does."""
    own = {one: one.max_seq_length for one in module.modules() if isinstance(one, Transformer)}
    for one, length in own.items():
        one.max_seq_length = min(length or max_length, max_length)
    try:
        yield
    finally:
        for one, length in own.items():
            one.max_seq_length = length


def _decay_groups(module: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Biases and layer norms do not decay, as in the Hugging Face trainer that the paper used."""
    trained = [(name, one) for name, one in module.named_parameters() if one.requires_grad]
    exempt = [one for name, one in trained if one.ndim < 2]
    decayed = [one for name, one in trained if one.ndim >= 2]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": exempt, "weight_decay": 0.0}]


def _autocast_type(precision: Precision, device: str) -> torch.dtype | None:
    if precision == "auto":
        if device != "cuda":
            return None
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


@contextlib.contextmanager
def _autocast(device: str, dtype: torch.dtype | None) -> Iterator[None]:
    with torch.autocast(device_type=device, dtype=dtype) if dtype else contextlib.nullcontext():
        yield
