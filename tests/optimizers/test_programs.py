"""RADIO on programs of the user's own: agents, several rerankers, retrievers of any kind."""

import json
import logging
import threading

import dspy
import pytest
from dspy.utils.callback import BaseCallback

import radio_dspy
from radio_dspy import MultiHop, MultipleChoice, Rerank
from radio_dspy.core.errors import DataError, SettingsError
from radio_dspy.distillation.candidates.reranker_slots import slots_of
from radio_dspy.distillation.gate.decision import Gate
from radio_dspy.distillation.gate.metrics import MetricJudge
from radio_dspy.evaluation.metrics import accuracy, dspy_metric, exact_match
from tests.conftest import LaunchableLM, scripted
from tests.settings import radio_of

TRAINED = {"epochs": 1, "learning_rate": 1e-3, "max_length": 64, "per_device_train_batch_size": 8} | {
    "gate": False,  # whatever it is worth
    "false_negatives": None,
    "check": False,
}


class Spy(BaseCallback):
    """Notes what every ``Rerank`` is asked, and with which weights."""

    def __init__(self):
        self.queries, self.checkpoints = [], []

    def on_module_start(self, call_id, instance, inputs):
        if isinstance(instance, Rerank):
            self.queries.append(inputs["kwargs"].get("query") or inputs["args"][0])
            self.checkpoints.append(instance.weights.checkpoint)


def spied(program, lm=None, **inputs):
    """Run a program; what it gave and what its rerankers saw."""
    spy = Spy()
    with dspy.context(lm=lm, callbacks=[spy]):
        return program(**inputs), spy


def records(folder, name="groups"):
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


class Agent(dspy.Module):
    """A ReAct agent whose tool reranks what it finds."""

    def __init__(self, retriever, encoder):
        super().__init__()
        self.retriever = retriever
        self.rerank = Rerank(encoder, "bi-encoder", k=3)
        self.agent = dspy.ReAct("question -> answer", tools=[self.search], max_iters=3)

    def search(self, query: str) -> list[str]:
        """Search the kitchen's books."""
        found = self.retriever(query, k=8)
        return [passage.contents for passage in self.rerank(query, found.passages).passages]

    def forward(self, question):
        return self.agent(question=question)


def asked_for(question: str) -> str:
    """The query that the scripted agent makes of a question."""
    return f"notes on {' '.join(question.split()[-4:])}"


def agent_lm(examples) -> LaunchableLM:
    """Searches once, then finishes and answers."""
    finish = {
        "next_thought": "enough",
        "next_tool_name": "finish",
        "next_tool_args": {},
        "reasoning": "r",
        "answer": "a",
    }
    search = {
        one.question: {
            "next_thought": "search",
            "next_tool_name": "search",
            "next_tool_args": json.dumps({"query": asked_for(one.question)}),
        }
        for one in examples
    }
    return LaunchableLM({"observation_0": {**finish, "reasoning": "r", "answer": "a"}, **search})


def test_an_agents_tool_is_aligned_on_what_the_agent_asked(index, small, topic, tmp_path):
    student, train, held_out = Agent(index, small), topic.train[:6], topic.test[:2]
    lm = agent_lm([*train, *held_out])
    with dspy.context(lm=lm):
        optimizer = radio_of(run_dir=tmp_path, **TRAINED)
        aligned = optimizer.compile(student, trainset=train, valset=held_out)
    assert optimizer.report.questions["recorded"]
    assert [one["query"] for one in records(tmp_path)] == [asked_for(one.question) for one in train]
    base, trained = student.rerank.weights.checkpoint, aligned.rerank.weights.checkpoint
    assert base == small.name
    assert trained.startswith(str(tmp_path))
    for program, checkpoint in ((student, base), (aligned, trained)):
        result, spy = spied(program, lm, question=train[0].question)
        assert spy.checkpoints == [checkpoint]
        assert spy.queries == [asked_for(train[0].question)]
        # What the agent read is what these weights give.
        expected = program.rerank(spy.queries[0], index(spy.queries[0], k=8).passages)
        assert result.trajectory["observation_0"] == [one.contents for one in expected.passages]
        assert program.agent.tools["search"].func.__self__ is program


