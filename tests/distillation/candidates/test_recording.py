"""What reaches a reranker: which rerankers a program holds, and what they are asked."""

import hashlib
import logging
import threading
from dataclasses import replace

import dspy
import pytest
from radio_dspy.programs import RetrieveRerankAnswer

from radio_dspy.core.errors import DataError, SettingsError
from radio_dspy.core.passages import Passage
from radio_dspy.core.rankings import RankRequest
from radio_dspy.distillation.candidates.observing import observe, same_as_retrieved
from radio_dspy.distillation.candidates.recording import Observed, record
from radio_dspy.distillation.candidates.reranker_slots import slots_of
from radio_dspy.rerankers import Rerank
from radio_dspy.retrievers import FaissRetriever
from radio_dspy.retrievers.base import retriever_of
from radio_dspy.retrievers.requests import rank_requests
from radio_dspy.runs.identity import program_key
from tests.conftest import ENCODER, scripted

PASSAGES = [
    Passage("yeast", "Yeast dies in hot water."),
    Passage("ice", "Ice floats on water."),
    Passage("salt", "Salt draws water out of a ham."),
    Passage("steam", "Steam carries heat away."),
    Passage("jug", "A clay jug stays cool."),
]
QUESTIONS = ["why did the dough not rise?", "why does ice float?", "what draws the water out?", "why is the jug cold?"]
TRAIN = [
    dspy.Example(id=f"q{i}", question=text, answers=["water"], relevant=["ice"]).with_inputs("question")
    for i, text in enumerate(QUESTIONS)
]


@pytest.fixture(scope="module")
def index(small):
    return FaissRetriever.build(PASSAGES, encoder=small)


def rerank(**settings):
    return Rerank(ENCODER, "bi-encoder", **settings)


class Holder(dspy.Module):
    """Whatever it is given, as attributes."""

    def __init__(self, **attributes):
        super().__init__()
        for name, value in attributes.items():
            setattr(self, name, value)


class Calls(dspy.Module):
    """Calls its reranker as a function of the test says."""

    def __init__(self, run, **attributes):
        super().__init__()
        self.run = run
        self.rerank = rerank()
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, question):
        return self.run(self, question)


def names(slots):
    return [slot.name for slot in slots]


class TestSlots:
    def test_paths_through_attributes_lists_dicts_and_modules(self):
        program = Holder(
            first=rerank(),
            parts={"a": [rerank(), {"deep": rerank()}], 7: (rerank(),)},
            inner=Holder(stages=[dspy.Predict("a -> b"), rerank()]),
        )
        slots = slots_of(program)
        assert set(names(slots)) == {
            "self.first",
            "self.parts['a'][0]",
            "self.parts['a'][1]['deep']",
            "self.parts[7][0]",
            "self.inner.stages[1]",
        }
        assert {id(slot.weights) for slot in slots} >= {id(program.first.weights), id(program.parts[7][0].weights)}

    def test_one_object_in_two_places_is_one_reranker(self):
        shared = rerank()
        slots = slots_of(Holder(one=shared, two=[shared]))
        assert (names(slots), len(slots[0].rerankers)) == (["self.one"], 1)

    def test_a_method_as_a_tool_leads_to_its_module(self):
        class Searcher(dspy.Module):
            def __init__(self):
                super().__init__()
                self.rerank = rerank()

            def search(self, query: str) -> str:
                return self.rerank(query, ["a", "b"]).passages[0]

        searcher = Searcher()
        program = Holder(agent=dspy.ReAct("question -> answer", tools=[searcher.search]), plain=[searcher.search])
        slots = slots_of(program)
        assert len(slots) == 1
        assert slots[0].rerankers == [searcher.rerank]
        assert "__self__.rerank" in slots[0].name
        assert slots_of(Holder(agent=dspy.ReAct("question -> answer", tools=[searcher.search])))[0].name == (
            "self.agent.tools['search'].__self__.rerank"
        )

    def test_shared_weights_are_one_slot_also_where_copying_has_parted_them(self):
        first, second, other = rerank(k=1), rerank(k=2), rerank()
        second.weights = first.weights
        program = Holder(first=first, stages=[second], other=other, lock=threading.Lock())
        copied = program.deepcopy()
        assert copied.first.weights is not copied.stages[0].weights  # what the lock does to copies
        slots = slots_of(copied, program)
        assert names(slots) == ["self.first", "self.other"]
        assert slots[0].rerankers == [copied.first, copied.stages[0]]
        assert copied.first.weights is copied.stages[0].weights
        assert copied.first.weights is not program.first.weights
        fresh = rerank().weights
        slots[0].assign(fresh)
        assert copied.first.weights is copied.stages[0].weights is fresh
        assert copied.other.weights is not fresh

    def test_a_history_that_copying_drops_is_no_matter(self):
        program = Holder(rerank=rerank(), answer=dspy.Predict("question -> answer"))
        program.answer(question="why?", lm=scripted(answer="because"))
        assert program.answer.history
        assert names(slots_of(program.deepcopy(), program)) == ["self.rerank"]

    def test_no_reranker_and_one_that_is_not_copied(self):
        with pytest.raises(SettingsError, match="holds no trainable reranker"):
            slots_of(dspy.Predict("question -> answer"))
        program = Holder(parts={"rerank": rerank(), "lock": threading.Lock()})
        with pytest.raises(SettingsError, match=r"self\.parts\['rerank'\] cannot be copied, so aligning"):
            slots_of(program.deepcopy(), program)
        hidden = Holder(search=lambda query: rerank()(query, ["a"]))
        with pytest.raises(SettingsError, match="only lives inside a function cannot be copied: use a method"):
            slots_of(hidden)


