"""A reranker behind the first stage of programs whose source is not touched."""

import asyncio
import logging
import sys

import dspy
import numpy as np
import pytest
from dspy.utils import DummyLM
from radio_dspy.optimizers.opening import open_job

import radio_dspy as radio
from radio_dspy.core.errors import SettingsError
from radio_dspy.core.passages import content_id
from radio_dspy.distillation.candidates.reranker_slots import slots_of
from radio_dspy.models.encoder import Encoder
from radio_dspy.retrievers.embeddings import first_stage_of
from tests.conftest import ENCODER, UnaskedLM
from tests.settings import radio_of

CORPUS = [
    "Ice floats on water.",
    "Salt draws water out of a ham.",
    "Yeast dies in hot water.",
    "Steam carries heat away.",
    "A clay jug stays cool as water seeps out and evaporates.",
]
QUESTION = "why did the dough not rise?"


class CountingEmbedder:
    """The small model as a function, which counts the texts that it encodes."""

    def __init__(self, encoder):
        self.encoder = encoder
        self.texts = []

    def __call__(self, texts):
        self.texts += texts
        return self.encoder.encode_queries(texts)


def embeddings(encoder, corpus=CORPUS, k=5):
    embedder = CountingEmbedder(encoder)
    return dspy.retrievers.Embeddings(corpus=corpus, embedder=embedder, k=k), embedder


search = None  # a test's retriever, as the tutorial has it


class GlobalRAG(dspy.Module):
    """The tutorial's program."""

    def __init__(self):
        super().__init__()
        self.respond = dspy.ChainOfThought("context, question -> response")

    def forward(self, question):
        context = search(question).passages
        return self.respond(context=context, question=question)


class RAG(dspy.Module):
    """The same with its retriever as an attribute."""

    def __init__(self, search):
        super().__init__()
        self.search = search
        self.respond = dspy.ChainOfThought("context, question -> response")

    def forward(self, question):
        found = self.search(question)
        self.read = getattr(found, "passages", found)
        return self.respond(context=self.read, question=question)


def rerank(**settings):
    return radio.Rerank(ENCODER, "bi-encoder", **settings)


@pytest.fixture
def stock(small, monkeypatch):
    """The global retriever, and its embedder."""
    found = embeddings(small)
    monkeypatch.setattr(sys.modules[__name__], "search", found[0])
    return found


def asked(program):
    """What the LM of a program is given to read."""
    lm = DummyLM({"": {"reasoning": "r", "response": "x"}})
    with dspy.context(lm=lm):
        assert program(question=QUESTION).response == "x"
        return lm.history[-1]["messages"][-1]["content"].partition("[[ ## question")[0]


def test_a_global_retriever_is_reranked_in_the_copy_alone(stock):
    program = GlobalRAG()
    wrapped = radio.with_rerank(program, rerank(k=1), after="search")
    assert asked(wrapped).count("water") == 1
    assert "Yeast dies" in asked(wrapped)
    assert asked(program).count("water") > 1
    assert type(program) is GlobalRAG
    assert isinstance(wrapped, GlobalRAG)
    assert (type(wrapped).__name__, type(wrapped).__module__) == ("GlobalRAG", __name__)


def test_each_copy_has_a_reranker_of_its_own(stock):
    wrapped = radio.with_rerank(GlobalRAG(), rerank(k=1), after="search")
    copied = wrapped.deepcopy()
    copied.search.rerank.k = 3
    assert asked(copied).count("water") == 3
    assert asked(wrapped).count("water") == 1
    assert [name for name, _ in copied.named_predictors()] == ["respond.predict"]
    assert [name for name, _ in copied.named_parameters()] == ["respond.predict", "search.rerank.weights"]


