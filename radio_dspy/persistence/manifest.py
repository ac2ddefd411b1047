"""The manifest of a saved program: what its folder holds, what made it, and the check before anything is loaded."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import dspy
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from radio_dspy._version import __version__
from radio_dspy.core.errors import CheckpointError, UnsafeFileError
from radio_dspy.core.files import SYSTEM_FILES, is_special, sha256_of, write_json
from radio_dspy.core.states import problem_of, read_json
from radio_dspy.models.architecture import Architecture
from radio_dspy.models.files import fingerprint
from radio_dspy.models.weights import RerankerWeights
from radio_dspy.rerankers.rerank import Rerank

MANIFEST = "manifest.json"
# Goes up when earlier releases could not read what is written now. A further entry of the manifest is no reason: they
# pass over it. One of RerankerWeights is, because it may change the ranking: they refuse it.
FORMAT_VERSION = 1
# What a hub and its users put beside a program. Nothing here is read, so it may come, change and go.
UNREAD = frozenset({".gitattributes", "LICENSE", "README.md"})
_UNREAD_FOLDERS = frozenset({".cache", ".git"})  # of a download by `hf`, and of a clone
_WANTED = "give the folder that `radio-dspy compile` or radio_dspy.save wrote."
_LIBRARIES = ("dspy", "sentence-transformers", "torch", "transformers")
_SETTINGS = ("candidates", "k", "hops")
_WEIGHTS_FOLDER = re.compile(r"reranker(-\d+)?", re.ASCII)
# Which files weights may have is for those to say who load them; here none may be code.
_FILE = re.compile(r"program\.json|reranker(-\d+)?/([^/\\:]+/)?[^/\\:]+(?<!\.py)(?<!\.pkl)", re.ASCII)


def is_part(name: str) -> bool:
    """Whether a file has a name that one of a saved program has."""
    return _FILE.fullmatch(name) is not None and ".." not in name.split("/")


def folder_name(name: str) -> str:
    """A name as ``save`` gives it to a folder of weights.

    Raises:
        ValueError: For any other, such as one that leads out of the saved folder.
    """
    if not _WEIGHTS_FOLDER.fullmatch(name):
        raise ValueError(f"{name!r} is not a folder of weights in it")
    return name


def _some(rerankers: dict[str, Any]) -> dict[str, Any]:
    if not rerankers:
        raise ValueError("it names no reranker")
    return rerankers


class _Reranker(BaseModel):
    model_config = ConfigDict(strict=True)  # later releases may say more

    folder: Annotated[str, AfterValidator(folder_name)]
    architecture: Architecture | None = None
    activation: Literal["sigmoid", "probability"] | None = None
    min_score: float | Literal["null"] | None = None


class _Manifest(BaseModel):
    """Required entries; further ones are ignored."""

    model_config = ConfigDict(strict=True)

    format: int = Field(ge=1)
    program: Annotated[str, StringConstraints(pattern=r"^\w{1,200}$")]
    settings: dict[Literal["candidates", "k", "hops"], int]
    rerankers: Annotated[dict[str, _Reranker], AfterValidator(_some)]
    files: dict[str, str]


def write_manifest(folder: Path, program: dspy.Module, rerankers: Mapping[str, RerankerWeights]) -> None:
    """Write the manifest of a folder that is otherwise complete.

    Args:
        folder: What is saved.
        program: What it was.
        rerankers: Its weights by parameter name, as they are saved: their checkpoints are folders in ``folder``.
    """
    modules = {id(one.weights): one for _, one in program.named_sub_modules(Rerank)}
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    manifest = {
        "format": FORMAT_VERSION,
        "versions": {
            "radio-dspy": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in _LIBRARIES},
        },
        "program": type(program).__name__,
        "settings": {name: value for name in _SETTINGS if type(value := getattr(program, name, None)) is int},
        "rerankers": {
            name: {**_described(folder, weights), **_cut_off(modules.get(id(weights)))}
            for name, weights in rerankers.items()
        },
        "files": {path.relative_to(folder).as_posix(): sha256_of(path) for path in files},
    }
    write_json(folder / MANIFEST, manifest)


def _described(folder: Path, weights: RerankerWeights) -> dict[str, Any]:
    return {
        "folder": weights.checkpoint,
        "passage_folder": weights.passage_checkpoint,
        "architecture": weights.architecture,
        "fingerprint": fingerprint(str(folder / weights.checkpoint)),
        "base": weights.base,
        "base_fingerprint": weights.training[0]["base"]["fingerprint"] if weights.training else None,
        "training": list(weights.training),
    }


def _cut_off(rerank: Rerank | None) -> dict[str, Any]:
    """What a reranker leaves out; only where it does."""
    if rerank is None or rerank.min_score is None:
        return {}
    return {"activation": rerank.activation, "min_score": rerank.min_score}


def checked_manifest(folder: Path, links: Path | None = None) -> Mapping[str, Any]:
    """Read a manifest and hold every file of the folder against it; nothing of the program is loaded.

    Args:
        folder: A folder that ``save`` wrote.
        links: Where the folder's files may be links to (the hub's cache keeps them so); None refuses links.

    Raises:
        CheckpointError: If it is no such folder, its format is newer than this release, or a file is missing, was
            added, was changed or is a link.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; {folder} is not a folder that radio_dspy.save wrote.")
    there = [one for one in sorted(folder.rglob("*")) if _is_read(one.relative_to(folder))]
    for found in there:
        if found.is_symlink() and not (links and found.resolve().is_relative_to(links.resolve())):
            name = found.relative_to(folder).as_posix()
            raise CheckpointError(f"{folder}: {name} is a link; copy the folder with the files themselves.")
        if is_special(found):
            raise UnsafeFileError(f"{found}: is neither a file nor a folder; do not trust the folder.")
    manifest = read_manifest(path)
    files = manifest["files"]
    present = {one.relative_to(folder).as_posix() for one in there if one.is_file()} - {MANIFEST, *UNREAD}
    for name in sorted(present | set(files)):
        if name not in present:
            raise CheckpointError(f"{folder}: {name} is missing; copy the whole folder again.")
        if name not in files:
            raise CheckpointError(f"{folder}: {name} is not in the manifest; remove it.")
        if not _FILE.fullmatch(name):
            raise UnsafeFileError(f"{folder}: {name} is no part of a saved program; do not trust the folder.")
        if sha256_of(folder / name) != files[name]:
            raise CheckpointError(f"{folder}: {name} was changed after it was saved; copy the folder again.")
    return manifest


def _is_read(name: Path) -> bool:
    """Whether a file may be one of the program's, and none that a system, Git or the hub's client keeps for itself."""
    return name.parts[0] not in _UNREAD_FOLDERS and name.name not in SYSTEM_FILES


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest's values, each of the shape that is relied on; no file is held against it.

    Raises:
        CheckpointError: If it is another thing's, or of a newer release.
    """
    try:
        manifest = read_json(path)
        number = int(manifest["format"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise CheckpointError(f"{path}: not a manifest of a saved program ({error!r:.200}); {_WANTED}") from error
    if number > FORMAT_VERSION:  # said first: a newer manifest may well have another shape
        raise CheckpointError(
            f"{path.parent}: saved format {number}; this release reads up to {FORMAT_VERSION}. Upgrade radio-dspy."
        )
    try:
        return _Manifest.model_validate(manifest).model_dump(exclude_unset=True)
    except ValidationError as error:
        raise CheckpointError(f"{path}: not a manifest of a saved program ({problem_of(error)}); {_WANTED}") from None