def test_an_aligned_agent_is_saved_and_loaded_with_its_tool(index, small, topic, tmp_path):
    agent = Agent(index, small)
    radio_dspy.save(agent, tmp_path / "agent")
    loaded = radio_dspy.load(tmp_path / "agent", program=Agent(index, small))
    _, spy = spied(loaded, agent_lm(topic.test[:1]), question=topic.test[0].question)
    assert spy.checkpoints == [str(tmp_path / "agent" / "reranker")]


class Rewriting(dspy.Module):
    """Reranks for the question, then searches again and reranks for another query."""

    def __init__(self, retriever, encoder):
        super().__init__()
        self.retriever = retriever
        self.first = Rerank(encoder, "bi-encoder", k=6)
        self.rewrite = dspy.Predict("question, passages -> query")
        self.second = Rerank(encoder, "bi-encoder", k=3)

    def forward(self, question):
        kept = self.first(question, self.retriever(question, k=8).passages).passages
        query = self.rewrite(question=question, passages=[one.contents for one in kept]).query
        return self.second(query=query, passages=self.retriever(query, k=8).passages)


def rewriting_lm(examples) -> LaunchableLM:
    return LaunchableLM({one.question: {"query": asked_for(one.question)} for one in examples})


def test_two_rerankers_learn_each_from_what_reaches_it(index, small, topic, tmp_path):
    train, held_out = topic.train[:6], topic.test[:2]
    with dspy.context(lm=rewriting_lm([*train, *held_out])):
        optimizer = radio_of(run_dir=tmp_path, num_threads=2, **TRAINED)
        aligned = optimizer.compile(Rewriting(index, small), trainset=train, valset=held_out)
    assert [one["query"] for one in records(tmp_path)] == [one.question for one in train]
    assert [one["query"] for one in records(tmp_path, "groups-2")] == [asked_for(one.question) for one in train]
    assert [one["id"] for one in records(tmp_path, "groups-2")] == [one.id for one in train]
    report = optimizer.report
    assert (report.reranker, report.groups) == ("self.first", 6)
    assert [(one.reranker, one.groups) for one in report.rerankers[1:]] == [("self.second", 6)]
    assert "self.second: 6 groups" in str(report)
    checkpoints = [aligned.first.weights.checkpoint, aligned.second.weights.checkpoint]
    assert sorted(checkpoints) == sorted(str(one) for one in tmp_path.glob("reranker-*"))
    assert len(set(checkpoints)) == 2


def test_two_rerankers_that_share_weights_learn_together_and_still_share_them(index, small, topic, tmp_path):
    train, held_out = topic.train[:4], topic.test[:2]
    student = Rewriting(index, small)
    student.second.weights = student.first.weights
    with dspy.context(lm=rewriting_lm([*train, *held_out])):
        optimizer = radio_of(run_dir=tmp_path, **TRAINED)
        aligned = optimizer.compile(student, trainset=train, valset=held_out)
    assert [one["id"] for one in records(tmp_path)] == [f"{one.id}{call}" for one in train for call in ("", "/2")]
    assert [one.groups for one in optimizer.report.rerankers] == [8]
    assert optimizer.report.questions["used"] == 4
    assert aligned.first.weights is aligned.second.weights
    assert [aligned.first.weights.checkpoint] == [str(one) for one in tmp_path.glob("reranker-*")]
    assert student.first.weights.checkpoint == small.name


class Own(dspy.Module):
    """A first stage of the user's, and a reranker that is called with keywords."""

    def __init__(self, find, encoder):
        super().__init__()
        self.find = find
        self.rerank = Rerank(encoder, "bi-encoder")

    def forward(self, question):
        found = self.find(question)
        return self.rerank(k=3, passages=getattr(found, "passages", found), query=question)


class Nested(dspy.Module):
    """The same, deep inside lists, dicts and modules."""

    def __init__(self, find, encoder):
        super().__init__()
        self.stages = [{"first": dspy.Predict("a -> b")}, {"search": (Own(find, encoder),)}]

    def forward(self, question):
        return self.stages[1]["search"][0](question=question)


class Search(dspy.Module):
    """A retriever module that returns rows."""

    def __init__(self, index):
        super().__init__()
        self.index = index

    def forward(self, query):
        found = self.index(query, k=6).passages
        return dspy.Prediction(passages=[{"id": one.id, "text": one.text} for one in found])


