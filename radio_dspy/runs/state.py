"""Look at a run folder from outside: running, finished, stopped or killed."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from radio_dspy.core.errors import DataError, RunError
from radio_dspy.runs.folders import LOCK, NotARunError, read_manifest
from radio_dspy.runs.journal import count_lines, records_in
from radio_dspy.runs.lock import holder_of, lock_file


@dataclass(frozen=True)
class RunState:
    """The state of a run, read from its folder.

    Attributes:
        path: The folder.
        state: ``"running"``, ``"finished"``, ``"stopped"`` or ``"killed"``.
        holder: Who is writing; empty where nobody is.
        started: When it was first started.
        last: The last event of the log.
        counts: Records by file.
        calls: LM calls that the log knows of, over all starts.
        settings: Of the last compile; empty before one has begun.
    """

    path: Path
    state: str
    holder: str
    started: str
    last: dict[str, Any]
    counts: dict[str, int]
    calls: int
    settings: dict[str, Any]


def look_at(path: Path) -> RunState:
    """The state of a run folder; nothing is written, also while another process works there.

    Raises:
        DataError: If it is no run folder, or a file of it is damaged.
        RunError: If it is of a newer release.
    """
    if path.is_file():
        raise DataError(f"{path}: is a file; give the folder that was --run-dir or run_dir=.")
    try:
        manifest = read_manifest(path)
    except NotARunError:
        manifest = None
    if manifest is None:
        raise DataError(f"{path}: not a run folder (no manifest of one); give what was --run-dir or run_dir=.")
    log = path / "log.jsonl"
    calls, started, last = 0, "", {}
    for event in records_in(log, dict) if log.is_file() else ():
        last = event
        started = started or str(event.get("time", ""))
        calls += calls_of(event)
    holder, ended = _holder(path / LOCK), str(last.get("event"))
    files = [one for one in sorted(path.glob("*.jsonl")) if one.stem != "log" and one.is_file()]
    return RunState(
        path=path.resolve(),
        state="running" if holder else ended if ended in ("finished", "stopped") else "killed",
        holder=holder,
        started=started,
        last=last,
        counts={file.stem: count_lines(file) for file in files},
        calls=calls,
        settings=manifest["settings"] or {},
    )


def calls_of(event: Mapping[str, Any]) -> int:
    """The LM calls that an event of the log tells of."""
    calls = event.get("calls", 0)
    return calls if type(calls) is int and calls > 0 else 0


def _holder(lock: Path) -> str:
    """The lock's holder; empty if nobody holds it, or the file system cannot say."""
    if lock.is_file():
        with contextlib.suppress(OSError), lock.open("r", encoding="utf-8", errors="replace") as file:
            return "" if lock_file(file, shared=True) else holder_of(file)
    return ""


def runs_in(folder: Path) -> list[Path]:
    """The run folders in a folder, by name, damaged ones among them; none where there is no such folder yet.

    Raises:
        DataError: If it is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: is a file; give the folder in which the run folders are.")
    return [path for path in sorted(folder.iterdir()) if _looks_like_a_run(path)] if folder.is_dir() else []


def _looks_like_a_run(path: Path) -> bool:
    try:
        return read_manifest(path) is not None
    except NotARunError:
        return False
    except RunError:  # of a newer release
        return True
    except (DataError, OSError):
        return (path / LOCK).is_file()
