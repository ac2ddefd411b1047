"""What every request meets: limits, keys, errors, metrics; and the routes of the program."""

import asyncio
import json
import re
import shutil
import time
from pathlib import Path

import dspy
import httpx
import numpy as np
import pytest
from radio_dspy.programs import RetrieveRerankAnswer

from radio_dspy import Rerank, load_groups, load_questions, save
from radio_dspy.core.credentials import learn
from radio_dspy.core.errors import CheckpointError, SettingsError
from radio_dspy.serving.batching import Batcher
from radio_dspy.serving.errors import answer_to
from radio_dspy.serving.settings import KEYS_VARIABLE, ServerSettings, read_keys
from tests.serving.conftest import KEY
from tests.serving.running import serving

QUERY = "Why did the dough not rise?"
BODY = {"query": QUERY, "documents": ["Yeast dies in hot water.", "Ice floats."]}


def post(server, path, body, **more):
    return httpx.post(server.url + path, json=body, **more)


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/v1/rerank", {**BODY, "documents": ["a"] * 6}, 413, "max_texts (Texts of a request) is 5 here"),
        ("/rerank", {"query": "why", "texts": ["warm yeast " * 40]}, 413, "max_tokens"),
        ("/score", {"text_1": "a", "text_2": ["b" * 6000]}, 413, "max_body"),
        ("/score", {"text_1": ["a", "b"], "text_2": ["c", "d", "e"]}, 422, "text_1 has 2 texts, text_2 3"),
        ("/v2/rerank", {"query": "", "documents": ["a"]}, 422, "body.query: String should have at least 1 character"),
        ("/v2/rerank", {"query": "a", "documents": []}, 422, "body.documents"),
        ("/v1/rerank", {**BODY, "rank_fields": ["title"]}, 422, "rank_fields"),
        ("/v1/rerank", {**BODY, "top_n": 0}, 422, "top_n"),
        ("/ask", {"question": QUERY}, 409, "--lm"),
        ("/feedback", {"question": QUERY, "answer": "heat", "good": True}, 409, "--feedback"),
        ("/feedback", {"question": QUERY, "good": True}, 422, "give passages, or an answer and whether it is good"),
        ("/rerank", {"query": "why"}, 422, "body.texts: Field required"),
        ("/rerank", {"query": "why", "documents": [1]}, 422, "body.documents.0"),
        ("/nowhere", {}, 404, "Not Found"),
    ],
)
def test_a_request_that_cannot_be_answered_is_told_why(keyed, path, body, status, said):
    reply = post(keyed, path, body, headers={"authorization": f"Bearer {KEY}"})
    assert (reply.status_code, list(reply.json())) == (status, ["detail"])
    assert said in reply.json()["detail"]


@pytest.mark.parametrize("header", [None, "Bearer wrong", f"Basic {KEY}", f"Bearer {KEY}x", KEY])
def test_without_a_key_nothing_is_answered(keyed, header):
    headers = {"authorization": header} if header else {}
    for path in ("/v1/rerank", "/reload", "/metrics", "/version", "/nowhere"):
        reply = post(keyed, path, BODY, headers=headers)
        assert (reply.status_code, reply.headers["www-authenticate"]) == (401, "Bearer")
    assert post(keyed, "/v1/rerank", BODY, headers={"authorization": f"bearer {KEY}"}).status_code == 200
    for path in ("/", "/page.js", "/page.css", "/health", "/ready"):
        assert httpx.get(keyed.url + path, headers=headers).status_code == 200


@pytest.mark.parametrize(("text", "message"), [("", "a key a line"), ("two words", "a key a line"), (None, "read")])
def test_a_file_without_keys(text, message, tmp_path):
    path = tmp_path / "keys"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SettingsError, match=message):
        read_keys(ServerSettings(api_key_file=path), {})
    with pytest.raises(SettingsError, match="is no file"):
        read_keys(ServerSettings(api_key_file=Path("/dev/null")), {})
    assert read_keys(ServerSettings(), {KEYS_VARIABLE: "one\ntwo\n"}) == ("one", "two")
    assert read_keys(ServerSettings(), {}) == ()


