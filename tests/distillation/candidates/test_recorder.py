"""Recording asks an LM only where its reply leads to a reranker."""

import asyncio
from typing import Literal

import dspy
import pytest
from dspy.utils import DummyLM
from radio_dspy.programs import MultiHop

from radio_dspy.distillation.candidates.observing import observe
from radio_dspy.distillation.candidates.recorder import StandIn
from radio_dspy.distillation.candidates.recording import look, record
from radio_dspy.distillation.candidates.reranker_slots import slots_of
from radio_dspy.rerankers import Rerank
from radio_dspy.retrievers import FaissRetriever
from radio_dspy.runs.run import Run
from tests.distillation.candidates.test_recording import PASSAGES, TRAIN, Calls, rerank

RETRIEVED = [one.text for one in PASSAGES]


class CountingLM(DummyLM):
    """Gives every question the same fields, and notes which output fields it was asked for."""

    def __init__(self, **fields):
        super().__init__({"": fields})
        self.asked = []

        engine = self._engine_spec
        complete = engine._complete_messages

        def counted(messages):
            said = str(messages).rpartition("Respond with")[2]
            self.asked.append("query" if "[[ ## query ## ]]" in said else "other")
            return complete(messages)

        engine._complete_messages = counted


def looked_at(program, lm, folder):
    """The queries that reach the program's reranker on all questions, as ``observe`` finds them."""
    with dspy.context(lm=lm):
        slots, run = slots_of(program), Run(folder)
        found = observe(program, slots, TRAIN, TRAIN[:1], retriever=None, candidates=4, show_progress=False, run=run)
    return [[one.query for one in seen.requests] for seen in found.train]


def answering(run=None, **attributes):
    """A program that reranks what it retrieved and answers."""

    def answer(self, question):
        kept = self.rerank(question, RETRIEVED).passages
        return self.respond(context=kept, question=question)

    return Calls(run or answer, respond=dspy.ChainOfThought("context, question -> response"), **attributes)


def test_the_stock_program_asks_no_lm(tmp_path):
    lm = CountingLM(reasoning="r", response="x")
    assert looked_at(answering(), lm, tmp_path) == [[one.question for one in TRAIN]]
    assert not lm.asked
    assert looked_at(answering(), lm, tmp_path) == [[one.question for one in TRAIN]]


def test_multi_hop_asks_for_its_queries_alone(small, tmp_path):
    index = FaissRetriever.build(PASSAGES, encoder=small)
    lm = CountingLM(query="what floats?", answer="x")
    (queries,) = looked_at(MultiHop(index, rerank(), candidates=3, k=1), lm, tmp_path)
    assert queries == [text for one in TRAIN for text in (one.question, "what floats?")]
    assert lm.asked == ["query"] * 4


def test_a_loop_may_take_as_many_rounds_as_its_lm_says(tmp_path):
    def run(self, question):
        query = question
        for _ in range(3):
            kept = self.rerank(query, RETRIEVED).passages
            if "ice" in query:
                break
            query = self.rewrite(question=query).query
        return self.respond(context=kept, question=question)

    lm = CountingLM(query="does ice float?", response="x", reasoning="r")
    (queries,) = looked_at(answering(run, rewrite=dspy.Predict("question -> query")), lm, tmp_path)
    assert queries.count("does ice float?") == 3
    assert lm.asked == ["query"] * 3  # q1 asks about ice itself


def test_a_query_that_an_lm_rewrites_first_is_asked_for(tmp_path):
    def run(self, question):
        kept = self.rerank(self.rewrite(question=question).query, RETRIEVED).passages
        return self.respond(context=kept, question=question)

    lm = CountingLM(query="water", response="x", reasoning="r")
    (queries,) = looked_at(answering(run, rewrite=dspy.Predict("question -> query")), lm, tmp_path)
    assert queries == ["water"] * 4
    assert set(lm.asked) == {"query"}


def test_a_branch_on_a_made_up_verdict_is_seen(tmp_path):
    """Corrective retrieval: a second search only where the first was judged poor."""

    class Judge(dspy.Signature):
        context: list[str] = dspy.InputField()
        verdict: Literal["good", "poor"] = dspy.OutputField()

    def run(self, question):
        kept = self.rerank(question, RETRIEVED).passages
        if self.judge(context=kept).verdict == "poor":
            kept = self.rerank(f"again {question}", RETRIEVED).passages
        return self.respond(context=kept, question=question)

    lm = CountingLM(verdict="poor", response="x", reasoning="r")
    (queries,) = looked_at(answering(run, judge=dspy.Predict(Judge)), lm, tmp_path)
    assert len(queries) == 8
    assert len(lm.asked) == 4  # the verdicts


class Agent(dspy.Module):
    def __init__(self):
        super().__init__()
        self.rerank = rerank()
        self.searched = []
        self.agent = dspy.ReAct("question -> answer", tools=[self.search], max_iters=3)

    def search(self, query: str) -> str:
        """Find passages."""
        self.searched.append(query)
        return "\n".join(self.rerank(query, RETRIEVED, k=2).passages)

    def forward(self, question):
        return self.agent(question=question)


def test_an_agent_is_never_given_made_up_replies(tmp_path):
    steps = {"next_thought": "t", "next_tool_name": "search", "next_tool_args": '{"query": "water"}'}
    done = {"next_thought": "t", "next_tool_name": "finish", "next_tool_args": "{}", "reasoning": "r", "answer": "a"}
    lm = DummyLM({"observation_0": done, "": steps})
    agent = Agent()
    (queries,) = looked_at(agent, lm, tmp_path)
    assert queries == ["water"] * 4
    assert set(agent.searched) == {"water"}