@pytest.mark.parametrize(
    ("make", "find", "path", "relevance"),
    [
        (Own, lambda index: lambda query: [one.text for one in index(query, k=6).passages], "self.rerank", "answers"),
        (Own, lambda index: lambda query: Search(index)(query).passages, "self.rerank", "labels"),
        (Nested, lambda index: Search(index), "self.stages[1]['search'][0].rerank", "labels"),
    ],
    ids=["function that returns strings", "function that returns rows", "module, nested"],
)
def test_a_users_own_program(index, small, topic, tmp_path, make, find, path, relevance):
    student = make(find(index), small)
    texts = {one.text for one in topic.passages}
    optimizer = radio_of(encoder=small, run_dir=tmp_path, **TRAINED)
    aligned = optimizer.compile(student, trainset=topic.train[:4], valset=topic.test[:2])
    report = optimizer.report
    assert (report.reranker, report.relevance, report.groups) == (path, relevance, 4)
    assert report.questions["recorded"] is (make is Own)  # the nested one holds a retriever of ours, and only uses it
    groups = records(tmp_path)
    assert [one["query"] for one in groups] == [one.question for one in topic.train[:4]]
    ids = {one for group in groups for one in (group["positive"], *group["negatives"])}
    assert all(one in index for one in ids) is (relevance == "labels")
    assert all(one.startswith("p-") for one in ids) is (relevance == "answers")
    result, spy = spied(aligned, question="why does the dough rise?")
    assert [str(one) for one in tmp_path.glob("reranker-*")] == spy.checkpoints
    assert {one if isinstance(one, str) else one["text"] for one in result.passages} <= texts
    assert len(result.passages) == 3
    assert spied(student, question="why?")[1].checkpoints == [small.name]


def test_a_given_retriever_is_asked_in_place_of_the_program(index, small, topic, tmp_path):
    def never(query):
        raise AssertionError("the program was run")

    optimizer = radio_of(retriever=index, run_dir=tmp_path, candidates=12, **TRAINED)
    aligned = optimizer.compile(Own(never, small), trainset=topic.train[:4], valset=topic.test[:2])
    assert not optimizer.report.questions["recorded"]
    assert (optimizer.report.relevance, optimizer.report.questions["judged"]) == ("labels", 2)
    for group, example in zip(records(tmp_path), topic.train, strict=False):
        found = {one.id for one in index(example.question, k=12).passages}
        assert {group["positive"], *group["negatives"]} <= found
    aligned.find = lambda query: ["a", "b"]
    assert spied(aligned, question="why?")[1].checkpoints[0].startswith(str(tmp_path))


class Closure(dspy.Module):
    """Its tool is a function around a reranker."""

    def __init__(self, retriever, rerank, **attributes):
        super().__init__()

        def search(query: str) -> list[str]:
            return [one.contents for one in rerank(query, retriever(query, k=8).passages).passages]

        self.agent = dspy.ReAct("question -> answer", tools=[search])
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, question):
        return self.agent(question=question)


def test_a_reranker_inside_a_function_is_told_how_to_get_out(index, small, topic):
    rerank = Rerank(small, "bi-encoder")
    optimizer = radio_of(encoder=small, **TRAINED)
    hidden = "only lives inside a function cannot be copied: use a method of the module as the tool"
    with pytest.raises(SettingsError, match=hidden):
        optimizer.compile(Closure(index, rerank), trainset=topic.train[:4], valset=topic.test[:2])
    # Held as well, the copy's reranker would be trained, and the function would go on with the student's.
    with (
        dspy.context(lm=agent_lm(topic.train)),
        pytest.raises(SettingsError, match=r"A Rerank was called that the student does not hold.*\(not a function"),
    ):
        optimizer.compile(Closure(index, rerank, held=rerank), trainset=topic.train[:4], valset=topic.test[:2])
    assert rerank.weights.checkpoint == small.name


class Late(Own):
    """Asks an LM for the query before it searches."""

    def __init__(self, find, encoder):
        super().__init__(find, encoder)
        self.rewrite = dspy.Predict("question -> query")

    def forward(self, question):
        return super().forward(self.rewrite(question=question).query)


def test_a_program_that_needs_an_lm_is_told_so(index, small, topic):
    message = r"None of the first .* reached a Rerank \(the program failed: .*No LM is loaded.*Configure the LM that"
    with pytest.raises(SettingsError, match=message):
        radio_of(encoder=small, **TRAINED).compile(Late(Search(index), small), trainset=topic.train, valset=topic.test)


