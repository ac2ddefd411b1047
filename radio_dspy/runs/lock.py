"""Locks of run folders, which end with their process."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from radio_dspy.core.errors import RunError

_TRIES = 5  # somebody may be looking at the file, which takes the lock for a moment
# Not filelock: on Windows it locks the first byte, which hides who has the lock, and it knows no shared lock.
_WINDOWS_BYTE = 1 << 30  # locked in place of the file's content, which stays readable


def lock_file(file: IO[Any], *, shared: bool = False) -> bool:
    """Take the lock of an open file, which ends with it; False where another process or thread has it.

    Args:
        file: Open for writing; for a shared lock reading is enough.
        shared: Only see that nobody has the lock for oneself.

    Raises:
        OSError: If the file system has no locks.
    """
    for _ in range(_TRIES):
        try:
            _lock_now(file, shared)
        except (BlockingIOError, PermissionError):
            time.sleep(0.02)
        else:
            return True
    return False


def _lock_now(file: IO[Any], shared: bool) -> None:
    if sys.platform == "win32":
        import msvcrt

        os.lseek(file.fileno(), _WINDOWS_BYTE, os.SEEK_SET)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        os.lseek(file.fileno(), 0, os.SEEK_SET)
    else:
        import fcntl

        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)


def holder_of(file: IO[Any]) -> str:
    """Who has the lock, as the file says."""
    file.seek(0)
    try:
        found = json.loads(file.read(10_000))
        return f"process {found['process']} on {found['host']}, since {found['since']}"
    except (ValueError, KeyError, TypeError, RecursionError):
        return "another process"


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Have the lock of a file for the length of the block, and write into it who has it.

    Raises:
        RunError: If another has it, or the file system has no locks.
    """
    with path.open("a+", encoding="utf-8") as file:
        try:
            free = lock_file(file)
        except OSError as error:
            raise RunError(f"{path}: cannot be locked ({error.strerror}); give a folder on another disk.") from error
        if not free:
            raise RunError(f"{path.parent}: in use by {holder_of(file)}. Wait for it, or take another run_dir.")
        with contextlib.suppress(OSError):  # on a full disk it says nothing, and is a lock all the same
            file.truncate(0)
            since = time.strftime("%Y-%m-%d %H:%M:%S")
            file.write(json.dumps({"process": os.getpid(), "host": socket.gethostname(), "since": since}))
            file.flush()
        yield
