"""Save and load programs as folders of plain files."""

from __future__ import annotations

import copy
import functools
import inspect
import re
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import dspy

from radio_dspy import programs
from radio_dspy.core.errors import CheckpointError, RadioError, SettingsError, UnsafeFileError
from radio_dspy.core.files import check_new, new_folder, sha256_of, write_json
from radio_dspy.core.redaction import holds_secret, logger_of
from radio_dspy.core.states import check_state, read_json
from radio_dspy.models.files import copy_weights
from radio_dspy.models.shared import forget_models
from radio_dspy.models.weights import RerankerWeights
from radio_dspy.persistence.manifest import MANIFEST, checked_manifest, folder_name, write_manifest
from radio_dspy.rerankers.rerank import Rerank

logger = logger_of(__name__)
PROGRAM = "program.json"
_NEW = "give a new folder, saved programs are not overwritten."
_HUB_NAME = re.compile(r"[a-z0-9][\w.-]*/[a-z0-9][\w.-]*", re.IGNORECASE | re.ASCII)
_loaded: dict[str, str] = {}  # folder -> the hash of its manifest when it was loaded last


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
        SettingsError: If the program holds no reranker or cannot be copied, or the folder holds something already.
        CheckpointError: If weights are not on this machine, or are not safetensors.
    """
    folder = Path(path)
    check_new(folder, _NEW)
    copied, found = _copy(program)
    copied.set_lm(None)
    with new_folder(folder, _NEW) as making:
        names: dict[str, str] = {}
        for weights in found.values():
            for checkpoint in filter(None, (weights.checkpoint, weights.passage_checkpoint)):
                if checkpoint not in names:
                    names[checkpoint] = "reranker" if not names else f"reranker-{len(names) + 1}"
                    copy_weights(checkpoint, making / names[checkpoint])
            weights.take_over(_renamed(weights.settled(), names.__getitem__))
        copied.save(making / PROGRAM)
        state = read_json(making / PROGRAM)
        check_state(copied, state)  # what `load` would refuse is not given away
        if holds_secret((making / PROGRAM).read_text(encoding="utf-8")):  # a demonstration says what a server said
            write_json(making / PROGRAM, state)
        write_manifest(making, copied, found)
    return folder


def load(
    path: str | PathLike[str],
    retriever: dspy.Module | None = None,
    *,
    program: dspy.Module | None = None,
    revision: str | None = None,
    token: str | None = None,
) -> dspy.Module:
    """Read a folder that ``save`` wrote, or a repository that ``push_to_hub`` filled.

    Every file is held against the manifest first, and none of them can hold code.

    Args:
        path: The folder, wherever it was moved to; or, where there is none, ``"owner/name"`` on the Hugging Face hub.
        retriever: The first stage of a program of this library.
        program: For a program class of your own: a fresh instance, which is returned with the saved state.
        revision: A branch, tag or commit of the hub's repository; then ``path`` is a hub name.
        token: For a private repository of the hub; None takes the one that you are logged in with.

    Raises:
        UnsafeFileError: If it names an LM, an address or code, whatever else is right about it.
        CheckpointError: If a file is missing, added or changed, the format is newer than this release, or the hub does
            not give the repository.
        SettingsError: If retriever or program is missing.
    """
    folder, links = _located(path, revision, token)
    manifest = checked_manifest(folder, links)
    if program is None:
        program = _fresh(folder, manifest, retriever)
    if missing := set(manifest["rerankers"]) ^ set(found := _weights_of(program)):
        raise CheckpointError(
            f"{folder}: {sorted(missing)} is a reranker either of the saved program or of the one given, not of both; "
            f"give load(..., program=) a {manifest['program']} as it was when it was saved."
        )
    into = functools.partial(_folder_of, folder)
    try:
        state = read_json(folder / PROGRAM)
        check_state(program, state)
        for name, weights in found.items():  # tried on a copy: the program given stays as it is if anything is wrong
            trial = copy.copy(weights)
            trial.load_state(state[name])
            _renamed(trial, into)
        program.load(folder / PROGRAM)
    except UnsafeFileError as error:
        raise UnsafeFileError(f"{folder}: {PROGRAM}: {error}") from None
    except KeyError as error:
        raise CheckpointError(
            f"{folder}: holds nothing for {error} of the program given; give load(..., program=) a "
            f"{manifest['program']} as it was when it was saved."
        ) from error
    except Exception as error:  # each parameter reads its own part, DSPy's among them
        raise CheckpointError(f"{folder}: {PROGRAM} is not the state of a saved program ({_said(error)}).") from error
    for weights in found.values():
        weights.take_over(_renamed(weights, into))
    _forget_what_stood_here(folder)  # not before: where loading fails, what was loaded from here goes on
    return program


def load_weights(path: str | PathLike[str]) -> dict[str, RerankerWeights]:
    """The rerankers of a folder that ``save`` wrote, by parameter name: neither program nor retriever is needed.

    Raises:
        CheckpointError: As for ``load``.
    """
    folder, links = _located(path, None, None)
    manifest = checked_manifest(folder, links)
    _forget_what_stood_here(folder)
    found = {}
    try:
        states = read_json(folder / PROGRAM)
        for name, one in manifest["rerankers"].items():
            weights = RerankerWeights(_folder_of(folder, one["folder"]), one.get("architecture"), new_head=True)
            weights.load_state(states[name])
            found[name] = _renamed(weights, functools.partial(_folder_of, folder))
    except CheckpointError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{folder}: {PROGRAM} is not the state of a saved program ({_said(error)}).") from error
    return found


def check_kind(path: str | PathLike[str]) -> None:
    """See that a saved program is one of this library, before its first stage is opened.

    Raises:
        SettingsError: If it is of a class of the user's own.
        CheckpointError: As for ``load``.
    """
    folder, links = _located(path, None, None)
    _kind(folder, checked_manifest(folder, links))


def _kind(folder: Path, manifest: Mapping[str, Any]) -> Any:
    """The class of a program of this library."""
    name = manifest["program"]
    if name not in programs.__all__:
        raise SettingsError(
            f"{folder}: holds a {name}; give load(..., program=) a fresh instance of it, in Python: the command line "
            "opens programs of this library alone."
        )
    return getattr(programs, name)


def _fresh(folder: Path, manifest: Mapping[str, Any], retriever: dspy.Module | None) -> dspy.Module:
    """A program of this library, with the settings that it was saved with."""
    kind, settings = _kind(folder, manifest), manifest["settings"]
    if retriever is None:
        raise SettingsError(f"{folder}: give load(..., retriever=) the first stage that the program searches.")
    first = next(iter(manifest["rerankers"].values()))
    cut_off = {name: first[name] for name in ("activation", "min_score") if name in first}
    rerank = Rerank(_folder_of(folder, first["folder"]), first.get("architecture"), new_head=True, **cut_off)
    if unknown := set(settings) - set(inspect.signature(kind.__init__).parameters):
        raise CheckpointError(f"{folder}: {kind.__name__} has no settings {sorted(unknown)}; copy the folder again.")
    try:
        return kind(retriever, rerank, **settings)
    except SettingsError as error:
        if any(value < 1 for value in settings.values()):
            raise CheckpointError(f"{folder}: saved with settings that there are not ({error}).") from error
        raise


def _said(error: Exception) -> str:
    """An error's text, shortened; with its class if it is another library's."""
    return (str(error) if isinstance(error, RadioError) else repr(error))[:400]


def _located(path: str | PathLike[str], revision: str | None, token: str | None) -> tuple[Path, Path | None]:
    """The folder on this machine, and where its files may be links to."""
    folder = Path(path)
    if revision is None and (folder.exists() or not isinstance(path, str) or not _HUB_NAME.fullmatch(path)):
        return folder, None
    from radio_dspy.persistence.hub_download import download  # the hub saves what it sends: it imports this module

    logger.info("%s: no such folder here; taken from the hub.", path)
    snapshot = download(str(path), revision=revision, token=token)
    return snapshot, snapshot.parents[1] / "blobs"


def _renamed(weights: RerankerWeights, name_of: Callable[[str], str]) -> RerankerWeights:
    """The weights with other names of their folders: short ones in a saved program, whole paths in a loaded one."""
    passages = weights.passage_checkpoint and name_of(weights.passage_checkpoint)
    return weights.with_checkpoint(name_of(weights.checkpoint), passages)


def _folder_of(folder: Path, name: str) -> str:
    try:
        found = folder / folder_name(name)
    except ValueError as error:
        raise CheckpointError(f"{folder}: names weights wrongly: {error}.") from error
    if not found.is_dir():
        raise CheckpointError(f"{folder}: {name} is missing; copy the whole folder again.")
    return str(found.resolve())


def _copy(program: dspy.Module) -> tuple[dspy.Module, dict[str, RerankerWeights]]:
    """A copy whose weights can be renamed without touching the program in hand, and these weights by name."""
    copied = program.deepcopy()
    found, own = _weights_of(copied), _weights_of(program)
    if shared := next((name for name in own if found[name] is own[name]), None):
        raise SettingsError(
            f"{shared} cannot be copied: an attribute of the program beside it keeps it from being copied (a lock, a "
            "connection, an open file). Make that attribute copyable, or keep it elsewhere."
        )
    return copied, found


def _weights_of(program: dspy.Module) -> dict[str, RerankerWeights]:
    found = {name: one for name, one in program.named_parameters() if isinstance(one, RerankerWeights)}
    if not found:
        raise SettingsError("The program holds no Rerank; use the program's own save() for prompts alone.")
    return found


def _forget_what_stood_here(folder: Path) -> None:
    """Loaded models are kept by the name of their folder: let go of them where the folder holds another program now."""
    name, now = str(folder.resolve()), sha256_of(folder / MANIFEST)
    if _loaded.setdefault(name, now) != now:
        forget_models()
        _loaded[name] = now
