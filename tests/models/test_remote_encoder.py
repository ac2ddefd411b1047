import copy
import json
import os
import pickle
import re
import signal
import sqlite3
import sys
import threading
import traceback

import numpy as np
import pytest

from radio_dspy import FaissRetriever, Gate, RemoteEncoder, Rerank, RetrieveRerankAnswer, aligned_retriever
from radio_dspy.core.errors import CheckpointError, LanguageModelError, SettingsError
from radio_dspy.core.passages import Passage
from radio_dspy.core.rankings import RankRequest
from radio_dspy.distillation import AnswerSimilarity, RationaleSimilarity
from radio_dspy.distillation.gate.splitting import question_groups
from radio_dspy.models.encoder import Encoder
from radio_dspy.models.endpoint import Recent
from radio_dspy.models.open_encoder import EMBEDDING_PROVIDERS, as_encoder
from radio_dspy.models.vector_cache import VectorFile
from radio_dspy.retrievers.aligned import same_passage_side
from tests.conftest import ENCODER
from tests.settings import radio_of
from tests.stub_endpoints import DIMENSIONS, KEY, Fault, StubEndpoint, vector

TEXTS = ["Ice floats on water.", "Yeast dies in hot water.", "The dough lay in a bowl.", "Salt melts ice."]
PASSAGES = [Passage(str(i), text) for i, text in enumerate(TEXTS)]


@pytest.fixture
def stub():
    with StubEndpoint() as server:
        yield server


def remote(stub, model="hosted_vllm/words", path="/v1", **settings):
    return RemoteEncoder(model, **{"api_base": f"{stub.url}{path}", "api_key": KEY, "num_threads": 1, **settings})


def unit(text, dimensions=DIMENSIONS):
    found = np.array(vector(text, dimensions), dtype=np.float32)
    return found / np.linalg.norm(found)


PROVIDERS = [
    ("openai/text-embedding-3-small", "/v1"),
    ("hosted_vllm/words", "/v1"),
    ("ollama/nomic-embed-text", ""),
    ("cohere/embed-english-v3.0", "/v2/embed"),
    ("jina_ai/jina-embeddings-v3", "/v1"),
    ("mistral/mistral-embed", "/v1"),
    ("voyage/voyage-3", "/v1"),
]


@pytest.mark.parametrize(("model", "path"), PROVIDERS)
def test_vectors_of_every_protocol_are_unit_length_float32_and_in_order(stub, model, path):
    vectors = remote(stub, model, path).encode_passages([*PASSAGES, "Bread"])
    assert vectors.dtype == np.float32
    assert vectors.flags.c_contiguous
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1] * 5, abs=1e-6)
    assert vectors == pytest.approx(np.stack([unit(text) for text in [*TEXTS, "Bread"]]), abs=1e-6)
    (call,) = stub.calls
    assert call.body["model"] == model.partition("/")[2]
    assert call.headers.get("authorization") == f"Bearer {KEY}" or model.startswith("ollama")


def test_texts_go_out_in_batches_and_each_distinct_text_once(stub):
    encoder = remote(stub, batch_size=2)
    vectors = encoder.encode_passages([*TEXTS, TEXTS[0], "Bread", TEXTS[1]])
    assert [call.texts for call in stub.calls] == [TEXTS[:2], TEXTS[2:], ["Bread"]]
    assert vectors[4].tolist() == vectors[0].tolist()
    assert vectors[6].tolist() == vectors[1].tolist()
    assert encoder.encode_passages(["Salt melts ice.", "Bread"]).shape == (2, DIMENSIONS)
    assert len(stub.calls) == 3
    encoder.encode_passages(["Bread", "Butter"])
    assert stub.calls[-1].texts == ["Butter"]
    assert encoder.encode_queries([]).shape == (0, DIMENSIONS)


