"""Training saved on its way, so that a killed one goes on and ends in the same weights, bit for bit on a CPU."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from radio_dspy.distillation.settings import TrainingSettings
from radio_dspy.errors import SettingsError
from radio_dspy.files import write_json
from radio_dspy.model_files import fingerprint
from radio_dspy.rerankers.weights import RerankerWeights
from radio_dspy.runs import sync_folder

if TYPE_CHECKING:
    from radio_dspy.distillation.training import TextGroup

EVERY_SECONDS = 300.0  # where no number of updates is given; a shorter training writes nothing
_UNFINISHED = ".training-state"
_MODEL, _OPTIMIZER, _RANDOM, _STATE = "model.safetensors", "optimizer.safetensors", "random.safetensors", "state.json"


@dataclass
class Trainee:
    """What changes while a reranker is trained.

    Attributes:
        module: The torch module; the parameters that are trained and all buffers are saved.
        optimizer: AdamW.
        schedule: Of the learning rate.
        scaler: Of the loss, for half precision.
        history: Loss, loss of equal scores and spread of each update so far.
    """

    module: torch.nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Any
    scaler: Any
    history: list[tuple[float, float, float]]

    def tensors(self) -> dict[str, torch.Tensor]:
        """What is trained, and the buffers, by name."""
        trained = {name: one.data for name, one in self.module.named_parameters() if one.requires_grad}
        return {**trained, **dict(self.module.named_buffers())}


class TrainingCheckpoints:
    """Where training is saved on its way, and goes on from.

    A checkpoint is a folder ``training-KEY-UPDATES`` of safetensors and JSON. It fits only the training that has the
    same key; others are never loaded. Only the last one is kept.

    Args:
        folder: Where they are written: a run folder.
        key: A hash of all that decides the training; see ``training_key``.
        every: Updates between two of them; None saves about every five minutes.

    Raises:
        SettingsError: If ``every`` is below 1.
    """

    def __init__(self, folder: Path, key: str, every: int | None = None) -> None:
        if every is not None and every < 1:
            raise SettingsError(f"Updates between two checkpoints must be at least 1, or None; got {every}.")
        self._folder = folder
        self._key = key
        self._every = every
        self._saved = time.monotonic()

    def due(self, updates: int) -> bool:
        """Whether it is time to save."""
        if self._every is not None:
            return updates % self._every == 0
        return time.monotonic() - self._saved >= EVERY_SECONDS

    def save(self, trainee: Trainee) -> None:
        """Write a checkpoint, then remove the one before it; where the disk is full that one stays."""
        made = self._folder / _UNFINISHED
        with _removed(made):
            made.mkdir()
            save_file({name: one.contiguous() for name, one in trainee.tensors().items()}, made / _MODEL)
            state = trainee.optimizer.state_dict()
            moments = {
                f"{row}.{name}": one.contiguous() for row, own in state["state"].items() for name, one in own.items()
            }
            save_file(moments, made / _OPTIMIZER)
            save_file(_random_tensors(), made / _RANDOM)
            write_json(
                made / _STATE,
                {
                    "history": trainee.history,
                    "param_groups": state["param_groups"],
                    "schedule": trainee.schedule.state_dict(),
                    "scaler": trainee.scaler.state_dict(),
                    "random": _random_values(),
                },
            )
            sync_folder(made)
            final = self._folder / f"training-{self._key}-{len(trainee.history)}"
            if not final.exists():
                made.replace(final)
        for other in self._found():
            if other != final:
                shutil.rmtree(other)
        self._saved = time.monotonic()

    def restore(self, trainee: Trainee) -> bool:
        """Take up the last checkpoint; False where there is none."""
        found = self._found()
        if not found:
            return False
        state = json.loads((found[-1] / _STATE).read_text(encoding="utf-8"))
        with torch.no_grad():
            for name, value in load_file(found[-1] / _MODEL).items():
                trainee.tensors()[name].copy_(value)
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in load_file(found[-1] / _OPTIMIZER).items():
            row, _, moment = name.partition(".")
            moments.setdefault(int(row), {})[moment] = value
        trainee.optimizer.load_state_dict({"state": moments, "param_groups": state["param_groups"]})
        trainee.schedule.load_state_dict(state["schedule"])
        trainee.scaler.load_state_dict(state["scaler"])
        trainee.history[:] = [tuple(one) for one in state["history"]]
        _set_random_state(load_file(found[-1] / _RANDOM), state["random"])
        return True

    def _found(self) -> list[Path]:
        """The checkpoints of this training, the last one last."""
        return sorted(self._folder.glob(f"training-{self._key}-*"), key=lambda path: int(path.name.rpartition("-")[2]))


def remove_checkpoints(folder: Path) -> None:
    """Remove every training checkpoint of a run folder, also those that fit no training any more."""
    for path in folder.glob("training-*-*"):
        shutil.rmtree(path)


def training_key(
    weights: RerankerWeights, groups: Sequence[TextGroup], settings: TrainingSettings, *, watch: bool
) -> str:
    """A hash of what decides a training: base, groups, settings, and what the arithmetic depends on."""
    how = {one.name: getattr(settings, one.name) for one in fields(settings)}
    loss = settings.open_loss()
    base = {name: getattr(weights, name) for name in ("architecture", "max_length", "query_prefix", "passage_prefix")}
    sides = [weights.fingerprint, fingerprint(weights.passage_side)]
    about = [
        {**how, "lora": asdict(settings.lora) if settings.lora else None, "loss": type(loss).__qualname__},
        {name: str(value) for name, value in sorted(getattr(loss, "__dict__", {}).items())},
        base,
        sides,
        [torch.__version__, torch.get_num_threads(), watch],
    ]
    digest = hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode())
    for group in groups:
        digest.update(json.dumps(asdict(group)).encode("utf-8", "replace"))
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def own_random_state(seed: int) -> Iterator[None]:
    """Seed torch, numpy and Python for the block; the caller's states come back after it."""
    before, tensors = _random_values(), _random_tensors()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        _set_random_state(tensors, before)


def _random_tensors() -> dict[str, torch.Tensor]:
    found = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        found |= {f"cuda-{row}": one for row, one in enumerate(torch.cuda.get_rng_state_all())}
    return found


def _random_values() -> dict[str, Any]:
    """The states of Python and numpy, in JSON types."""
    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": [version, list(words), gauss],
        "numpy": [str(kind), [int(one) for one in keys], int(position), int(has_gauss), float(cached)],
    }


def _set_random_state(tensors: dict[str, torch.Tensor], values: dict[str, Any]) -> None:
    version, words, gauss = values["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, *rest = values["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(tensors["torch"])
    if torch.cuda.is_available():
        torch.cuda.set_rng_state_all([one for name, one in sorted(tensors.items()) if name.startswith("cuda-")])


@contextlib.contextmanager
def _removed(folder: Path) -> Iterator[None]:
    """An unfinished folder is gone before and after the block."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