@pytest.mark.parametrize(
    "wrong", [{"port": -1}, {"port": 70000}, {"workers": 0}, {"time_limit": 0}, {"origins": ("https://a.example/b",)}]
)
def test_settings_out_of_range(wrong):
    with pytest.raises(SettingsError, match=next(iter(wrong)).rstrip("s")):
        ServerSettings(**wrong)


def test_only_named_pages_of_others_may_ask(keyed, server):
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    for running, origin, allowed in [
        (keyed, "https://app.example", "https://app.example"), (keyed, "https://evil.example", None),
        (server, "https://app.example", None),
    ]:  # fmt: skip
        reply = httpx.options(f"{running.url}/v1/rerank", headers={"origin": origin, **asked})
        assert reply.headers.get("access-control-allow-origin") == allowed
    # A page of anyone may send a form without asking first, or reach a loopback address under its own name.
    form = {"content-type": "text/plain", "origin": "https://evil.example"}
    refused = httpx.post(f"{server.url}/v1/rerank", content=json.dumps(BODY), headers=form)
    assert (refused.status_code, "Content-Type: application/json" in refused.json()["detail"]) == (422, True)
    for host, status in [("evil.example", 421), ("localhost:1", 200), ("[::1]:80", 200)]:
        assert httpx.get(f"{server.url}/health", headers={"host": host}).status_code == status


def test_who_sends_too_slowly_is_told_so(keyed):
    def slow():
        yield b'{"query": "a", '
        time.sleep(1.3)
        yield b'"documents": ["b"]}'

    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    reply = httpx.post(f"{keyed.url}/v1/rerank", content=slow(), headers=headers)
    assert (reply.status_code, reply.json()["detail"][:10]) == (408, "time_limit")


def test_too_many_are_told_to_come_back(saved, index):
    async def ask(url):
        async with httpx.AsyncClient(base_url=url) as client:
            return await asyncio.gather(*(client.post("/v1/rerank", json=BODY) for _ in range(40)))

    with serving(saved, index, max_waiting=2, batch_wait=50) as running:
        replies = asyncio.run(ask(running.url))
        assert {one.status_code for one in replies} == {200, 429}
        busy = [one for one in replies if one.status_code == 429]
        assert {one.headers["retry-after"] for one in busy} == {"1"}
        assert busy[0].json()["detail"].startswith("max_waiting: 2 requests are under way")
        assert running.service.under_way == 0
        assert post(running, "/v1/rerank", BODY).status_code == 200


def test_state(server):
    assert httpx.get(f"{server.url}/health").json() == {"status": "ok"}
    assert httpx.get(f"{server.url}/ready").json() == {"ready": True}
    head = httpx.head(f"{server.url}/health")
    assert (head.status_code, head.content) == (200, b"")
    said = httpx.get(f"{server.url}/version").json()
    weights = server.service.loaded.rerank.weights
    assert (said["fingerprint"], said["candidates"], said["k"]) == (weights.fingerprint, 10, 3)
    assert said["orders"] == ["aligned", "base", "first_stage"]
    post(server, "/v1/rerank", BODY)
    counts = httpx.get(f"{server.url}/metrics").text
    assert re.search(r'radio_dspy_requests_total{route="/v1/rerank",status="200"} \d', counts)
    assert "radio_dspy_texts_total" in counts
    assert "/nowhere" not in counts


def test_retrieve_gives_places_in_every_order(server, index):
    orders = ["aligned", "base", "first_stage"]
    reply = post(server, "/retrieve", {"query": QUERY, "k": 10, "orders": orders}).json()
    ranked = index(QUERY, k=10)
    expected = server.service.loaded.rerank(QUERY, ranked.passages)
    assert [one["id"] for one in reply["passages"]] == [one.id for one in expected.passages]
    assert [one["score"] for one in reply["passages"]] == pytest.approx(expected.scores, abs=1e-5)
    by_id = {one["id"]: one for one in reply["passages"]}
    assert [by_id[one.id]["places"]["first_stage"] for one in ranked.passages] == list(range(1, 11))
    assert sorted(one["places"]["base"] for one in reply["passages"]) == list(range(1, 11))
    assert set(reply["seconds"]) == {"retrieve", "aligned", "base"}
    assert len(post(server, "/retrieve", {"query": QUERY}).json()["passages"]) == 3