def test_an_attribute_a_sub_module_and_a_local_function(small):
    found, _ = embeddings(small)

    def look_up(question):
        return CORPUS

    class Local(RAG):
        def __init__(self):
            super().__init__(None)

        def forward(self, question):
            return self.respond(context=look_up(question), question=question)

    class Outer(dspy.Module):
        def __init__(self):
            super().__init__()
            self.inner = RAG(found)

        def forward(self, question):
            return self.inner(question=question)

    for program, after in (
        (RAG(found), "search"),
        (RAG(look_up), "search"),
        (Outer(), "inner.search"),
        (Local(), "look_up"),
    ):
        assert "Yeast" in asked(radio.with_rerank(program, rerank(k=1), after=after)), after
    twice = radio.with_rerank(radio.with_rerank(Local(), rerank(k=2), after="look_up"), rerank(k=1), after="look_up")
    assert asked(twice).count("water") == 1


def test_a_method_of_the_retriever_and_its_other_settings(small):
    class Documents:
        top = 7

        def invoke(self, query):
            return {"documents": [{"content": text, "meta": {"row": row}} for row, text in enumerate(CORPUS)]}

        async def ainvoke(self, query):
            return self.invoke(query)

    class Chain(RAG):
        def forward(self, question):
            assert self.search.top == 7
            documents = self.search.invoke(question)["documents"]
            return self.respond(context=[one["content"] for one in documents], question=question)

    wrapped = radio.with_rerank(Chain(Documents()), rerank(k=1), after="search.invoke")
    assert "Yeast" in asked(wrapped)
    later = radio.with_rerank(Chain(Documents()), rerank(k=1), after="search.ainvoke")
    assert asyncio.run(later.search.ainvoke(QUESTION))["documents"][0]["meta"] == {"row": 2}


def look_up(query: str) -> list[str]:
    """Find passages about baking."""
    return CORPUS


class Librarian(dspy.Module):
    def __init__(self):
        super().__init__()
        self.agent = dspy.ReAct("question -> response", tools=[self.look_up], max_iters=2)

    def look_up(self, query: str) -> list[str]:
        """Find passages about baking."""
        return CORPUS

    def forward(self, question):
        return self.agent(question=question)


@pytest.mark.parametrize(
    "program",
    [
        lambda: dspy.ReAct("question -> response", tools=[look_up], max_iters=2),
        lambda: dspy.ReAct("question -> response", tools=[dspy.Tool(lambda query: CORPUS, name="look_up")]),
        Librarian,
    ],
    ids=["function", "tool", "method"],
)
def test_a_tool_of_an_agent(program, tmp_path):
    wrapped = radio.with_rerank(program(), rerank(k=1), after="look_up")
    steps = [
        {"next_thought": "t", "next_tool_name": "look_up", "next_tool_args": {"query": QUESTION}},
        {"next_thought": "t", "next_tool_name": "finish", "next_tool_args": {}},
        {"reasoning": "r", "response": "x"},
    ]
    copied = wrapped.deepcopy()
    for agent, k in ((copied, 3), (wrapped, 1)):
        (slot,) = slots_of(agent)
        slot.rerankers[0].k = k
        with dspy.context(lm=DummyLM(steps)):
            found = agent(question=QUESTION).trajectory["observation_0"]
        assert len(found) == k
        assert "Yeast dies" in found[0]
    fresh = radio.with_rerank(program(), rerank(k=2), after="look_up")
    loaded = radio.load(radio.save(wrapped, tmp_path / "saved"), program=fresh)
    (slot,) = slots_of(loaded)
    assert slot.weights.checkpoint == str(tmp_path / "saved" / "reranker")


@pytest.mark.parametrize("method", ["invoke", "retrieve", "run"])
def test_a_retriever_of_another_library_is_named_by_its_method(method):
    """Else the program would go on calling the method, past the reranker."""
    found = type("Library", (), {method: lambda self, query: CORPUS})()
    with pytest.raises(SettingsError, match=rf"'search' is a Library.*after='search\.{method}'"):
        radio.with_rerank(RAG(found), rerank(), after="search")