@pytest.mark.parametrize(
    "change",
    [lambda rows: rows[::-1], lambda rows: [{**row, "index": None} for row in rows]],
    ids=["its index decides the order", "a server that numbers nothing is taken in its order"],
)
def test_vectors_are_those_of_their_texts(stub, change):
    stub.change = lambda reply: {**reply, "data": change(reply["data"])}
    assert remote(stub).encode_queries(TEXTS) == pytest.approx(np.stack([unit(text) for text in TEXTS]), abs=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[:-1], "2 texts were sent, 1 different vectors came back"),
        (lambda rows: [rows[0], rows[0]], "2 texts were sent, 1 different vectors came back"),
        (lambda rows: [{**row, "index": row["index"] + 1} for row in rows], "2 texts were sent, 1 different"),
        (lambda rows: [{**row, "embedding": [0.0, 0.0]} for row in rows], "the vector of number 0 is zero"),
        (lambda rows: [rows[0], {**rows[1], "embedding": [1.0]}], "not lists of numbers of one length"),
        (lambda rows: [{**row, "embedding": "no"} for row in rows], "not lists of numbers of one length"),
        (lambda rows: [], "2 texts were sent, 0 different vectors"),
        (lambda rows: [None, None], "not lists of numbers of one length"),
        (lambda rows: ["ab", "cd"], "not lists of numbers of one length"),
        (lambda rows: [[1.0], [2.0]], "not lists of numbers of one length"),
        (lambda rows: {"a": 1}, "not lists of numbers of one length"),
        (lambda rows: [{**row, "index": [0]} for row in rows], "not lists of numbers of one length"),
        (lambda rows: [{**row, "embedding": [10**400, 1]} for row in rows], "not lists of numbers of one length"),
        (lambda rows: [{**row, "embedding": [[1.0, 2.0]]} for row in rows], r"vectors of shape \(2, 1, 2\)"),
        (lambda rows: [{**row, "embedding": [None, 1.0]} for row in rows], "no finite number"),
        (lambda rows: [{**row, "embedding": []} for row in rows], "vectors of 0 dimensions"),
    ],
)
def test_replies_that_do_not_fit_the_texts_are_an_error_and_spoil_no_cache(stub, tmp_path, change, message):
    """What was paid for before stays readable, and the next good reply is taken."""
    file = tmp_path / "vectors.sqlite"
    remote(stub, cache=file).encode_queries(["ice"])
    encoder = remote(stub, cache=file)
    stub.change = lambda reply: {**reply, "data": change(reply["data"])}
    with pytest.raises(LanguageModelError, match=f"hosted_vllm/words failed: .*{message}"):
        encoder.encode_queries(TEXTS[:2])
    stub.change = lambda reply: reply
    assert encoder.encode_queries(["ice", TEXTS[0]]).shape == (2, DIMENSIONS)


@pytest.mark.parametrize("size", [1e30, 1e-30])
def test_lengths_that_float32_cannot_square(stub, size):
    stub.change = lambda reply: {**reply, "data": [{**row, "embedding": [size, size]} for row in reply["data"]]}
    assert remote(stub).encode_queries(["ice"])[0] == pytest.approx([0.5**0.5] * 2)


def test_vectors_of_other_weights_are_not_kept_beside_older_ones(stub, tmp_path):
    file = tmp_path / "vectors.sqlite"
    remote(stub, cache=file).encode_queries(["ice"])
    stub.change = lambda reply: {**reply, "data": [{**row, "embedding": [1.0, 2.0]} for row in reply["data"]]}
    with pytest.raises(LanguageModelError, match="2 dimensions where 32 came before"):
        remote(stub, cache=file).encode_queries(["ice", "salt"])
    stub.change = lambda reply: reply
    assert remote(stub, cache=file).encode_queries(["ice", "salt"]).shape == (2, DIMENSIONS)


