"""Stub embedding and rerank servers on loopback: the wire formats of OpenAI, Ollama, Cohere, Gemini, Jina, vLLM.

Vectors count the words of a text; a passage's score is the share of the query's words that it holds. A path that the
provider does not know is a 404, so an address that would fail at the provider fails here, too.
"""

from __future__ import annotations

import json
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.loopback import Handler, Loopback

KEY = "sk-MARKED-KEY-0001"
DIMENSIONS = 32


@dataclass(frozen=True)
class Call:
    """A request as it arrived."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def texts(self) -> list[str]:
        """What vectors, or scores, were asked for."""
        return next(self.body[name] for name in ("input", "texts", "documents") if name in self.body)


@dataclass(frozen=True)
class Fault:
    """What a request gets in place of an answer: an HTTP error, or silence until the server closes."""

    status: int = 0
    retry_after: str | None = None
    text: str = "The server had an error."


class _Handler(Handler):
    stub: StubEndpoint

    def do_POST(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        call = Call(self.path, headers, json.loads(self.body()))
        self.stub.calls.append(call)
        fault = self.stub.faults.popleft() if self.stub.faults else None
        if fault is None and call.path in _ANSWERS:
            return self.send_json(200, self.stub.change(_ANSWERS[call.path](call.body)))
        if fault is not None and not fault.status:
            self.stub.closing.wait(30)
            self.close_connection = True
            return None
        fault = fault or Fault(404, text=f"no such path: {call.path}")
        body = {"error": {"message": fault.text, "type": "error", "code": None}}
        return self.send_json(fault.status, body, {"retry-after": fault.retry_after} if fault.retry_after else {})


class StubEndpoint(Loopback):
    """A server for the length of a ``with`` block.

    Attributes:
        calls: Every request, faults included.
        faults: What the next requests get, one each.
        change: Changes what is about to be sent.
    """

    handler = _Handler

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.faults: deque[Fault] = deque()
        self.change: Callable[[dict[str, Any]], Any] = lambda reply: reply

    @property
    def texts(self) -> list[str]:
        """All that was asked for, in no certain order where requests came from several threads."""
        return [text for call in self.calls for text in call.texts]


def vector(text: str, dimensions: int = DIMENSIONS) -> list[float]:
    """How often words stand in a text, by a hash of them; not of length 1."""
    counts = [0.1] * dimensions
    for word in _words(text):
        counts[zlib.crc32(word.encode()) % dimensions] += 1.0
    return counts


def score(query: str, text: str) -> float:
    """The share of the query's words that a text holds."""
    words = set(_words(query))
    return len(words & set(_words(text))) / len(words)


def _words(text: str) -> list[str]:
    return text.lower().replace(".", " ").replace("?", " ").split()


def _openai(body: dict[str, Any]) -> dict[str, Any]:
    size = body.get("dimensions", DIMENSIONS)
    rows = [{"object": "embedding", "index": i, "embedding": vector(one, size)} for i, one in enumerate(body["input"])]
    return {"object": "list", "data": rows, "model": body["model"], "usage": {"prompt_tokens": 3, "total_tokens": 3}}


def _ollama(body: dict[str, Any]) -> dict[str, Any]:
    return {"model": body["model"], "embeddings": [vector(one) for one in body["input"]], "prompt_eval_count": 3}


def _cohere(body: dict[str, Any]) -> dict[str, Any]:
    vectors = [vector(one, body.get("output_dimension", DIMENSIONS)) for one in body["texts"]]
    units = {"billed_units": {"input_tokens": 3}}
    return {"id": "1", "embeddings": {"float": vectors}, "texts": body["texts"], "meta": units}


def _gemini(body: dict[str, Any]) -> dict[str, Any]:
    texts = [request["content"]["parts"][0]["text"] for request in body["requests"]]
    return {"embeddings": [{"values": vector(text)} for text in texts]}


def _rerank(body: dict[str, Any]) -> dict[str, Any]:
    scores = [score(body["query"], text) for text in body["documents"]]
    order = sorted(range(len(scores)), key=lambda i: -scores[i])[: body["top_n"]]
    rows = [{"index": i, "relevance_score": scores[i]} for i in order]
    return {"id": "1", "model": body["model"], "results": rows, "meta": {"billed_units": {"search_units": 1}}}


_ANSWERS = {
    "/v1/embeddings": _openai,  # OpenAI and what speaks its protocol, vLLM and Jina among them
    "/api/embed": _ollama,
    "/v2/embed": _cohere,
    "/v1beta/models/gemini-embedding-001:batchEmbedContents": _gemini,
    "/v2/rerank": _rerank,  # Cohere
    "/v1/rerank": _rerank,  # Jina, and vLLM, which knows all three
    "/rerank": _rerank,
}
