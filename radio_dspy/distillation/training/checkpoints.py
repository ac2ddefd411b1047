"""Training checkpoints: a killed training resumes and ends in the same weights, bit for bit on a CPU."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from radio_dspy.core.errors import RunError, SettingsError
from radio_dspy.core.files import sha256_of, sync_folder, write_json
from radio_dspy.distillation.training.settings import TrainingSettings
from radio_dspy.models.files import fingerprint
from radio_dspy.models.tensors import not_finite
from radio_dspy.models.weights import RerankerWeights
from radio_dspy.runs.folders import is_training_checkpoint, remove
from radio_dspy.runs.journal import read_object

if TYPE_CHECKING:
    from radio_dspy.distillation.preferences.groups import PreferenceGroup

EVERY_SECONDS = 300.0  # where no number of updates is given; a shorter training writes nothing
TENSORS = ("model", "optimizer", "random")
_STATE, _TRAINER = "state.json", "trainer_state.json"  # the second is what transformers' Trainer reads


class TrainingCheckpoints:
    """Keeps a training on its way in a folder.

    A checkpoint is a folder ``training-KEY-UPDATES`` of safetensors and JSON. It fits only the training that has the
    same key; others are never loaded. The last one is kept, and the best one so far.

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
        self.folder = folder
        self._key = key
        self._every = every
        self._saved = time.monotonic()

    def as_dict(self) -> dict[str, Any]:
        """The arguments, in JSON types."""
        return {"folder": str(self.folder.absolute()), "key": self._key, "every": self._every}

    def due(self, updates: int) -> bool:
        """Whether it is time to save."""
        if self._every is not None:
            return updates % self._every == 0
        return time.monotonic() - self._saved >= EVERY_SECONDS

    def path(self, updates: int) -> Path:
        """The checkpoint after so many updates."""
        return self.folder / f"training-{self._key}-{updates}"

    def last(self) -> Path | None:
        """The checkpoint to go on from."""
        return max(self._found(), key=_updates, default=None)

    def save(
        self,
        updates: int,
        tensors: Mapping[str, Mapping[str, torch.Tensor]],
        state: Mapping[str, Any],
        trainer: Mapping[str, Any],
        best: int | None = None,
    ) -> None:
        """Write a checkpoint, then remove those before it; where the disk is full they stay.

        Args:
            updates: So far.
            tensors: Name -> tensor, for each of ``TENSORS``.
            state: What else has to be restored, in JSON types.
            trainer: The ``TrainerState`` of transformers, in JSON types.
            best: The updates of another checkpoint that is kept.

        Raises:
            RunError: If something else has its name.
        """
        made = self.folder / f".training-{uuid.uuid4().hex}"
        made.mkdir()
        try:
            for name in TENSORS:
                save_file({key: one.contiguous() for key, one in tensors[name].items()}, made / f"{name}.safetensors")
            write_json(made / _TRAINER, trainer)
            about = json.loads(json.dumps(state))
            write_json(made / _STATE, {**about, "digest": _digest(made, self._key, about)})
            sync_folder(made)
            final = self.path(updates)
            if final not in self._found():
                if final.exists():
                    raise RunError(f"{final}: holds something else; move it away, and the same compile goes on.")
                made.replace(final)
        finally:
            shutil.rmtree(made, ignore_errors=True)
        for other in self._found():
            if other not in (final, self.path(best or updates)):
                remove(other)
        self._saved = time.monotonic()

    def load(self, path: Path) -> tuple[dict[str, dict[str, torch.Tensor]], dict[str, Any]]:
        """The tensors and the state of a checkpoint.

        Raises:
            RunError: If the checkpoint is damaged, or of another training.
        """
        try:
            state = read_object(path / _STATE, "remove the folder")
            if state.pop("digest", None) != _digest(path, self._key, state):
                raise ValueError("its files were changed, or belong to another training")
            found = {name: load_file(path / f"{name}.safetensors") for name in TENSORS}
            if odd := next(filter(None, map(not_finite, found.values())), None):
                raise ValueError(f"{odd} holds what is no finite number")
            return found, state
        except Exception as error:  # what damaged files raise in three libraries has no class in common
            raise not_resumable(path, error) from error

    def _found(self) -> list[Path]:
        """The checkpoints of this training; those of earlier releases, which had another engine, are none."""
        found = filter(is_training_checkpoint, self.folder.glob(f"training-{self._key}-*"))
        return [path for path in found if (path / _TRAINER).is_file()]


def not_resumable(path: Path, error: Exception) -> RunError:
    """What to say of a checkpoint that does not load."""
    return RunError(
        f"{path}: a training checkpoint that cannot be resumed ({type(error).__name__}: {error!s:.200}); remove this "
        "folder, and the same compile trains from the start."
    )


def remove_checkpoints(folder: Path) -> None:
    """Remove every training checkpoint of a run folder, also those that fit no training any more."""
    for path in filter(is_training_checkpoint, folder.glob("training-*-*")):
        remove(path)


def _updates(path: Path) -> int:
    return int(path.name.rpartition("-")[2])


def _digest(folder: Path, key: str, state: dict[str, Any]) -> str:
    """A hash of a training checkpoint as a whole; one that is changed, or mixed with another, would train on unseen."""
    files = [sha256_of(folder / name) for name in (*(f"{one}.safetensors" for one in TENSORS), _TRAINER)]
    return hashlib.sha256(json.dumps([key, files, state], sort_keys=True).encode()).hexdigest()


def training_key(
    weights: RerankerWeights, groups: Sequence[PreferenceGroup], settings: TrainingSettings, *, watch: bool
) -> str:
    """A hash of what decides a training: base, groups, settings, and what the arithmetic depends on."""
    loss = settings.open_loss()
    reading = ("architecture", "max_length", "query_prefix", "passage_prefix", "prompt")
    about = [
        {**settings.decisive(), "device": settings.device, "loss": type(loss).__qualname__},
        {name: str(value) for name, value in sorted(getattr(loss, "__dict__", {}).items())},
        {name: getattr(weights, name) for name in reading},
        [weights.fingerprint, fingerprint(weights.passage_side)],
        [torch.__version__, torch.get_num_threads(), watch],
    ]
    digest = hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode())
    for group in groups:
        learned = {name: getattr(group, name) for name in ("query", "positive", "negatives", "scores", "answers")}
        digest.update(json.dumps(learned).encode("utf-8", "replace"))
    return digest.hexdigest()[:16]
