"""A PostgreSQL table that is only read, over one connection for all threads of a process."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from radio_dspy.core.errors import DataError, SettingsError, StoreError
from radio_dspy.core.locks import ThreadLock
from radio_dspy.core.redaction import learn
from radio_dspy.retrievers.stores.shared import Fields, needed

_WAIT = 10  # seconds for a server that does not answer, where the connection string sets none
_COLUMNS = """SELECT attname, format_type(atttypid, NULL), atttypmod FROM pg_attribute
WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped"""
_INDEXES = """SELECT a.attname, o.opcname, i.indisunique AND i.indnkeyatts = 1 AND i.indpred IS NULL FROM pg_index i
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
JOIN pg_opclass o ON o.oid = i.indclass[0] WHERE i.indisvalid AND i.indrelid = to_regclass(%s)"""
_DOUBLED = "SELECT {id}::text FROM {table} WHERE {where} GROUP BY {id} HAVING count(*) > 1 LIMIT 1"


class Connection:
    """Transactions on a connection of the user's, or on one that is opened at first use from a connection string.

    What is opened here is read-only, and opened again in a forked process and where the server has closed it.

    Raises:
        SettingsError: For a string that is no connection string; what it holds is not shown.
    """

    def __init__(self, source: Any) -> None:
        self._client = needed("psycopg", "pgvector")
        self._options: dict[str, Any] = {}
        self._given = None if isinstance(source, str) else source
        self._opened: tuple[int, Any] = (0, None)
        self._lock = ThreadLock()
        if isinstance(source, str):
            try:
                said = self._client.conninfo.conninfo_to_dict(source)
            except self._client.Error:
                raise SettingsError(
                    "The connection string cannot be read; give postgresql://host:port/database, with the "
                    "password in PGPASSWORD or ~/.pgpass."
                ) from None
            learn({"password": said.get("password")})
            self._options = {"connect_timeout": _WAIT, **said}

    @contextlib.contextmanager
    def cursor(self) -> Iterator[Any]:
        """A cursor in a transaction of its own; the next thread waits for its end."""
        with self._lock:
            connection = self._given if self._given is not None else self._own()
            with connection.transaction(), connection.cursor(row_factory=self._client.rows.tuple_row) as cursor:
                yield cursor

    def _own(self) -> Any:
        process, connection = self._opened
        if connection is None or process != os.getpid() or connection.closed:
            connection = self._client.connect(**self._options, autocommit=True)
            connection.read_only = True
            self._opened = (os.getpid(), connection)
        return connection


class Table:
    """A table or view: its columns, indexes and rows.

    Args:
        source: A connection string, or a psycopg connection.
        name: The table, with or without its schema.
        fields: Its columns.
        where: SQL that every row must fulfil.

    Raises:
        StoreError: If the table, a column or pgvector is missing.
        DataError: If an id is there twice.
    """

    def __init__(self, source: Any, name: str, fields: Fields, where: str | None) -> None:
        self.name = f"table {name}"
        self.sql = needed("psycopg.sql", "pgvector")
        self.names = fields.names(())
        self._connection = Connection(source)
        self._parts = {
            "columns": self.sql.SQL(", ").join(map(self.sql.Identifier, self.names)),
            "table": self.sql.Identifier(*name.split(".")),
            "where": self.sql.SQL(f"({(where or 'true').replace('%', '%%')})"),
            "id": self.sql.Identifier(str(fields.id)),
            "embedding": self.sql.Identifier(fields.embedding),
        }
        quoted = [self._parts["table"].as_string()]
        with self._connection.cursor() as cursor:
            if not cursor.execute("SELECT 1 FROM pg_extension WHERE extname = 'vector'").fetchone():
                raise StoreError(f"{self.name}: its database lacks pgvector; run CREATE EXTENSION vector there.")
            rows = cursor.execute(_COLUMNS, quoted).fetchall()
            self.types = {column: (kind.rpartition(".")[2], size) for column, kind, size in rows}
            if not self.types:
                raise StoreError(f"{self.name}: there is no such table; give the name of one, or schema.name.")
            fields.check(self.types, self.name)
            self.indexes = cursor.execute(_INDEXES, quoted).fetchall()
            unique = any(column == fields.id and alone for column, _, alone in self.indexes)
            doubled = None if unique else cursor.execute(self.sql.SQL(_DOUBLED).format(**self._parts)).fetchone()
        if doubled:
            raise DataError(f"{self.name}: id {doubled[0]!r} is there more than once; give each row its own.")

    def select(
        self,
        value: str,
        tail: str,
        given: Sequence[Mapping[str, Any]],
        columns: Mapping[str, str] | None = None,
        settings: str = "",
    ) -> list[list[tuple[dict[str, Any], Any]]]:
        """The rows that each set of parameters selects, each with a value, all in one transaction.

        Args:
            value: SQL of the value; ``{name}`` stands for a column.
            tail: SQL of a condition and what follows it.
            given: Parameters, bound by name.
            columns: Further columns by the names that ``value`` and ``tail`` give them.
            settings: SQL that is asked first, with the first set of parameters.
        """
        more = {name: self.sql.Identifier(column) for name, column in (columns or {}).items()}
        query = "SELECT {columns}, " + value + " FROM {table} WHERE {embedding} IS NOT NULL AND {where} AND " + tail
        composed = self.sql.SQL(query).format(**self._parts, **more)
        with self._connection.cursor() as cursor:
            if settings:
                cursor.execute(settings, given[0])
            found = [cursor.execute(composed, one).fetchall() for one in given]
        return [[(dict(zip(self.names, row, strict=False)), row[-1]) for row in rows] for rows in found]