class TestRecord:
    def test_a_second_call_has_an_id_of_its_own(self):
        def run(self, question):
            self.rerank(question, PASSAGES[:3])
            self.rerank(query=f"again {question}", passages=PASSAGES[2:], k=1)
            return self.other(question, PASSAGES[:2])

        program = Calls(run, other=rerank())
        (first, second), failures = record(program, TRAIN[:2], slots_of(program))
        assert [one.id for one in first.requests] == ["q0", "q0/2", "q1", "q1/2"]
        assert first.question_of == {"q0": "q0", "q0/2": "q0", "q1": "q1", "q1/2": "q1"}
        assert [one.query for one in first.requests][:2] == [QUESTIONS[0], f"again {QUESTIONS[0]}"]
        assert [passage.id for passage in first.requests[1].candidates] == ["salt", "steam", "jug"]
        assert [one.id for one in second.requests] == ["q0", "q1"]  # counted for each slot
        assert not failures

    def test_what_a_request_holds(self):
        program = Calls(lambda self, question: self.rerank(question, PASSAGES[:3]))
        request = record(program, TRAIN[:1], slots_of(program))[0][0].requests[0]
        assert request == RankRequest(
            "q0", QUESTIONS[0], tuple(PASSAGES[:3]), (3.0, 2.0, 1.0), ("water",), "", frozenset({"ice"})
        )

    def test_passages_without_an_id_are_named_by_their_content(self):
        texts = ["Ice floats.", "Salt melts.", "Ice floats.", {"text": "Salt melts."}, {"contents": "Heat\nIt rises."}]
        program = Calls(lambda self, question: self.rerank(question, texts[:2] if "ice" in question else texts))
        (seen,), failures = record(program, TRAIN[:2], slots_of(program))
        assert not failures
        first, second = seen.requests
        names = [f"p-{hashlib.sha256(text.encode()).hexdigest()[:12]}" for text in ("Ice floats.", "Salt melts.")]
        assert [one.id for one in first.candidates][:2] == [one.id for one in second.candidates] == names
        assert first.candidates[2].contents == "Heat\nIt rises."
        assert len(first.candidates) == 3  # each text once
        assert first.scores == (3.0, 2.0, 1.0)

    def test_labels_that_are_texts_name_the_passages_without_ids(self):
        texts = ["Ice floats.", "Salt melts."]
        program = Calls(lambda self, question: self.rerank(question, texts))
        labelled = TRAIN[0].copy(relevant=["Salt melts.", "It was never found."])
        (request,) = record(program, [labelled], slots_of(program))[0][0].requests
        assert request.candidates[1].id in request.relevant
        assert len(request.relevant) == 2  # what was not found counts as missed

    def test_grades_go_along(self):
        program = Calls(lambda self, question: self.rerank(question, PASSAGES))
        graded = TRAIN[0].copy(relevant=["ice"], grades={"ice": 2.0})
        assert record(program, [graded], slots_of(program))[0][0].requests[0].grades == {"ice": 2.0}

    def test_labels_are_only_joined_with_passages_that_bring_their_ids(self):
        program = Calls(lambda self, question: self.rerank(question, [one.text for one in PASSAGES]))
        assert record(program, TRAIN[:1], slots_of(program))[0][0].requests[0].relevant == frozenset()
        rows = [{"id": one.id, "text": one.text} for one in PASSAGES]
        program = Calls(lambda self, question: self.rerank(question, rows))
        request = record(program, TRAIN[:1], slots_of(program))[0][0].requests[0]
        assert request.relevant == {"ice"}
        assert "ice" in {one.id for one in request.candidates}

    def test_two_threads_give_what_one_gives(self, index):
        def run(self, question):
            kept = self.rerank(question, self.index(question, k=4).passages, k=2).passages
            return self.rerank(kept[0].text, kept)

        program = Calls(run, index=index)
        slots = slots_of(program)
        alone, together = record(program, TRAIN, slots), record(program, TRAIN, slots, num_threads=2)
        assert alone == together
        assert len(alone[0][0].requests) == 8

    def test_a_failure_keeps_what_was_reached_before(self):
        def run(self, question):
            if "ice" in question:
                raise KeyError("before")
            self.rerank(question, PASSAGES[:2])
            raise ValueError("after")

        program = Calls(run)
        (seen,), failures = record(program, TRAIN[:2], slots_of(program))
        assert [one.id for one in seen.requests] == ["q0"]
        assert {key: type(error) for key, error in failures.items()} == {"q0": ValueError, "q1": KeyError}

    def test_a_repeated_question_runs_once_and_an_ambiguous_id_is_an_error(self):
        program = Calls(lambda self, question: self.rerank(question, PASSAGES[:2]))
        (seen,), _ = record(program, [TRAIN[0], TRAIN[1], TRAIN[0]], slots_of(program))
        assert [one.id for one in seen.requests] == ["q0", "q1"]
        clash = dspy.Example(id="q0", question="another").with_inputs("question")
        with pytest.raises(DataError, match="Two questions share the id 'q0'"):
            record(program, [TRAIN[0], clash], slots_of(program))

    def test_a_reranker_from_elsewhere_is_refused(self):
        stray = rerank()
        program = Calls(lambda self, question: stray(question, PASSAGES[:2]))
        slots = slots_of(program)
        program.run = lambda self, question: stray(question, PASSAGES[:2])
        with pytest.raises(SettingsError, match="that the student does not hold"):
            record(program, TRAIN[:1], slots)

    @pytest.mark.parametrize(
        ("kind", "reward", "ids"), [(dspy.BestOfN, 0.0, ["q0", "q0/2"]), (dspy.Refine, 1.0, ["q0"])]
    )
    def test_copies_that_a_program_makes_of_its_reranker_are_its_own(self, kind, reward, ids):
        def ranks(self, question):
            return self.answer(question=self.rerank(question, PASSAGES[:2]).passages[0].text)

        inner = Calls(ranks, answer=dspy.Predict("question -> answer"))
        tried = kind(inner, N=2, reward_fn=lambda inputs, prediction: reward, threshold=1.0)
        program = Calls(lambda self, question: self.inner(question=question), inner=tried)
        slots = slots_of(program)
        with dspy.context(lm=scripted(answer="x")):
            (own, inner), failures = record(program, TRAIN[:1], slots)
        assert names(slots) == ["self.rerank", "self.inner.module.rerank"]
        assert not own.requests
        assert [one.id for one in inner.requests] == ids
        assert not failures

    @pytest.mark.parametrize(
        ("query", "passages"),
        [
            (["a list"], PASSAGES),
            ("why?", "one text"),
            ("why?", (one for one in PASSAGES)),
            ("why?", {"a": "Ice."}),
            ("why?", dspy.Prediction(passages=PASSAGES)),
            ("why?", None),
            ("why?", [*PASSAGES, None]),
        ],
        ids=["query", "text", "generator", "mapping", "prediction", "none", "none within"],
    )
    def test_a_call_that_the_reranker_refuses_is_nothing_to_learn_from(self, query, passages):
        program = Calls(lambda self, question: self.rerank(query, passages))
        (seen,), failures = record(program, TRAIN[:2], slots_of(program))
        assert not seen.requests
        assert {key: type(error) for key, error in failures.items()} == {"q0": DataError, "q1": DataError}

    def test_an_id_with_two_texts_is_an_error(self):
        chunks = [{"id": "doc", "text": "Ice floats."}, {"id": "doc", "text": "Yeast dies."}]
        program = Calls(lambda self, question: self.rerank(question, chunks))
        with pytest.raises(DataError, match="two passages of the id 'doc' reached a Rerank, and their texts differ"):
            record(program, TRAIN[:1], slots_of(program))

    def test_an_example_that_does_not_say_its_inputs(self):
        program = Calls(lambda self, question: self.rerank(question, PASSAGES))
        with pytest.raises(DataError, match=r"give example\.with_inputs\('question'\)"):
            record(program, [dspy.Example(question="why?", answer="x")], slots_of(program))

    def test_it_leaves_no_trace(self):
        def run(self, question):
            self.rerank(question, PASSAGES[:2])
            return self.answer(question=question)

        program = Calls(run, answer=dspy.Predict("question -> answer"))
        trace = []
        with dspy.context(lm=scripted(answer="x"), trace=trace):
            _, failures = record(program, TRAIN[:2], slots_of(program))
            assert dspy.settings.callbacks == []
        assert not failures
        assert not trace
        assert not program.answer.history


