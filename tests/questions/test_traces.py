"""What a program was asked becomes questions; what people said of it becomes gold answers."""

import dspy
import pytest
from dspy.utils import DummyLM

import radio_dspy as radio
from radio_dspy.core.errors import DataError, SettingsError
from radio_dspy.questions.traces import questions_from_traces
from tests.conftest import scripted
from tests.settings import tracked


class Tutorial(dspy.Module):
    """The program of DSPy's own tutorial."""

    def __init__(self):
        super().__init__()
        self.respond = dspy.ChainOfThought("context, question -> response")

    def forward(self, question):
        return self.respond(context=["Heat kills yeast."], question=question)


def asked(mlflow):
    """Ask the program five things, and say something of most answers; what MLflow's store then has."""
    from mlflow.entities import AssessmentSource

    mlflow.set_experiment("asked")
    with dspy.context(lm=scripted(response="heat", reasoning="It is.")):
        for question in ("good", "bad", "judged", "expected", "bare"):
            Tutorial()(question=f"What is {question}?")
    mlflow.flush_trace_async_logging()
    traces = mlflow.search_traces(return_type="list")
    ids = {one.data.spans[0].inputs["question"]: one.info.trace_id for one in traces}
    human = AssessmentSource(source_type="HUMAN", source_id="anna")
    judge = AssessmentSource(source_type="LLM_JUDGE", source_id="gpt")
    for name, value, source in (
        ("good", True, human), ("good", "thumbs_up", human), ("bad", True, human), ("bad", "no", human),
        ("judged", True, judge), ("expected", False, human),
    ):  # fmt: skip
        mlflow.log_feedback(trace_id=ids[f"What is {name}?"], name="correct", value=value, source=source)
    mlflow.log_expectation(trace_id=ids["What is expected?"], name="expected_response", value="hot water", source=human)
    return mlflow.search_traces(return_type="list"), mlflow.search_traces()


@pytest.fixture(scope="module")
def traces(tmp_path_factory):
    """Traces of MLflow's own store, in each form in which they may be given."""
    folder = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # where MLflow makes a folder for artefacts
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        mlflow = pytest.importorskip("mlflow", reason="needs the extra 'tracing'")
        pytest.importorskip("sqlalchemy", reason="needs the extra 'tracing'")
        from mlflow.utils.autologging_utils.safety import revert_patches

        before = {name: getattr(dspy.settings, name) for name in ("callbacks", "track_usage")}
        with tracked(f"sqlite:///{folder}/traces.db"):
            mlflow.dspy.autolog()
            try:
                found = asked(mlflow)
            finally:
                mlflow.dspy.autolog(disable=True)
                dspy.configure(**before)
                revert_patches("dspy")
            yield "asked", *found


EXPECTED = {
    "What is good?": ["heat"],
    "What is bad?": [],
    "What is judged?": [],
    "What is expected?": ["hot water"],
    "What is bare?": [],
}


@pytest.mark.parametrize("form", [0, 1, 2], ids=["experiment", "list", "table"])
def test_thumbs_of_people_decide_which_answers_are_gold(traces, form):
    found = questions_from_traces(traces[form])
    assert {one.question: one.answers for one in found} == EXPECTED
    by_question = {one.question: one.metadata for one in found}
    assert by_question["What is good?"]["good"] is True
    assert by_question["What is bad?"]["good"] is False
    assert by_question["What is bare?"]["answer"] == "heat"
    assert all(one["trace"].startswith("tr-") for one in by_question.values())


def test_a_judge_counts_where_it_is_named_and_silence_where_it_is_taken_for_consent(traces):
    named = {one.question: one.answers for one in questions_from_traces(traces[1], feedback="correct")}
    assert named == {**EXPECTED, "What is judged?": ["heat"]}
    silent = {one.question: one.answers for one in questions_from_traces(traces[1], unjudged=True)}
    assert silent == {**EXPECTED, "What is judged?": ["heat"], "What is bare?": ["heat"]}


@pytest.mark.parametrize("adapter", [dspy.ChatAdapter(), dspy.JSONAdapter()])
def test_an_lms_history_is_read(adapter):
    lm = DummyLM([{"reasoning": "r", "response": one} for one in ("heat", "cold")] * 2, adapter=adapter)
    with dspy.context(lm=lm, adapter=adapter):
        for question in ("What kills\nyeast?", "What keeps it?"):
            Tutorial()(question=question)
    found = questions_from_traces(lm.history, thumbs={"What keeps it?": True})
    assert [(one.question, one.answers) for one in found] == [("What kills\nyeast?", []), ("What keeps it?", ["cold"])]


def test_a_trace_of_dspys_is_read():
    with dspy.context(lm=scripted(response="heat", reasoning="It is."), trace=[]):
        Tutorial()(question="What kills yeast?")
        found = questions_from_traces(dspy.settings.trace, unjudged=True)
    assert [(one.question, one.answers) for one in found] == [("What kills yeast?", ["heat"])]


def test_a_chat_and_fields_of_ones_own():
    chat = ("", {"messages": [{"role": "user", "content": "Why?"}]}, {"messages": [{"content": "Because."}]})
    own = ("", {"ask": "How?", "user": "Anna"}, {"said": "So.", "cost": 3})
    assert questions_from_traces([chat], unjudged=True)[0].answers == ["Because."]
    assert questions_from_traces([own], question="ask", answer="said", unjudged=True)[0].answers == ["So."]
    with pytest.raises(DataError, match="None of 1 traces has a question"):
        questions_from_traces([own])
    with pytest.raises(DataError, match="Trace 0 is a int"):
        questions_from_traces([7])
    with pytest.raises(SettingsError, match="got int"):
        questions_from_traces(7)


def test_what_was_taken_is_written_and_read_again(tmp_path):
    found = questions_from_traces([("", {"question": "Why?"}, {"answer": "So."})] * 2, unjudged=True)
    radio.write_questions(found, tmp_path / "train.jsonl")
    read = radio.load_questions(tmp_path / "train.jsonl")
    assert [one.toDict() for one in read] == [one.toDict() for one in found]
    assert len(read) == 1
