"""A compile run as a folder on disk; everything is kept before the next step begins."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from radio_dspy._version import __version__
from radio_dspy.core.errors import DataError, RadioError, RunError
from radio_dspy.core.files import disk_errors, disk_problem, resolved, sha256_of, sync_folder, write_json, write_lines
from radio_dspy.core.locks import ThreadLock
from radio_dspy.core.redaction import hide_in, logger_of, redacted_value, told
from radio_dspy.models.files import fingerprint
from radio_dspy.runs.folders import (
    ADVICE,
    CHECKPOINT,
    FORMAT_VERSION,
    KIND,
    LOCK,
    MANIFEST,
    cache_folder,
    check_folder,
    is_file_of_runs,
    is_left_over,
    is_run,
    is_training_checkpoint,
    read_manifest,
    remove,
)
from radio_dspy.runs.journal import line_of, read_object, records_in, whole_end
from radio_dspy.runs.lock import locked
from radio_dspy.runs.state import RunState, look_at, runs_in

__all__ = ["BOUGHT", "FORMAT_VERSION", "MANIFEST", "STAGES", "Run", "RunState", "locked", "look_at", "runs_in"]
logger = logger_of(__name__)
# What was paid for or worked out: a folder in the cache that holds none of these is not worth keeping after a failure.
BOUGHT = ("requests", "batches", "rationales", "signals", "judged", "training", "questions", "checks")
# The stages in their order. A setting that decides one of them decides those that follow, too.
STAGES = ("requests", "rationales", "signals", "groups", "training", "gate")
_APPENDING = ThreadLock()  # one line at a time
_SYNCING = ThreadLock()  # one sync at a time, for all lines that were written before it began
_MAKE_ROOM = "What was done is kept there: make room, then the same compile with this run_dir goes on from it."


class Run:
    """The folder of one compile.

    Records (``rationales.jsonl``, ``requests.jsonl``...) grow line by line; each line carries a checksum, so that one
    that was cut off by a kill is known and dropped. Every other file is replaced in one step; checkpoints are folders
    named by the hash of their content and never change.

    Args:
        path: The folder, made when something is first written; None makes a new one in the user's cache folder.

    Raises:
        DataError: If the path is a file, or none.
        SettingsError: If it leads nowhere.
    """

    def __init__(self, path: str | PathLike[str] | None = None) -> None:
        try:
            self._given = resolved(Path(path), f"{ADVICE}.") if path is not None else None
            there = self._given is not None and self._given.exists()
        except (OSError, RuntimeError, TypeError, ValueError) as error:  # too long, no name at all
            if isinstance(error, RadioError):
                raise
            raise DataError(f"run_dir {path!r:.80} cannot be a folder ({error!s:.80}); give another name.") from error
        self._written: Counter[str] = Counter()  # lines of each file, by this object
        self._synced: Counter[str] = Counter()  # of these, how many are on the disk
        if self._given is not None and there and not self._given.is_dir():
            raise DataError(f"{self._given}: is a file; run_dir must be a folder or a new name.")

    @functools.cached_property
    def path(self) -> Path:
        """The folder; it is there from now on."""
        if self._given is None:
            folder = cache_folder()
            folder.mkdir(parents=True, exist_ok=True)
            return Path(tempfile.mkdtemp(prefix="run-", dir=folder)).resolve()
        self._given.mkdir(parents=True, exist_ok=True)
        return self._given

    # Records

    def records(self, name: str, read: Callable[[dict[str, Any]], Any] = dict) -> Iterator[Any]:
        """The records of ``NAME.jsonl``, one after the other; a last line that was cut off by a kill is passed over.

        Args:
            name: The file.
            read: Makes of a record what is used of it: see ``radio_dspy.runs.records.reader_of``.

        Raises:
            DataError: If a line before the last is not a record, or ``read`` fails.
        """
        path = self._there(f"{name}.jsonl")
        if path is not None:
            yield from records_in(path, read)

    def read_records(self, name: str) -> list[dict[str, Any]]:
        """All ``records`` at once."""
        return list(self.records(name))

    def check_end(self, name: str) -> None:
        """Raise the ``DataError`` of ``append_record`` before what would be added is paid for."""
        if (path := self._there(f"{name}.jsonl")) is not None:
            with path.open("rb") as file:
                self._whole_end(file, path)

    def _whole_end(self, file: Any, path: Path) -> int:
        return whole_end(file, path, in_a_run=lambda: is_file_of_runs(path) and is_run(path.parent))

    def append_record(self, name: str, record: Mapping[str, Any]) -> None:
        """Add one record to ``NAME.jsonl``; it is on the disk when this returns.

        What stood there stays as it is, also where the disk is full. Threads that wait for the disk share a sync.

        Raises:
            DataError: If the file ends in something that no run wrote.
        """
        path = self.path / f"{name}.jsonl"
        line = memoryview(line_of(record))
        with path.open("ab+", buffering=0) as file:
            with _APPENDING:
                whole = self._whole_end(file, path)
                if whole < file.seek(0, os.SEEK_END):
                    file.truncate(whole)
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
        write_lines(path, map(redacted_value, records))
        return sha256_of(path)

    def write(self, name: str, value: Any) -> None:
        """Write ``NAME.json`` in one step."""
        write_json(self.path / f"{name}.json", value)

    def read(self, name: str) -> dict[str, Any] | None:
        """Read ``NAME.json``; None if there is no such file.

        Raises:
            DataError: If it cannot be read.
        """
        path = self._there(f"{name}.json")
        return read_object(path, ADVICE) if path is not None else None

    def log(self, event: str, **what: Any) -> None:
        """Add a line to ``log.jsonl``."""
        self.append_record("log", {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "event": event, **what})

    # One writer

    @contextlib.contextmanager
    def exclusive(self, optimizer: str = "RADIO") -> Iterator[None]:
        """Be the only writer for the length of the block, and note in ``log.jsonl`` how it ended.

        The lock belongs to the process and ends with it, however it ends. What a killed process had not finished is
        removed.

        Args:
            optimizer: Who writes; the run of another one is refused.

        Raises:
            RunError: If another process, or another thread of this one, is writing here, if the folder holds something
                else than a run, or if the disk is full.
            DataError: If the folder's manifest is damaged.
            KeyboardInterrupt: After Ctrl-C, with a message that says how to go on.
        """
        with disk_errors(self._given or self.path, _MAKE_ROOM), self._taken(optimizer):
            self.log("started", process=os.getpid(), release=__version__)
            try:
                yield
            except KeyboardInterrupt:
                kept = self._stopped("interrupted")
                raise KeyboardInterrupt(
                    f"Interrupted. What was done is kept in {self.path}: the same compile with this run_dir goes on "
                    "from there (radio-dspy compile --run-dir, or radio-dspy runs resume)."
                    if kept
                    else "Interrupted before anything was kept."
                ) from None
            except BaseException as error:
                hide_in(error)
                self._stopped(told(error))
                raise
            try:
                self.log("finished")
            except OSError as error:  # no reason to lose what was made
                if not disk_problem(error):
                    raise
                logger.warning("%s: the run is finished, and its log could not say so (%s).", self.path, told(error))

    @contextlib.contextmanager
    def _taken(self, optimizer: str) -> Iterator[None]:
        """Have the lock of a folder that proves, before and under the lock, to be a run's; sign it as one."""
        if self._given is not None:
            check_folder(self._given, optimizer)
        with self._locked():
            if self._given is not None:
                check_folder(self._given, optimizer)
                for path in self._given.iterdir():
                    if is_left_over(path):
                        remove(path)
            if read_manifest(self.path) is None:
                self._sign(optimizer, None)
            yield

    def _sign(self, optimizer: str, settings: Mapping[str, Any] | None) -> None:
        what = {"format": FORMAT_VERSION, "kind": KIND, "release": __version__, "optimizer": optimizer}
        self.write("manifest", {**what, "settings": settings})

    def keeps(self) -> bool:
        """Whether the folder stays if the run ends now: one in the cache goes unless it holds what was paid for."""
        bought = any((self.path / f"{name}.jsonl").exists() for name in BOUGHT)
        return self._given is not None or bought or any(map(is_training_checkpoint, self.path.iterdir()))

    def _stopped(self, why: str) -> bool:
        """Note why the run ended; whether anything is worth keeping, else a folder in the cache goes."""
        with contextlib.suppress(OSError):  # a full disk is no reason to hide why the run stopped
            self.log("stopped", why=why)
        if self.keeps():
            return True
        shutil.rmtree(self.path, ignore_errors=True)  # mkdtemp made it, and nobody else knows the name
        return False

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        if self._given is None:  # nobody else knows the name
            yield
            return
        with locked(self.path / LOCK):
            yield

    # What the run is

    def check(self, optimizer: str = "RADIO") -> None:
        """See that ``exclusive`` will find a folder that it can take; nothing is written.

        Raises:
            RunError: If the folder holds something else than a run of this optimizer.
            DataError: If its manifest is damaged.
        """
        if self._given is not None:
            check_folder(self._given, optimizer)
        else:
            cache_folder()

    def begin(self, settings: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        """Take the folder up: write the settings into ``manifest.json`` and say what is different from the last time.

        Args:
            settings: What decides the result, in JSON types.

        Returns:
            For every setting that changed, what it was and what it is.

        Raises:
            RunError: If the folder belongs to something else or to a newer release.
            DataError: If the manifest is damaged.
        """
        settings = json.loads(json.dumps(settings))
        manifest = read_manifest(self._given or self.path) or {}
        old = manifest.get("settings")
        if old != settings or manifest.get("release") != __version__:
            self._sign(manifest.get("optimizer", "RADIO"), settings)
        if old is None:
            return {}
        pairs = {name: (old.get(name), settings.get(name)) for name in {**old, **settings}}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}

    def remember_command(self, command: Mapping[str, Any]) -> None:
        """Write ``command.json``: what ``radio-dspy runs resume`` runs again.

        Raises:
            RunError: As for ``exclusive`` and ``begin``.
        """
        with disk_errors(self._given or self.path, _MAKE_ROOM), self._taken("RADIO"):
            self.write("command", command)

    # Checkpoints

    @contextlib.contextmanager
    def new_checkpoint(self) -> Iterator[Path]:
        """A path for a checkpoint in the making; what was not kept is gone after the block."""
        folder = self.path / f".training-{uuid.uuid4().hex}"
        folder.mkdir()
        try:
            yield folder / "reranker"
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def keep_checkpoint(self, made: Path) -> Path:
        """Name a finished checkpoint by its content and return its final folder.

        Raises:
            RunError: If a folder of that name holds something else.
        """
        name = f"reranker-{fingerprint(str(made))}"
        if (found := self.checkpoint(name)) is not None:  # the same weights were made before
            return found
        final = self.path / name
        sync_folder(made)
        made.replace(final)
        return final

    def checkpoint(self, name: Any) -> Path | None:
        """A checkpoint that was kept, whose files are still those that it is named by; None where there is none.

        Raises:
            RunError: If its files are others.
        """
        if not isinstance(name, str) or not CHECKPOINT.fullmatch(name):
            return None
        path = self.path / name
        if not path.exists():
            return None
        if not path.is_dir() or f"reranker-{fingerprint(str(path), again=True)}" != name:
            raise RunError(
                f"{path}: its files are not those that training wrote; move it away, and the same compile trains again."
            )
        return path

    def _there(self, name: str) -> Path | None:
        """A file of the folder, if it is there; looking makes no folder."""
        folder = self._given or self.__dict__.get("path")
        return folder / name if folder and (folder / name).is_file() else None
