"""What DSPy's own means of looking inside show of a program: history, usage, callbacks, and MLflow's spans."""

import asyncio
import io

import dspy
import pytest
from dspy.utils.callback import ACTIVE_CALL_ID, BaseCallback

import radio_dspy as radio
from tests.conftest import scripted
from tests.settings import radio_of, tracked
from tests.stub_servers import COMPLETION_TOKENS, KEY, PROMPT_TOKENS, StubServer

WAYS = ["call", "acall"]


def run(program, way, question):
    """Ask a program in one of the two ways."""
    if way == "acall":
        return asyncio.run(program.acall(question=question))
    return program(question=question)


@pytest.mark.parametrize("way", WAYS)
def test_the_history_holds_the_answer_call_with_the_passages_that_were_kept(program, topic, way):
    lm = scripted(answer="yeast")
    with dspy.context(lm=lm):
        result = run(program, way, topic.test[0].question)
        dspy.inspect_history(file=(shown := io.StringIO()))
    for owner in (lm, program, program.answer):
        assert len(owner.history) == 1
    assert not program.rerank.history
    assert not program.retriever.history
    prompt = lm.history[0]["messages"][-1]["content"]
    kept = {one.id for one in result.passages}
    assert [one.id for one in topic.passages if one.text in prompt] == [
        one.id for one in topic.passages if one.id in kept
    ]
    assert topic.test[0].question in shown.getvalue()
    assert "yeast" in shown.getvalue()


@pytest.mark.parametrize("way", WAYS)
def test_usage_is_tracked(program, topic, way):
    with StubServer(lambda prompt: "[[ ## answer ## ]]\nyeast\n\n[[ ## completed ## ]]") as server:
        lm = dspy.LM("openai/stub", api_base=f"{server.url}/v1", api_key=KEY, cache=False)
        with dspy.context(lm=lm, track_usage=True):
            usage = run(program, way, topic.test[0].question).get_lm_usage()
        assert len(server.asked) == 1
    assert list(usage) == ["openai/stub"]
    assert usage["openai/stub"]["prompt_tokens"] == PROMPT_TOKENS
    assert usage["openai/stub"]["completion_tokens"] == COMPLETION_TOKENS


class Watch(BaseCallback):
    """Notes every call that starts, under the call that it belongs to, and what came of it."""

    def __init__(self):
        self.started, self.names, self.inputs, self.outputs = [], {}, {}, {}

    def on_module_start(self, call_id, instance, inputs):
        self.names[call_id] = type(instance).__name__
        self.started.append((type(instance).__name__, self.names.get(ACTIVE_CALL_ID.get())))
        self.inputs[type(instance).__name__] = inputs

    def on_module_end(self, call_id, outputs, exception=None):
        self.outputs[self.names[call_id]] = outputs

    def on_lm_start(self, call_id, instance, inputs):
        self.started.append(("LM", self.names.get(ACTIVE_CALL_ID.get())))


@pytest.mark.parametrize("way", WAYS)
def test_callbacks_see_the_stages_in_order_under_the_program(program, topic, way):
    with dspy.context(lm=scripted(answer="yeast"), callbacks=[watch := Watch()]):
        result = run(program, way, topic.test[0].question)
    assert watch.started == [
        ("RetrieveRerankAnswer", None),
        ("FaissRetriever", "RetrieveRerankAnswer"),
        ("Rerank", "RetrieveRerankAnswer"),
        ("Predict", "RetrieveRerankAnswer"),
        ("LM", "Predict"),
    ]
    question, candidates = watch.inputs["Rerank"]["args"]
    assert question == topic.test[0].question
    assert candidates is watch.outputs["FaissRetriever"].passages  # handed on, not copied
    assert watch.outputs["Rerank"].passages == result.passages
    assert watch.inputs["Predict"]["kwargs"]["passages"] == [one.contents for one in result.passages]


@pytest.fixture(scope="module")
def traces(index, small, topic, tmp_path_factory):
    """The spans that MLflow keeps of a call in each way and of a compile: for each, one list a trace.

    The fixture is the module's and not the test's, because autolog configures DSPy for the whole process: inside the
    ``dspy.context`` that surrounds a test nothing would be seen of it.
    """
    folder = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # where MLflow makes a folder for artefacts
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        mlflow = pytest.importorskip("mlflow", reason="needs the extra 'tracing'")
        pytest.importorskip("sqlalchemy", reason="needs the extra 'tracing'")
        from mlflow.utils.autologging_utils.safety import revert_patches

        program = radio.RetrieveRerankAnswer(index, radio.Rerank(small, "bi-encoder"), candidates=10, k=3)
        # Autolog silences the compiles of the optimizers that are imported by then.
        optimizer = radio_of(epochs=1, max_length=32, gate=False)
        uses = {
            "call": lambda: run(program, "call", topic.test[0].question),
            "acall": lambda: run(program, "acall", topic.test[0].question),
            "batch": lambda: program.batch(topic.test[:2], num_threads=2, timeout=0, disable_progress_bar=True),
            "compile": lambda: optimizer.compile(program, trainset=topic.train[:4], valset=topic.test[:2]),
        }
        kept = {}
        before = {name: getattr(dspy.settings, name) for name in ("callbacks", "track_usage")}
        with tracked(f"sqlite:///{folder}/traces.db"):
            mlflow.dspy.autolog()
            try:
                for name, use in uses.items():
                    mlflow.set_experiment(name)
                    with dspy.context(lm=scripted(answer="yeast")):
                        use()
                    mlflow.flush_trace_async_logging()
                    kept[name] = [one.data.spans for one in mlflow.search_traces(return_type="list")]
            finally:
                mlflow.dspy.autolog(disable=True)
                dspy.configure(**before)
                revert_patches("dspy")
    return kept


@pytest.mark.parametrize("way", [*WAYS, "batch"])
def test_mlflow_keeps_a_span_for_every_stage(traces, topic, way):
    assert len(traces[way]) == (2 if way == "batch" else 1)
    for spans in traces[way]:
        names = {one.span_id: one.name for one in spans}
        assert [(one.name, names.get(one.parent_id)) for one in spans if not one.name.startswith("ChatAdapter")] == [
            ("RetrieveRerankAnswer.forward", None),
            ("FaissRetriever.forward", "RetrieveRerankAnswer.forward"),
            ("Rerank.forward", "RetrieveRerankAnswer.forward"),
            ("Predict.forward", "RetrieveRerankAnswer.forward"),
            ("LaunchableLM.__call__", "Predict.forward"),
        ]
        program, find, rerank, answer, lm = (one for one in spans if not one.name.startswith("ChatAdapter"))
        assert program.inputs["question"] in {one.question for one in topic.test}
        assert program.outputs["answer"] == answer.outputs["answer"] == "yeast"
        assert len(find.outputs["passages"]) == 10
        assert rerank.inputs["args"] == [program.inputs["question"], find.outputs["passages"]]
        assert [len(rerank.outputs[name]) for name in ("passages", "scores", "indices")] == [3, 3, 3]
        assert program.outputs["passages"] == rerank.outputs["passages"]
        assert len(answer.inputs["passages"]) == 3
        assert program.inputs["question"] in str(lm.inputs)
        assert "yeast" in str(lm.outputs)


def test_mlflow_keeps_no_traces_of_a_compile(traces):
    assert traces["compile"] == []