class TestSameAsRetrieved:
    @pytest.fixture
    def direct(self, index):
        return {one.id: one for one in rank_requests(TRAIN, index, 5)}

    @staticmethod
    def seen(*requests):
        return [Observed(list(requests), {one.id: one.id for one in requests})]

    def test_the_beginning_of_what_the_retriever_finds_is_the_same(self, direct):
        whole = direct["q0"]
        short = RankRequest("q1", QUESTIONS[1], direct["q1"].candidates[:2], (2.0, 1.0))
        assert same_as_retrieved(self.seen(whole, short), direct)

    def test_anything_else_is_not(self, direct):
        good = direct["q0"]
        other = RankRequest("q0", "another query", good.candidates, good.scores)
        swapped = (good.candidates[1], good.candidates[0])
        assert not same_as_retrieved(self.seen(other), direct)
        assert not same_as_retrieved(self.seen(RankRequest("q0", good.query, swapped, (2.0, 1.0))), direct)
        assert not same_as_retrieved(self.seen(good, RankRequest("q0/2", good.query, swapped, (2.0, 1.0))), direct)
        stranger = (Passage("p-1", "x"),)
        assert not same_as_retrieved(self.seen(RankRequest("q0", good.query, stranger, (1.0,))), direct)
        assert not same_as_retrieved([Observed(), *self.seen(RankRequest("q9", "?", stranger, (1.0,)))], direct)

    def test_nothing_seen_shows_nothing(self, direct):
        assert not same_as_retrieved([Observed()], direct)


