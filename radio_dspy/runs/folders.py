"""Check that a folder is a run folder, before anything is written into it or removed from it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from pathlib import Path
from typing import Any

from radio_dspy.core.errors import DataError, RadioError, RunError
from radio_dspy.core.files import SYSTEM_FILES, is_special, place_problem
from radio_dspy.models.files import fingerprint
from radio_dspy.models.weights_folder import is_weight_file
from radio_dspy.runs.journal import LONGEST, decoded, first_line, is_signed, read_object

MANIFEST = "manifest.json"
LOCK = "run.lock"
KIND = "radio-dspy run"
FORMAT_VERSION = 1  # goes up when earlier releases could not go on from what is written now
ADVICE = "take another run_dir"
CHECKPOINT = re.compile(r"reranker-[0-9a-f]{16}")
_RECORDS = (
    r"(requests|batches|rationales|samples|signals|judged|training|comparison|questions|checks|log"
    r"|groups(-[0-9]+)?(-round-[0-9]+)?)\.jsonl"
)
_FILE = re.compile(rf"{_RECORDS}|(manifest|command|report|summary|trained)\.json|report\.(html|md)|{LOCK}")
_UNDERWAY = re.compile(r"training-[0-9a-f]{16}-[0-9]+")
_TAG = "(-[0-9a-f]{16})?"
_OF_INDEX = re.compile(rf"index{_TAG}\.faiss|passages{_TAG}\.jsonl|places{_TAG}\.npy|query-encoder{_TAG}")
_STATE = "state.json"
_UNDERWAY_FILES = {"model.safetensors", "optimizer.safetensors", "random.safetensors", "trainer_state.json", _STATE}
_TEMPORARY_FILE = re.compile(r"\.(.+)\.[0-9a-f]{32}")
_TEMPORARY_CHECKPOINT = re.compile(r"\.training-[0-9a-f]{32}")
_STATE_SAYS = {"history", "param_groups", "schedule", "scaler", "random"}
_LOCK_SAYS = {"process", "host", "since"}
_MANIFEST_BEGINS = b'{\n  "format": '


def cache_folder() -> Path:
    """Where runs without a ``run_dir`` are kept: ``RADIO_DSPY_CACHE``, else the user's cache folder.

    Raises:
        RunError: If no folder can be made there.
    """
    from platformdirs import user_cache_dir

    folder = Path(os.environ.get("RADIO_DSPY_CACHE") or user_cache_dir("radio-dspy", appauthor=False)).absolute()
    if problem := place_problem(folder / "runs"):
        raise RunError(f"{folder}: {problem}; give run_dir=, or another folder as RADIO_DSPY_CACHE.")
    return folder / "runs"


class NotARunError(RunError):
    """A manifest of something else."""


def is_file_of_runs(path: Path) -> bool:
    """Whether a file has a name that runs write."""
    return _FILE.fullmatch(path.name) is not None


def is_reserved(name: str) -> bool:
    """Whether runs, reports or indexes keep something of theirs under a name."""
    return any(one.fullmatch(name) for one in (_FILE, CHECKPOINT, _UNDERWAY, _OF_INDEX))


def is_training_checkpoint(path: Path) -> bool:
    """Whether this is a folder that a training on its way has written, by its name and by what it holds."""
    return (
        _UNDERWAY.fullmatch(path.name) is not None
        and path.is_dir()
        and not path.is_symlink()
        and (path / _STATE).is_file()
        and all(one.name in _UNDERWAY_FILES and one.is_file() and not one.is_symlink() for one in path.iterdir())
        and _said(path / _STATE) >= _STATE_SAYS
    )


def _said(path: Path) -> set[str]:
    """The keys of the JSON object that a file holds; none where it holds something else."""
    with path.open("rb") as file:
        return {*(decoded(file.read(LONGEST)) or ())}


def is_left_over(path: Path) -> bool:
    """Whether this, in a folder with a run's manifest, is an unfinished file or checkpoint of a killed process."""
    if path.is_symlink():
        return False
    if path.is_file():
        found = _TEMPORARY_FILE.fullmatch(path.name)
        return found is not None and _FILE.fullmatch(found[1]) is not None
    if not path.is_dir() or not _TEMPORARY_CHECKPOINT.fullmatch(path.name):
        return False
    return all(
        (one.name == "reranker" and _holds_weights(one))
        if one.is_dir()
        else one.name in _UNDERWAY_FILES or one.name.startswith(f".{_STATE}.")
        for one in path.iterdir()
    )


