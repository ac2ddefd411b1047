"""A file that keeps vectors from hosted encoders."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from radio_dspy.core.copies import SharedByCopies
from radio_dspy.core.errors import CheckpointError, DataError
from radio_dspy.core.files import check_file
from radio_dspy.core.locks import ThreadLock
from radio_dspy.models.vectors import length_problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import numpy.typing as npt

    Vectors = npt.NDArray[np.float32]

FORMAT_VERSION = 1
_OURS = 0x52444F56  # SQLite's application_id, "RDOV"
_NUMBER = "<f4"


def similarities(vectors: Vectors, query: Vectors, source: str) -> Vectors:
    """The dot product of each row with a query.

    Raises:
        DataError: If they are of different dimensions: then they are those of two models.
    """
    if vectors.shape[-1] != query.shape[-1]:
        raise DataError(
            f"{source}: passages have vectors of {vectors.shape[-1]} dimensions, queries of {query.shape[-1]}; both "
            "must come from weights that belong together."
        )
    return vectors @ query


class VectorFile(SharedByCopies):
    """Vectors by a hash of what they stand for, in an SQLite file that threads and processes may share.

    Args:
        path: The file, made where it is missing.

    Raises:
        CheckpointError: If it is another kind of file, of a newer format, or damaged.
        SettingsError: If no file can be made there, or it would lie in a saved program, in an index or among weights.

    Example:
        >>> import tempfile, numpy as np
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     kept = VectorFile(f"{folder}/vectors.sqlite")
        ...     kept.write({b"a": np.array([0.6, 0.8], dtype=np.float32)})
        ...     VectorFile(kept.path).read([b"a", b"b"])
        {b'a': array([0.6, 0.8], dtype=float32)}
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)
        check_file(self.path, "give another file.")
        self._lock = ThreadLock()
        self._connections: dict[int, sqlite3.Connection] = {}  # by process; a parent's is kept, and never touched
        self._connect()
        with self._open() as database:
            database.execute("BEGIN IMMEDIATE")  # of several processes one makes the table
            (owner,), (version,) = (
                database.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version")
            )
            tables = database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if owner != _OURS and (owner or version or tables):
                raise CheckpointError(f"{self.path}: an SQLite file, but none of vectors; give another file.")
            if version > FORMAT_VERSION:
                raise CheckpointError(
                    f"{self.path}: vectors in format {version}; this release reads up to {FORMAT_VERSION}. Upgrade "
                    "radio-dspy, or give another file."
                )
            if not owner:
                database.execute("CREATE TABLE vectors (key BLOB PRIMARY KEY, vector BLOB NOT NULL) WITHOUT ROWID")
                database.execute(f"PRAGMA application_id = {_OURS}")
                database.execute(f"PRAGMA user_version = {FORMAT_VERSION}")

    def _connect(self) -> sqlite3.Connection:
        """This process's connection: SQLite's do not survive a fork."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            made = sqlite3.connect(self.path, timeout=60, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise CheckpointError(f"{self.path}: cannot be opened ({error}); give another file.") from error
        return self._connections.setdefault(os.getpid(), made)

    def read(self, keys: Sequence[bytes]) -> dict[bytes, Vectors]:
        """The vectors that are there.

        Raises:
            CheckpointError: If the file is damaged.
        """
        import numpy as np

        select = "SELECT vector FROM vectors WHERE key = ?"
        with self._open() as database:
            rows = {key: database.execute(select, (key,)).fetchone() for key in keys}
        try:
            found = {key: np.frombuffer(row[0], dtype=_NUMBER).astype(np.float32) for key, row in rows.items() if row}
        except (TypeError, ValueError) as error:
            raise self._damaged(error) from error
        for vector in found.values():
            if problem := length_problem(vector[None]):
                raise self._damaged(f"a vector {problem}")
        return found

    def write(self, values: dict[bytes, Vectors]) -> None:
        """Keep vectors; they are on the disk when this returns."""
        rows = [(key, vector.astype(_NUMBER).tobytes()) for key, vector in values.items()]
        with self._open() as database:
            database.execute("BEGIN IMMEDIATE")
            database.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """The connection, for one thread at a time; a transaction that was begun ends with the block."""
        with self._lock:
            try:
                with self._connections.get(os.getpid()) or self._connect() as connection:
                    yield connection
            except sqlite3.OperationalError as error:  # locked, full, read-only
                raise CheckpointError(f"{self.path}: SQLite cannot go on ({error}).") from error
            except sqlite3.DatabaseError as error:
                raise self._damaged(error) from error

    def _damaged(self, error: Exception | str) -> CheckpointError:
        return CheckpointError(
            f"{self.path}: not a file of vectors, or damaged ({error}); remove it, or give another file."
        )
