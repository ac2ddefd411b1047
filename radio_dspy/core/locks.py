"""A thread lock that is free in a forked child."""

from __future__ import annotations

import os
import threading
import weakref


class ThreadLock:
    """A re-entrant lock of this process's threads.

    A forked child finds it free unless the forking thread held it: other holders do not exist there, and would be
    waited for without end.

    Example:
        >>> lock = ThreadLock()
        >>> with lock, lock:
        ...     pass
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._held = threading.local()
        _LOCKS.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()
        self._held.times = getattr(self._held, "times", 0) + 1

    def __exit__(self, *error: object) -> None:
        self._held.times -= 1
        self._lock.release()

    def renew(self) -> None:
        """Called in a forked child."""
        self._lock = threading.RLock()
        for _ in range(getattr(self._held, "times", 0)):
            self._lock.acquire()


_LOCKS: weakref.WeakSet[ThreadLock] = weakref.WeakSet()


def _renew_all() -> None:
    for lock in list(_LOCKS):
        lock.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)
