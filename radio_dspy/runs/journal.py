"""Read the files of a run folder: records line by line, and JSON objects."""

from __future__ import annotations

import io
import json
import math
import os
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from radio_dspy.core.errors import DataError
from radio_dspy.core.redaction import holds_secret, redacted_value

LONGEST = 1 << 28  # bytes of a record or of a JSON file; no compile writes so much in one
_CHECKSUM = re.compile(rb', "crc": "([0-9a-f]{8})"\}\n\Z')
_CHUNK = 1 << 16
# What JSON of another shape raises where it is used.
MISSHAPEN = (AttributeError, LookupError, TypeError, ValueError, ArithmeticError, RecursionError)
Read = TypeVar("Read")


def _number(text: str) -> float:
    """A number that JSON can be written with again: ``1e999`` is none, as little as ``NaN``."""
    if not math.isfinite(found := float(text)):
        raise ValueError(f"{text:.40} is no number")
    return found


_DECODER = json.JSONDecoder(parse_constant=_number, parse_float=_number)


def decoded(text: bytes) -> dict[str, Any] | None:
    """The JSON object of a text; None where it is something else."""
    try:
        found = _DECODER.decode(text.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def read_object(path: Path, advice: str) -> dict[str, Any]:
    """The JSON object that a file holds.

    Raises:
        DataError: If it holds something else, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            text = file.read(LONGEST + 1)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); {advice}.") from error
    found = decoded(text) if len(text) <= LONGEST else None
    if found is None:
        raise DataError(f"{path}: cannot be read (it holds no JSON object); {advice}.")
    return found


def line_of(record: Mapping[str, Any]) -> bytes:
    """A record as a line with its checksum."""
    text = json.dumps(record, ensure_ascii=False, allow_nan=False)
    if holds_secret(text):
        text = json.dumps(redacted_value(record), ensure_ascii=False, allow_nan=False)
    body = text.encode("utf-8", "surrogatepass")
    return body[:-1] + f', "crc": "{zlib.crc32(body):08x}"}}\n'.encode()


def record_of(line: bytes) -> dict[str, Any] | None:
    """The record of a line; None where the line is not whole. Lines of releases without checksums are read too."""
    if found := _CHECKSUM.search(line):
        body = line[: found.start()] + b"}"
        return decoded(body) if zlib.crc32(body) == int(found[1], 16) else None
    record = decoded(line) if line.endswith(b"\n") else None
    return record if record is not None and "crc" not in record else None


def is_signed(line: bytes) -> bool:
    """Whether a line carries the checksum that only records have."""
    return _CHECKSUM.search(line) is not None and record_of(line) is not None


def first_line(path: Path) -> bytes:
    """A file's first line, or its beginning where that is too long for one."""
    with path.open("rb") as file:
        return file.readline(LONGEST)


def records_in(path: Path, read: Callable[[dict[str, Any]], Read]) -> Iterator[Read]:
    """The records of a file, one after the other; a last line that was cut off by a kill is passed over.

    Args:
        path: The file.
        read: Makes of a record what is used of it.

    Raises:
        DataError: If a line before the last is not a record, a line is longer than any record, or ``read`` fails.
    """
    with path.open("rb") as file:
        torn = number = 0
        while line := file.readline(LONGEST):
            number += 1
            if torn or len(line) == LONGEST:
                raise DataError(
                    f"{path}:{torn or number}: not a whole record; remove the line or take another run_dir."
                )
            record = record_of(line)
            if record is None:
                torn = number
                continue
            try:
                found = read(record)
            except MISSHAPEN as error:
                problem = f"no record of this file ({error!s:.200}); remove the line, or take another run_dir."
                raise DataError(f"{path}:{number}: {problem}") from error
            yield found


def count_lines(path: Path) -> int:
    """The whole lines of a file of any size."""
    with path.open("rb") as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))


def whole_end(file: io.FileIO | Any, path: Path, *, in_a_run: Callable[[], bool]) -> int:
    """The size of a file without a last line that is not whole, which was being written when a process was killed.

    Args:
        file: Open for reading.
        path: For the message.
        in_a_run: Whether the file proves to be a run's by its place; a line that is cut off and alone proves nothing.

    Raises:
        DataError: If the file does not prove to be one of records: a line that nobody here wrote is not cut off.
    """
    size = file.seek(0, os.SEEK_END)
    if not size:
        return 0
    start = _start_of_last_line(file, size)
    file.seek(start)
    line = file.read(size - start) if size - start < LONGEST else b""
    if record_of(line) is not None:
        return size
    file.seek(_start_of_last_line(file, start) if start else 0)
    torn_alone = line.startswith(b'{"') and (decoded(line) is None or is_signed(line + b"\n"))
    ours = is_signed(file.readline(LONGEST)) if start else torn_alone and in_a_run()
    if not ours and not _CHECKSUM.search(line):
        raise DataError(f"{path}: ends in a line that is no record; remove the line, or give another file.")
    return start


def _start_of_last_line(file: io.FileIO | Any, end: int) -> int:
    """The offset of the last line; a line break at the very end belongs to it."""
    end -= 1
    while end > 0:
        start = max(0, end - _CHUNK)
        file.seek(start)
        if (found := file.read(end - start).rfind(b"\n")) >= 0:
            return int(start + found + 1)
        end = start
    return 0
