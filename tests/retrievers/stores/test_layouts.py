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


def test_qdrant_numbers_in_the_payload_points_without_a_vector_and_names_with_blanks(vectors, small):
    qdrant = pytest.importorskip("qdrant_client")
    models, client = qdrant.models, qdrant.QdrantClient(":memory:")
    about = {"dense": models.VectorParams(size=384, distance=models.Distance.COSINE)}
    client.create_collection("pages", vectors_config=about)
    client.upsert(
        "pages",
        [
            models.PointStruct(
                id=row,
                vector={"dense": vectors[row].tolist()} if row else {},
                payload={"doc": row - 3 if row % 2 else f"d{row}", "text": f"page {row}", "in print": row < 5},
            )
            for row in range(9)
        ],
    )
    found = QdrantRetriever(client, "pages", small, id="doc", embedding="dense", k=20)
    ids = [str(row - 3) if row % 2 else f"d{row}" for row in range(1, 9)]
    assert sorted(one.id for one in found("why?").passages) == sorted(ids)
    np.testing.assert_allclose(found.vectors(ids), vectors[1:], atol=1e-6)
    assert sorted(one.id for one in found("why?", filter={"in print": True}).passages) == sorted(ids[:4])


ODD = ["a'b", 'a"b', "a\\b", "a\nb", "\u00fc", "{x}", "x'] or id != ['", 'x"] or id != "', "%", " a "]


@pytest.mark.parametrize("numbers", [True, False])
@pytest.mark.parametrize("engine", ["lancedb", "milvus", "chroma"])
def test_odd_ids_are_fetched(tmp_path, vectors, small, engine, numbers):
    ids = [*range(-4, 5)] if numbers else ODD[:9]
    rows = [{"id": key, "text": f"page {row}", "vector": vectors[row].tolist()} for row, key in enumerate(ids)]
    if engine == "lancedb":
        found = LanceDBRetriever(pytest.importorskip("lancedb").connect(tmp_path).create_table("pages", rows), small)
    elif engine == "milvus":
        client = pytest.importorskip("pymilvus").MilvusClient(str(tmp_path / "milvus.db"))
        kind = {} if numbers else {"id_type": "string", "max_length": 64}
        client.create_collection("pages", dimension=384, metric_type="COSINE", auto_id=False, **kind)
        client.insert("pages", rows)
        found = MilvusRetriever(client, "pages", small)
    else:
        client = pytest.importorskip("chromadb").EphemeralClient()
        made = client.create_collection(
            f"odd{numbers}", configuration={"hnsw": {"space": "cosine"}}, embedding_function=None
        )
        made.add(ids=[str(one) for one in ids], embeddings=vectors, documents=[one["text"] for one in rows])
        found = ChromaRetriever(made, small)
    names = [str(one) for one in ids]
    np.testing.assert_allclose(found.vectors(names), vectors, atol=1e-6)
    assert [one.id for one in found.passages_by_id(["\u00b2", ODD[9], *names, "9" * 30])] == names


def test_lancedb_lists(tmp_path, vectors, small):
    rows = [
        {"id": str(row), "text": "page", "vector": vectors[row], "tags": [f"t{row % 2}", "all"]} for row in range(9)
    ]
    found = LanceDBRetriever(pytest.importorskip("lancedb").connect(tmp_path).create_table("pages", rows), small)
    assert sorted(one.id for one in found("why?", filter={"tags": ["t1", "none", 7]}).passages) == list("1357")