WRONG = {
    "batch_size": [2.5, "64"],
    "num_threads": [1.5],
    "dimensions": ["8", True],
    "num_retries": [2.5, float("nan"), "3"],
    "timeout": [float("nan"), "60", None],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_settings_of_another_type(name, value):
    with pytest.raises(SettingsError, match="whole"):
        RemoteEncoder("openai/e", **{name: value})


@pytest.mark.parametrize("name", [None, 5, b"openai/e"])
def test_a_name_that_is_none(name):
    with pytest.raises(SettingsError, match="names no provider"):
        RemoteEncoder(name)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(
    "kept", [lambda folder: Recent(9), lambda folder: VectorFile(folder / "v")], ids=["memory", "file"]
)
def test_a_forked_child_reads_and_keeps_vectors(tmp_path, kept):
    """Another thread holds the lock when the process forks, and does not exist in the child."""
    store, vector = kept(tmp_path), np.array([0.6, 0.8], dtype=np.float32)
    store.write({b"a": vector})
    held, done = threading.Event(), threading.Event()

    def hold():
        with store._lock:
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    child = os.fork()
    if child == 0:
        signal.alarm(10)  # a child that waits without end is ended
        store.write({b"b": vector})
        os._exit(0 if len(store.read([b"a", b"b"])) == 2 else 1)
    done.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0
    assert store.read([b"a"])[b"a"].tolist() == vector.tolist()


def test_dimensions_are_asked_for_and_held_against_the_reply(stub):
    assert remote(stub, "openai/text-embedding-3-small", dimensions=8).encode_queries(["ice"]).shape == (1, 8)
    assert stub.calls[-1].body["dimensions"] == 8
    remote(stub, "cohere/embed-v4.0", "/v2/embed", dimensions=16).encode_queries(["ice"])
    assert stub.calls[-1].body["output_dimension"] == 16
    with pytest.raises(LanguageModelError, match="32 dimensions where 8 were asked for"):
        remote(stub, "ollama/words", "", dimensions=8).encode_queries(["ice"])  # this server pays no heed
    with pytest.raises(LanguageModelError, match=r"mistral does not support parameters: .'dimensions': 8"):
        remote(stub, "mistral/mistral-embed", dimensions=8).encode_queries(["ice"])


def test_vectors_that_change_their_length_are_an_error(stub, tmp_path):
    encoder = remote(stub)
    encoder.encode_queries(["ice"])
    shorter = lambda reply: {**reply, "data": [{**row, "embedding": [1.0, 2.0]} for row in reply["data"]]}  # noqa: E731
    stub.change = shorter
    with pytest.raises(LanguageModelError, match="2 dimensions where 32 came before; if other weights stand behind"):
        encoder.encode_queries(["salt"])
    stub.change = lambda reply: reply
    remote(stub, cache=tmp_path / "vectors.sqlite").encode_queries(["ice"])
    stub.change = shorter
    with pytest.raises(LanguageModelError, match="with another cache file"):
        remote(stub, cache=tmp_path / "vectors.sqlite").encode_queries(["ice", "salt"])


ROLES = [
    ("cohere/embed-english-v3.0", "/v2/embed", "input_type", "search_query", "search_document"),
    ("jina_ai/jina-embeddings-v3", "/v1", "task", "retrieval.query", "retrieval.passage"),
    ("nvidia_nim/nv-embedqa-e5-v5", "/v1", "input_type", "query", "passage"),
    ("voyage/voyage-3", "/v1", "input_type", "query", "document"),
]


@pytest.mark.parametrize(("model", "path", "name", "query", "passage"), ROLES)
def test_queries_and_passages_are_told_apart_where_the_provider_does(stub, model, path, name, query, passage):
    encoder = remote(stub, model, path)
    encoder.encode_queries(["ice"])
    encoder.encode_passages(["ice"])
    assert [call.body[name] for call in stub.calls] == [query, passage]


def test_gemini_is_told_its_task(stub):
    encoder = remote(stub, "gemini/gemini-embedding-001", "/v1beta")
    vectors = [encoder.encode_queries(["ice"]), encoder.encode_passages(["ice"])]
    assert [call.body["requests"][0]["taskType"] for call in stub.calls] == ["RETRIEVAL_QUERY", "RETRIEVAL_DOCUMENT"]
    assert vectors[1][0] == pytest.approx(unit("ice"), abs=1e-6)


def test_options_of_ones_own_and_none_at_all(stub):
    encoder = remote(stub, query_options={"input_type": "question"}, query_prefix="query: ", passage_prefix="text: ")
    encoder.encode_queries(["ice"])
    encoder.encode_passages(["ice"])
    assert [call.body.get("input_type") for call in stub.calls] == ["question", None]
    assert stub.texts == ["query: ice", "text: ice"]
    plain = remote(stub, "voyage/voyage-3", query_options={}, passage_options={})
    plain.encode_queries(["ice"])
    assert "input_type" not in stub.calls[-1].body


def test_what_cannot_be_set():
    with pytest.raises(SettingsError, match=r"take input_type, prompt_name, .*; got \['api_key'\]"):
        RemoteEncoder("openai/e", query_options={"api_key": KEY})
    for settings in ({"batch_size": 0}, {"num_threads": 0}, {"dimensions": 0}):
        with pytest.raises(SettingsError, match="must be at least 1"):
            RemoteEncoder("openai/e", **settings)
    with pytest.raises(SettingsError, match="num_retries >= 0"):
        RemoteEncoder("openai/e", num_retries=-1)
    for name in ("text-embedding-3-small", "openai/", "/e"):
        with pytest.raises(SettingsError, match="names no provider"):
            RemoteEncoder(name)


# Cache


def test_models_prefixes_options_and_dimensions_do_not_share_a_cache(stub, tmp_path):
    file = tmp_path / "vectors.sqlite"
    kinds = [
        {"model": "hosted_vllm/words"},
        {"model": "hosted_vllm/others"},
        {"dimensions": 8},
        {"passage_prefix": "passage: "},
        {"passage_options": {"input_type": "passage"}},
    ]
    for number, kind in enumerate(kinds, start=1):
        remote(stub, cache=file, **kind).encode_passages(["ice"])
        assert len(stub.calls) == number
    for kind in kinds:
        remote(stub, cache=file, **kind).encode_passages(["ice"])
    assert len(stub.calls) == len(kinds)
    remote(stub).encode_passages(["ice"])  # no file: another encoder's memory is not this one's
    assert len(stub.calls) == len(kinds) + 1


def test_a_file_serves_later_instances_with_the_same_vectors(stub, tmp_path):
    file = tmp_path / "deep" / "vectors.sqlite"
    first = remote(stub, cache=file).encode_passages(TEXTS)
    again = remote(stub, cache=str(file)).encode_passages(TEXTS)
    assert len(stub.calls) == 1
    assert again.tolist() == first.tolist()
    content = file.read_bytes()
    assert KEY.encode() not in content
    assert stub.url.encode() not in content
    assert b"Yeast" not in content


def test_batches_that_came_before_a_failure_are_kept(stub, tmp_path):
    stub.change = lambda reply: reply if len(stub.calls) < 2 else {**reply, "data": []}
    with pytest.raises(LanguageModelError):
        remote(stub, batch_size=2, cache=tmp_path / "v.sqlite").encode_passages(TEXTS)
    stub.change = lambda reply: reply
    stub.calls.clear()
    remote(stub, batch_size=2, cache=tmp_path / "v.sqlite").encode_passages(TEXTS)
    assert stub.texts == TEXTS[2:]


def test_threads_share_an_encoder_and_a_file(stub, tmp_path):
    encoder = remote(stub, cache=tmp_path / "v.sqlite", batch_size=3, num_threads=4)
    texts = [f"text number {i}" for i in range(40)]
    expected = np.stack([unit(text) for text in texts])
    results, errors = [], []

    def encode(shift):
        order = texts[shift:] + texts[:shift]
        try:
            results.append((shift, encoder.encode_passages(order)))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=encode, args=(7 * i,)) for i in range(5)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert errors == []
    for shift, vectors in results:
        assert np.roll(vectors, shift, axis=0) == pytest.approx(expected, abs=1e-6)
    stub.calls.clear()
    assert encoder.encode_passages(texts) == pytest.approx(expected, abs=1e-6)
    assert stub.calls == []


