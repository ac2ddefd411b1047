import asyncio
import copy
import pickle
import threading

import dspy
import pytest

import radio_dspy as radio
from radio_dspy import FaissRetriever, RemoteEncoder, RemoteRerank, Rerank, RetrieveRerankAnswer
from radio_dspy.core.errors import DataError, LanguageModelError, SettingsError
from radio_dspy.core.passages import Passage
from radio_dspy.core.rankings import RankRequest
from radio_dspy.distillation.candidates.reranker_slots import slots_of
from radio_dspy.evaluation.relevance import compare
from radio_dspy.rerankers.remote import RERANK_PROVIDERS, as_reranker
from tests.conftest import ENCODER, scripted
from tests.settings import radio_of
from tests.stub_endpoints import KEY, Fault, StubEndpoint, score

QUERY = "why did the yeast die?"
TEXTS = ["Ice floats on water.", "The yeast did die in hot water.", "The dough lay in a bowl."]
PASSAGES = tuple(Passage(str(i), text) for i, text in enumerate(TEXTS))


@pytest.fixture
def stub():
    with StubEndpoint() as server:
        yield server


@pytest.fixture
def index(topic):
    """An index without a model on this machine."""
    with StubEndpoint() as other:
        encoder = RemoteEncoder("hosted_vllm/words", api_base=f"{other.url}/v1")
        yield FaissRetriever.build(topic.passages, encoder)


def remote(stub, model="hosted_vllm/BAAI/bge-reranker-v2-m3", **settings):
    return RemoteRerank(model, **{"api_base": stub.url, "api_key": KEY, **settings})


@pytest.mark.parametrize(
    "model", ["cohere/rerank-v3.5", "jina_ai/jina-reranker-v2-base-multilingual", "hosted_vllm/BAAI/bge-reranker-v2-m3"]
)
def test_scores_of_every_protocol_order_the_passages(stub, model):
    ranked = remote(stub, model)(QUERY, TEXTS)
    assert ranked.indices == [1, 2, 0]
    assert ranked.passages == [TEXTS[1], TEXTS[2], TEXTS[0]]
    assert ranked.scores == pytest.approx([score(QUERY, text) for text in ranked.passages])
    (call,) = stub.calls
    assert call.body["model"] == model.partition("/")[2]
    assert (call.body["query"], call.body["documents"], call.body["top_n"]) == (QUERY, TEXTS, 3)
    assert call.body["return_documents"] is False
    assert call.headers["authorization"] == f"Bearer {KEY}"


def test_passages_come_back_as_they_were_given_and_k_cuts(stub):
    items = [Passage("a", TEXTS[0], "Ice"), {"text": TEXTS[1]}, TEXTS[2]]
    rerank = remote(stub, k=2)
    assert rerank(QUERY, items).passages == [items[1], items[2]]
    assert stub.calls[0].body["documents"] == ["Ice\nIce floats on water.", *TEXTS[1:]]
    assert len(rerank(QUERY, items, k=1).scores) == 1
    assert len(rerank(QUERY, items, k=3).scores) == 3
    assert len(stub.calls) == 1  # k is no matter of the server's
    assert rerank(QUERY, []).passages == []
    assert len(stub.calls) == 1


def test_asynchronous_calls(stub):
    rerank = remote(stub)
    assert asyncio.run(rerank.acall(QUERY, TEXTS)).passages == rerank(QUERY, TEXTS).passages


def test_equal_scores_keep_the_order_in_which_they_came(stub):
    assert remote(stub)("nothing of it", TEXTS).indices == [0, 1, 2]


def test_many_questions_rank_as_one_by_one_and_are_asked_once(stub):
    rerank = remote(stub, num_threads=3)
    requests = [RankRequest(q, q, PASSAGES, (0.0,) * 3) for q in (QUERY, "why does ice float?", "a bowl of dough")]
    rankings = rerank.rank_all([*requests, RankRequest("none", "none", (), ())])
    assert len(stub.calls) == 3
    assert len(rankings[3]) == 0
    for request, ranking in zip(requests, rankings, strict=False):
        single = rerank(request.query, list(PASSAGES))
        assert list(ranking.passages) == single.passages
        assert list(ranking.scores) == single.scores
    assert len(stub.calls) == 3
    rerank(QUERY, TEXTS[::-1])  # another list: some rerankers read the passages side by side
    assert len(stub.calls) == 4


def test_two_models_do_not_share_a_memory_and_copies_do(stub):
    first = remote(stub)
    first(QUERY, TEXTS)
    remote(stub, "hosted_vllm/other")(QUERY, TEXTS)
    assert len(stub.calls) == 2
    for copied in (copy.deepcopy(first), first.deepcopy(), first.reset_copy()):
        assert copied is not first
        assert copied(QUERY, TEXTS).indices == [1, 2, 0]
    assert len(stub.calls) == 2


def test_threads_share_a_reranker(stub):
    rerank, results = remote(stub), {}

    def rank(number):
        results[number] = rerank(f"{QUERY} {number}", TEXTS).indices

    threads = [threading.Thread(target=rank, args=(number,)) for number in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert results == {number: [1, 2, 0] for number in range(8)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[:-1], "of 3 passages it scored those numbered 1, 2"),
        (lambda rows: [rows[0], rows[0], rows[1]], "of 3 passages it scored those numbered 1, 1, 2"),
        (lambda rows: [*rows, rows[0]], "of 3 passages it scored those numbered 0, 1, 1, 2"),
        (lambda rows: [{**row, "index": row["index"] + 1} for row in rows], "numbered 1, 2, 3"),
        (lambda rows: [{**row, "relevance_score": float("nan")} for row in rows], "no finite number"),
    ],
)
def test_every_passage_needs_one_score(stub, change, message):
    stub.change = lambda reply: {**reply, "results": change(reply["results"])}
    with pytest.raises(LanguageModelError, match=f"bge-reranker-v2-m3 failed: .*{message}"):
        remote(stub)(QUERY, TEXTS)


