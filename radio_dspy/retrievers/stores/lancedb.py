"""Passages in LanceDB."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from radio_dspy.core.errors import DataError, SettingsError
from radio_dspy.core.passages import Passage
from radio_dspy.retrievers.stores import shared
from radio_dspy.retrievers.stores.values import comparable, whole_numbers

_METRICS = {"cosine": shared.COSINE, "dot": shared.INNER_PRODUCT}


class LanceDBStore(shared.Store):
    """A table, compared as its index does, else by cosine."""

    def __init__(self, table: Any, fields: shared.Fields) -> None:
        self._sql = shared.needed("lancedb.expr", "lancedb")  # quotes names and values
        shared.check_client(table, "A table of LanceDB", ["name", "schema", "search", "list_indices"])
        self._table, self.fields, self.name = table, fields, f"table {table.name}"
        with shared.asking(self.name):
            self._types = {one.name: one.type for one in table.schema}
            fields.check(self._types, self.name)
            self._names = fields.names(self._types)
            dimension = getattr(self._types[fields.embedding], "list_size", 0)
            if dimension < 1:
                raise SettingsError(f"{self.name}: {fields.embedding!r} is no column of vectors of one length.")
            indexes = [one.name for one in table.list_indices() if one.columns == [fields.embedding]]
            self._how = (table.index_stats(indexes[0]).distance_type if indexes else "cosine").lower()
            metric = shared.similarity_of(self._how, self.name, _METRICS)
            ids = table.search().select([fields.id]).limit(None).to_arrow()[fields.id].value_counts().to_pylist()
            if doubled := [one["values"] for one in ids if one["counts"] > 1]:
                raise DataError(f"{self.name}: id {doubled[0]!r} is there more than once; give each row its own.")
            sample = table.search().limit(shared.SAMPLE).to_list()
        self.check_sample(map(self._pair, sample), metric, dimension)

    def _pair(self, row: Mapping[str, Any]) -> tuple[Passage, Any]:
        return self.fields.passage({name: row[name] for name in self._names}), row.get(self.fields.embedding)

    def _search(self, vectors: Any, k: int, wanted: Mapping[str, list[Any]]) -> list[shared.Hits]:
        nested = isinstance(self.fields.metadata, str)
        inside = f"{self._sql.col(self.fields.metadata).to_sql()}." if nested else ""
        kinds = {one.name: one.type for one in self._types[self.fields.metadata]} if nested else self._types
        if unknown := sorted(wanted.keys() - kinds.keys()):
            raise SettingsError(f"{self.name}: filter names {unknown[0]!r}; its columns are {sorted(kinds)}.")
        every = [self._one_of(name, values, kinds[name], inside) for name, values in wanted.items()]
        found = []
        for vector in vectors:
            query = self._table.search(vector, vector_column_name=self.fields.embedding).distance_type(self._how)
            query = query.where(" AND ".join(every)) if every else query
            rows = query.select([*self._names, "_distance"]).limit(k).to_list()
            found.append([(self._pair(row)[0], 1 - row["_distance"]) for row in rows])
        return found

    def _one_of(self, name: str, values: Iterable[Any], kind: Any, inside: str = "") -> str:
        of_lists = hasattr(kind, "value_type")
        known = [self._sql.lit(one).to_sql() for one in comparable(values, kind.value_type if of_lists else kind)]
        column, among = f"{inside}{self._sql.col(name).to_sql()}", ", ".join(known)
        if not known:
            return "false"
        return f"array_has_any({column}, make_array({among}))" if of_lists else f"{column} IN ({among})"

    def _fetch(self, ids: Sequence[str], vectors: bool) -> Iterable[tuple[Passage, Any]]:
        import pyarrow

        numbers = pyarrow.types.is_integer(self._types[str(self.fields.id)])
        known: list[Any] = whole_numbers(ids) if numbers else list(ids)
        if not known:
            return []
        columns = [*self._names, *([self.fields.embedding] if vectors else [])]
        query = self._table.search().where(self._one_of(str(self.fields.id), known, self._types[str(self.fields.id)]))
        return map(self._pair, query.select(columns).limit(None).to_list())


class LanceDBRetriever(shared.StoreRetriever):
    """Finds passages in a table of LanceDB, without a write to it; see docs/stores.md."""

    def __init__(self, table: Any, encoder: Any, *, id: str = "id", text: str = "text", title: str | None = None,
                 embedding: str = "vector", metadata: str | Sequence[str] | None = None,
                 **options: Any) -> None:  # fmt: skip
        super().__init__(LanceDBStore(table, shared.Fields(id, text, title, embedding, metadata)), encoder, **options)