class TestObserve:
    def look(self, program, index=None, *, train=TRAIN, candidates=4):
        return observe(
            program, slots_of(program), train, TRAIN[:1], retriever=index, candidates=candidates, show_progress=False
        )

    @pytest.mark.parametrize("candidates", [4, 2])
    def test_a_program_that_reranks_what_it_retrieves_is_asked_directly(self, index, candidates):
        """Also where it retrieves more than training is to see."""
        ran = []

        def run(self, question):
            found = self.rerank(question, self.index(question, k=3).passages)
            ran.append(question)
            return found

        found = self.look(Calls(run, index=index), candidates=candidates)
        assert not found.recorded
        assert ran == QUESTIONS[:3]  # after the first look no reranker ranks
        assert [len(one.candidates) for one in found.train[0].requests] == [candidates] * 4
        assert [len(one.candidates) for one in found.held_out[0].requests] == [3]  # what the program reranks
        # Encoded in another batch, the last digits differ.
        alone = index.search(QUESTIONS[:1], candidates)[0].scores
        assert found.train[0].requests[0].scores == pytest.approx(alone, abs=1e-5)
        assert found.train[0].question_of == {f"q{i}": f"q{i}" for i in range(4)}

    def test_a_given_retriever_needs_no_run(self, index):
        def run(self, question):
            raise AssertionError("never run")

        found = self.look(Calls(run, other=rerank(), candidates=2), index)
        assert (found.recorded, len(found.train), len(found.held_out)) == (False, 2, 2)
        assert [len(one.candidates) for one in found.held_out[1].requests] == [2]

    def test_any_other_program_is_recorded(self, index):
        program = Calls(
            lambda self, question: self.rerank(question, self.index(f"{question} water", k=3).passages[::-1]),
            index=index,
        )
        found = self.look(program)
        assert found.recorded
        assert [one.query for one in found.train[0].requests] == QUESTIONS
        assert found.train[0].requests[0].candidates == tuple(index(f"{QUESTIONS[0]} water", k=3).passages[::-1])
        assert [one.id for one in found.held_out[0].requests] == ["q0"]
        assert found.failed == 0

    def test_failures_are_counted_where_nothing_was_reached_before(self, caplog):
        def run(self, question):
            if question == QUESTIONS[3]:
                raise ValueError("no such page")
            self.rerank(question, ["a", "b"])
            raise RuntimeError("after the reranker")

        with caplog.at_level(logging.WARNING):
            found = self.look(Calls(run))
        assert found.failed == 1
        assert [one.id for one in found.train[0].requests] == ["q0", "q1", "q2"]
        assert "failed on 4 questions, on 1 of them before it reached a reranker" in caplog.text

    def test_a_program_that_only_lacks_the_lm_of_its_last_step_is_not_warned_of(self, caplog):
        def run(self, question):
            self.rerank(question, ["a", "b"])
            return self.answer(question=question)

        with caplog.at_level(logging.WARNING):
            found = self.look(Calls(run, answer=dspy.Predict("question -> answer")))
        assert (found.recorded, found.failed, len(found.train[0].requests)) == (True, 0, 4)
        assert "failed" not in caplog.text

    def test_a_reranker_that_no_question_reaches(self):
        with pytest.raises(SettingsError, match=r"reached a Rerank"):
            self.look(Calls(lambda self, question: None))

        def run(self, question):
            return self.rerank(self.rewrite(question=question).query, ["a", "b"])

        with pytest.raises(SettingsError, match=r"the program failed: ValueError: No LM is loaded"):
            self.look(Calls(run, rewrite=dspy.Predict("question -> query")))

    def test_a_call_that_cannot_be_seen_and_a_program_that_only_waits(self):
        def hidden(self, question):
            return self.rerank.forward(question, ["a", "b"])

        with pytest.raises(SettingsError, match=r"reached a Rerank\. Call it as self\.rerank\(\.\.\.\)"):
            self.look(Calls(hidden))

        class Waits(dspy.Module):
            def __init__(self):
                super().__init__()
                self.rerank = rerank()

            async def aforward(self, question):
                return await self.rerank.acall(question, PASSAGES)

        with pytest.raises(SettingsError, match=r"Waits has aforward alone; give dspy\.syncify\(program\)"):
            self.look(Waits())
        assert self.look(dspy.syncify(Waits())).recorded

    def test_the_first_retriever_of_ours_is_found_behind_tools_too(self, index):
        class Searcher(dspy.Module):
            def __init__(self, index):
                super().__init__()
                self.index = index

            def search(self, query: str) -> str:
                return self.index(query, k=1).passages[0].text

        agent = dspy.ReAct("question -> answer", tools=[Searcher(index).search])
        assert retriever_of(Holder(agent=agent)) is index
        assert retriever_of(Holder(rerank=rerank())) is None