def test_several_requests_are_in_flight(stub):
    together = threading.Barrier(3, timeout=10)  # opens when three requests wait at it

    def wait(reply):
        together.wait()
        return reply

    stub.change = wait
    vectors = remote(stub, batch_size=1, num_threads=3).encode_passages(TEXTS[:3])
    assert vectors == pytest.approx(np.stack([unit(text) for text in TEXTS[:3]]), abs=1e-6)


def test_files_of_something_else_are_named(tmp_path):
    (tmp_path / "text").write_text("no database at all, but long enough to have a header " * 3)
    with pytest.raises(CheckpointError, match=r"text: not a file of vectors, or damaged \(file is not a database\)"):
        VectorFile(tmp_path / "text")
    other = sqlite3.connect(tmp_path / "other.sqlite")
    other.execute("CREATE TABLE notes (text)")
    other.close()
    with pytest.raises(CheckpointError, match=r"other\.sqlite: an SQLite file, but none of vectors"):
        RemoteEncoder("openai/e", cache=tmp_path / "other.sqlite")
    with pytest.raises(SettingsError, match=r"is there, and is no file"):
        VectorFile(tmp_path)


def test_a_newer_format_and_damage_are_named(tmp_path):
    VectorFile(tmp_path / "v").write({bytes([i]) * 32: np.ones(10, dtype=np.float32) for i in range(100)})
    whole = (tmp_path / "v").read_bytes()
    (tmp_path / "v").write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))  # the first page is the header
    with pytest.raises(CheckpointError, match="or damaged"):
        VectorFile(tmp_path / "v").read([bytes([i]) * 32 for i in range(100)])
    (tmp_path / "v").write_bytes(whole)
    database = sqlite3.connect(tmp_path / "v")
    database.execute("UPDATE vectors SET vector = x'000102'")
    database.commit()
    with pytest.raises(CheckpointError, match="or damaged"):
        VectorFile(tmp_path / "v").read([bytes(32)])
    database.execute("PRAGMA user_version = 9")
    database.close()
    with pytest.raises(CheckpointError, match="vectors in format 9; this release reads up to 1"):
        VectorFile(tmp_path / "v")