def whole_and_stopped(program, lm):
    """Calls of the LM when the program runs to its end, and when it is stopped."""
    with dspy.context(lm=lm):
        slots = slots_of(program)
        whole, _ = record(program, TRAIN, slots)
        asked, lm.asked = len(lm.asked), []
        stopped, failures = record(program, TRAIN, slots, needed=())
    assert whole == stopped
    assert not failures
    return asked, len(lm.asked)


def test_a_program_that_catches_exceptions_is_stopped_all_the_same():
    def run(self, question):
        kept = self.rerank(question, RETRIEVED).passages
        try:
            return self.respond(context=kept, question=question)
        except Exception:
            return self.rerank("never reached", RETRIEVED)

    assert whole_and_stopped(answering(run), CountingLM(response="x", reasoning="r")) == (4, 0)


def test_what_a_program_does_that_swallows_its_end_is_not_recorded():
    def run(self, question):
        kept = self.rerank(question, RETRIEVED).passages
        while True:
            try:
                return self.respond(context=kept, question=question)
            except BaseException:
                self.rerank("swallowed", RETRIEVED)

    program, lm = answering(run), CountingLM(response="x", reasoning="r")
    assert whole_and_stopped(program, lm) == (4, 4)  # it would try for ever: at last it is let through


@pytest.mark.parametrize("how", ["asyncio", "parallel"])
def test_a_program_in_threads_or_coroutines_is_stopped(how):
    def run(self, question):
        kept = self.rerank(question, RETRIEVED).passages
        inputs = {"context": kept, "question": question}
        if how == "asyncio":
            return asyncio.run(self.respond.acall(**inputs))
        example = dspy.Example(**inputs).with_inputs(*inputs)
        return dspy.Parallel(num_threads=2, disable_progress_bar=True)([(self.respond, example)] * 2)[0]

    asked, after = whole_and_stopped(answering(run), CountingLM(response="x", reasoning="r"))
    assert asked >= 4
    assert after == 0


def test_an_lm_that_the_program_calls_itself_is_not_asked_either():
    def run(self, question):
        kept = self.rerank(question, RETRIEVED).passages
        return dspy.Prediction(answer=dspy.settings.lm(f"{question} {kept}"))

    lm = CountingLM(response="x")
    program = Calls(run)
    assert whole_and_stopped(program, lm) == (4, 0)
    lm.asked.clear()
    with dspy.context(lm=lm):
        _, _, needed = look(program, TRAIN[:3], slots_of(program))
    assert needed == frozenset()
    assert len(lm.asked) == 3  # no reply of its own can be made up: it is looked at as it is


def test_two_rerankers_with_an_lm_between_them_are_both_reached(tmp_path):
    def run(self, question):
        kept = self.rerank(question, RETRIEVED).passages
        query = self.rewrite(question=question).query
        kept = self.second(query, kept).passages
        return self.respond(context=kept, question=question)

    lm = CountingLM(query="water", response="x", reasoning="r")
    program = answering(run, second=Rerank(rerank().weights.checkpoint, "bi-encoder"))
    program.rewrite = dspy.Predict("question -> query")
    first, second = looked_at(program, lm, tmp_path)
    assert first == [one.question for one in TRAIN]
    assert second == ["water"] * 4
    assert set(lm.asked) == {"query"}


def test_a_resumed_recording_knows_what_leads_to_a_reranker(tmp_path):
    agent, lm = Agent(), None
    steps = {"next_thought": "t", "next_tool_name": "search", "next_tool_args": '{"query": "water"}'}
    done = {"next_thought": "t", "next_tool_name": "finish", "next_tool_args": "{}", "reasoning": "r", "answer": "a"}
    lm = DummyLM({"observation_0": done, "": steps})
    with dspy.context(lm=lm):
        first = look(agent, TRAIN[:3], slots_of(agent), run=Run(tmp_path))
        agent.searched.clear()
        again = look(agent, TRAIN[:3], slots_of(agent), run=Run(tmp_path))
    assert not agent.searched
    assert first == again
    assert first[2]


def test_scores_that_come_with_passages_are_kept(tmp_path):
    rows = [{"text": text, "score": score} for text, score in zip(RETRIEVED[:3], (0.9, 0.5, 0.1), strict=True)]

    def run(self, question):
        self.rerank(question, rows)
        self.rerank(question, RETRIEVED[:2], scores=[7.0, 3.0])
        return self.rerank(question, [*rows, "one without a score"])

    program = Calls(run)
    for _ in range(2):  # as recorded, and as kept
        (seen,), _ = record(program, TRAIN[:1], slots_of(program), run=Run(tmp_path))
        assert [tuple(one.scores) for one in seen.requests] == [(0.9, 0.5, 0.1), (7.0, 3.0), (4.0, 3.0, 2.0, 1.0)]


def test_made_up_replies_fit_their_fields():
    class Asked(dspy.Signature):
        question: str = dspy.InputField()
        text: str = dspy.OutputField()
        fine: bool = dspy.OutputField()
        many: list[str] = dspy.OutputField()
        maybe: int | None = dspy.OutputField()

    (even,) = StandIn(0)(None, {}, Asked, [], {"question": "why?"})
    (odd,) = StandIn(1)(None, {}, Asked, [], {"question": "why?"})
    assert even["text"].endswith(" for why?")
    assert (even["fine"], odd["fine"]) == (True, False)
    assert even["many"] == [even["text"]]
    assert odd["maybe"] == 1
