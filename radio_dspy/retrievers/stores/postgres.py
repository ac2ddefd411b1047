"""A PostgreSQL table that is only read, over one connection for all threads of a process."""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from radio_dspy.core.errors import DataError, SettingsError, StoreError
from radio_dspy.core.locks import ThreadLock
from radio_dspy.core.redaction import learn
from radio_dspy.core.validation import shown
from radio_dspy.retrievers.stores.shared import Fields, check_client, needed

_WAIT = 10  # seconds for a server that does not answer, where the connection string sets none
_COLUMNS = """SELECT attname, format_type(atttypid, NULL), atttypmod FROM pg_attribute
WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped"""
_INDEXES = """SELECT a.attname, o.opcname, i.indisunique AND i.indnkeyatts = 1 AND i.indpred IS NULL,
CASE WHEN m.amname = 'ivfflat' THEN coalesce((SELECT substring(one FROM 7)::int FROM unnest(c.reloptions) one
WHERE one LIKE 'lists=%%'), 100) END FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am m ON m.oid = c.relam
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
JOIN pg_opclass o ON o.oid = i.indclass[0] WHERE i.indisvalid AND i.indrelid = to_regclass(%s)"""
# HNSW looks at 40 rows unless told otherwise; with a filter it goes on until there are enough.
_TUNING = """SELECT set_config('hnsw.iterative_scan', 'strict_order', true), set_config('hnsw.ef_search',
least(1000, greatest(current_setting('hnsw.ef_search', true)::int, %(k)s))::text, true)"""
# IVFFlat looks into one list unless told otherwise; pgvector advises the root of their number.
_PROBING = """, set_config('ivfflat.iterative_scan', 'relaxed_order', true), set_config('ivfflat.probes',
greatest(current_setting('ivfflat.probes', true)::int, {probes})::text, true)"""
_PART = re.compile(r'"(?:[^"]|"")+"|[^".]+')
_QUOTED = re.compile(rf"(?:(?:{_PART.pattern})\.)*(?:{_PART.pattern})")
_DOUBLED = "SELECT {id}::text FROM {table} WHERE {where} GROUP BY {id} HAVING count(*) > 1 LIMIT 1"


class Connection:
    """Transactions on a connection of the user's or of a pool, or on one that is opened at first use from a string.

    What is opened here is read-only, and opened again in a forked process and where the server has closed it.

    Raises:
        SettingsError: For a string that is no connection string, which is not shown, and for what is neither.
    """

    def __init__(self, source: Any) -> None:
        self._client = needed("psycopg", "pgvector")
        self._options: dict[str, Any] = {}
        self._given: Any = None if isinstance(source, str) else source
        self._opened: tuple[int, Any] = (0, None)
        self._lock = ThreadLock()
        self._pool = hasattr(source, "getconn")
        if not isinstance(source, str):
            wanted = "A connection string, or a connection or pool of psycopg,"
            check_client(source, wanted, ["connection"] if self._pool else ["transaction", "cursor"])
        else:
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
        rows = self._client.rows.tuple_row
        with (
            self._lock,
            self._lent() as connection,
            connection.transaction(),
            connection.cursor(row_factory=rows) as one,
        ):
            yield one

    def _lent(self) -> contextlib.AbstractContextManager[Any]:
        if self._pool:
            lent: contextlib.AbstractContextManager[Any] = self._given.connection()
            return lent
        return contextlib.nullcontext(self._given if self._given is not None else self._own())

    def _own(self) -> Any:
        process, connection = self._opened
        if connection is None or process != os.getpid() or connection.closed:
            connection = self._client.connect(**self._options, autocommit=True)
            connection.read_only = True
            self._opened = (os.getpid(), connection)
        return connection


def _parts_of(name: str) -> list[str]:
    """The schema and the table of ``schema.table``, each of which may stand in double quotes."""
    quoted = _QUOTED.fullmatch(name)
    found = [one.group() for one in _PART.finditer(name)] if quoted else name.split(".")
    return [one[1:-1].replace('""', '"') if quoted and one[0] == '"' else one for one in found]


class Table:
    """A table or view: its columns, indexes and rows.

    Args:
        source: A connection string, or a psycopg connection.
        name: The table, with or without its schema; names in double quotes may hold dots.
        fields: Its columns.
        where: SQL that every row must fulfil.

    Raises:
        SettingsError: If its name or ``where`` is no text.
        StoreError: If the table, a column or pgvector is missing.
        DataError: If an id is there twice.
    """

    def __init__(self, source: Any, name: str, fields: Fields, where: str | None) -> None:
        self.name = f"table {name}"
        if not isinstance(name, str) or not isinstance(where, str | None):
            raise SettingsError(f"{self.name}: its name and where= must be texts, got {shown([name, where])}.")
        self.sql = needed("psycopg.sql", "pgvector")
        self.names = fields.names(())
        self._connection = Connection(source)
        self._parts = {
            "columns": self.sql.SQL(", ").join(map(self.sql.Identifier, self.names)),
            "table": self.sql.Identifier(*_parts_of(name)),
            "where": self.sql.SQL(f"({(where or 'true').replace('%', '%%')}\n)"),  # it may end in a comment
            "id": self.sql.Identifier(str(fields.id)),
            "text": self.sql.Identifier(fields.text),
            "embedding": self.sql.Identifier(fields.embedding),
        }
        quoted = [self._parts["table"].as_string()]
        with self._connection.cursor() as cursor:
            if not cursor.execute("SELECT 1 FROM pg_extension WHERE extname = 'vector'").fetchone():
                raise StoreError(f"{self.name}: its database lacks pgvector; run CREATE EXTENSION vector there.")
            rows = cursor.execute(_COLUMNS, quoted).fetchall()
            self.types = {column: (kind.rpartition(".")[2], size) for column, kind, size in rows}
            if not self.types:
                raise StoreError(
                    f"{self.name}: there is no such table; give the name of one as psql's \\d shows it, or schema.name."
                )
            fields.check(self.types, self.name)
            self.indexes = cursor.execute(_INDEXES, quoted).fetchall()
            lists = [count for column, _, _, count in self.indexes if column == fields.embedding and count]
            self.tuning = _TUNING + (_PROBING.format(probes=math.isqrt(max(lists)) + 1) if lists else "")
            unique = any(column == fields.id and alone for column, _, alone, _ in self.indexes)
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
        there = "{embedding} IS NOT NULL AND {id} IS NOT NULL AND {text} IS NOT NULL"  # else it is no passage
        query = "SELECT {columns}, " + value + " FROM {table} WHERE " + there + " AND {where} AND " + tail
        composed = self.sql.SQL(query).format(**self._parts, **more)
        with self._connection.cursor() as cursor:
            if settings:
                cursor.execute(settings, given[0])
            found = [cursor.execute(composed, one).fetchall() for one in given]
        return [[(dict(zip(self.names, row, strict=False)), row[-1]) for row in rows] for rows in found]
