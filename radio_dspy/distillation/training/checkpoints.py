"""Training checkpoints: a killed training resumes and ends in the same weights, bit for bit on a CPU."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from radio_dspy.core.errors import RunError, SettingsError
from radio_dspy.core.files import sha256_of, sync_folder, write_json
from radio_dspy.distillation.training.settings import TrainingSettings
from radio_dspy.models.files import fingerprint
from radio_dspy.models.randomness import random_tensors, random_values, set_random_state
from radio_dspy.models.tensors import not_finite
from radio_dspy.models.weights import RerankerWeights
from radio_dspy.runs.folders import is_training_checkpoint, remove
from radio_dspy.runs.journal import read_object

if TYPE_CHECKING:
    from radio_dspy.distillation.preferences.groups import PreferenceGroup

EVERY_SECONDS = 300.0  # where no number of updates is given; a shorter training writes nothing
_MODEL, _OPTIMIZER, _RANDOM, _STATE = "model.safetensors", "optimizer.safetensors", "random.safetensors", "state.json"


@dataclass
class Trainee:
    """Everything that changes while a reranker is trained.

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
        """Trained parameters and buffers, by name."""
        trained = {name: one.data for name, one in self.module.named_parameters() if one.requires_grad}
        return {**trained, **dict(self.module.named_buffers())}


