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
from tqdm.auto import tqdm
from transformers import get_linear_schedule_with_warmup

from radio_dspy.distillation.infonce import InfoNCE
from radio_dspy.distillation.settings import Precision, TrainingSettings
from radio_dspy.errors import DataError, RadioError, SettingsError
from radio_dspy.rerankers.scorers import Scorer, open_scorer
from radio_dspy.rerankers.weights import RerankerWeights

MAX_GRADIENT_NORM = 1.0  # the default of the Hugging Face trainer, which the authors' script runs


@dataclass(frozen=True, slots=True)
class TextGroup:
    """A preference group with its texts, ready to train on.

    Attributes:
        query: The question alone, without answer or rationale.
        positive: The preferred passage's contents.
        negatives: The contents of those it is preferred over; at least one.
    """

    query: str
    positive: str
    negatives: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What training did.

    Attributes:
        checkpoint: The new folder.
        losses: The mean loss of each update, in order.
        updates: Optimizer steps.
        seconds: Wall-clock time.
    """

    checkpoint: Path
    losses: tuple[float, ...]
    updates: int
    seconds: float


def train_reranker(
    weights: RerankerWeights,
    groups: Sequence[TextGroup],
    output: Path,
    settings: TrainingSettings | None = None,
    *,
    show_progress: bool = True,
) -> TrainingResult:
    """Fine-tune a copy of the weights and write it as a new checkpoint.

    On a CPU the same groups, settings and number of threads give the same weights, bit for bit. The caller's random
    state is left as it was.

    Args:
        weights: Where to start; unchanged.
        groups: What to learn.
        output: The checkpoint folder to write; it must not exist.
        settings: How to train; None is the paper's way.
        show_progress: Show a progress bar.

    Raises:
        DataError: If there are no groups.
        RadioError: If the loss stops being a number.
    """
    settings = settings or TrainingSettings()
    if not groups:
        raise DataError("There are no preference groups to train on.")
    if output.exists():
        raise SettingsError(f"{output}: already there; checkpoints are never overwritten.")
    started = time.perf_counter()
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        scorer = open_scorer(weights, settings.device)
        with _reading_at_most(scorer.module, settings.max_length):
            losses = _fit(scorer, groups, settings, show_progress)
    scorer.save(output)
    return TrainingResult(output, tuple(losses), len(losses), time.perf_counter() - started)


def _fit(scorer: Scorer, groups: Sequence[TextGroup], settings: TrainingSettings, show_progress: bool) -> list[float]:
    module = scorer.module.float()  # weights stored in half precision would lose most small updates
    device = next(module.parameters()).device.type
    dtype = _autocast_type(settings.precision, device)
    accumulation = settings.accumulation(len(groups))
    passes = math.ceil(len(groups) / settings.groups_per_step)
    updates = settings.epochs * math.ceil(passes / accumulation)
    optimizer = torch.optim.AdamW(_decay_groups(module, settings.weight_decay), lr=settings.learning_rate)
    schedule = get_linear_schedule_with_warmup(optimizer, 0, updates)
    scaler = torch.amp.GradScaler(device, enabled=dtype == torch.float16)
    criterion = InfoNCE(settings.temperature)
    losses: list[float] = []
    module.train()
    with tqdm(total=updates, desc="training", unit="update", disable=not show_progress) as bar:
        for epoch in range(settings.epochs):
            order = list(range(len(groups)))
            random.Random(f"{settings.seed}-{epoch}").shuffle(order)
            batches = [order[i : i + settings.groups_per_step] for i in range(0, len(order), settings.groups_per_step)]
            for start in range(0, len(batches), accumulation):
                rows = batches[start : start + accumulation]
                count = sum(map(len, rows))
                total = 0.0
                for batch in rows:
                    with _autocast(device, dtype):
                        chosen = [groups[i] for i in batch]
                        logits = scorer.logits([(g.query, text) for g in chosen for text in (g.positive, *g.negatives)])
                        # Every group weighs the same, also in a short last batch.
                        loss = criterion(logits, [1 + len(g.negatives) for g in chosen]) * (len(batch) / count)
                    scaler.scale(loss).backward()
                    total += loss.item()
                if not math.isfinite(total):
                    raise RadioError(
                        f"The loss became {total} at update {len(losses) + 1}: training diverged. Lower learning_rate "
                        f"(now {settings.learning_rate:g})" + (" or use precision='fp32'." if dtype else ".")
                    )
                scaler.unscale_(optimizer)
                torch.nn.utils.clip_grad_norm_(module.parameters(), MAX_GRADIENT_NORM)
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad(set_to_none=True)
                schedule.step()
                losses.append(total)
                bar.update()
                bar.set_postfix(loss=f"{total:.3f}")
    module.eval()
    return losses


@contextlib.contextmanager
def _reading_at_most(module: Any, max_length: int) -> Iterator[None]:
    """Bound the inputs while training; the checkpoint reads as far as its base does."""
    own = module.max_seq_length
    module.max_seq_length = min(own or max_length, max_length)
    try:
        yield
    finally:
        module.max_seq_length = own


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
