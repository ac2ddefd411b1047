import asyncio

import dspy
import pytest
from dspy.utils import DummyLM
from radio_dspy.programs import MultiHop

from radio_dspy.core.errors import SettingsError
from radio_dspy.core.passages import Passage
from radio_dspy.evaluation.metrics import dspy_metric, exact_match
from radio_dspy.rerankers import NoRerank, Rerank
from radio_dspy.retrievers import FaissRetriever
from tests.conftest import scripted

QUESTION = "In which town was the author of The Salt Road born?"
NEXT = "birthplace of Ann Lund"
PASSAGES = [
    Passage("author", "The Salt Road is a novel by Ann Lund."),
    Passage("reviews", "The Salt Road was praised by reviewers in every town."),
    Passage("film", "A film of the novel The Salt Road was never made."),
    Passage("born", "Lund's birthplace is Kiel."),
    Passage("school", "Ann Lund went to school by the harbour."),
    Passage("ice", "Ice floats on water."),
]


@pytest.fixture(scope="module")
def library(encoder):
    return FaissRetriever.build(PASSAGES, encoder=encoder)


@pytest.fixture
def rerank(encoder):
    return Rerank(encoder, architecture="bi-encoder")


def hopper(library, rerank, **settings):
    return MultiHop(library, rerank, **{"candidates": 6, "k": 2, **settings})


def ids(result):
    return [one.id for one in result.passages]


def test_every_hop_searches_and_reranks_with_its_own_query(library, rerank):
    lm = DummyLM([{"query": f" {NEXT}\n"}, {"answer": "Kiel"}])
    with dspy.context(lm=lm):
        result = hopper(library, rerank)(question=QUESTION)
    first = rerank(QUESTION, PASSAGES, k=2)
    second = rerank(NEXT, [one for one in PASSAGES if one not in first.passages], k=2)
    assert result.answer == "Kiel"
    assert result.queries == [QUESTION, NEXT]
    assert result.passages == first.passages + second.passages
    assert result.scores == pytest.approx(first.scores + second.scores)
    assert ids(result)[2] == "born"
    # Neither the question's ranking nor the union's would have put them there.
    assert result.passages != rerank(QUESTION, PASSAGES, k=4).passages
    assert result.scores != sorted(result.scores, reverse=True)


def test_the_lm_reads_what_was_kept_hop_after_hop(library, rerank):
    lm = DummyLM([{"query": NEXT}, {"answer": "Kiel"}])
    with dspy.context(lm=lm):
        result = hopper(library, rerank)(question=QUESTION)
    asking, answering = [one["messages"][-1]["content"] for one in lm.history]
    assert QUESTION in asking
    assert [one.text in asking for one in result.passages] == [True, True, False, False]
    places = [answering.index(one.text) for one in result.passages]
    assert places == sorted(places)


def test_candidates_are_what_a_hop_retrieves(library):
    """Without reranking the first stage's order stands, and a hop finds nothing beyond its candidates."""
    query = "Ann Lund, author of The Salt Road"
    with dspy.context(lm=DummyLM([{"query": query}, {"answer": "x"}])):
        result = hopper(library, NoRerank(), candidates=2)(question=QUESTION)
    first, second = library(QUESTION, k=2).passages, library(query, k=2).passages
    assert result.passages == first + [one for one in second if one not in first]
    assert len(result.passages) == 3


@pytest.mark.parametrize(
    "reply",
    [
        "DONE",
        "done.",
        "**DONE**",
        "DONE: the passages suffice",
        "",
        "  ",
        "?",
        QUESTION,
        "in which  town was the author of the salt road born",
        "In which town was the author of The Salt Road born\uff1f",
    ],
)
def test_the_search_ends_when_there_is_no_new_query(library, rerank, reply):
    lm = DummyLM([{"query": reply}, {"answer": "Kiel"}])
    with dspy.context(lm=lm):
        result = hopper(library, rerank, hops=3)(question=QUESTION)
    assert (result.answer, result.queries, len(result.passages)) == ("Kiel", [QUESTION], 2)
    assert len(lm.history) == 2


def test_a_query_of_an_earlier_hop_ends_the_search(library, rerank):
    lm = DummyLM([{"query": NEXT}, {"query": "who is Ann Lund"}, {"query": f"The {NEXT.upper()}?"}, {"answer": "x"}])
    with dspy.context(lm=lm):
        result = hopper(library, rerank, hops=5, k=1)(question=QUESTION)
    assert result.queries == [QUESTION, NEXT, "who is Ann Lund"]


def test_a_word_that_only_holds_done_is_a_query(library, rerank):
    with dspy.context(lm=DummyLM([{"query": "what was done in Kiel"}, {"answer": "x"}])):
        assert len(hopper(library, rerank)(question=QUESTION).queries) == 2


