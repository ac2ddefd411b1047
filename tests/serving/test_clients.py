"""Clients that people have, each against a server that really listens, give the scores of the process."""

import json
import shutil
import subprocess

import httpx
import pytest

from radio_dspy import RemoteRerank

QUERY = "Why did the dough not rise?"


@pytest.fixture(scope="module")
def texts(topic):
    return [one.contents for one in topic.passages[:12]]


@pytest.fixture(scope="module")
def expected(server, texts):
    """Position -> score in this process."""
    found = server.service.loaded.rerank(QUERY, texts)
    return dict(zip(found.indices, found.scores, strict=True))


def check(rows, expected):
    """The rows are (index, score), best first."""
    rows = list(rows)
    assert dict(rows) == pytest.approx(expected, abs=1e-5)
    assert [score for _, score in rows] == sorted((score for _, score in rows), reverse=True)


@pytest.mark.parametrize("model", ["cohere/any", "jina_ai/any", "hosted_vllm/any"])
def test_litellm(server, texts, expected, model):
    import litellm

    found = litellm.rerank(model=model, query=QUERY, documents=texts, api_base=server.url, api_key="any")
    check(((one["index"], one["relevance_score"]) for one in found.results), expected)


@pytest.mark.parametrize("client", ["ClientV2", "Client"])
def test_cohere(server, texts, expected, client):
    import cohere

    found = getattr(cohere, client)("any", base_url=server.url).rerank(model="any", query=QUERY, documents=texts)
    check(((one.index, one.relevance_score) for one in found.results), expected)


@pytest.mark.filterwarnings("ignore:The class `CohereRerank`")
def test_langchains_compressor(server, texts, expected):
    import cohere

    documents = pytest.importorskip("langchain_core.documents")
    compressors = pytest.importorskip("langchain_classic.retrievers.document_compressors.cohere_rerank")
    client = cohere.Client("any", base_url=server.url)
    compressor = compressors.CohereRerank(client=client, model="any", top_n=None)
    asked = [documents.Document(page_content=text, metadata={"place": place}) for place, text in enumerate(texts)]
    found = compressor.rerank(asked, QUERY, top_n=None)
    check(((one["index"], one["relevance_score"]) for one in found), expected)


def test_our_own_client(server, texts, expected):
    found = RemoteRerank("cohere/any", api_base=server.url, api_key="any")(QUERY, texts)
    check(zip(found.indices, found.scores, strict=True), expected)


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl_as_for_text_embeddings_inference(server, texts, expected):
    body = json.dumps({"query": QUERY, "texts": texts, "raw_scores": True, "return_text": True})
    command = ["curl", "-sS", f"{server.url}/rerank", "-H", "Content-Type: application/json", "-d", "@-"]
    done = subprocess.run(command, input=body, capture_output=True, text=True, check=True)
    rows = json.loads(done.stdout)
    check(((one["index"], one["score"]) for one in rows), expected)
    assert [texts[one["index"]] for one in rows] == [one["text"] for one in rows]


def test_vllms_scores_keep_the_order_of_the_texts(server, texts, expected):
    named = [("text_1", "text_2"), ("queries", "documents"), ("queries", "items"), ("data_1", "data_2")]
    for (one, other), first in zip(named, (QUERY, [QUERY], [QUERY] * len(texts), QUERY), strict=True):
        reply = httpx.post(f"{server.url}/score", json={one: first, other: texts}).json()
        assert [one["index"] for one in reply["data"]] == list(range(len(texts)))
        assert {one["index"]: one["score"] for one in reply["data"]} == pytest.approx(expected, abs=1e-5)


def test_the_best_alone_with_their_texts(server, texts, expected):
    best = max(expected, key=expected.get)
    documents = [{"text": one} for one in texts]
    body = {"query": QUERY, "documents": documents, "top_n": 1, "return_documents": True}
    for path in ("/v1/rerank", "/v2/rerank", "/rerank"):
        (row,) = httpx.post(server.url + path, json=body).json()["results"]
        assert (row["index"], row["document"]) == (best, {"text": texts[best]})
