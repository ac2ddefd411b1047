"""Requests that nobody in their right mind sends: a reason, never a failure of the server."""

import contextlib
import json
import re
import socket
import subprocess
import sys

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.serving.conftest import KEY

# One valid body for each route of the OpenAPI document that takes one.
BODIES = {
    "/v1/rerank": {"query": "a", "documents": ["b", {"text": "c"}], "top_n": 1, "return_documents": True, "model": "m"},
    "/v2/rerank": {"query": "a", "documents": ["b"], "rank_fields": ["text"]},
    "/rerank": {"query": "a", "texts": ["b", "c"], "raw_scores": False, "return_text": True},
    "/score": {"text_1": ["a"], "text_2": ["b", "c"], "model": "m"},
    "/retrieve": {"query": "a", "k": 2, "orders": ["base", "aligned"]},
    "/ask": {"question": "a", "order": "aligned", "stream": False},
    "/feedback": {"question": "a", "answer": "b", "good": True, "passages": {}, "choices": None},
    "/reload": None,
}
TEXT = st.text(st.characters(codec=None), max_size=40)  # unpaired surrogates too
LEAF = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXT, st.sampled_from([10**400, -1, ""]))
ANY = st.recursive(
    LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=6
)


@st.composite
def requests(draw):
    """A route, and a body that is nearly right, or anything at all."""
    path, body = draw(st.sampled_from(sorted(BODIES.items(), key=lambda pair: pair[0])))
    kind = draw(st.sampled_from(["changed", "any", "bytes"]))
    if kind == "bytes":
        return path, draw(st.binary(max_size=80))
    if kind == "changed" and body:
        body = {**body, draw(st.sampled_from(sorted(body))): draw(ANY)}
        if draw(st.booleans()):
            body.pop(draw(st.sampled_from(sorted(body))))
    else:
        body = draw(ANY)
    return path, json.dumps(body).encode()


def answered(reply):
    assert reply.status_code < 500, reply.text
    assert "Traceback" not in reply.text
    assert ".py" not in reply.text
    if reply.status_code >= 400:
        assert isinstance(reply.json()["detail"], str)
        assert reply.json()["detail"]


def test_the_bodies_are_those_of_the_document(server):
    paths = httpx.get(f"{server.url}/openapi.json").json()["paths"]
    assert {path for path, methods in paths.items() if "post" in methods} == set(BODIES)


def test_hostile_bodies(server):
    with httpx.Client(base_url=server.url, timeout=30) as client:

        @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
        @given(requests())
        def send(request):
            path, body = request
            answered(client.post(path, content=body, headers={"content-type": "application/json"}))

        send()


@pytest.mark.slow
def test_what_schemathesis_makes_of_the_document(server, tmp_path):
    pytest.importorskip("schemathesis")
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    program = "from schemathesis.cli import schemathesis; schemathesis()"
    line = ["run", f"{server.url}/openapi.json", "-c", checks, "-n", "60", "--seed", "1", "--no-color"]
    done = subprocess.run([sys.executable, "-c", program, *line], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert int(re.search(r"(\d+) generated", done.stdout)[1]) >= 500


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000, b'{"query": ' * 5000, b"\xff\xfe{\x00", b'{"query": "\\ud800", "documents": ["a"]}', b"",
        b'{"query": "a", "documents": [' + b'"\\u0000",' * 50 + b'""]}', b'{"query": NaN}', b'{"a": 1' + b"0" * 5000,
    ],
    ids=range(8),
)  # fmt: skip
def test_hostile_json(server, content):
    for encoding in ("application/json", "application/json; charset=utf-16", "text/html", ""):
        answered(httpx.post(f"{server.url}/v1/rerank", content=content, headers={"content-type": encoding}))


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/page.js/../app.py", "/page%2ejs%00", "/..%5c..%5cx",
        "//health", "/v1/rerank/", "/V1/RERANK", "/" + "a" * 30_000, "/%ff%fe", "/.git/config", "/page/index.html",
    ],
)  # fmt: skip
def test_tricks_with_paths(server, path):
    status, reply = sent(server, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    assert status in (307, 400, 404, 405)
    assert b"Traceback" not in reply


@pytest.mark.parametrize(
    ("content", "status", "said"),
    [
        (b"GET /health HTTP/1.1\r\nHost: loc", 408, "time_limit"),
        (b"\r\n", 408, "time_limit"),
        (b"GET /health HTTP/1.1\r\nX: " + b"a" * 100_000, 431, "65536 bytes"),
        (b"GET /" + b"a" * 5_000_000, 431, "65536 bytes"),
        (b"\x16\x03\x01\x02\x00", 400, "no HTTP"),
        (b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n", 400, "no HTTP"),
    ],
)
def test_a_head_that_never_ends_or_is_none(keyed, content, status, said):
    found, reply = sent(keyed, content)
    assert (found, said in json.loads(reply.partition(b"\r\n\r\n")[2])["detail"]) == (status, True)


def sent(server, content):
    """The status, and all that comes back for bytes as they are."""
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=20) as connection:
        with contextlib.suppress(ConnectionError):  # refused before all was sent
            connection.sendall(content)
        reply = b""
        with contextlib.suppress(ConnectionError):
            while piece := connection.recv(65536):
                reply += piece
    return int(reply.split(b" ", 2)[1]), reply


@pytest.mark.parametrize("told", [True, False], ids=["with its length", "in chunks"])
def test_a_body_of_100_megabytes_is_refused_with_the_reason(server, told):
    chunk = b"x" * 1_000_000
    headers = {"content-type": "application/json", **({"content-length": "100000000"} if told else {})}
    reply = httpx.post(f"{server.url}/v1/rerank", content=(chunk for _ in range(100)), headers=headers, timeout=60)
    assert (reply.status_code, "max_body" in reply.json()["detail"]) == (413, True)


def test_a_key_with_strange_letters_is_only_wrong(keyed):
    for key in (b"\xff\xfe", b"x" * 10_000, b'"', KEY.encode() + b"\x80"):
        reply = httpx.get(f"{keyed.url}/version", headers={b"authorization": b"Bearer " + key})
        assert reply.status_code == 401
