"""Saved programs: one folder of plain files that moves with its weights."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import dspy

from radio_dspy import programs
from radio_dspy.encoders import copy_weights
from radio_dspy.errors import CheckpointError, SettingsError
from radio_dspy.files import sha256_of, write_json
from radio_dspy.rerankers.rerank import Rerank
from radio_dspy.rerankers.weights import RerankerWeights

FORMAT_VERSION = 1
_FOLDER_NAME = re.compile(r"reranker(-\d+)?")


def save(program: dspy.Module, path: str | PathLike[str]) -> Path:
    """Write a program into a new folder: ``program.json``, ``manifest.json`` and the weights of its rerankers.

    Everything is plain text and safetensors. LMs, addresses and keys are left out: configure the LM after loading. The
    retriever's index is not part of it either: see ``FaissRetriever.save``.

    Args:
        program: A program with at least one ``Rerank``.
        path: A folder that does not exist yet, or is empty.

    Returns:
        The folder.

    Raises:
        SettingsError: If the program holds no reranker or the folder holds something already.
    """
    folder = Path(path)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SettingsError(f"{folder}: already there; give a new folder, saved programs are not overwritten.")
    copied = program.deepcopy()
    found = _weights_of(copied)
    copied.set_lm(None)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
        making = Path(temporary) / folder.name
        making.mkdir()
        names: dict[str, str] = {}
        for weights in found.values():
            for checkpoint in filter(None, (weights.checkpoint, weights.passage_checkpoint)):
                if checkpoint not in names:
                    names[checkpoint] = "reranker" if not names else f"reranker-{len(names) + 1}"
                    copy_weights(checkpoint, making / names[checkpoint])
            weights.checkpoint = names[weights.checkpoint]
            if weights.passage_checkpoint:
                weights.passage_checkpoint = names[weights.passage_checkpoint]
        copied.save(making / "program.json")
        files = sorted(path for path in making.rglob("*") if path.is_file())
        manifest = {
            "format": FORMAT_VERSION,
            "program": type(program).__name__,
            "settings": _settings_of(program),
            "rerankers": {name: {"folder": one.checkpoint, "base": one.base} for name, one in found.items()},
            "files": {one.relative_to(making).as_posix(): sha256_of(one) for one in files},
        }
        write_json(making / "manifest.json", manifest)
        making.replace(folder)  # whole or not at all
    return folder


def load(
    path: str | PathLike[str], retriever: dspy.Module | None = None, *, program: dspy.Module | None = None
) -> dspy.Module:
    """Read a folder that ``save`` wrote.

    Args:
        path: The folder, wherever it was moved to.
        retriever: The first stage of a program of this library.
        program: For a program class of your own: a fresh instance, which is returned with the saved state.

    Raises:
        CheckpointError: If a file is missing, added or changed, or the format is newer than this release.
        SettingsError: If retriever or program is missing.
    """
    folder = Path(path)
    manifest = _checked_manifest(folder)
    if program is None:
        kind = getattr(programs, manifest["program"], None) if manifest["program"] in programs.__all__ else None
        if kind is None:
            raise SettingsError(
                f"{folder}: holds a {manifest['program']}; give load(..., program=) a fresh instance of it."
            )
        if retriever is None:
            raise SettingsError(f"{folder}: give load(..., retriever=) the first stage that the program searches.")
        reranker = next(iter(manifest["rerankers"].values()))["folder"]
        program = kind(retriever, Rerank(str(folder / reranker)), **manifest["settings"])
    program.load(folder / "program.json")
    for name, weights in _weights_of(program).items():
        weights.checkpoint = _folder_of(folder, name, weights.checkpoint)
        if weights.passage_checkpoint:
            weights.passage_checkpoint = _folder_of(folder, name, weights.passage_checkpoint)
    return program


def _folder_of(folder: Path, parameter: str, name: str) -> str:
    if not _FOLDER_NAME.fullmatch(name) or not (folder / name).is_dir():
        raise CheckpointError(f"{folder}: {parameter} names {name!r}, which is not a folder of weights in it.")
    return str((folder / name).resolve())


def _weights_of(program: dspy.Module) -> dict[str, RerankerWeights]:
    found = {name: one for name, one in program.named_parameters() if isinstance(one, RerankerWeights)}
    if not found:
        raise SettingsError("The program holds no Rerank; use the program's own save() for prompts alone.")
    return found


def _settings_of(program: dspy.Module) -> dict[str, int]:
    names = ("candidates", "k", "hops")
    return {name: value for name in names if isinstance(value := getattr(program, name, None), int)}


def _checked_manifest(folder: Path) -> Mapping[str, Any]:
    """Read the manifest and hold every file against it before anything is loaded."""
    path = folder / "manifest.json"
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; {folder} is not a folder that radio_dspy.save wrote.")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        version, files = int(manifest["format"]), dict(manifest["files"])
        manifest["program"], manifest["settings"], manifest["rerankers"]  # all three must be there
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: not a manifest of a saved program ({error!r}).") from error
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"{folder}: saved format {version}; this release reads up to {FORMAT_VERSION}. Upgrade radio-dspy."
        )
    present = {one.relative_to(folder).as_posix() for one in folder.rglob("*") if one.is_file() and one != path}
    for name in sorted(present | set(files)):
        if name not in present:
            raise CheckpointError(f"{folder}: {name} is missing; copy the whole folder again.")
        if name not in files:
            raise CheckpointError(f"{folder}: {name} is not in the manifest; remove it.")
        if (folder / name).is_symlink() or sha256_of(folder / name) != files[name]:
            raise CheckpointError(f"{folder}: {name} was changed after it was saved.")
    return manifest