class TrainingCheckpoints:
    """Saves a training on its way and resumes it.

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
        """Write a checkpoint, then remove the one before it; where the disk is full that one stays.

        Raises:
            RunError: If something else has its name.
        """
        made = self._folder / f".training-{uuid.uuid4().hex}"
        made.mkdir()
        try:
            save_file({name: one.contiguous() for name, one in trainee.tensors().items()}, made / _MODEL)
            state = trainee.optimizer.state_dict()
            moments = {
                f"{row}.{name}": one.contiguous() for row, own in state["state"].items() for name, one in own.items()
            }
            save_file(moments, made / _OPTIMIZER)
            save_file(random_tensors(), made / _RANDOM)
            about = {
                "history": trainee.history,
                "param_groups": state["param_groups"],
                "schedule": trainee.schedule.state_dict(),
                "scaler": trainee.scaler.state_dict(),
                "random": random_values(),
            }
            write_json(made / _STATE, {**about, "digest": _digest(made, self._key, about)})
            sync_folder(made)
            final = self._folder / f"training-{self._key}-{len(trainee.history)}"
            if final not in self._found():
                if final.exists():
                    raise RunError(f"{final}: holds something else; move it away, and the same compile goes on.")
                made.replace(final)
        finally:
            shutil.rmtree(made, ignore_errors=True)
        for other in self._found():
            if other != final:
                remove(other)
        self._saved = time.monotonic()

    def restore(self, trainee: Trainee, updates: int | None = None) -> bool:
        """Take up the last checkpoint; False where there is none.

        Args:
            trainee: What is trained.
            updates: Of the whole training; a checkpoint of more is damaged. None does not look.

        Raises:
            RunError: If the checkpoint is damaged, or of another training.
        """
        found = self._found()
        if not found:
            return False
        try:
            _restore(trainee, found[-1], self._key, updates)
        except Exception as error:  # what damaged files raise in three libraries has no class in common
            raise RunError(
                f"{found[-1]}: a training checkpoint that cannot be resumed ({type(error).__name__}: {error!s:.200}); "
                "remove this folder, and the same compile trains from the start."
            ) from error
        return True

    def _found(self) -> list[Path]:
        """The checkpoints of this training, the last one last."""
        found = self._folder.glob(f"training-{self._key}-*")
        return sorted(filter(is_training_checkpoint, found), key=lambda path: int(path.name.rpartition("-")[2]))


def _digest(folder: Path, key: str, state: dict[str, Any]) -> str:
    """A hash of a training checkpoint as a whole; one that is changed, or mixed with another, would train on unseen."""
    files = [sha256_of(folder / name) for name in (_MODEL, _OPTIMIZER, _RANDOM)]
    return hashlib.sha256(json.dumps([key, files, state], sort_keys=True).encode()).hexdigest()


def _restore(trainee: Trainee, folder: Path, key: str, updates: int | None) -> None:
    """Hold everything against what is there before training, and take it up then."""
    state = read_object(folder / _STATE, "remove the folder")
    digest = state.pop("digest", None)
    if digest not in (None, _digest(folder, key, state)):  # checkpoints of release 0.1 have none
        raise ValueError("its files were changed, or belong to another training")
    own, tensors, drawn = trainee.optimizer.state_dict(), trainee.tensors(), random_values()
    drawn["python"][2] = None  # a number or none: what was drawn last decides
    like = {
        "history": None,
        "param_groups": own["param_groups"],
        "schedule": trainee.schedule.state_dict(),
        "scaler": trainee.scaler.state_dict(),
        "random": drawn,
    }
    _check_like(state, like, _STATE)
    history = [_triple(one) for one in state["history"]]
    done = int(folder.name.rpartition("-")[2])
    if len(history) != done or (updates is not None and done >= updates):
        raise ValueError(f"{len(history)} updates, of {updates}")
    saved, stored = load_file(folder / _MODEL), load_file(folder / _OPTIMIZER)
    if odd := not_finite({**saved, **stored}):
        raise ValueError(f"{odd} holds what is no finite number")
    for name, one in tensors.items():
        if name not in saved or saved[name].shape != one.shape or saved[name].dtype != one.dtype:
            raise ValueError(f"{_MODEL} does not fit the model: {name}")
    set_random_state(load_file(folder / _RANDOM), state["random"])
    with torch.no_grad():
        for name, one in tensors.items():
            one.copy_(saved[name])
    trainee.optimizer.load_state_dict({"state": _moments(stored), "param_groups": state["param_groups"]})
    trainee.schedule.load_state_dict(state["schedule"])
    trainee.scaler.load_state_dict(state["scaler"])
    trainee.history[:] = history


def _moments(saved: dict[str, torch.Tensor]) -> dict[int, dict[str, torch.Tensor]]:
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in saved.items():
        row, _, moment = name.partition(".")
        moments.setdefault(int(row), {})[moment] = value
    return moments


def _triple(found: Any) -> tuple[float, float, float]:
    if not isinstance(found, list) or len(found) != 3:
        raise ValueError(f"history holds {found!r:.40}")
    first, second, third = (float(one) for one in found)
    return first, second, third


def _check_like(found: Any, like: Any, where: str) -> None:
    """See that a JSON value has the keys and the types of another: a resumed training sets nothing else."""
    if isinstance(like, dict) and isinstance(found, dict) and found.keys() == like.keys():
        for key, value in like.items():
            _check_like(found[key], value, f"{where}: {key}")
    elif isinstance(like, list | tuple) and isinstance(found, list) and len(found) == len(like):
        for one, value in zip(found, like, strict=True):
            _check_like(one, value, where)
    elif isinstance(like, bool) != isinstance(found, bool) or (isinstance(like, str) and found != like):
        raise ValueError(f"{where} is {found!r:.40}")
    elif isinstance(like, dict | list | tuple) or (
        isinstance(like, int | float) and not isinstance(found, int | float)
    ):
        raise ValueError(f"{where} has another form")


def remove_checkpoints(folder: Path) -> None:
    """Remove every training checkpoint of a run folder, also those that fit no training any more."""
    for path in folder.glob("training-*-*"):
        if is_training_checkpoint(path):
            remove(path)


def training_key(
    weights: RerankerWeights, groups: Sequence[PreferenceGroup], settings: TrainingSettings, *, watch: bool
) -> str:
    """A hash of what decides a training: base, groups, settings, and what the arithmetic depends on."""
    how = {**settings.decisive(), "device": settings.device}
    loss = settings.open_loss()
    reading = ("architecture", "max_length", "query_prefix", "passage_prefix", "prompt")
    base = {name: getattr(weights, name) for name in reading}
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
        learned = {name: getattr(group, name) for name in ("query", "positive", "negatives", "scores", "answers")}
        digest.update(json.dumps(learned).encode("utf-8", "replace"))
    return digest.hexdigest()[:16]
