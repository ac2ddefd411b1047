"""Servers of Chroma and Milvus, started from their own packages and opened by their addresses, as on a command line."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import numpy as np
import pytest

from radio_dspy.core.errors import StoreError
from radio_dspy.core.passages import Passage
from radio_dspy.retrievers.stores.opening import open_store

PASSAGES = [Passage(str(row), f"passage {row}", metadata={"year": row % 3}) for row in range(30)]
KEY = "hunter2-of-the-server"


@pytest.fixture(scope="module")
def vectors():
    found = np.random.default_rng(0).standard_normal((len(PASSAGES), 384), dtype=np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


@contextmanager
def serving(module: str, code: str, *arguments: str):
    """A server's command on a free port, which it has answered at."""
    pytest.importorskip(module)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    command = [sys.executable, "-c", code, *arguments, "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True) as one:
        try:
            for _ in range(600):
                with socket.socket() as tried:
                    if tried.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.1)
            yield port
        finally:
            os.killpg(one.pid, signal.SIGKILL)


def check(address, port, small, vectors, fill):
    place = f"{address}://127.0.0.1:{port}"
    fill()
    found = open_store(place, "passages", small)
    assert [one.id for one in found("why?", k=9).passages] == [
        PASSAGES[row].id for row in np.argsort(-(vectors @ small.encode_queries(["why?"])[0]))[:9]
    ]
    assert {one.metadata["year"] for one in found("why?", filter={"year": 2}).passages} == {2}
    np.testing.assert_allclose(found.vectors(["7", "3"]), vectors[[7, 3]], atol=1e-5)
    with pytest.raises(StoreError, match="nowhere"):
        open_store(place, "nowhere", small)
    return found


def test_chroma(tmp_path, small, vectors, monkeypatch):
    monkeypatch.setenv("CHROMA_API_KEY", KEY)
    with serving("chromadb", "from chromadb.cli.cli import app; app()", "run", "--path", str(tmp_path)) as port:
        import chromadb

        def fill():
            made = chromadb.HttpClient(host="127.0.0.1", port=port).create_collection(
                "passages", configuration={"hnsw": {"space": "cosine"}}, embedding_function=None
            )
            made.add(
                ids=[one.id for one in PASSAGES],
                embeddings=vectors,
                documents=[one.text for one in PASSAGES],
                metadatas=[dict(one.metadata) for one in PASSAGES],
            )

        found = check("chroma+http", port, small, vectors, fill)
    with pytest.raises(StoreError, match="collection passages") as caught:
        found("why?")
    assert KEY not in str(caught.value)
    with pytest.raises(StoreError, match="chroma store"):
        open_store(f"chroma+http://127.0.0.1:{port}", "passages", small)


def test_milvus(tmp_path, small, vectors, monkeypatch):
    monkeypatch.setenv("MILVUS_TOKEN", f"root:{KEY}")
    with serving(
        "milvus_lite", "from milvus_lite.cmdline import main; main()", "server", "--data-dir", str(tmp_path)
    ) as port:
        from pymilvus import MilvusClient

        def fill():
            client = MilvusClient(f"http://127.0.0.1:{port}")
            client.create_collection("passages", dimension=384, id_type="string", max_length=64, metric_type="COSINE")
            rows = zip(PASSAGES, vectors.tolist(), strict=True)
            client.insert("passages", [{"id": p.id, "text": p.text, "vector": v, **p.metadata} for p, v in rows])
            client.close()

        check("milvus+http", port, small, vectors, fill)
    with pytest.raises(StoreError, match=r"collection passages|milvus store") as caught:
        open_store(f"milvus+http://127.0.0.1:{port}", "passages", small)
    assert KEY not in str(caught.value)
