"""Passages in Milvus."""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from radio_dspy.core.errors import SettingsError, StoreError
from radio_dspy.core.passages import Passage
from radio_dspy.retrievers.stores import shared
from radio_dspy.retrievers.stores.values import whole_numbers

_METRICS = {"COSINE": shared.COSINE, "IP": shared.INNER_PRODUCT}
_OTHERS = "$meta"  # the fields that no schema names


class MilvusStore(shared.Store):
    """A collection of Milvus or Milvus Lite, whose primary key is the passages' id."""

    def __init__(self, client: Any, collection: str, fields: shared.Fields) -> None:
        shared.needed("pymilvus", "milvus")
        shared.check_client(client, "A MilvusClient", ["describe_collection", "search", "query"])
        logging.getLogger("pymilvus.decorators").addFilter(_is_news)
        self._client, self._where, self.fields = client, {"collection_name": collection}, fields
        self.name = f"collection {collection}"
        with shared.asking(self.name):
            about = client.describe_collection(collection)
            types = {one["name"]: one for one in about["fields"]}
            self._schema, self._free = list(types), bool(about.get("enable_dynamic_field"))
            fields.check([*types, *(fields.names(()) if self._free else [])], self.name)
            if not types.get(str(fields.id), {}).get("is_primary"):
                raise SettingsError(f"{self.name}: {fields.id!r} is not its primary key; give that as id=.")
            self._numbers = "INT" in types[str(fields.id)]["type"].name
            if not (dimension := types[fields.embedding].get("params", {}).get("dim")):
                raise SettingsError(f"{self.name}: {fields.embedding!r} is no field of vectors of one length.")
            if not (indexes := client.list_indexes(collection, fields.embedding)):
                raise StoreError(f"{self.name}: {fields.embedding!r} has no index; make one first.")
            metric = client.describe_index(collection, indexes[0])["metric_type"]
            metric = shared.similarity_of(metric, self.name, _METRICS)
            state = client.get_load_state(collection)["state"]
            if getattr(state, "name", state) != "Loaded":  # as a file of Milvus Lite is in every new process
                client.load_collection(collection)
            wanted = [*self._output(), fields.embedding]
            sample = client.query(**self._where, filter="", limit=shared.SAMPLE, output_fields=wanted)
        self.check_sample(map(self._pair, sample), metric, int(dimension))

    def _output(self) -> list[str]:
        return self.fields.names([*self._schema, *([_OTHERS] if self._free else [])])

    def _pair(self, row: Mapping[str, Any]) -> tuple[Passage, Any]:
        return self.fields.passage(row), row.get(self.fields.embedding)

    def _field(self, name: str) -> str:
        if isinstance(self.fields.metadata, str):
            return f"{self.fields.metadata}[{_literal(name)}]"
        if name not in self._schema and not self._free:
            raise SettingsError(f"{self.name}: filter names {name!r}; its fields are {sorted(self._schema)}.")
        return name if name in self._schema else f"{_OTHERS}[{_literal(name)}]"

    def _search(self, vectors: Any, k: int, wanted: Mapping[str, list[Any]]) -> list[shared.Hits]:
        every = [[f"{self._field(name)} == {_literal(one)}" for one in some] for name, some in wanted.items()]
        where = " and ".join(f"({' or '.join(one)})" for one in every)
        about = {**self._where, "anns_field": self.fields.embedding, "output_fields": self._output(), "filter": where}
        found = self._client.search(data=vectors.tolist(), limit=k, **about) if len(vectors) else []
        key = str(self.fields.id)  # stands beside the other fields, under its own name or as "id"
        return [[(self.fields.passage(one["entity"], one.get(key, one.get("id"))), one["distance"]) for one in hits]
                for hits in found]  # fmt: skip

    def _fetch(self, ids: Sequence[str], vectors: bool) -> Iterable[tuple[Passage, Any]]:
        known = whole_numbers(ids) if self._numbers else list(ids)
        these = f"{self.fields.id} in {_literal(known)}"  # MilvusClient.get quotes ids by halves
        wanted = [*self._output(), *([self.fields.embedding] if vectors else [])]
        return map(self._pair, self._client.query(**self._where, filter=these, output_fields=wanted) if known else [])


def _is_news(record: logging.LogRecord) -> bool:
    """The client logs the errors that it raises, with a traceback."""
    return "\nTraceback:" not in record.getMessage()


def _literal(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)  # Milvus quotes as JSON does; its Lite knows no bound parameters


class MilvusRetriever(shared.StoreRetriever):
    """Finds passages in a collection of Milvus, without a write to it; see docs/stores.md."""

    def __init__(self, client: Any, collection: str, encoder: Any, *, id: str = "id", text: str = "text",
                 title: str | None = None, embedding: str = "vector", metadata: str | Sequence[str] | None = None,
                 **options: Any) -> None:  # fmt: skip
        fields = shared.Fields(id, text, title, embedding, metadata)
        super().__init__(MilvusStore(client, collection, fields), encoder, **options)
