"""Passages in PostgreSQL with pgvector."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from radio_dspy.core.errors import SettingsError
from radio_dspy.core.passages import Passage
from radio_dspy.retrievers.stores import shared
from radio_dspy.retrievers.stores.postgres import Table

_SIMILARITY = {shared.COSINE: "1 - ({distance})", shared.INNER_PRODUCT: "-({distance})"}
_DISTANCE = {shared.COSINE: "{embedding} <=> %(vector)s::", shared.INNER_PRODUCT: "{embedding} <#> %(vector)s::"}
_METRICS = {"cosine": shared.COSINE, "ip": shared.INNER_PRODUCT}


class PgVectorStore(shared.Store):
    """A table or view that is compared as its index does, else by cosine."""

    def __init__(self, source: Any, table: str, fields: shared.Fields, where: str | None = None) -> None:
        self._vector, self.fields, self.name = shared.needed("pgvector", "pgvector").Vector, fields, f"table {table}"
        with shared.asking(self.name):
            self._table = Table(source, table, fields, where)
            self._kind, size = self._table.types[fields.embedding]
            if self._kind not in ("vector", "halfvec"):
                raise SettingsError(f"{self.name}: {fields.embedding!r} is of type {self._kind}, not vector.")
            indexes = [kind.split("_")[1] for name, kind, _, _ in self._table.indexes if name == fields.embedding]
            how = sorted(indexes, key=lambda one: one not in _METRICS) or ["cosine"]
            self._metric = shared.similarity_of(how[0], self.name, _METRICS)
            sample = self._table.select("{embedding}::text", f"true LIMIT {shared.SAMPLE}", [{}])[0]
        self.check_sample(map(self._pair, sample), self._metric, size if size > 0 else None)

    def _pair(self, row: tuple[dict[str, Any], Any]) -> tuple[Passage, Any]:
        return self.fields.passage(row[0]), row[1] and self._vector.from_text(row[1]).to_list()

    def _search(self, vectors: Any, k: int, wanted: Mapping[str, list[Any]]) -> list[shared.Hits]:
        where, columns, values = ["true"], {}, {}
        for number, (name, some) in enumerate(wanted.items()):
            if isinstance(self.fields.metadata, str):
                columns[f"f{number}"], values[f"f{number}"] = (
                    self.fields.metadata,
                    [json.dumps({name: one}) for value in some for one in (value, [value])],  # or a list with it
                )
                where.append(f"{{f{number}}}::jsonb @> ANY(%(f{number})s::jsonb[])")
            elif name not in self._table.types:
                raise SettingsError(f"{self.name}: filter names {name!r}; its columns are {sorted(self._table.types)}.")
            else:
                bound = {f"f{number}_{place}": value for place, value in enumerate(some)}
                columns[f"f{number}"], values = name, {**values, **bound}
                among = f"{{f{number}}} IN ({', '.join(f'%({one})s' for one in bound)})"
                within = " OR ".join(f"%({one})s = ANY({{f{number}}})" for one in bound)
                where.append(f"({within})" if self._table.types[name][0].endswith("[]") else among)
        distance = _DISTANCE[self._metric] + self._kind
        similarity = _SIMILARITY[self._metric].replace("{distance}", distance)
        given = [{**values, "k": k, "vector": self._vector(one).to_text()} for one in vectors]
        tail = f"{' AND '.join(where)} ORDER BY {distance} LIMIT {k}"
        found = self._table.select(similarity, tail, given, columns, self._table.tuning) if given else []
        rows_found = (sorted(rows, key=lambda one: -one[1]) for rows in found)  # IVFFlat's order is nearly so
        return [[(self.fields.passage(row), float(score)) for row, score in rows] for rows in rows_found]

    def _fetch(self, ids: Sequence[str], vectors: bool) -> Iterable[tuple[Passage, Any]]:
        value, given = "{embedding}::text" if vectors else "NULL", [{"ids": list(ids)}]
        try:
            found = self._table.select(
                value, f"{{id}} = ANY(%(ids)s::{self._table.types[str(self.fields.id)][0]}[])", given
            )
        except shared.needed("psycopg", "pgvector").DataError:  # a word among numbers: it is not there
            found = self._table.select(value, "{id}::text = ANY(%(ids)s)", given)
        return map(self._pair, found[0])


class PgVectorRetriever(shared.StoreRetriever):
    """Finds passages in a table of PostgreSQL with pgvector, without a write to it; see docs/stores.md."""

    def __init__(self, source: Any, table: str, encoder: Any, *, id: str = "id", text: str = "text",
                 title: str | None = None, embedding: str = "embedding", metadata: str | Sequence[str] = (),
                 where: str | None = None, **options: Any) -> None:  # fmt: skip
        store = PgVectorStore(source, table, shared.Fields(id, text, title, embedding, metadata), where)
        super().__init__(store, encoder, **options)