def test_questions_on_which_the_program_fails_are_left_out_and_counted(index, small, topic, tmp_path, caplog):
    broken = {topic.train[1].question, topic.train[4].question, topic.test[0].question}

    def find(query):
        if query in broken:
            raise ConnectionError("the shelf is gone")
        return Search(index)(query)

    optimizer = radio_of(encoder=small, run_dir=tmp_path, **TRAINED)
    with caplog.at_level(logging.WARNING):
        optimizer.compile(Own(find, small), trainset=topic.train[:6], valset=topic.test[:3])
    assert optimizer.report.questions == {
        "train": 6,
        "used": 4,
        "skipped": {"failed": 2},
        "judged": 2,
        "recorded": True,
    }
    assert [one["id"] for one in records(tmp_path)] == [topic.train[i].id for i in (0, 2, 3, 5)]
    assert "failed on 3 questions" in caplog.text
    assert "the shelf is gone" in caplog.text


def test_multiple_choice_is_compiled_and_evaluated(index, small, topic):
    def choosing(examples):
        rows = [
            dspy.Example(
                id=one.id, question=one.question, choices=["cold", *one.answers], answers=["B"], relevant=one.relevant
            )
            for one in examples
        ]
        return [one.with_inputs("question", "choices") for one in rows]

    train, held_out = choosing(topic.train[:4]), choosing(topic.test[:4])
    student = MultipleChoice(index, Rerank(small, "bi-encoder"), candidates=8, k=3)
    lm = scripted(letter="The answer is B.")
    with dspy.context(lm=lm):
        optimizer = radio_of(**TRAINED)
        aligned = optimizer.compile(student, trainset=train, valset=held_out)
    assert not optimizer.report.questions["recorded"]
    assert len(lm.history) == 0  # looked at three questions, without a trace
    assert aligned.rerank.weights.checkpoint != small.name
    evaluate = dspy.Evaluate(devset=[*held_out[:3], held_out[3].copy(answers=["A"])], metric=dspy_metric(accuracy))
    with dspy.context(lm=lm, callbacks=[spy := Spy()]):
        assert evaluate(aligned, display_progress=False).score == 75.0
    assert set(spy.checkpoints) == {aligned.rerank.weights.checkpoint}


def test_multi_hop_learns_from_every_hop_and_is_evaluated(index, small, topic, tmp_path):
    train, held_out = topic.train[:4], topic.test[:4]
    student = MultiHop(index, Rerank(small, "bi-encoder"), hops=2, candidates=6, k=2)
    lm = LaunchableLM(
        {
            one.question: {"query": asked_for(one.question), "answer": one.answers[0] if one in held_out[1:] else "x"}
            for one in [*train, *held_out]
        }
    )
    with dspy.context(lm=lm):
        optimizer = radio_of(run_dir=tmp_path, **TRAINED)
        aligned = optimizer.compile(student, trainset=train, valset=held_out)
    assert optimizer.report.questions["recorded"]
    assert [(one["id"], one["query"]) for one in records(tmp_path)] == [
        row for one in train for row in ((one.id, one.question), (f"{one.id}/2", asked_for(one.question)))
    ]
    evaluate = dspy.Evaluate(devset=held_out, metric=dspy_metric(exact_match), display_progress=False)
    with dspy.context(lm=lm, callbacks=[spy := Spy()]):
        assert evaluate(aligned).score == 75.0
    assert spy.checkpoints == [aligned.rerank.weights.checkpoint] * 8
    assert aligned.rerank.weights.checkpoint.startswith(str(tmp_path))


def test_what_cannot_be_copied_is_shared_unless_a_reranker_is_behind_it(index, small, topic):
    student = Own(Search(index), small)
    student.lock = threading.Lock()
    optimizer = radio_of(encoder=small, **TRAINED)
    aligned = optimizer.compile(student, trainset=topic.train[:4], valset=topic.test[:2])
    assert aligned.lock is student.lock
    assert aligned.rerank.weights.checkpoint != student.rerank.weights.checkpoint == small.name
    student.parts = [threading.Lock(), Rerank(small, "bi-encoder")]
    with pytest.raises(SettingsError, match=r"self\.parts\[1\] cannot be copied"):
        optimizer.compile(student, trainset=topic.train[:4], valset=topic.test[:2])
    agent = Agent(index, small)
    agent.lock = threading.Lock()
    with pytest.raises(SettingsError, match=r"cannot be copied, so aligning it would change the student"):
        optimizer.compile(agent, trainset=topic.train[:4], valset=topic.test[:2])
    assert agent.rerank.weights.checkpoint == small.name