def _holds_weights(folder: Path) -> bool:
    """Whether a folder holds nothing but files that weights have, and no link."""
    return not folder.is_symlink() and all(
        not one.is_symlink() and (one.is_dir() or is_weight_file(one)) for one in folder.rglob("*")
    )


def is_of_a_run(path: Path) -> bool:
    """Whether something in a run's folder is what runs write there: a file, a checkpoint, or unfinished."""
    if path.is_symlink():
        return False
    named = CHECKPOINT if path.is_dir() else _FILE
    return named.fullmatch(path.name) is not None or is_training_checkpoint(path) or is_left_over(path)


def remove(path: Path) -> None:
    """Remove what ``is_left_over``, ``is_training_checkpoint`` or ``is_of_a_run`` is true of, in a proven run."""
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def is_run(folder: Path) -> bool:
    """Whether a folder, and no link to one, has the manifest of a run."""
    try:
        return not folder.is_symlink() and read_manifest(folder) is not None
    except RadioError:
        return False


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """A run's manifest; None where the folder has none.

    Returns:
        ``format``, ``kind``, ``release``, ``optimizer``, and ``settings``: None before a compile has begun.

    Raises:
        RunError: If it is another thing's, or of a newer release.
        DataError: If it is damaged.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    found = read_object(path, ADVICE)
    if found.get("kind") != KIND:
        raise NotARunError(f"{folder}: its {MANIFEST} is not a run's. The folder is another thing's: take another.")
    number, settings = found.get("format"), found.get("settings")
    if type(number) is not int or number < 1:
        raise DataError(f"{path}: 'format' must be a number from 1, got {number!r:.40}; {ADVICE}.")
    if number > FORMAT_VERSION:
        raise RunError(
            f"{folder}: run format {number}; this release goes on from up to {FORMAT_VERSION}. Upgrade radio-dspy, or "
            f"{ADVICE}."
        )
    if not isinstance(settings, dict | None):
        raise DataError(f"{path}: 'settings' must be an object, got {type(settings).__name__}; {ADVICE}.")
    return {"optimizer": "RADIO", **found, "settings": settings}


def check_folder(folder: Path, optimizer: str) -> None:
    """See that a folder may be used: it is new, empty, or a run of this optimizer. Nothing is written.

    Args:
        folder: The run folder, resolved.
        optimizer: Who wants to write there; one's report would replace the other's.

    Raises:
        RunError: If it holds something else, or cannot be written to.
        DataError: If its manifest is damaged.
    """
    if not folder.exists():
        if problem := place_problem(folder):
            raise RunError(f"{folder}: {problem}; {ADVICE}.")
        return
    if not os.access(folder, os.W_OK | os.X_OK):
        raise RunError(f"{folder}: cannot be written to; {ADVICE}.")
    found = [path for path in folder.iterdir() if path.name not in SYSTEM_FILES]
    for path in found:
        if _FILE.fullmatch(path.name) and (path.is_symlink() or not path.is_file()):
            raise RunError(f"{path}: a link or no file, where runs keep a file of theirs; {ADVICE}.")
    manifest = read_manifest(folder)
    if manifest is None:
        other = next((path for path in found if not _proves_itself(path)), None)
        if other is not None:
            raise RunError(
                f"{folder}: not a run folder, and not empty (it holds {other.name!r}). Nothing was changed there; give "
                "a new or empty folder as run_dir. If it is a run that lost its manifest.json, copy what was paid for "
                "(requests, batches, rationales, samples, signals and judged.jsonl) into a new folder, and give that."
            )
    elif manifest["optimizer"] != optimizer:
        raise RunError(f"{folder}: a run of {manifest['optimizer']}, whose report {optimizer} would replace; {ADVICE}.")


def _proves_itself(path: Path) -> bool:
    """Whether what lies in a folder without a manifest is a run's, by its content: names prove nothing.

    Such folders are those of runs that were killed before they had a manifest, and of records that somebody copied.
    """
    if path.is_symlink() or is_special(path):
        return False
    if path.is_dir():
        with contextlib.suppress(RadioError):
            return CHECKPOINT.fullmatch(path.name) is not None and path.name == f"reranker-{fingerprint(str(path))}"
        return False
    if path.name == LOCK:  # of a process that was killed at once: it had written nothing, or who it is
        return not path.stat().st_size or _said(path) == _LOCK_SAYS
    temporary = _TEMPORARY_FILE.fullmatch(path.name)
    if temporary is not None and temporary[1] == MANIFEST:
        return path.read_bytes()[: len(_MANIFEST_BEGINS)] == _MANIFEST_BEGINS[: path.stat().st_size]
    return re.fullmatch(_RECORDS, path.name) is not None and is_signed(first_line(path))
