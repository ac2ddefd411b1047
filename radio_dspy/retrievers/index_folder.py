"""The folder of a saved index: what its manifest may say, and the check of its files before anything is loaded."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError, model_validator

from radio_dspy.core.errors import CheckpointError, RadioError, SettingsError, UnsafeFileError
from radio_dspy.core.files import is_special, sha256_of
from radio_dspy.core.states import Name, Prefix, Strict, problem_of, read_json
from radio_dspy.retrievers.index_layout import PLAIN, IndexLayout

if TYPE_CHECKING:
    from radio_dspy.models.encoder import TextEncoder

FORMAT_VERSION = 3  # 1: what the first release reads; 2: other layouts; 3: took the place of another index
MANIFEST = "manifest.json"
INDEX, PASSAGES, PLACES, QUERY_ENCODER = "index.faiss", "passages.jsonl", "places.npy", "query-encoder"
TAG = "[0-9a-f]{16}"
ROLES = {
    INDEX: re.compile(rf"index(?:-{TAG})?\.faiss"),
    PASSAGES: re.compile(rf"passages(?:-{TAG})?\.jsonl"),
    PLACES: re.compile(rf"places(?:-{TAG})?\.npy"),
    QUERY_ENCODER: re.compile(rf"(query-encoder(?:-{TAG})?)/.+"),
}
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


_WANTED = "give the folder of an index, which FaissRetriever.save and `radio-dspy index` write."


class IndexManifest(BaseModel):
    """What is relied on. An encoder of the user's own may add entries; they are passed over."""

    model_config = ConfigDict(strict=True)

    format: int = Field(ge=1)
    encoder: dict[str, JsonValue]
    query_prefix: Prefix | None
    query_options: dict[str, JsonValue] = {}
    own_address: bool = False
    files: dict[str, str]
    later_files: dict[str, str] = {}  # that 0.1.0 does not know and passes over
    index: _Layout | None = None
    ends: _Ends | None = None  # of the index's file; older ones have none
    passages_ends: _Ends | None = None  # there if the places of passages are

    @property
    def layout(self) -> IndexLayout:
        """Kind and precision of the index."""
        return PLAIN if self.index is None else IndexLayout(**self.index.model_dump())

    @property
    def all_files(self) -> dict[str, str]:
        """Every file of the index, with its hash."""
        return {**self.files, **self.later_files}

    @property
    def has_places(self) -> bool:
        """Whether passages can stay on the disk."""
        return any(ROLES[PLACES].fullmatch(name) for name in self.all_files)

    @property
    def query_encoder(self) -> str | None:
        """The folder of a query encoder of its own."""
        found = (match[1] for name in self.files if (match := ROLES[QUERY_ENCODER].fullmatch(name)))
        return next(found, None)

    def file(self, role: str) -> str:
        """The name under which a part was saved."""
        return next(name for name in self.all_files if ROLES[role].fullmatch(name))


def described(encoder: TextEncoder) -> tuple[dict[str, Any], dict[str, Any]]:
    """What an encoder says of itself and of its queries, as a manifest holds it and gives it back.

    Raises:
        SettingsError: If it is no JSON, or lacks what a manifest needs: such an index could not be loaded again.
    """
    try:
        identity, queries = json.loads(json.dumps([encoder.identity, encoder.query_settings], allow_nan=False))
        _Identity.model_validate(identity)
        TypeAdapter(Prefix | None).validate_python(encoder.query_prefix, strict=True)
    except RadioError:  # of an encoder that is not there, say
        raise
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
        raise CheckpointError(f"{path}: no such file; {_WANTED}")
    try:
        found = read_json(path)
        version = int(found["format"])
        if version <= FORMAT_VERSION:
            manifest = IndexManifest.model_validate(found)
            _Identity.model_validate(manifest.encoder)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError, OSError) as error:
        problem = problem_of(error) if isinstance(error, ValidationError) else repr(error)[:200]
        raise CheckpointError(f"{path}: not an index manifest ({problem}); {_WANTED}") from None
    if version > FORMAT_VERSION:
        raise CheckpointError(f"{folder}: index format {version}; this release reads up to {FORMAT_VERSION}.")
    for role in (INDEX, PASSAGES):
        if sum(bool(ROLES[role].fullmatch(name)) for name in manifest.files) != 1:
            raise CheckpointError(f"{path}: not an index manifest (files: names no {role}, or several).")
    return manifest


def check_files(folder: Path, manifest: IndexManifest, *, mapped: bool) -> None:
    """Hold the files against the manifest.

    Args:
        folder: Where they are.
        manifest: What it says.
        mapped: Whether vectors and passages stay on the disk: then size, head and tail of their files are looked at.

    Raises:
        UnsafeFileError: If the manifest names what is no part of an index, or leads out of the folder.
        CheckpointError: If a file is missing, was changed or added, or is a link.
    """
    for found in sorted(folder.rglob("*")):
        if found.is_symlink() or is_special(found):
            kind = "a link" if found.is_symlink() else "neither a file nor a folder"
            raise CheckpointError(f"{found}: is {kind}; copy the folder with the files themselves.")
    if own := manifest.query_encoder:  # else it is left over from an earlier index
        for found in sorted((folder / own).rglob("*")):
            if found.is_file() and found.relative_to(folder).as_posix() not in manifest.files:
                raise CheckpointError(f"{found}: is not in the manifest; remove it.")
    for name, digest in manifest.all_files.items():
        if not _is_inside(name):
            raise UnsafeFileError(f"{folder / MANIFEST}: names {name!r}, which leads out of the folder.")
        if not any(role.fullmatch(name) for role in ROLES.values()):
            raise UnsafeFileError(f"{folder / MANIFEST}: names {name!r}, which is no part of an index.")
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"{path}: no such file; copy the whole folder again.")
        ends = manifest.passages_ends if ROLES[PASSAGES].fullmatch(name) else manifest.ends
        if mapped and ROLES[INDEX].fullmatch(name):
            same = ends is None or ends_of(path) == ends.model_dump()
        elif mapped and ROLES[PASSAGES].fullmatch(name) and manifest.has_places and ends is not None:
            same = ends_of(path) == ends.model_dump()
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