def test_what_stands_beside_the_passages_moves_with_them(stock):
    wrapped = radio.with_rerank(GlobalRAG(), rerank(k=2), after="search")
    found = wrapped.search(QUESTION)
    assert [CORPUS[row] for row in found.indices] == found.passages
    assert len(found.passages) == 2


def test_a_name_that_nothing_has_is_an_error():
    with pytest.raises(SettingsError, match="RAG has no attribute and no tool 'find'"):
        radio.with_rerank(RAG(None), rerank(), after="find")
    with pytest.raises(SettingsError, match="needs a list of passages"):
        radio.with_rerank(RAG(lambda question: "one text"), rerank(), after="search").search("why?")
    with pytest.raises(SettingsError, match="without a query that is a text"):
        radio.with_rerank(RAG(lambda question: CORPUS), rerank(), after="search").search(7)


class Members(dspy.Module):
    """Its first stage is a method, a property, a function of the class, or an attribute that holds a method."""

    fixed = staticmethod(lambda question: CORPUS)

    def __init__(self, read):
        super().__init__()
        self.read, self.held = read, self.find
        self.respond = dspy.ChainOfThought("context, question -> response")

    def find(self, question):
        return list(CORPUS)

    async def wait(self, question):
        return list(CORPUS)

    @property
    def stage(self):
        return self.find

    def forward(self, question):
        return self.respond(context=self.read(self, question), question=question)


@pytest.mark.parametrize(
    ("after", "read"),
    [
        ("find", lambda self, question: self.find(question)),
        ("find", lambda self, question: self.held(question)),
        ("held", lambda self, question: self.held(question)),
        ("stage", lambda self, question: self.stage(question)),
        ("fixed", lambda self, question: self.fixed(question)),
        ("wait", lambda self, question: asyncio.run(self.wait(question))),
    ],
    ids=["method", "held method", "attribute", "property", "function of the class", "awaited"],
)
def test_what_the_class_has(after, read):
    program = Members(read)
    wrapped = radio.with_rerank(program, rerank(k=1), after=after)
    for one in (wrapped, wrapped.deepcopy(), radio.with_rerank(wrapped, rerank(k=1), after=after)):
        assert asked(one).count("water") == 1
        assert "Yeast" in asked(one)
    assert asked(program).count("water") > 1
    assert len(slots_of(wrapped)) == 1


def test_a_tool_reads_the_reranked_global(stock):
    class Agent(dspy.Module):
        def __init__(self):
            super().__init__()
            self.agent = dspy.ReAct("question -> answer", tools=[self.look_up], max_iters=1)

        def look_up(self, query: str) -> list[str]:
            """Search."""
            return search(query).passages

        def forward(self, question):
            return self.agent(question=question)

    wrapped = radio.with_rerank(Agent(), rerank(k=1), after="search")
    said = {
        "next_thought": "t",
        "next_tool_name": "look_up",
        "next_tool_args": '{"query": "why did the dough not rise?"}',
    }
    with dspy.context(lm=DummyLM({"": {**said, "reasoning": "r", "answer": "x"}})):
        for one in (wrapped, wrapped.deepcopy()):
            assert one(question=QUESTION).trajectory["observation_0"] == ["Yeast dies in hot water."]


