"""The folder of a saved index: what its manifest may say, and a save that takes an older one's place in one step.

The manifest names the files, and is written last. A save over an index writes beside it, under names of its own, so
that the old index is whole until the new one is; after a kill at any moment one of the two is there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError, model_validator

from radio_dspy.core.errors import CheckpointError, RunError, SettingsError, UnsafeFileError
from radio_dspy.core.files import place_problem, resolved, sha256_of, write_json
from radio_dspy.core.states import Name, Prefix, Strict, problem_of, read_json
from radio_dspy.retrievers.index_layout import PLAIN, IndexLayout

if TYPE_CHECKING:
    from radio_dspy.models.encoder import TextEncoder

FORMAT_VERSION = 3  # 1: what the first release reads; 2: other layouts; 3: took the place of another index
MANIFEST = "manifest.json"
INDEX, PASSAGES, QUERY_ENCODER = "index.faiss", "passages.jsonl", "query-encoder"
_MARKER = ".saving.json"  # there while an index is saved, and after a kill
_TAG = "[0-9a-f]{16}"
_ROLES = {
    INDEX: re.compile(rf"index(?:-{_TAG})?\.faiss"),
    PASSAGES: re.compile(rf"passages(?:-{_TAG})?\.jsonl"),
    QUERY_ENCODER: re.compile(rf"(query-encoder(?:-{_TAG})?)/.+"),
}
_OTHER = "give a new folder, or an index's."
_END = 1 << 20  # bytes of head and tail that stand for a file which is not read


class _Layout(Strict):
    kind: Literal["flat", "hnsw", "ivf"]
    dtype: Literal["float32", "float16"]
    effort: int = Field(ge=0, le=1 << 20)
    recall: float = Field(ge=0, le=1)

    @model_validator(mode="after")
    def _looks_somewhere(self) -> _Layout:
        if self.kind != "flat" and not self.effort:
            raise ValueError("an effort of 0 finds nothing")
        return self


class _Identity(BaseModel):
    """What every encoder says of itself; one of the user's own says more."""

    model_config = ConfigDict(extra="allow", strict=True)

    model: Name
    passage_prefix: Prefix | None
    max_length: int | None


class _Ends(Strict):
    size: int
    sha256: str


class IndexManifest(BaseModel):
    """What is relied on. An encoder of the user's own may add entries; they are passed over."""

    model_config = ConfigDict(strict=True)

    format: int = Field(ge=1)
    encoder: dict[str, JsonValue]
    query_prefix: Prefix | None
    query_options: dict[str, JsonValue] = {}
    own_address: bool = False
    files: dict[str, str]
    index: _Layout | None = None
    ends: _Ends | None = None  # of the index's file; older ones have none

    @property
    def layout(self) -> IndexLayout:
        """Kind and precision of the index."""
        return PLAIN if self.index is None else IndexLayout(**self.index.model_dump())

    @property
    def query_encoder(self) -> str | None:
        """The folder of a query encoder of its own."""
        found = (match[1] for name in self.files if (match := _ROLES[QUERY_ENCODER].fullmatch(name)))
        return next(found, None)

    def file(self, role: str) -> str:
        """The name under which a part was saved."""
        return next(name for name in self.files if _ROLES[role].fullmatch(name))


def described(encoder: TextEncoder) -> tuple[dict[str, Any], dict[str, Any]]:
    """What an encoder says of itself and of its queries, as a manifest holds it and gives it back.

    Raises:
        SettingsError: If it is no JSON, or lacks what a manifest needs: such an index could not be loaded again.
    """
    try:
        identity, queries = json.loads(json.dumps([encoder.identity, encoder.query_settings], allow_nan=False))
        _Identity.model_validate(identity)
        TypeAdapter(Prefix | None).validate_python(encoder.query_prefix, strict=True)
    except (TypeError, ValueError, RecursionError) as error:
        problem = problem_of(error) if isinstance(error, ValidationError) else f"{error!s:.200}"
        raise SettingsError(
            f"{encoder.name}: its identity and query_settings must be JSON values with 'model', 'passage_prefix' and "
            f"'max_length', and its query_prefix a text or None ({problem})."
        ) from None
    return identity, queries


