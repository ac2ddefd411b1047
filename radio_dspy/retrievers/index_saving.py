"""Save an index into a folder, so that it takes an older one's place in one step.

The manifest names the files, and is written last. A save over an index writes beside it, under names of its own, so
that the old index is whole until the new one is; after a kill at any moment one of the two is there.
"""

from __future__ import annotations

import contextlib
import os
import re
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from radio_dspy.core.errors import CheckpointError, RunError, SettingsError
from radio_dspy.core.files import place_problem, resolved, sha256_of, write_json
from radio_dspy.core.states import Strict, read_json
from radio_dspy.retrievers.index_folder import (
    FORMAT_VERSION,
    INDEX,
    MANIFEST,
    PASSAGES,
    PLACES,
    ROLES,
    TAG,
    IndexManifest,
    ends_of,
    read_manifest,
)

_MARKER = ".saving.json"  # there while an index is saved, and after a kill
_OTHER = "give a new folder, or an index's."


def check_place(folder: Path) -> IndexManifest | None:
    """See that an index may be saved here: a new folder, an empty one, or an index's, which is then replaced.

    Returns:
        The manifest of the index that is there.

    Raises:
        SettingsError: If it is a file, a folder that holds something else, or cannot be made.
    """
    folder = resolved(folder, _OTHER)
    if folder.exists() and not folder.is_dir():
        raise SettingsError(f"{folder}: is a file; an index is saved into a folder.")
    if not folder.exists():
        if problem := place_problem(folder):
            raise SettingsError(f"{folder}: {problem}; {_OTHER}")
        return None
    if os.path.lexists(folder / _MARKER) and _marker(folder) is None:
        raise SettingsError(f"{folder / _MARKER}: no save into this folder wrote it; move it away, or {_OTHER}")
    if (folder / MANIFEST).is_file() and not (folder / MANIFEST).is_symlink():
        with contextlib.suppress(CheckpointError):
            return read_manifest(folder)
    ours = set(_left_over(folder))
    files = (one for one in folder.rglob("*") if not one.is_dir() or one.is_symlink())
    if any(one not in ours and not one.relative_to(folder).parts[0].startswith(".") for one in files):
        raise SettingsError(f"{folder}: holds something else than an index; {_OTHER}")
    return None


class Making:
    """An index that is being saved, in a folder of its own or beside an older one."""

    def __init__(self, folder: Path, tag: str) -> None:
        self.folder = folder
        self.tag = tag
        self.manifest: dict[str, Any] = {}

    def path(self, role: str) -> Path:
        """Where a part is written until all are."""
        return self.folder / _tagged(role, self.tag)


@contextlib.contextmanager
def new_index(folder: Path) -> Iterator[Making]:
    """Give the place for a new index; when the block has set ``manifest``, it takes the place of the one that is there.

    Raises:
        SettingsError: If the folder holds something else.
        RunError: If another process is saving here.
        CheckpointError: If the disk is full or refuses; then the folder is as it was.
    """
    check_place(folder)
    folder = folder.resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder):
            old = check_place(folder)
            _remove_left_over(folder)
            making = Making(folder, uuid.uuid4().hex[:16])
            _mark(making, old.all_files if old else {})
            try:
                yield making
                _finish(making, old)
            finally:  # whichever is the index now, the other goes
                _remove_left_over(folder)
    except OSError as error:
        raise CheckpointError(
            f"{folder}: the index cannot be saved ({error.strerror or error}); an index that was there is as it was."
        ) from error


def _finish(making: Making, old: IndexManifest | None) -> None:
    folder, manifest = making.folder, making.manifest
    files = manifest["files"] = {
        one.relative_to(folder).as_posix(): sha256_of(one)
        for role in ROLES
        for one in ([making.path(role)] if making.path(role).is_file() else sorted(making.path(role).rglob("*")))
        if one.is_file()
    }
    manifest["ends"], manifest["passages_ends"] = (ends_of(making.path(one)) for one in (INDEX, PASSAGES))
    if old is None:  # nothing is in the way of the plain names
        manifest["files"] = {name.replace(f"-{making.tag}", ""): digest for name, digest in files.items()}
        _mark(making, manifest["files"])
        for role in ROLES:
            if making.path(role).exists():
                making.path(role).rename(folder / role)
    else:
        manifest["format"] = FORMAT_VERSION
    later = [name for name in manifest["files"] if ROLES[PLACES].fullmatch(name)]
    manifest["later_files"] = {name: manifest["files"].pop(name) for name in later}
    write_json(folder / MANIFEST, manifest)  # from here on it is the index


def _tagged(role: str, tag: str) -> str:
    stem, dot, suffix = role.partition(".")
    return f"{stem}-{tag}{dot}{suffix}"


class _Mark(Strict):
    """What a save writes down before anything else: it proves which files are a save's.

    Attributes:
        tag: In the names of what is being written.
        files: What may go when the save is over, with hashes.
        folder: The inode of the very folder, which the mark of a copy, an archive or a stranger does not know.
    """

    tag: str = Field(pattern=rf"^{TAG}$")
    files: dict[str, str]
    folder: int


def _mark(making: Making, files: Mapping[str, str]) -> None:
    said = _Mark(tag=making.tag, files=dict(files), folder=making.folder.stat().st_ino)
    write_json(making.folder / _MARKER, said.model_dump())


def _marker(folder: Path) -> _Mark | None:
    """The mark of a save into this folder that did not end; None where there is none, or another's."""
    path = folder / _MARKER
    if path.is_symlink() or not path.is_file():
        return None
    with contextlib.suppress(OSError, ValueError, RecursionError):
        found = _Mark.model_validate(read_json(path))
        return found if found.folder == folder.stat().st_ino else None
    return None


def _left_over(folder: Path) -> list[Path]:
    """The files in a folder that a save which did not end has left: by its mark, and not of the index there."""
    if (said := _marker(folder)) is None:
        return []
    tag, listed = said.tag, said.files
    try:
        live = read_manifest(folder).all_files if (folder / MANIFEST).is_file() else {}
    except CheckpointError:
        return []
    half = [re.escape(name) for name in (MANIFEST, _MARKER, *(_tagged(role, tag) for role in ROLES))]
    temporary = re.compile(rf"\.(?:{'|'.join(half)})\.[0-9a-f]{{32}}")
    tops = {_tagged(role, tag) for role in ROLES}
    found = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or path.is_symlink() or name in live:
            continue
        in_the_making = name.partition("/")[0] in tops or temporary.fullmatch(name)
        # Of an index that was replaced, or renamed by a save that did not come to the manifest.
        known = name in listed and any(role.fullmatch(name) for role in ROLES.values())
        if in_the_making or (known and sha256_of(path) == listed[name]):
            found.append(path)
    return found


def _remove_left_over(folder: Path) -> None:
    for path in _left_over(folder):
        path.unlink(missing_ok=True)
        for parent in path.parents:
            if parent == folder or any(parent.iterdir()):
                break
            parent.rmdir()
    (folder / _MARKER).unlink(missing_ok=True)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Be the only one that saves into a folder; the lock ends with the process, however it ends."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(f"{folder}: another process is saving an index here; try again when it has ended.") from None
        yield
    finally:
        os.close(handle)
