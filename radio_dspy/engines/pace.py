"""One rate for all calls of an engine, however many workers make them."""

from __future__ import annotations

import threading
import time

from radio_dspy.lm.waiting import pause


class Pace:
    """Lets calls begin at a steady rate.

    Args:
        calls_per_minute: How many; None lets all begin at once.
    """

    def __init__(self, calls_per_minute: float | None) -> None:
        self._gap = 60.0 / calls_per_minute if calls_per_minute else 0.0
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Wait for this call's turn; Ctrl-C ends the wait."""
        with self._lock:
            now = time.monotonic()
            begin = max(now, self._next)
            self._next = begin + self._gap
        if begin > now and not pause(begin - now):
            raise KeyboardInterrupt