def read_manifest(folder: Path) -> IndexManifest:
    """Read what a folder says it is; its files are not looked at.

    Raises:
        CheckpointError: If it is no index, or one of a newer release.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise CheckpointError(
            f"{path}: no such file; give the folder of an index, which FaissRetriever.save and `radio-dspy index` "
            "write."
        )
    try:
        found = read_json(path)
        version = int(found["format"])
        if version <= FORMAT_VERSION:
            manifest = IndexManifest.model_validate(found)
            _Identity.model_validate(manifest.encoder)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError, OSError) as error:
        problem = problem_of(error) if isinstance(error, ValidationError) else repr(error)[:200]
        raise CheckpointError(f"{path}: not an index manifest ({problem}).") from None
    if version > FORMAT_VERSION:
        raise CheckpointError(f"{folder}: index format {version}; this release reads up to {FORMAT_VERSION}.")
    for role in (INDEX, PASSAGES):
        if sum(bool(_ROLES[role].fullmatch(name)) for name in manifest.files) != 1:
            raise CheckpointError(f"{path}: not an index manifest (files: names no {role}, or several).")
    return manifest


def check_files(folder: Path, manifest: IndexManifest, *, mapped: bool) -> None:
    """Hold the files against the manifest.

    Args:
        folder: Where they are.
        manifest: What it says.
        mapped: Whether the index's file is not to be read as a whole: then its size, head and tail are looked at.

    Raises:
        UnsafeFileError: If the manifest names what is no part of an index, or leads out of the folder.
        CheckpointError: If a file is missing, was changed or added, or is a link.
    """
    for found in sorted(folder.rglob("*")):
        if found.is_symlink():
            raise CheckpointError(f"{found}: is a link; copy the folder with the files themselves.")
    if own := manifest.query_encoder:  # else it is left over from an earlier index
        for found in sorted((folder / own).rglob("*")):
            if found.is_file() and found.relative_to(folder).as_posix() not in manifest.files:
                raise CheckpointError(f"{found}: is not in the manifest; remove it.")
    for name, digest in manifest.files.items():
        if not _is_inside(name):
            raise UnsafeFileError(f"{folder / MANIFEST}: names {name!r}, which leads out of the folder.")
        if not any(role.fullmatch(name) for role in _ROLES.values()):
            raise UnsafeFileError(f"{folder / MANIFEST}: names {name!r}, which is no part of an index.")
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"{path}: no such file; copy the whole folder again.")
        if mapped and _ROLES[INDEX].fullmatch(name):
            same = manifest.ends is None or ends_of(path) == manifest.ends.model_dump()
        else:
            same = sha256_of(path) == digest
        if not same:
            raise CheckpointError(f"{path}: was changed after the index was saved; build it again.")


def _is_inside(name: str) -> bool:
    """Whether a manifest's name stays in its folder, on whatever system it is read."""
    path = PureWindowsPath(name)
    return not path.anchor and ".." not in path.parts


def ends_of(path: Path) -> dict[str, Any]:
    """A file's size, and the SHA-256 of its head and tail."""
    size = path.stat().st_size
    with path.open("rb") as file:
        digest = hashlib.sha256(file.read(_END))
        file.seek(max(0, size - _END))
        digest.update(file.read(_END))
    return {"size": size, "sha256": digest.hexdigest()}


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
            write_json(folder / _MARKER, {"tag": making.tag, "files": dict(old.files) if old else {}})
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
        for role in _ROLES
        for one in ([making.path(role)] if making.path(role).is_file() else sorted(making.path(role).rglob("*")))
        if one.is_file()
    }
    manifest["ends"] = ends_of(making.path(INDEX))
    if old is None:  # nothing is in the way of the plain names
        manifest["files"] = {name.replace(f"-{making.tag}", ""): digest for name, digest in files.items()}
        write_json(folder / _MARKER, {"tag": making.tag, "files": manifest["files"]})
        for role in _ROLES:
            if making.path(role).exists():
                making.path(role).rename(folder / role)
    else:
        manifest["format"] = FORMAT_VERSION
    write_json(folder / MANIFEST, manifest)  # from here on it is the index


def _tagged(role: str, tag: str) -> str:
    stem, dot, suffix = role.partition(".")
    return f"{stem}-{tag}{dot}{suffix}"


def _left_over(folder: Path) -> list[Path]:
    """The files in a folder that a save which did not end has left: by its marker, and not of the index there."""
    try:
        said = json.loads((folder / _MARKER).read_text(encoding="utf-8"))
        tag, listed = said["tag"], dict(said["files"])
        if not re.fullmatch(_TAG, tag):
            return []
        live = read_manifest(folder).files if (folder / MANIFEST).is_file() else {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):  # also a CheckpointError
        return []
    half = [re.escape(name) for name in (MANIFEST, _MARKER, *(_tagged(role, tag) for role in _ROLES))]
    temporary = re.compile(rf"\.(?:{'|'.join(half)})\.[0-9a-f]{{32}}")
    tops = {_tagged(role, tag) for role in _ROLES}
    found = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or path.is_symlink() or name in live:
            continue
        in_the_making = name.partition("/")[0] in tops or temporary.fullmatch(name)
        # Of an index that was replaced, or renamed by a save that did not come to the manifest.
        known = name in listed and any(role.fullmatch(name) for role in _ROLES.values())
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
