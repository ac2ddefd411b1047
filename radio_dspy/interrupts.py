"""Ctrl-C between two records: what is in hand is finished and kept first."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator
from typing import Any

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def interrupt_later(unit: str) -> Iterator[threading.Event]:
    """Inside the block the first Ctrl-C only sets an event; a second one interrupts at once.

    The block looks at the event between two records and leaves; ``KeyboardInterrupt`` is raised when it has. Outside
    the main thread, and where the application has a handler of its own, nothing is changed.

    Args:
        unit: What is being finished, for the message.

    Yields:
        The event.

    Example:
        >>> with interrupt_later("call") as interrupted:
        ...     done = [one for one in range(3) if not interrupted.is_set()]
        >>> done
        [0, 1, 2]
    """
    interrupted = threading.Event()
    if threading.current_thread() is not threading.main_thread() or (
        signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield interrupted
        return

    def note(number: int, frame: Any) -> None:
        if interrupted.is_set():
            raise KeyboardInterrupt
        interrupted.set()
        logger.warning("Interrupted: the %s in hand is finished first; Ctrl-C once more stops at once.", unit)

    signal.signal(signal.SIGINT, note)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if interrupted.is_set():
        raise KeyboardInterrupt