def test_memory_keeps_what_was_asked_for_lately():
    recent = Recent(2)
    recent.write({b"a": 1, b"b": 2})
    recent.read([b"a"])
    recent.write({b"c": 3})
    assert recent.read([b"a", b"b", b"c"]) == {b"a": 1, b"c": 3}
    assert len(pickle.loads(pickle.dumps(recent))) == 0


# Failures

OURS = [("hosted_vllm/words", "/v1"), ("ollama/words", ""), ("cohere/words", "/v2/embed"), ("jina_ai/words", "/v1")]


@pytest.mark.parametrize(("model", "path"), [*OURS, ("openai/words", "/v1")])
def test_a_busy_server_is_asked_again_after_the_time_that_it_names(stub, model, path, waited):
    stub.faults.extend([Fault(429, "0.02"), Fault(503, "0.01")])
    assert remote(stub, model, path).encode_queries(["ice"])[0] == pytest.approx(unit("ice"), abs=1e-6)
    assert len(stub.calls) == 3
    # OpenAI's own client asks once more, and waits by itself.
    assert waited == ([0.01] if model.startswith("openai/") else [0.02, 0.01])


def test_without_a_named_time_the_waits_grow(stub, waited):
    stub.faults.extend([Fault(500), Fault(429), Fault(502, "Wed, 21 Oct 2026 07:28:00 GMT"), Fault(500)])
    with pytest.raises(LanguageModelError, match=r"hosted_vllm/words failed: .*Check the address"):
        remote(stub).encode_queries(["ice"])
    assert waited == [0.5, 1.0, 2.0]
    assert len(stub.calls) == 4


def test_a_provider_that_asks_for_an_hour_is_not_waited_for(stub):
    stub.faults.append(Fault(429, "3600"))
    with pytest.raises(LanguageModelError, match="Wait, or ask less at a time"):
        remote(stub).encode_queries(["ice"])
    assert len(stub.calls) == 1


@pytest.mark.parametrize(("model", "path"), [*OURS, ("openai/words", "/v1"), ("mistral/words", "/v1")])
def test_a_wrong_key_is_not_tried_again_and_no_message_holds_it(stub, model, path, monkeypatch):
    monkeypatch.setenv("SOME_OTHER_API_KEY", "another-secret-value")
    stub.faults.append(Fault(401, text=f"Incorrect API key: {KEY}, another-secret-value"))
    encoder = remote(stub, model, path)
    with pytest.raises(LanguageModelError) as caught:
        encoder.encode_queries(["ice"])
    assert len(stub.calls) == 1
    said = str(caught.value)
    variable = f"{model.partition('/')[0].upper()}_API_KEY"
    assert re.search(rf"{model} failed: .*Incorrect API key: .*\*\*\*.*Give api_key=.* {variable}", said)
    shown = "".join(traceback.format_exception(caught.value)) + repr(encoder) + repr(encoder._endpoint)
    assert KEY not in shown
    assert "another-secret-value" not in shown


def test_a_word_given_as_a_key_is_no_secret(stub):
    with pytest.raises(LanguageModelError, match="NotFoundError"):
        remote(stub, path="/v9", api_key="Error").encode_queries(["ice"])