def test_a_reply_that_cannot_be_read_ends_the_search_and_the_question_is_answered(library, rerank):
    replies = [{"other": "x"}, {"other": "x"}, {"answer": "Kiel"}]  # the chat adapter asks a second time, for JSON
    with dspy.context(lm=DummyLM(replies)):
        result = hopper(library, rerank)(question=QUESTION)
    assert (result.answer, result.queries) == ("Kiel", [QUESTION])
    with dspy.context(lm=DummyLM(replies)):
        assert asyncio.run(hopper(library, rerank).acall(question=QUESTION)).toDict() == result.toDict()


def test_hops_bound_the_searches_and_the_passages_and_none_is_kept_twice(index, rerank, topic):
    queries = [one.question for one in topic.test[1:4]]
    lm = DummyLM([{"query": one} for one in queries[:2]] + [{"answer": "x"}])
    with dspy.context(lm=lm):
        result = MultiHop(index, rerank, hops=3, candidates=8, k=3)(question=topic.test[0].question)
    assert result.queries == [topic.test[0].question, *queries[:2]]
    assert len(lm.history) == 3  # after the last hop the LM is not asked for another query
    assert len(set(ids(result))) == len(result.passages) == len(result.scores) == 9


def test_one_hop_is_retrieve_rerank_answer(index, program, topic):
    lm = scripted(answer="x", query="never asked for")
    single = MultiHop(index, program.rerank, hops=1, candidates=10, k=3)
    with dspy.context(lm=lm):
        for example in topic.test[:3]:
            result, plain = single(question=example.question), program(question=example.question)
            assert (result.passages, result.scores) == (plain.passages, plain.scores)
    assert len(lm.history) == 6


def test_a_hop_that_finds_nothing_new_keeps_nothing(library, rerank):
    with dspy.context(lm=DummyLM([{"query": NEXT}, {"query": "ice"}, {"answer": "x"}])):
        result = hopper(library, rerank, hops=3, k=6)(question=QUESTION)
    assert sorted(ids(result)) == sorted(one.id for one in PASSAGES)
    assert result.queries == [QUESTION, NEXT, "ice"]


def test_passages_without_an_id_are_told_apart_by_their_text():
    class Texts(dspy.Module):
        def forward(self, query, k):
            return dspy.Prediction(passages=[{"text": "ice"}, "fire", "fire"] if query == "q" else ["water", "fire"])

    with dspy.context(lm=DummyLM([{"query": "next"}, {"answer": "x"}])):
        result = MultiHop(Texts(), NoRerank())(question="q")
    assert result.passages == [{"text": "ice"}, "fire", "water"]


def test_asynchronous_and_batched_calls_agree(library, rerank):
    example = dspy.Example(question=QUESTION).with_inputs("question")
    searcher = hopper(library, rerank, hops=3, candidates=3)
    with dspy.context(lm=scripted(query=NEXT, answer="Kiel")):
        single = searcher(question=QUESTION)
        gathered = asyncio.run(searcher.acall(question=QUESTION))
        batch = searcher.batch([example] * 3, num_threads=2, timeout=0, disable_progress_bar=True)
    assert single.queries == [QUESTION, NEXT]
    assert set(ids(single)[2:]) <= {one.id for one in library(NEXT, k=3).passages}
    assert not set(ids(single)[2:]) & {one.id for one in library(QUESTION, k=3).passages}
    for result in (gathered, *batch):
        assert result.toDict() == single.toDict()


def test_bootstrap_few_shot_writes_demonstrations_for_both_prompts(library, rerank):
    trainset = [dspy.Example(question=QUESTION, answer="Kiel").with_inputs("question")]
    optimizer = dspy.BootstrapFewShot(metric=dspy_metric(exact_match), max_labeled_demos=0)
    with dspy.context(lm=scripted(query=NEXT, answer="Kiel")):
        compiled = optimizer.compile(hopper(library, rerank), trainset=trainset)
    assert [one.query for one in compiled.next_query.demos] == [NEXT]
    assert [one.answer for one in compiled.answer.demos] == ["Kiel"]


def test_only_the_prompts_and_the_weights_are_parameters(library, rerank):
    found = [name for name, _ in hopper(library, rerank).named_parameters()]
    assert found == ["rerank.weights", "next_query", "answer"]


def test_settings_must_fit(library):
    with pytest.raises(SettingsError, match="hops must be at least 1, got 0"):
        MultiHop(library, NoRerank(), hops=0)
    with pytest.raises(SettingsError, match="1 <= k <= candidates, got k=5 and candidates=3"):
        MultiHop(library, NoRerank(), candidates=3)
