"""A compile run as a folder on disk: what was bought and made is there before the next step begins."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import re
import shutil
import socket
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from radio_dspy import __version__
from radio_dspy.errors import DataError, RunError
from radio_dspy.files import sha256_of, write_json, write_lines
from radio_dspy.model_files import fingerprint
from radio_dspy.redaction import told

MANIFEST = "manifest.json"
FORMAT_VERSION = 1  # goes up when earlier releases could not go on from what is written now
# What was paid for: a temporary folder that holds none of these is not worth keeping after a failure.
BOUGHT = ("requests", "rationales", "signals", "judged")
# The stages in their order. A setting that decides one of them decides those that follow, too.
STAGES = ("requests", "rationales", "signals", "groups", "training", "gate")
_KIND = "radio-dspy run"
_LOCK = "run.lock"
_LEFT_OVER = re.compile(r"\.training-.*|\..+\.[0-9a-f]{32}")  # unfinished checkpoints and files of a killed process
_CHECKSUM = re.compile(rb', "crc": "([0-9a-f]{8})"\}\n')
_TRIES = 5  # somebody may be looking at the folder, which takes the lock for a moment
_APPENDING = threading.Lock()  # one line at a time
_SYNCING = threading.Lock()  # one sync at a time, for all lines that were written before it began


class Run:
    """The folder of one compile.

    Records (``rationales.jsonl``, ``requests.jsonl``...) grow line by line; each line carries a checksum, so that one
    that was cut off by a kill is known and dropped. Every other file is replaced in one step; checkpoints are folders
    named by the hash of their content and never change.

    Args:
        path: The folder, made when something is first written; None makes a temporary one, kept as long as the system
            keeps it.

    Raises:
        DataError: If the path is a file.
    """

    def __init__(self, path: str | PathLike[str] | None = None) -> None:
        self._given = Path(path).resolve() if path is not None else None
        self._written: Counter[str] = Counter()  # lines of each file, by this object
        self._synced: Counter[str] = Counter()  # of these, how many are on the disk
        if self._given is not None and self._given.exists() and not self._given.is_dir():
            raise DataError(f"{self._given}: is a file; run_dir must be a folder or a new name.")

    @functools.cached_property
    def path(self) -> Path:
        """The folder; it is there from now on."""
        if self._given is None:
            return Path(tempfile.mkdtemp(prefix="radio-dspy-")).resolve()
        self._given.mkdir(parents=True, exist_ok=True)
        return self._given

    # Records

    def records(self, name: str) -> Iterator[dict[str, Any]]:
        """The records of ``NAME.jsonl``, one after the other; a last line that was cut off by a kill is passed over.

        Raises:
            DataError: If a line before the last is not a record.
        """
        path = self._there(f"{name}.jsonl")
        if path is None:
            return
        with path.open("rb") as file:
            torn = 0
            for number, line in enumerate(file, start=1):
                if torn:
                    raise DataError(f"{path}:{torn}: not a whole record; remove the line or take another run_dir.")
                record = _record_of(line)
                if record is None:
                    torn = number
                else:
                    yield record

    def read_records(self, name: str) -> list[dict[str, Any]]:
        """All ``records`` at once."""
        return list(self.records(name))

    def append_record(self, name: str, record: Mapping[str, Any]) -> None:
        """Add one record to ``NAME.jsonl``; it is on the disk when this returns.

        What stood there stays as it is, also where the disk is full. Threads that wait for the disk share a sync.
        """
        path = self.path / f"{name}.jsonl"
        body = json.dumps(record, ensure_ascii=False, allow_nan=False).encode("utf-8", "surrogatepass")
        line = memoryview(body[:-1] + f', "crc": "{zlib.crc32(body):08x}"}}\n'.encode())
        with path.open("ab+", buffering=0) as file:
            with _APPENDING:
                whole = _without_torn_end(file)
                try:
                    while line:
                        line = line[file.write(line) :]
                except OSError:
                    file.truncate(whole)
                    raise
                written = self._written[name] = self._written[name] + 1
            with _SYNCING:
                if self._synced[name] < written:
                    upto = self._written[name]
                    os.fsync(file.fileno())
                    self._synced[name] = upto

    def write_records(self, name: str, records: Iterable[dict[str, Any]]) -> str:
        """Write the whole of ``NAME.jsonl`` in one step; return the file's SHA-256."""
        path = self.path / f"{name}.jsonl"
        write_lines(path, iter(records))
        return sha256_of(path)

    def write(self, name: str, value: Any) -> None:
        """Write ``NAME.json`` in one step."""
        write_json(self.path / f"{name}.json", value)

    def read(self, name: str) -> dict[str, Any] | None:
        """What ``NAME.json`` holds; None where there is no such file.

        Raises:
            DataError: If it cannot be read.
        """
        path = self._there(f"{name}.json")
        if path is None:
            return None
        try:
            return dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise DataError(f"{path}: cannot be read ({error}); take another run_dir.") from error

    def log(self, event: str, **what: Any) -> None:
        """Add a line to ``log.jsonl``."""
        self.append_record("log", {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "event": event, **what})

    # One writer

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Be the only writer for the length of the block, and note in ``log.jsonl`` how it ended.

        The lock belongs to the process and ends with it, however it ends. What a killed process had not finished is
        removed.

        Raises:
            RunError: If another process, or another thread of this one, is writing here.
            KeyboardInterrupt: After Ctrl-C, with a message that says how to go on.
        """
        with self._locked():
            for path in self.path.iterdir():
                if _LEFT_OVER.fullmatch(path.name):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            self.log("started", process=os.getpid(), release=__version__)
            try:
                yield
            except KeyboardInterrupt:
                self._stopped("interrupted")
                raise KeyboardInterrupt(
                    f"Interrupted. What was done is kept in {self.path}: the same compile with this run_dir goes on "
                    "from there (radio-dspy compile --run-dir, or radio-dspy runs resume)."
                ) from None
            except BaseException as error:
                self._stopped(told(error))
                raise
            self.log("finished")

    def _stopped(self, why: str) -> None:
        with contextlib.suppress(OSError):  # a full disk is no reason to hide why the run stopped
            self.log("stopped", why=why)
        if self._given is None and not any((self.path / f"{name}.jsonl").exists() for name in BOUGHT):
            shutil.rmtree(self.path, ignore_errors=True)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        if self._given is None:  # nobody else knows the name
            yield
            return
        with (self.path / _LOCK).open("a+", encoding="utf-8") as file:
            if not _lock(file):
                raise RunError(f"{self.path}: in use by {_holder(file)}. Wait for it, or take another run_dir.")
            file.truncate(0)
            holder = {"process": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
            file.write(json.dumps(holder))
            file.flush()
            yield

    # What the run is

    def begin(self, settings: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        """Take the folder up: write ``manifest.json`` and say what is different from the last time.

        Args:
            settings: What decides the result, in JSON types.

        Returns:
            For every setting that changed, what it was and what it is.

        Raises:
            RunError: If the folder belongs to something else or to a newer release.
        """
        settings = json.loads(json.dumps(settings))
        old = self._manifest() or {"settings": settings}
        new = {"format": FORMAT_VERSION, "kind": _KIND, "release": __version__, "settings": settings}
        if old != new:
            self.write("manifest", new)
        names = {**old["settings"], **settings}
        pairs = {name: (old["settings"].get(name), settings.get(name)) for name in names}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}

    def remember_command(self, command: Mapping[str, Any]) -> None:
        """Write ``command.json``: what ``radio-dspy runs resume`` runs again.

        Raises:
            RunError: As for ``exclusive`` and ``begin``.
        """
        self._manifest()
        with self._locked():
            self.write("command", command)

    def _manifest(self) -> dict[str, Any] | None:
        manifest = self.read("manifest")
        if manifest is not None and manifest.get("kind") != _KIND:
            raise RunError(
                f"{self._given}: its {MANIFEST} is not a run's. The folder is another thing's: take another."
            )
        if manifest is not None and int(manifest["format"]) > FORMAT_VERSION:
            raise RunError(
                f"{self._given}: run format {manifest['format']}; this release goes on from up to {FORMAT_VERSION}. "
                "Upgrade radio-dspy, or take another run_dir."
            )
        return manifest

    # Checkpoints

    @contextlib.contextmanager
    def new_checkpoint(self) -> Iterator[Path]:
        """A path for a checkpoint in the making; what was not kept is gone after the block."""
        with tempfile.TemporaryDirectory(dir=self.path, prefix=".training-") as folder:
            yield Path(folder) / "reranker"

    def keep_checkpoint(self, made: Path) -> Path:
        """Name a finished checkpoint by its content and return its final folder."""
        final = self.path / f"reranker-{fingerprint(str(made))}"
        if not final.exists():  # else the same weights were made before
            sync_folder(made)
            made.replace(final)
        return final

    def _there(self, name: str) -> Path | None:
        """A file of the folder, if it is there; looking makes no folder."""
        folder = self._given or self.__dict__.get("path")
        return folder / name if folder and (folder / name).is_file() else None


@dataclass(frozen=True)
class RunState:
    """What a run folder shows from outside.

    Attributes:
        path: The folder.
        state: ``"running"``, ``"finished"``, ``"stopped"`` or ``"killed"``.
        holder: Who is writing; empty where nobody is.
        started: When it was first started.
        last: The last event of the log.
        counts: Records by file.
        calls: LM calls that the log knows of, over all starts.
    """

    path: Path
    state: str
    holder: str
    started: str
    last: dict[str, Any]
    counts: dict[str, int]
    calls: int


def look_at(path: Path) -> RunState:
    """The state of a run folder; nothing is written, also while another process works there.

    Raises:
        DataError: If it is no run folder.
    """
    run = Run(path)
    manifest = run.read("manifest") or {}
    if manifest.get("kind") != _KIND:
        raise DataError(f"{path}: not a run folder (no manifest of one); give what was --run-dir or run_dir=.")
    events = run.read_records("log")
    holder = ""
    if (lock := path / _LOCK).is_file():
        with lock.open("r+", encoding="utf-8") as file:
            holder = "" if _lock(file) else _holder(file)
    last = events[-1] if events else {}
    ended = str(last.get("event"))
    return RunState(
        path=path.resolve(),
        state="running" if holder else ended if ended in ("finished", "stopped") else "killed",
        holder=holder,
        started=str(events[0]["time"]) if events else "",
        last=last,
        counts={
            file.stem: sum(1 for _ in file.open("rb")) for file in sorted(path.glob("*.jsonl")) if file.stem != "log"
        },
        calls=sum(one.get("calls", 0) for one in events),
    )


def runs_in(folder: Path) -> list[Path]:
    """The run folders in a folder, by name; none where there is no such folder yet.

    Raises:
        DataError: If it is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: is a file; give the folder in which the run folders are.")
    found = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if (path / MANIFEST).is_file():
            with contextlib.suppress(DataError):
                if (Run(path).read("manifest") or {}).get("kind") == _KIND:
                    found.append(path)
    return found