def test_a_server_that_is_silent_or_away_is_named(stub):
    stub.faults.extend([Fault(), Fault()])
    with pytest.raises(LanguageModelError, match=r"hosted_vllm/words failed: .*imed out.*Check the address"):
        remote(stub, timeout=0.2, num_retries=0).encode_queries(["ice"])
    assert len(stub.calls) == 1
    away = RemoteEncoder("hosted_vllm/words", api_base="http://127.0.0.1:9/v1", num_retries=0)
    with pytest.raises(LanguageModelError, match=r"hosted_vllm/words failed: .*refused.*Check the address"):
        away.encode_queries(["ice"])


def test_a_missing_key_and_a_wrong_address_are_named_at_once(stub, monkeypatch, waited):
    monkeypatch.delenv("MISTRAL_API_KEY", raising=False)
    with pytest.raises(LanguageModelError, match=r"mistral/words failed: .*Missing credentials.*MISTRAL_API_KEY"):
        RemoteEncoder("mistral/words", api_base=f"{stub.url}/v1").encode_queries(["ice"])
    assert stub.calls == []
    with pytest.raises(LanguageModelError, match=r"Check the name of the model and the address"):
        remote(stub, path="/v9").encode_queries(["ice"])
    with pytest.raises(LanguageModelError, match=r"nobody/words failed: .*LLM Provider NOT provided"):
        RemoteEncoder("nobody/words").encode_queries(["ice"])
    assert waited == []


def test_the_first_failure_of_several_threads_is_raised(stub):
    stub.change = lambda reply: {**reply, "data": []}
    with pytest.raises(LanguageModelError, match="1 texts were sent, 0 different"):
        remote(stub, batch_size=1, num_threads=2, num_retries=0).encode_queries([f"text {i}" for i in range(30)])
    assert len(stub.calls) < 30


# The face of an encoder


def test_windows_that_litellm_knows_and_rough_lengths():
    assert RemoteEncoder("openai/text-embedding-3-small").window == 8191
    assert RemoteEncoder("hosted_vllm/words").window is None
    assert RemoteEncoder("openai/gpt-4o-mini").window is None  # no embedding model
    assert RemoteEncoder("openai/text-embedding-3-small").count_tokens("Yeast dies in hot water.") == 6
    assert RemoteEncoder("openai/text-embedding-3-small").count_tokens("") == 0


def test_names_of_litellm_are_told_from_folders_and_hub_names(tmp_path, monkeypatch):
    import litellm

    assert set(EMBEDDING_PROVIDERS) <= {provider.value for provider in litellm.LlmProviders}
    for name in ("openai/text-embedding-3-small", "azure/my/deployment", "openai/clip-vit-base-patch32"):
        encoder = as_encoder(name, query_prefix="q: ")
        assert isinstance(encoder, RemoteEncoder)
        assert (encoder.name, encoder.query_prefix) == (name, "q: ")
    for name in (ENCODER, "BAAI/bge-small-en-v1.5", "openai", "OpenAI/e"):
        assert isinstance(as_encoder(name), Encoder)
    assert isinstance(Encoder("openai/clip-vit-base-patch32"), Encoder)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "openai" / "mine").mkdir(parents=True)
    assert isinstance(as_encoder("openai/mine"), Encoder)
    given = RemoteEncoder("openai/e")
    assert as_encoder(given) is given


def test_it_serves_whatever_needs_vectors(stub):
    encoder = remote(stub)
    request = RankRequest("q", "Why did it melt?", tuple(PASSAGES), (0.4, 0.3, 0.2, 0.1), ("salt",), "Salt melts ice.")
    assert RationaleSimilarity(encoder).score([request])[0].argmax() == 3
    assert AnswerSimilarity(encoder).score([request])[0].argmax() == 3
    assert question_groups(["why ice?", "why ice?", "who baked it?"], encoder) == [0, 0, 2]


def test_local_weights_alone_can_be_trained():
    for architecture in ("bi-encoder", "cross-encoder"):
        with pytest.raises(SettingsError, match="openai/e is asked for vectors and has no weights here"):
            Rerank(RemoteEncoder("openai/e"), architecture)
    assert not same_passage_side(Rerank(ENCODER, "bi-encoder").weights, RemoteEncoder("azure/a/b"))


