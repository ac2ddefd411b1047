"""Passages in Milvus."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from radio_dspy.core.errors import SettingsError
from radio_dspy.core.passages import Passage
from radio_dspy.retrievers.stores import shared

_METRICS = {"COSINE": shared.COSINE, "IP": shared.INNER_PRODUCT}


class MilvusStore(shared.Store):
    """A collection of Milvus or Milvus Lite; passages are known by its primary key."""

    def __init__(self, client: Any, collection: str, fields: shared.Fields) -> None:
        shared.needed("pymilvus", "milvus")
        self._client, self._where, self.fields = client, {"collection_name": collection}, fields
        self.name = f"collection {collection}"
        with shared.asking(self.name):
            about = client.describe_collection(collection)
            self._types = {one["name"]: one for one in about["fields"]}
            self._dynamic = bool(about.get("enable_dynamic_field"))
            known = {*self._types, *(fields.names(()) if self._dynamic else ())}
            fields.check(known, self.name)
            dimension = self._types[fields.embedding]["params"]["dim"]
            index = client.describe_index(collection, client.list_indexes(collection, fields.embedding)[0])
            metric = shared.similarity_of(index["metric_type"], self.name, _METRICS)
            sample = client.query(**self._where, filter="", limit=shared.SAMPLE, output_fields=self._output(True))
        self.check_sample(map(self._pair, sample), metric, int(dimension))