def test_ask_gives_the_programs_answer(server):
    said = {order: post(server, "/ask", {"question": QUERY, "order": order}).json() for order in ("aligned", "base")}
    assert {one["answer"] for one in said.values()} == {"warm milk"}
    found = server.service.loaded.program.retriever(QUERY, k=10).passages
    expected = server.service.loaded.rerank(QUERY, found, k=3)
    assert [one["id"] for one in said["aligned"]["passages"]] == [one.id for one in expected.passages]
    reply = post(server, "/ask", {"question": QUERY, "choices": ["a", "b"]})
    assert (reply.status_code, "multiple choice" in reply.json()["detail"]) == (409, True)


def events(reply):
    return [(name, json.loads(data)) for name, data in re.findall(r"event: (\w+)\ndata: (.*)\n\n", reply.text)]


def test_a_stream_ends_with_the_answer_or_the_failure(server, monkeypatch):
    reply = post(server, "/ask", {"question": QUERY, "stream": True})
    assert reply.headers["content-type"].startswith("text/event-stream")
    name, last = events(reply)[-1]
    assert (name, last["answer"], len(last["passages"])) == ("done", "warm milk", 3)

    class Broken(dspy.utils.DummyLM):
        def __call__(self, *args, **kwargs):
            raise dspy.LMRateLimitError(message="the provider is busy", model="any")

        async def acall(self, *args, **kwargs):
            return self()

    monkeypatch.setattr(server.service, "lm", Broken([]))
    assert "busy" in events(post(server, "/ask", {"question": QUERY, "stream": True}))[-1][1]["detail"]
    reply = post(server, "/ask", {"question": QUERY})
    assert (reply.status_code, "busy" in reply.json()["detail"]) == (502, True)


def test_a_stream_that_takes_too_long_says_so(saved, index):
    class Slow(dspy.utils.DummyLM):
        async def acall(self, *args, **kwargs):
            await asyncio.sleep(10)

    with serving(saved, index, Slow([]), time_limit=1.0) as running:
        (name, said), *more = events(post(running, "/ask", {"question": QUERY, "stream": True}))
        assert (name, said["detail"][:10], more) == ("error", "time_limit", [])
        reply = post(running, "/ask", {"question": QUERY})
        assert (reply.status_code, reply.json()["detail"][:10]) == (503, "time_limit")


def test_feedback_that_a_full_disk_cuts_leaves_no_half_line(server, feedback_file):
    resource = pytest.importorskip("resource")
    given = {"question": "where?", "answer": "x" * 1000, "good": False}
    assert post(server, "/feedback", given).status_code == 201
    before = feedback_file.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 100, limits[1]))
        reply = post(server, "/feedback", given)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    said = "the feedback was not kept (File too large): its file cannot be written."
    assert (reply.status_code, reply.json()["detail"]) == (507, said)
    assert feedback_file.read_bytes() == before
    feedback_file.unlink()


def test_feedback_is_data_to_train_on(server, topic, feedback_file):
    right, wrong = topic.passages[0], topic.passages[1]
    for given in (
        {"question": "why?", "answer": "heat", "good": True, "passages": {right.id: True, wrong.id: False}},
        {"question": "why?", "answer": "cold", "good": False},
        {"question": "when?", "passages": {wrong.id: True, right.id: False}},
        {"question": "which?", "answer": "A", "good": True, "choices": ["ice", "fire"]},
        {"question": "which?", "answer": "A", "good": True, "choices": ["salt", "sand"]},
    ):
        assert post(server, "/feedback", given).status_code == 201
    for given in (
        {"question": "why?", "passages": {"none": True}},
        {"question": " \u200b", "answer": "heat", "good": True},
        {"question": "which?", "answer": "zinc", "good": True, "choices": ["ice", "fire"]},
    ):
        assert post(server, "/feedback", given).status_code == 422
    why, when, *which = load_questions(feedback_file)
    assert [one.choices for one in which] == [["ice", "fire"], ["salt", "sand"]]
    assert (why.answers, why.relevant, when.relevant) == (["heat"], [right.id], [wrong.id])
    groups = load_groups(feedback_file)
    assert [(one.question, one.pos, one.neg) for one in groups] == [
        ("why?", [right.contents], [wrong.contents]), ("when?", [wrong.contents], [right.contents])
    ]  # fmt: skip


