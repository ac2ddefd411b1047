"""Qdrant, LanceDB and Milvus as others fill them: ids that are numbers, named vectors, metadata in one field."""

import uuid

import numpy as np
import pytest

from radio_dspy import ChromaRetriever, LanceDBRetriever, MilvusRetriever, QdrantRetriever
from radio_dspy.core.errors import SettingsError, StoreError


@pytest.fixture(scope="module")
def vectors():
    found = np.random.default_rng(0).standard_normal((9, 384), dtype=np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def check(found, ids, vectors, year=None):
    """Search, filter and ids, where passage 3 is of the year 3 and has the text 'page 3'."""
    assert len(found("why?", k=5).passages) == 5
    (one,) = found("why?", filter={"year": 3}).passages
    assert (one.id, one.text, one.metadata["year"]) == (ids[3], "page 3", 3)
    np.testing.assert_allclose(found.vectors([ids[3], ids[1]]), vectors[[3, 1]], atol=1e-6)
    assert [one.id for one in found.store.passages([ids[2], "no number", ids[0]])] == [ids[2], ids[0]]


@pytest.mark.parametrize("numbers", [True, False])
def test_qdrant_points_by_their_own_ids_as_langchain_fills_it(vectors, small, numbers, caplog):
    qdrant = pytest.importorskip("qdrant_client")
    models, client = qdrant.models, qdrant.QdrantClient(":memory:")
    about = {"dense": models.VectorParams(size=384, distance=models.Distance.DOT)}
    client.create_collection("pages", vectors_config=about)
    ids = [row if numbers else str(uuid.UUID(int=row)) for row in range(9)]
    payloads = [
        {"page_content": f"page {row}", "metadata": {"year": row, "part": row / 2, "heading": f"heading {row}"}}
        for row in range(9)
    ]
    client.upsert(
        "pages",
        [
            models.PointStruct(id=key, payload=said, vector={"dense": vector.tolist()})
            for key, said, vector in zip(ids, payloads, vectors, strict=True)
        ],
    )
    found = QdrantRetriever(client, "pages", small, text="page_content", metadata="metadata", embedding="dense")
    check(found, [str(one) for one in ids], vectors)
    assert [one.id for one in found("why?", filter={"part": [0.5, 1]}).passages] in (
        [str(ids[1]), str(ids[2])],
        [str(ids[2]), str(ids[1])],
    )
    with pytest.raises(StoreError, match="has no vector ''"):
        QdrantRetriever(client, "pages", small)
    names = {"text": "page_content", "metadata": "metadata", "embedding": "dense"}
    titled = QdrantRetriever(client, "pages", small, title="metadata.heading", **names)
    assert titled.passages_by_id([str(ids[3])])[0].title == "heading 3"
    assert not caplog.records
    QdrantRetriever(client, "pages", small, title="heading", **names)
    assert "none of its first passages has a title in 'heading'" in caplog.text


def test_lancedb_numbers_and_a_struct(tmp_path, vectors, small):
    database = pytest.importorskip("lancedb").connect(tmp_path)
    rows = [
        {"key": row, "body": f"page {row}", "embedding": vector, "metadata": {"year": row}}
        for row, vector in enumerate(vectors)
    ]
    table = database.create_table("pages", rows)
    names = {"id": "key", "text": "body", "embedding": "embedding", "metadata": "metadata"}
    check(LanceDBRetriever(table, small, **names), [str(row) for row in range(9)], vectors)
    plain = LanceDBRetriever(table, small, **{**names, "metadata": []})
    with pytest.raises(SettingsError, match="filter names 'year'"):
        plain("why?", filter={"year": 3})
    with pytest.raises(SettingsError, match="'key' is no column of vectors"):
        LanceDBRetriever(table, small, **{**names, "embedding": "key"})


@pytest.mark.parametrize("nested", [True, False])
def test_milvus_numbers_and_json(tmp_path, vectors, small, nested, caplog):
    milvus = pytest.importorskip("pymilvus")
    client = milvus.MilvusClient(str(tmp_path / "milvus.db"))
    schema = milvus.MilvusClient.create_schema(auto_id=False, enable_dynamic_field=not nested)
    schema.add_field("pk", milvus.DataType.INT64, is_primary=True)
    schema.add_field("body", milvus.DataType.VARCHAR, max_length=100)
    schema.add_field("embedding", milvus.DataType.FLOAT_VECTOR, dim=384)
    if nested:
        schema.add_field("metadata", milvus.DataType.JSON)
    index = client.prepare_index_params()
    index.add_index("embedding", index_type="FLAT", metric_type="IP")
    client.create_collection("pages", schema=schema, index_params=index)
    rows = [{"pk": row, "body": f"page {row}", "embedding": vector.tolist()} for row, vector in enumerate(vectors)]
    more = [{"metadata": {"year": row}} if nested else {"year": row} for row in range(9)]
    client.insert("pages", [{**row, **said} for row, said in zip(rows, more, strict=True)])
    names = {"id": "pk", "text": "body", "embedding": "embedding", "metadata": "metadata" if nested else None}
    check(MilvusRetriever(client, "pages", small, **names), [str(row) for row in range(9)], vectors)
    client.release_collection("pages")  # as it is in another process
    assert MilvusRetriever(client, "pages", small, **names)("why?", k=1).passages
    with pytest.raises(StoreError, match="nowhere"):
        MilvusRetriever(client, "nowhere", small, **names)
    assert not [one for one in caplog.records if one.name.startswith("pymilvus")]
    with pytest.raises(SettingsError, match="'body' is not its primary key"):
        MilvusRetriever(client, "pages", small, **{**names, "id": "body"})
    client.close()


def test_chroma_texts_in_the_metadata(vectors, small):
    client = pytest.importorskip("chromadb").EphemeralClient()
    made = client.create_collection("pages", configuration={"hnsw": {"space": "ip"}}, embedding_function=None)
    said = [{"body": f"page {row}", "year": row} for row in range(9)]
    made.add(ids=[str(row) for row in range(9)], embeddings=vectors, metadatas=said)
    check(ChromaRetriever(made, small, text="body"), [str(row) for row in range(9)], vectors)
