"""When others fail: a store or an LM that hangs, a client that leaves, a program that cannot be opened."""

import asyncio
import json
import shutil
import threading
import time

import dspy
import httpx
import pytest
from radio_dspy.programs import RetrieveRerankAnswer

from radio_dspy import Rerank, save
from radio_dspy.retrievers import FaissRetriever
from tests.conftest import scripted
from tests.serving.conftest import KEY
from tests.serving.running import serving
from tests.serving.test_app import BODY, QUERY, post


@pytest.fixture
def store(monkeypatch):
    """What the first stage does before it answers; nothing until a test says what."""
    real = FaissRetriever._retrieve
    first = [lambda: None]

    def retrieve(self, *args):
        first[0]()
        return real(self, *args)

    monkeypatch.setattr(FaissRetriever, "_retrieve", retrieve)
    return first


@pytest.mark.parametrize(
    ("error", "status", "said", "logged"),
    [
        (TimeoutError("the store is late"), 504, "the store is late", 0),  # not the server's own limit
        (OverflowError("too large"), 500, "its log says why", 1),
        (KeyError("id"), 500, "its log says why", 1),
    ],
)
def test_what_a_store_fails_with_is_told_and_logged_once(server, store, caplog, error, status, said, logged):
    def fail():
        raise error

    store[0] = fail
    for path, body in (("/retrieve", {"query": QUERY}), ("/ask", {"question": QUERY})):
        caplog.clear()
        reply = post(server, path, body)
        assert (reply.status_code, said in reply.json()["detail"]) == (status, True)
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert len([one for one in caplog.records if one.levelname == "ERROR"]) == logged


def test_a_store_that_hangs_holds_up_no_reranking(saved, index, store):
    released = threading.Event()
    with serving(saved, index, time_limit=5) as running:
        store[0] = lambda: released.wait(30)
        asking = [threading.Thread(target=post, args=(running, "/retrieve", {"query": QUERY})) for _ in range(40)]
        for one in asking:
            one.start()
        try:
            while running.service.under_way < 40:
                time.sleep(0.01)
            assert post(running, "/v1/rerank", BODY).status_code == 200
        finally:
            released.set()
            for one in asking:
                one.join()


@pytest.mark.parametrize(
    ("path", "body", "limit"),
    [
        ("/ask", {"question": "warm yeast " * 40}, "max_tokens"),
        ("/ask", {"question": QUERY, "stream": True, "choices": ["a"] * 6}, "max_texts"),
        ("/feedback", {"question": "why?", "answer": "warm yeast " * 40, "good": True}, "max_tokens"),
        ("/feedback", {"question": "why?", "passages": {str(one): True for one in range(6)}}, "max_texts"),
    ],
)
def test_limits_hold_for_whatever_reaches_the_lm_or_the_file(saved, index, topic, tmp_path, path, body, limit):
    from radio_dspy.programs import MultipleChoice

    if "choices" in body:
        program = MultipleChoice(index, Rerank(index.encoder, architecture="bi-encoder"), candidates=10, k=3)
        saved = save(program, tmp_path / "choices")
    lm = scripted(answer="warm milk", letter="A")
    with serving(saved, index, lm, max_tokens=60, max_texts=5, feedback=tmp_path / "feedback.jsonl") as running:
        reply = post(running, path, body)
    assert (reply.status_code, limit in reply.json()["detail"]) == (413, True)
    assert not lm.history
    assert not (tmp_path / "feedback.jsonl").exists()


@pytest.mark.parametrize("path", ["/v1/rerank", "/ask"])
def test_nothing_is_done_for_a_client_that_left(saved, index, path):
    ended = []

    class Slow(dspy.utils.DummyLM):
        async def acall(self, *args, **kwargs):
            try:
                await asyncio.sleep(20)
            except asyncio.CancelledError:
                ended.append("cancelled")
                raise

    with serving(saved, index, Slow([]), time_limit=30, batch_wait=3000) as running:
        with pytest.raises(httpx.ReadTimeout):
            post(running, path, {"question": QUERY, **BODY}, timeout=0.7)
        ends = time.monotonic() + 2
        while running.service.under_way:
            assert time.monotonic() < ends
            time.sleep(0.01)
        if path == "/v1/rerank":
            counts = httpx.get(f"{running.url}/metrics").text
            time.sleep(3)
            assert "radio_dspy_texts_total 0.0" in counts
            assert "radio_dspy_texts_total 0.0" in httpx.get(f"{running.url}/metrics").text
        else:
            assert ended == ["cancelled"]


def test_a_program_that_cannot_be_opened_leaves_the_one_in_hand_as_it_was(saved, index, keyed, encoder, tmp_path):
    folder = tmp_path / "aligned"
    shutil.copytree(saved, folder)
    with serving(folder, index, api_key_file=keyed.service.settings.api_key_file) as running:
        headers = {"authorization": f"Bearer {KEY}"}

        def now():
            scores = post(running, "/v1/rerank", BODY, headers=headers).json()["results"]
            return scores, httpx.get(f"{running.url}/version", headers=headers).json()["fingerprint"]

        before = post(running, "/v1/rerank", BODY, headers=headers).json()["results"]
        shutil.rmtree(folder)
        save(RetrieveRerankAnswer(index, Rerank(encoder, architecture="bi-encoder"), candidates=5, k=2), folder)
        assert now() == (before, running.service.loaded.fingerprint)  # asked for the first time, of a replaced folder
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps(manifest | {"program": "OfSomebodyElse"}))
        assert post(running, "/reload", {}, headers=headers).status_code >= 400
        assert now() == (before, running.service.loaded.fingerprint)
        (folder / "manifest.json").write_text(json.dumps(manifest))
        assert post(running, "/reload", {}, headers=headers).status_code == 200
        assert now() != (before, running.service.loaded.fingerprint)
