import logging

import pytest
from radio_dspy.programs import RetrieveRerankAnswer

from radio_dspy import RADIO, Rerank
from radio_dspy.distillation.lm_signals import AnswerCorrectness
from radio_dspy.distillation.signals import RetrievalScore
from radio_dspy.errors import RunError
from radio_dspy.files import sha256_of
from radio_dspy.runs import Run
from tests.conftest import LaunchableLM, UnaskedLM, scripted

FAST = {
    "epochs": 2, "learning_rate": 5e-5, "max_length": 64, "groups_per_step": 2, "candidates": 10, "gate": False,
    "accumulation_steps": 1, "show_progress": False,
}  # fmt: skip


class Killed(BaseException):
    """Stands in for a kill."""


@pytest.fixture
def program(index, small):
    return RetrieveRerankAnswer(index, Rerank(small, "bi-encoder"), candidates=10, k=3)


def explaining(examples, *, calls=10**9):
    """Names the answer; is killed after a number of calls."""

    class Counting(LaunchableLM):
        asked = 0

        def __call__(self, *args, **kwargs):
            if self.asked == calls:
                raise Killed
            self.asked += 1
            return super().__call__(*args, **kwargs)

    return Counting({one.question: {"rationale": f"The reason is this: {one.answers[0]}."} for one in examples})


def outcome(aligned, folder):
    model = f"{aligned.rerank.weights.checkpoint}/model.safetensors"
    return (folder / "groups.jsonl").read_bytes(), sha256_of(type(folder)(model))


def test_a_run_killed_among_its_rationales_ends_as_one_in_one_go(program, topic, tmp_path):
    sets = {"trainset": topic.train[:8], "valset": topic.test}
    lm = explaining(topic.train)
    whole = RADIO(lm, run_dir=tmp_path / "whole", **FAST).compile(program, **sets)
    first, second = explaining(topic.train, calls=3), explaining(topic.train)
    with pytest.raises(Killed):
        RADIO(first, run_dir=tmp_path / "run", **FAST).compile(program, **sets)
    again = RADIO(second, run_dir=tmp_path / "run", **FAST).compile(program, **sets)
    assert (lm.asked, first.asked + second.asked) == (8, 8)
    assert outcome(again, tmp_path / "run") == outcome(whole, tmp_path / "whole")


def test_a_changed_setting_is_named_with_what_it_invalidates(program, topic, tmp_path, caplog):
    sets = {"trainset": topic.train[:4], "valset": topic.test}
    RADIO(explaining(topic.train), run_dir=tmp_path, **FAST).compile(program, **sets)
    lm = explaining(topic.train)
    with caplog.at_level(logging.WARNING):
        RADIO(lm, run_dir=tmp_path, **{**FAST, "learning_rate": 1e-4}).compile(program, **sets)
    assert lm.asked == 0
    assert "learning_rate: 5e-05 -> 0.0001" in caplog.text
    assert "Done again: training, gate;" in caplog.text
    assert "Kept as they are: requests, rationales, signals, groups." in caplog.text
    assert len(Run(tmp_path).read_records("training")) == 2


def test_an_lms_scores_are_kept_in_the_run(program, topic, tmp_path):
    sets = {"trainset": topic.train[:3], "valset": topic.test}
    signals = {AnswerCorrectness(scripted(answer="yeast"), depth=2): 0.5, RetrievalScore(): 0.5}
    RADIO(signals=signals, run_dir=tmp_path, **FAST).compile(program, **sets)
    assert len(Run(tmp_path).read_records("signals")) == 6
    unasked = UnaskedLM({"": {"answer": "yeast"}})
    again = {AnswerCorrectness(unasked, depth=2): 0.5, RetrievalScore(): 0.5}
    RADIO(signals=again, run_dir=tmp_path, **FAST).compile(program, **sets)


def test_a_run_in_use_is_refused(program, topic, tmp_path):
    with Run(tmp_path).exclusive(), pytest.raises(RunError, match="in use by process"):
        RADIO(run_dir=tmp_path, **FAST).compile(program, trainset=topic.train[:4], valset=topic.test)


def test_the_manifest_holds_no_path(program, topic, tmp_path):
    RADIO(run_dir=tmp_path, **FAST).compile(program, trainset=topic.train[:4], valset=topic.test)
    manifest = (tmp_path / "manifest.json").read_text()
    assert str(tmp_path) not in manifest
    assert program.rerank.weights.checkpoint not in manifest
