"""Standard output and error that never fail: a full disk or a closed pipe does not end a command."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Any

_READER_LEFT = (errno.EPIPE, errno.EINVAL, errno.ESHUTDOWN)  # EINVAL is how Windows tells a closed pipe


class LastingStream:
    """A text stream whose ``write`` and ``flush`` do not fail: after the first failure the rest goes nowhere.

    Characters that the stream's encoding lacks are written as escapes.

    Args:
        stream: The stream; None, as of a program without a console, swallows everything.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = Path(os.devnull).open("w", encoding="utf-8") if stream is None else stream  # noqa: SIM115
        self._lost = False
        if hasattr(self._stream, "reconfigure"):
            self._stream.reconfigure(errors="backslashreplace")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text, as far as there is still anyone to read it."""
        if not self._lost:
            try:
                self._stream.write(text)
            except (OSError, ValueError) as error:
                self._lose(error)
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Hand on what was written."""
        if not self._lost:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._lose(error)

    def _lose(self, error: Exception) -> None:
        """Send what is still to come, and what the buffer holds, nowhere; say so unless the reader left."""
        self._lost = True
        try:
            number = self._stream.fileno()
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, number)
            os.close(nowhere)
        except (OSError, ValueError):
            return  # the stream is closed
        if getattr(error, "errno", None) not in _READER_LEFT and number != 2:
            sys.stderr.write(f"warning: output could not be written ({error}); the work goes on.\n")


def keep_streams() -> None:
    """Make standard output and error lasting, for a program that ends soon after."""
    for name in ("stdout", "stderr"):
        if not isinstance(getattr(sys, name), LastingStream):
            setattr(sys, name, LastingStream(getattr(sys, name)))