class Noting(dspy.Module):
    """A reranker of the user's that turns the order, and notes what it was asked."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def forward(self, query, passages):
        self.asked.append(query)
        rows = range(len(passages))[::-1]
        return dspy.Prediction(passages=[passages[row] for row in rows], indices=list(rows), scores=[0.0] * len(rows))


@pytest.mark.parametrize(
    ("find", "call"),
    [
        (lambda collection, question: CORPUS, lambda find: find("kitchen", QUESTION)),
        (lambda collection, question: CORPUS, lambda find: find("kitchen", question=QUESTION)),
        (lambda collection, *, query: CORPUS, lambda find: find("kitchen", query=QUESTION)),
        (lambda collection, words: CORPUS, lambda find: find(3, words=QUESTION)),
        (lambda *texts: CORPUS, lambda find: find(QUESTION, "kitchen")),
    ],
)
def test_the_query_among_the_arguments(find, call):
    wrapped = radio.with_rerank(RAG(find), Noting(), after="search")
    assert call(wrapped.search) == CORPUS[::-1]
    assert wrapped.search.rerank.asked == [QUESTION]


@pytest.mark.parametrize(
    ("found", "given"),
    [
        (lambda: None, None),
        (lambda: [], []),
        (lambda: iter(CORPUS), CORPUS[::-1]),
        (lambda: np.array(CORPUS), CORPUS[::-1]),
        (lambda: [(text, 0.5) for text in CORPUS], [(text, 0.5) for text in CORPUS[::-1]]),
        (lambda: {"passages": CORPUS, "scores": [1.0] * 5}, {"passages": CORPUS[::-1], "scores": [1.0] * 5}),
    ],
    ids=["none", "nothing", "generator", "array", "pairs", "mapping with scores"],
)
def test_what_a_first_stage_gives(found, given):
    wrapped = radio.with_rerank(RAG(lambda question: found()), Noting(), after="search")
    assert wrapped.search(QUESTION) == given


@pytest.mark.parametrize(
    ("program", "reranker", "after", "message"),
    [
        (len, Noting(), "search", "must be a dspy.Module, got <built-in"),
        (RAG(None), "BAAI/bge-reranker-base", "search", "needs a reranker such as .* got 'BAAI"),
        (RAG(None), radio.Rerank, "search", "needs a reranker such as"),
        (RAG(None), Noting(), None, "must name what finds the passages, got None"),
        (RAG(None), Noting(), "", "must name what finds the passages, got ''"),
        (RAG(None), Noting(), "forward", "has no attribute and no tool 'forward'"),
        (RAG(None), Noting(), "__class__", "has no attribute and no tool '__class__'"),
    ],
)
def test_what_is_no_program_reranker_or_name(program, reranker, after, message):
    with pytest.raises(SettingsError, match=message):
        radio.with_rerank(program, reranker, after=after)


class TestEmbeddings:
    def test_its_own_vectors_are_searched(self, small):
        found, embedder = embeddings(small, [*CORPUS, CORPUS[0]])
        stage = first_stage_of(RAG(found))
        embedder.texts.clear()
        ranking = stage.search([QUESTION], 3)[0]
        assert [one.text for one in ranking.passages] == found(QUESTION).passages[:3]
        assert ranking.ids[0] == content_id("Yeast dies in hot water.")
        assert stage.vectors(ranking.ids).shape == (3, 384)
        assert set(embedder.texts) == {QUESTION}
        assert len(stage.passages) == 5  # each text once
        assert first_stage_of(RAG(found)) is stage

    @pytest.mark.parametrize("held", ["global", "attribute", "with_rerank"])
    def test_it_is_found_wherever_the_program_has_it(self, stock, held):
        program = RAG(stock[0]) if held == "attribute" else GlobalRAG()
        if held == "with_rerank":
            program = radio.with_rerank(program, rerank(), after="search")
        assert first_stage_of(program).store.all[0].text == CORPUS[0]
        assert first_stage_of(RAG(None)) is None


EXAMPLES = [
    ("why did the dough not rise?", "Yeast dies in hot water."),
    ("why does the pond freeze from above?", "Ice floats on water."),
    ("what draws the juice from the meat?", "Salt draws water out of a ham."),
    ("how does a kettle lose warmth?", "Steam carries heat away."),
    ("what keeps a drink fresh in summer?", "A clay jug stays cool as water seeps out and evaporates."),
    ("what floats?", "Ice floats on water."),
]


def examples(labelled=False):
    return [
        dspy.Example(question=question, response=text, **({"relevant": [text]} if labelled else {})).with_inputs(
            "question"
        )
        for question, text in EXAMPLES
    ]


@pytest.mark.parametrize("labelled", [True, False])
def test_the_stock_program_is_aligned_without_a_call_or_a_second_encoding(stock, small, tmp_path, labelled):
    embedder = stock[1]
    student = radio.with_rerank(GlobalRAG(), radio.Rerank(small, "bi-encoder", k=3), after="search")
    optimizer = radio_of(
        candidates=5, epochs=1, max_length=32, gate=False, false_negatives=None, sampling="all", run_dir=tmp_path
    )
    embedder.texts.clear()
    with dspy.context(lm=UnaskedLM({})):
        aligned = optimizer.compile(student, trainset=examples(labelled)[:4], valset=examples(labelled)[4:])
    assert not set(embedder.texts) & set(CORPUS)  # its own vectors were the index
    report = optimizer.report
    assert report.questions["used"] == 4
    assert not report.questions["recorded"]
    assert report.relevance == ("labels" if labelled else "answers")
    assert report.metrics["first_stage"]["ndcg@10"] > 0
    assert report.rerankers[0].groups
    assert aligned.search.rerank.weights.checkpoint != student.search.rerank.weights.checkpoint


def test_saved_moved_and_loaded_into_a_fresh_program_it_ranks_the_same(stock, small, tmp_path):
    student = radio.with_rerank(GlobalRAG(), radio.Rerank(small, "bi-encoder", k=3), after="search")
    optimizer = radio_of(
        candidates=5, epochs=1, learning_rate=1e-3, max_length=32, gate=False, false_negatives=None, sampling="all",
        run_dir=tmp_path / "run",
    )  # fmt: skip
    aligned = optimizer.compile(student, trainset=examples()[:4], valset=examples()[4:])
    before = aligned.search.rerank(QUESTION, CORPUS)
    radio.save(aligned, tmp_path / "saved")
    (tmp_path / "saved").rename(tmp_path / "moved")
    (tmp_path / "run").rename(tmp_path / "gone")
    fresh = radio.with_rerank(GlobalRAG(), radio.Rerank(small, "bi-encoder", k=3), after="search")
    loaded = radio.load(tmp_path / "moved", program=fresh).search.rerank
    assert loaded.weights.checkpoint.startswith(str(tmp_path / "moved"))
    found = loaded(QUESTION, CORPUS)
    assert found.passages == before.passages
    assert found.scores == pytest.approx(before.scores, abs=1e-5)


def test_bootstrapping_after_it_keeps_the_reranker(stock, caplog):
    student = radio.with_rerank(GlobalRAG(), rerank(k=2), after="search")
    lm = DummyLM({"": {"reasoning": "r", "response": "x"}})
    with dspy.context(lm=lm), caplog.at_level(logging.WARNING):
        both = dspy.BootstrapFewShot(metric=lambda *_: True, max_bootstrapped_demos=1, max_labeled_demos=1).compile(
            student, trainset=examples()[:2]
        )
    assert both.respond.predict.demos
    assert isinstance(both.search.rerank, radio.Rerank)
    assert "cannot" not in caplog.text


def test_an_encoder_is_found_without_one_being_given(stock, index, small):
    trainset = examples()
    student = radio.with_rerank(RAG(lambda question: CORPUS), radio.Rerank(small, "bi-encoder"), after="search")
    assert open_job(radio_of(), student, trainset, None, encodes=False).encoder.name == small.name
    student = radio.with_rerank(GlobalRAG(), radio.Rerank(small, "bi-encoder"), after="search")
    assert open_job(radio_of(), student, trainset, None, encodes=False).encoder.name == "CountingEmbedder"
    cross = radio.Rerank(Encoder(small.name), "cross-encoder", new_head=True)
    with pytest.raises(SettingsError, match="Give RADIO an encoder="):
        open_job(
            radio_of(),
            radio.with_rerank(RAG(lambda question: CORPUS), cross, after="search"),
            trainset,
            None,
            encodes=False,
        )