def test_another_program_takes_over_while_it_is_asked(saved, index, small, keyed, tmp_path):
    folder = tmp_path / "aligned"
    shutil.copytree(saved, folder)
    with serving(folder, index, api_key_file=keyed.service.settings.api_key_file) as running:
        before = running.service.loaded
        headers = {"authorization": f"Bearer {KEY}"}
        assert post(running, "/reload", {}, headers=headers).status_code == 200
        assert running.service.loaded is not before
        shutil.rmtree(folder)
        other = RetrieveRerankAnswer(index, Rerank(small, architecture="bi-encoder"), candidates=5, k=2)
        save(other, folder)

        async def ask():
            async with httpx.AsyncClient(headers=headers, base_url=running.url) as client:
                asking = [client.post("/v1/rerank", json=BODY) for _ in range(20)]
                replies = await asyncio.gather(client.post("/reload"), *asking)
                return [one.status_code for one in replies]

        assert asyncio.run(ask()) == [200] * 21
        assert running.service.loaded.program.candidates == 5
        (folder / "program.json").write_text("{}")
        reply = post(running, "/reload", {}, headers=headers)
        assert (reply.status_code, "changed after it was saved" in reply.json()["detail"]) == (500, True)
        assert post(running, "/retrieve", {"query": QUERY}, headers=headers).status_code == 200
    assert httpx.post(f"{keyed.url}/reload").status_code == 401


def test_a_server_without_keys_is_not_reloaded_over_http(server):
    assert post(server, "/reload", {}).status_code == 403


class TestBatcher:
    @pytest.fixture
    def passes(self, monkeypatch):
        """The queries of each pass; texts that are called "bad" fail."""
        found = []

        def score(rerank, lists):
            found.append([query for query, _ in lists])
            if any("bad" in texts for _, texts in lists):
                raise CheckpointError("bad")
            return [[float(len(text)) for text in texts] for _, texts in lists]

        monkeypatch.setattr(Rerank, "score_lists", score)
        return found

    @staticmethod
    def run(asked, rerank=None):
        async def ask():
            batcher = Batcher(0.01)
            running = asyncio.create_task(batcher.run())
            used = rerank or Rerank("all-MiniLM-L6-v2", "bi-encoder")
            asking = [batcher.score(used, [(query, texts)]) for query, texts in asked]
            found = await asyncio.gather(*asking, return_exceptions=True)
            running.cancel()
            return found

        return asyncio.run(ask())

    def test_what_comes_together_is_scored_together(self, passes):
        assert self.run([("a", ["x"]), ("b", ["yy", "zzz"])]) == [[[1.0]], [[2.0, 3.0]]]
        assert passes == [["a", "b"]]

    def test_a_request_that_fails_fails_alone(self, passes):
        first, second, third = self.run([("a", ["x"]), ("b", ["bad"]), ("c", ["y"])])
        assert (first, third) == ([[1.0]], [[1.0]])
        assert isinstance(second, CheckpointError)

    def test_the_rerankers_own_runtime_scores(self, monkeypatch):
        met = []

        def score(weights, lists, device, precision, backend):
            met.append((device, precision, backend))
            return [np.zeros(len(texts)) for _, texts in lists]

        monkeypatch.setattr("radio_dspy.rerankers.rerank.score_lists", score)
        rerank = Rerank("all-MiniLM-L6-v2", "bi-encoder", device="cpu", precision="int8")
        rerank.backend = "onnx"
        assert self.run([("a", ["x"])], rerank) == [[[0.0]]]
        assert met == [("cpu", "int8", "onnx")]

    def test_a_pass_has_a_bound(self, passes):
        self.run([(str(number), ["x"] * 100) for number in range(4)])
        assert passes == [["0", "1"], ["2", "3"]]


@pytest.mark.parametrize("kind", [dspy.ContextWindowExceededError, dspy.LMAuthError, UnicodeError])
def test_what_a_provider_says_of_a_key_reaches_no_client(kind):
    key = "sk-MARK-of-a-provider-8"
    learn({"api_key": key, "api_base": "https://gate.example/v1"})
    said = f"refused {key}\nat https://gate.example/v1"
    reason = answer_to(kind(message=said) if kind is dspy.ContextWindowExceededError else kind(said)).reason
    assert "refused ***" in reason
    assert "gate.example" not in reason