def test_a_local_reranker_is_trained_on_a_hosted_first_stage(stub, topic, small, tmp_path):
    index = FaissRetriever.build(topic.passages, remote(stub))
    student = RetrieveRerankAnswer(index, Rerank(small, "bi-encoder"), candidates=5)
    settings = {"candidates": 6, "epochs": 1, "max_length": 64, "tower": "query"}
    optimizer = radio_of(gate=False, run_dir=tmp_path, **settings)
    aligned = optimizer.compile(student, trainset=topic.train[:12], valset=topic.test)
    assert aligned.rerank.weights.passage_checkpoint == small.name
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or b"127.0.0.1" not in file.read_bytes()
    with pytest.raises(SettingsError, match="from the same local encoder"):
        aligned_retriever(aligned)
    with pytest.raises(SettingsError, match="starts from the local encoder of its vectors"):
        radio_of(gate=Gate(retrieval=True), **settings).compile(student, trainset=topic.train[:12], valset=topic.test)


# Copies and saved things


def test_copies_are_the_same_object_and_a_pickle_holds_no_secret(stub, tmp_path):
    encoder = remote(stub, cache=tmp_path / "v.sqlite")
    assert copy.deepcopy(encoder) is copy.copy(encoder) is encoder
    stored = pickle.dumps(encoder)
    assert KEY.encode() not in stored
    assert stub.url.encode() not in stored
    assert str(tmp_path).encode() not in stored
    back = pickle.loads(stored)
    assert back.identity == encoder.identity
    with pytest.raises(SettingsError, match="its address is never saved; make it again with api_base="):
        back.encode_queries(["ice"])


def test_an_index_is_saved_and_opened_again_by_name_alone(stub, tmp_path, monkeypatch):
    monkeypatch.setenv("HOSTED_VLLM_API_BASE", f"{stub.url}/v1")
    monkeypatch.setenv("HOSTED_VLLM_API_KEY", KEY)
    encoder = RemoteEncoder(
        "hosted_vllm/words", dimensions=16, query_prefix="query ", passage_prefix="text ",
        query_options={"input_type": "query"},
    )  # fmt: skip
    built = FaissRetriever.build(PASSAGES, encoder)
    built.save(tmp_path)
    for file in tmp_path.iterdir():
        assert KEY.encode() not in file.read_bytes()
        assert b"127.0.0.1" not in file.read_bytes()
    loaded = FaissRetriever.load(tmp_path)
    assert isinstance(loaded.encoder, RemoteEncoder)
    stub.calls.clear()
    found = loaded("does ice float on water?", k=4)
    assert stub.calls[0].body["input"] == ["query does ice float on water?"]
    assert (stub.calls[0].body["dimensions"], stub.calls[0].body["input_type"]) == (16, "query")
    assert found.scores == pytest.approx(built("does ice float on water?", k=4).scores, abs=1e-6)
    assert found.passages[0].id == "0"
    assert FaissRetriever.load(tmp_path, RemoteEncoder("hosted_vllm/words", dimensions=16, passage_prefix="text "))
    with pytest.raises(CheckpointError, match="built with encoder"):
        FaissRetriever.load(tmp_path, "hosted_vllm/words")
    with pytest.raises(CheckpointError, match="built with encoder"):
        FaissRetriever.load(tmp_path, ENCODER)


def test_an_address_given_by_hand_has_to_be_given_again(stub, tmp_path):
    FaissRetriever.build(PASSAGES, remote(stub)).save(tmp_path)
    assert "127.0.0.1" not in json.dumps(json.loads((tmp_path / "manifest.json").read_text()))
    with pytest.raises(CheckpointError, match=r"give encoder=RemoteEncoder\('hosted_vllm/words', api_base=\.\.\.\)"):
        FaissRetriever.load(tmp_path)
    loaded = FaissRetriever.load(tmp_path, encoder=remote(stub))
    assert loaded("yeast", k=1).passages[0].id == "1"
    assert loaded.deepcopy()("yeast", k=1).passages[0].id == "1"


def test_building_an_index_shows_progress_on_a_terminal(stub, capsys, monkeypatch):
    FaissRetriever.build(PASSAGES, remote(stub, batch_size=1), show_progress=True)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    FaissRetriever.build(PASSAGES, remote(stub, batch_size=1), show_progress=True)
    shown = capsys.readouterr().err
    assert "hosted_vllm/words" in shown
    assert "4/4" in shown