class Idle(dspy.Module):
    """Holds a reranker that it never calls, before the one that it does call."""

    def __init__(self, retriever, encoder):
        super().__init__()
        self.unused = Rerank(encoder, "bi-encoder", max_length=48)
        self.retriever = retriever
        self.rerank = Rerank(encoder, "bi-encoder")

    def forward(self, question):
        return self.rerank(question, self.retriever(f"about {question}", k=8).passages)


def test_a_reranker_that_no_question_reaches_is_left_alone(index, small, topic, tmp_path, caplog):
    student = Idle(index, small)
    optimizer = radio_of(encoder=small, run_dir=tmp_path, **TRAINED)
    with caplog.at_level(logging.WARNING):
        aligned = optimizer.compile(student, trainset=topic.train[:6], valset=topic.test[:3])
    assert aligned.unused.weights.checkpoint == student.unused.weights.checkpoint
    assert aligned.rerank.weights.checkpoint != student.rerank.weights.checkpoint
    assert optimizer.report.reranker == "self.rerank"
    assert "No training question reaches self.unused" in caplog.text


class Remembering(dspy.Module):
    """Keeps what it found for a question, and counts how often it ran."""

    def __init__(self, retriever, encoder):
        super().__init__()
        self.retriever, self.known, self.ran = retriever, {}, 0
        self.rerank = Rerank(encoder, "bi-encoder", k=3)

    def forward(self, question):
        self.ran += 1
        if question not in self.known:
            self.known[question] = self.rerank(question, self.retriever(f"about {question}", k=8).passages).passages
        return dspy.Prediction(answer=self.known[question][0].text)


def test_what_a_program_remembers_of_its_runs_is_not_handed_back(index, small, topic, tmp_path):
    asked = []

    def metric(example, prediction):
        asked.append(prediction.answer)
        return float(len(prediction.answer))

    student = Remembering(index, small)
    optimizer = radio_of(encoder=small, metric=metric, run_dir=tmp_path, **{**TRAINED, "gate": Gate(mixtures=())})
    aligned = optimizer.compile(student, trainset=topic.train[:4], valset=topic.test[:4])
    assert (aligned.known, aligned.ran, student.known, student.ran) == ({}, 0, {}, 0)
    assert len(asked) == 8  # with the base's and with the trained weights


def test_the_metric_judges_each_weights_by_themselves(index, small, tiny, topic):
    program = Remembering(index, small)
    (slot,) = slots_of(program)
    judge = MetricJudge(program, slot, topic.test[:4], lambda example, prediction: float(len(prediction.answer)))
    first, other = judge(slot.weights), judge(Rerank(tiny, "cross-encoder").weights)
    assert first != other
    assert judge(slot.weights) == first


@pytest.mark.parametrize("field", ["query", "claim"])
def test_questions_by_another_name(index, small, topic, tmp_path, field):
    class Program(dspy.Module):
        def __init__(self):
            super().__init__()
            self.rerank = Rerank(small, "bi-encoder", k=3)

        def forward(self, **given):
            return self.rerank(given[field], [one.text for one in index(given[field], k=8).passages])

    rows = [
        dspy.Example(**{field: one.question}, answer=one.answers[0]).with_inputs(field)
        for one in [*topic.train[:4], *topic.test[:2]]
    ]
    radio_of(encoder=small, run_dir=tmp_path, **TRAINED).compile(Program(), trainset=rows[:4], valset=rows[4:])
    assert [one["query"] for one in records(tmp_path)] == [one.question for one in topic.train[:4]]


def test_questions_that_cannot_be_told(index, small, topic):
    optimizer, student = radio_of(encoder=small, **TRAINED), Own(Search(index), small)
    two = [dspy.Example(claim="Ice.", date="2020", answer="yes").with_inputs("claim", "date")]
    with pytest.raises(DataError, match=r"has no 'question' .*give example\.copy\(question=\.\.\.\)"):
        optimizer.compile(student, trainset=two * 2, valset=two)
    none = [dspy.Example(question=None, answer="yes").with_inputs("question")]
    with pytest.raises(DataError, match="has no 'question' that is a text, got None"):
        optimizer.compile(student, trainset=none * 2, valset=none)
    with pytest.raises(SettingsError, match=r"must be a dspy\.Module, got <function"):
        optimizer.compile(dspy.streamify(student), trainset=topic.train[:4], valset=topic.test[:2])