def test_the_same_program_made_again_has_the_same_key(index):
    """DSPy draws each ``Predict`` a random name, which another process would not have."""

    def key(**settings):
        program = RetrieveRerankAnswer(index, rerank(), **{"candidates": 5, **settings})
        return program_key(program), program.answer.stage

    (first, name), (again, other) = key(), key()
    assert first == again
    assert name != other
    assert key(candidates=6)[0] != first


class Tenants(dspy.Module):
    """Searches for a tenant that only some questions name: by a filter of the call, of the retriever, or by hand."""

    def __init__(self, retriever, how, lm_first=False):
        super().__init__()
        self.retriever, self.how, self.rerank = retriever, how, rerank()
        self.route = dspy.Predict("question -> tenant") if lm_first else None

    def forward(self, question):
        tenant = "odd" if question == QUESTIONS[3] else None
        if self.route and tenant:
            tenant = self.route(question=question).tenant
        wanted = {"tenant": tenant} if tenant else None
        if self.how == "call":
            found = self.retriever(question, k=3, filter=wanted).passages
        elif self.how == "search":
            found = self.retriever.search([question], 3, wanted)[0].passages
        elif self.how == "retriever":
            self.retriever.filter = wanted or {}
            found = self.retriever(question, k=3).passages
        else:
            found = self.retriever(question, k=len(PASSAGES)).passages
            found = [one for one in found if not tenant or one.metadata["tenant"] == tenant][:3]
        return self.rerank(question, list(found))


@pytest.mark.parametrize("how", ["call", "search", "retriever", "by hand"])
@pytest.mark.parametrize("lm_first", [False, True])
def test_a_filter_that_only_a_later_question_has(encoder, how, lm_first):
    tenants = [replace(one, metadata={"tenant": ("even", "odd")[row % 2]}) for row, one in enumerate(PASSAGES)]
    program = Tenants(FaissRetriever.build(tenants, encoder=encoder, k=5), how, lm_first)
    lm = scripted(tenant="odd")
    with dspy.context(lm=lm):
        found = TestObserve().look(program)
    assert found.recorded
    for request in found.train[0].requests:
        kept = {one.metadata["tenant"] for one in request.candidates}
        assert kept == {"odd"} if request.id == "q3" else len(request.candidates) == 3
    assert "search" not in vars(program.retriever)