@pytest.mark.parametrize("model", ["cohere/r", "jina_ai/r", "hosted_vllm/r"])
def test_a_busy_server_is_asked_again_and_a_wrong_key_is_not(stub, model, waited, caplog):
    stub.faults.append(Fault(429, "0.02"))
    assert remote(stub, model)(QUERY, TEXTS).indices == [1, 2, 0]
    assert waited == [0.02]
    stub.calls.clear()
    stub.faults.append(Fault(401, text=f"Incorrect API key: {KEY}"))
    rerank = remote(stub, model)
    with pytest.raises(LanguageModelError, match=f"{model} failed: .*Give api_key=.*_API_KEY") as caught:
        rerank(QUERY, TEXTS)
    assert len(stub.calls) == 1
    assert KEY not in str(caught.value) + repr(rerank) + caplog.text


def test_what_cannot_be_reranked(stub):
    with pytest.raises(DataError, match="Passage 1 holds no text"):
        remote(stub)(QUERY, ["text", {"id": 7}])
    with pytest.raises(SettingsError, match="k must be at least 1"):
        remote(stub, k=0)
    with pytest.raises(SettingsError, match="k must be at least 1"):
        remote(stub)(QUERY, TEXTS, k=0)
    with pytest.raises(SettingsError, match="num_threads must be at least 1"):
        remote(stub, num_threads=0)
    with pytest.raises(SettingsError, match="names no provider"):
        RemoteRerank("rerank-v3.5")
    with pytest.raises(LanguageModelError, match=r"ollama/r failed: .*Unsupported provider"):
        RemoteRerank("ollama/r", num_retries=0)(QUERY, TEXTS)


def test_addresses_come_from_the_environment(stub, monkeypatch):
    for provider, path in (("COHERE", ""), ("JINA_AI", "/v1"), ("HOSTED_VLLM", "/v1")):  # the two: as for embeddings
        monkeypatch.setenv(f"{provider}_API_BASE", f"{stub.url}{path}")
        monkeypatch.setenv(f"{provider}_API_KEY", KEY)
    for model in ("cohere/r", "jina_ai/r", "hosted_vllm/r"):
        assert RemoteRerank(model, num_retries=0)(QUERY, TEXTS).indices == [1, 2, 0]
    assert len(stub.calls) == 3


def test_no_saved_state_holds_address_or_key(stub, index, tmp_path):
    program = RetrieveRerankAnswer(index, remote(stub), candidates=5, k=2)
    assert program.rerank.dump_state() == {}
    program.save(tmp_path / "program.json")
    program.save(tmp_path / "whole", save_program=True)
    stored = pickle.dumps(program.rerank)
    for content in [stored, *(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())]:
        assert KEY.encode() not in content
        assert b"127.0.0.1" not in content
    with pytest.raises(SettingsError, match="its address is never saved; make it again with api_base="):
        pickle.loads(stored)(QUERY, TEXTS)
    fresh = RetrieveRerankAnswer(index, remote(stub))
    fresh.load(tmp_path / "program.json")
    assert fresh.rerank(QUERY, TEXTS).indices == [1, 2, 0]
    with pytest.raises(SettingsError, match="holds no Rerank"):
        radio.save(program, tmp_path / "saved")


def test_it_serves_inside_a_program(stub, index, topic):
    program = RetrieveRerankAnswer(index, remote(stub), candidates=5, k=2)
    with dspy.context(lm=scripted(answer="hot water")):
        found = program(question=topic.train[0].question)
    assert len(found.passages) == 2
    assert len(stub.calls[0].texts) == 5


def test_it_cannot_be_trained_and_the_error_says_what_it_is_good_for(stub, index, topic):
    program = RetrieveRerankAnswer(index, remote(stub), candidates=5)
    message = r"self\.rerank is a RemoteRerank, and a hosted reranker cannot be trained.*RerankerScore\(remote\)"
    with pytest.raises(SettingsError, match=message):
        radio_of().compile(program, trainset=topic.train)
    program.second = Rerank(ENCODER, "bi-encoder")
    assert [slot.name for slot in slots_of(program)] == ["self.second"]
    assert stub.calls == []


def test_it_is_a_row_to_compare_with(stub):
    request = RankRequest("q", QUERY, PASSAGES, (0.9, 0.8, 0.7), relevant=frozenset({"1"}))
    rows = {"first_stage": [request.ranking()], "cohere": remote(stub, "cohere/r").rank_all([request])}
    values = compare(rows, [request])
    assert values["cohere"]["mrr"] == 1.0
    assert values["first_stage"]["mrr"] == 0.5


def test_names_of_litellm_are_told_from_folders_and_hub_names(tmp_path, monkeypatch):
    import litellm

    assert set(RERANK_PROVIDERS) <= {provider.value for provider in litellm.LlmProviders}
    assert as_reranker("hosted_vllm/BAAI/bge-reranker-v2-m3").model == "hosted_vllm/BAAI/bge-reranker-v2-m3"
    assert as_reranker("BAAI/bge-reranker-base").weights.checkpoint == "BAAI/bge-reranker-base"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cohere" / "mine").mkdir(parents=True)
    (tmp_path / "cohere" / "mine" / "config.json").write_text('{"architectures": ["BertForSequenceClassification"]}')
    assert isinstance(as_reranker("cohere/mine"), Rerank)
