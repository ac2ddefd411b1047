"""A compile run as a folder on disk: what was bought and made is there before the next step begins."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from os import PathLike
from pathlib import Path
from typing import Any

from radio_dspy.encoders import fingerprint
from radio_dspy.errors import DataError
from radio_dspy.files import write_json, write_lines


class Run:
    """The folder of one compile.

    ``rationales.jsonl`` grows record by record; ``groups.jsonl`` and ``report.json`` are written in one step;
    checkpoints are folders named by the hash of their content and never change.

    Args:
        path: The folder, made when something is first written; None makes a temporary one, kept as long as the system
            keeps it.

    Raises:
        DataError: If the path is a file.
    """

    def __init__(self, path: str | PathLike[str] | None = None) -> None:
        self._given = Path(path).resolve() if path is not None else None
        if self._given is not None and self._given.exists() and not self._given.is_dir():
            raise DataError(f"{self._given}: is a file; run_dir must be a folder or a new name.")

    @functools.cached_property
    def path(self) -> Path:
        """The folder; it is there from now on."""
        if self._given is None:
            return Path(tempfile.mkdtemp(prefix="radio-dspy-")).resolve()
        self._given.mkdir(parents=True, exist_ok=True)
        return self._given

    def read_records(self, name: str) -> list[dict[str, Any]]:
        """The records of ``NAME.jsonl``; a last line that was cut off by a kill is dropped from the file.

        Raises:
            DataError: If a line before the last is not a record.
        """
        if self._given is None or not (path := self._given / f"{name}.jsonl").is_file():
            return []
        records = []
        lines = path.read_bytes().splitlines(keepends=True)
        for number, line in enumerate(lines, start=1):
            try:
                record = json.loads(line)
                whole = line.endswith(b"\n") and isinstance(record, dict)
            except ValueError:
                whole = False
            if whole:
                records.append(record)
            elif number == len(lines):
                with path.open("rb+") as file:
                    file.truncate(sum(map(len, lines[:-1])))
            else:
                raise DataError(f"{path}:{number}: not a whole record; remove the line or take another run_dir.")
        return records

    def append_record(self, name: str, record: dict[str, Any]) -> None:
        """Add one record to ``NAME.jsonl``; it is on the disk when this returns."""
        line = json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"
        with (self.path / f"{name}.jsonl").open("a", encoding="utf-8") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def write_records(self, name: str, records: Iterable[dict[str, Any]]) -> None:
        """Write the whole of ``NAME.jsonl`` in one step."""
        write_lines(self.path / f"{name}.jsonl", list(records))

    def write(self, name: str, value: Any) -> None:
        """Write ``NAME.json`` in one step."""
        write_json(self.path / f"{name}.json", value)

    @contextlib.contextmanager
    def new_checkpoint(self) -> Iterator[Path]:
        """A path for a checkpoint in the making; what was not kept is gone after the block."""
        with tempfile.TemporaryDirectory(dir=self.path, prefix=".training-") as folder:
            yield Path(folder) / "reranker"

    def keep_checkpoint(self, made: Path) -> Path:
        """Name a finished checkpoint by its content and return its final folder."""
        final = self.path / f"reranker-{fingerprint(str(made))}"
        if not final.exists():  # else the same weights were made before
            made.replace(final)
        return final