def sync_folder(folder: Path) -> None:
    """See that all files of a folder are on the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def _record_of(line: bytes) -> dict[str, Any] | None:
    """The record of a line; None where the line is not whole. Lines of releases without checksums are read too."""
    if found := _CHECKSUM.search(line):
        body = line[: found.start()] + b"}"
        if found.end() != len(line) or zlib.crc32(body) != int(found[1], 16):
            return None
    elif line.endswith(b"\n"):
        body = line
    else:
        return None
    try:
        record = json.loads(body)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _without_torn_end(file: io.FileIO | Any) -> int:
    """Cut off a last line that is not whole; return the size of what stays."""
    size = end = file.seek(0, os.SEEK_END)
    line = b""
    while end and b"\n" not in line[:-1]:
        start = max(0, end - (1 << 16))
        file.seek(start)
        line = file.read(end - start) + line
        end = start
    line = line[line.rfind(b"\n", 0, -1) + 1 :]
    if line and _record_of(line) is None:
        size -= len(line)
        file.truncate(size)
    return size


def _lock(file: Any) -> bool:
    """Take the lock of an open file, which ends with it; False where another has it."""
    if sys.platform == "win32":
        return True
    import fcntl

    for _ in range(_TRIES):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.02)
        else:
            return True
    return False


def _holder(file: Any) -> str:
    """Who has the lock."""
    file.seek(0)
    try:
        found = json.loads(file.read())
    except ValueError:
        return "another process"
    return f"process {found['process']} on {found['host']}, since {found['since']}"
