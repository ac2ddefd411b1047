"""Passages in Qdrant."""

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from radio_dspy.core.errors import StoreError
from radio_dspy.core.passages import Passage
from radio_dspy.retrievers.stores import shared
from radio_dspy.retrievers.stores.values import payload_path, whole_numbers

_METRICS = {"Cosine": shared.COSINE, "Dot": shared.INNER_PRODUCT}
_POINT_ID = re.compile(r"\d+|[0-9a-fA-F]{8}(-?)(?:[0-9a-fA-F]{4}\1){3}[0-9a-fA-F]{12}")


class QdrantStore(shared.Store):
    """A collection; passages are known by a field of the payload, else by the point's own id."""

    def __init__(self, client: Any, collection: str, fields: shared.Fields) -> None:
        self._models, self.fields = shared.needed("qdrant_client.models", "qdrant"), fields
        self._client, self._where, self.name = client, {"collection_name": collection}, f"collection {collection}"
        shared.check_client(client, "A QdrantClient", ["get_collection", "query_batch_points"])
        with shared.asking(self.name):
            vectors = client.get_collection(collection).config.params.vectors
            named = vectors if isinstance(vectors, Mapping) else {"": vectors}
            if fields.embedding not in named:
                raise StoreError(f"{self.name}: has no vector {fields.embedding!r}; give embedding=, of {list(named)}.")
            about = named[fields.embedding]
            metric = shared.similarity_of(about.distance.value, self.name, _METRICS)
            points = client.scroll(collection, limit=8 * shared.SAMPLE, with_vectors=self._wanted(True))[0]
        sample = (one for one in map(self._pair, points) if one[1] is not None)  # some may lack the named vector
        self.check_sample(sample, metric, about.size)
        errors, grpc = (shared.needed(one, "qdrant") for one in ("qdrant_client.http.exceptions", "grpc"))
        hits: list[Any] = []
        with suppress(errors.ApiException, grpc.RpcError):  # a server counts only fields with an index
            hits = client.facet(collection, key=fields.id, limit=1, exact=True).hits if fields.id else []
        self._keep({}, ((one.value, None) for one in hits for _ in range(one.count)))

    def _wanted(self, vectors: bool) -> Any:
        return [self.fields.embedding] if vectors and self.fields.embedding else vectors

    def _pair(self, point: Any) -> tuple[Passage, Any]:
        vector = getattr(point, "vector", None)
        vector = vector.get(self.fields.embedding) if isinstance(vector, Mapping) else vector
        return self.fields.passage(point.payload or {}, None if self.fields.id else str(point.id)), vector

    def _holds(self, name: str, value: Any) -> Any:
        number = isinstance(value, int | float) and not isinstance(value, bool)  # 1 is 1.0, and not true
        how = {"range": self._models.Range(gte=value, lte=value)} if number else {"match": {"value": value}}
        return self._models.FieldCondition(key=name, **how)

    def _search(self, vectors: Any, k: int, wanted: Mapping[str, list[Any]]) -> list[shared.Hits]:
        wanted = {payload_path(name): values for name, values in wanted.items()}
        inside = f"{self.fields.metadata}." if isinstance(self.fields.metadata, str) else ""
        every = [[self._holds(inside + name, value) for value in values] for name, values in wanted.items()]
        must = self._models.Filter(must=[self._models.Filter(should=one) for one in every])
        settings = {"limit": k, "filter": must if wanted else None, "with_payload": True}
        asked = [self._models.QueryRequest(query=one, using=self.fields.embedding or None, **settings)
                 for one in vectors.tolist()]  # fmt: skip
        found = self._client.query_batch_points(**self._where, requests=asked) if asked else []
        return [[(self._pair(point)[0], point.score) for point in one.points] for one in found]

    def _fetch(self, ids: Sequence[str], vectors: bool) -> Iterable[tuple[Passage, Any]]:
        what = {**self._where, "with_vectors": self._wanted(vectors), "with_payload": True}
        if self.fields.id:
            known: list[Any] = [some for some in (list(ids), whole_numbers(ids)) if some]
            these = [self._models.FieldCondition(key=self.fields.id, match=self._models.MatchAny(any=some))
                     for some in known]  # fmt: skip
            points = self._client.scroll(scroll_filter=self._models.Filter(should=these), limit=2 * len(ids), **what)[0]
        else:
            known = [int(one) if one.isdigit() else one for one in ids if _POINT_ID.fullmatch(one)]
            points = self._client.retrieve(ids=known, **what)
        return map(self._pair, points)


class QdrantRetriever(shared.StoreRetriever):
    """Finds passages in a collection of Qdrant, without a write to it; see docs/stores.md."""

    def __init__(self, client: Any, collection: str, encoder: Any, *, id: str | None = None, text: str = "text",
                 title: str | None = None, embedding: str = "", metadata: str | Sequence[str] | None = None,
                 **options: Any) -> None:  # fmt: skip
        fields = shared.Fields(id, text, title, embedding, metadata)
        super().__init__(QdrantStore(client, collection, fields), encoder, **options)
