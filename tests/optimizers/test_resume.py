import logging
import shutil

import dspy
import pytest
from dspy.utils import DummyLM
from radio_dspy.programs import RetrieveRerankAnswer

from radio_dspy import Rerank
from radio_dspy.core.errors import RunError
from radio_dspy.core.files import sha256_of
from radio_dspy.core.passages import Passage
from radio_dspy.distillation.teacher.lm_signals import AnswerCorrectness
from radio_dspy.distillation.teacher.signals import RationaleSimilarity, RetrievalScore
from radio_dspy.retrievers.faiss import FaissRetriever
from radio_dspy.runs.run import Run
from tests.conftest import ENCODER, ROOT, LaunchableLM, UnaskedLM, scripted
from tests.settings import radio_of

FAST = {
    "epochs": 1, "learning_rate": 5e-5, "max_length": 64, "per_device_train_batch_size": 2, "candidates": 10,
    "gate": False, "gradient_accumulation_steps": 1,
}  # fmt: skip


class Killed(BaseException):
    """Stands in for a kill."""


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
    sets = {"trainset": topic.train[:8], "valset": topic.test[:4]}
    lm = explaining(topic.train)
    whole = radio_of(lm, run_dir=tmp_path / "whole", **FAST).compile(program, **sets)
    first, second = explaining(topic.train, calls=3), explaining(topic.train)
    with pytest.raises(Killed):
        radio_of(first, run_dir=tmp_path / "run", **FAST).compile(program, **sets)
    again = radio_of(second, run_dir=tmp_path / "run", **FAST).compile(program, **sets)
    assert (lm.asked, first.asked + second.asked) == (8, 8)
    assert outcome(again, tmp_path / "run") == outcome(whole, tmp_path / "whole")


def test_a_changed_setting_is_named_with_what_it_invalidates(program, topic, tmp_path, caplog):
    sets = {"trainset": topic.train[:4], "valset": topic.test[:4]}
    radio_of(explaining(topic.train), run_dir=tmp_path, **FAST).compile(program, **sets)
    lm = explaining(topic.train)
    with caplog.at_level(logging.WARNING):
        radio_of(lm, run_dir=tmp_path, **{**FAST, "learning_rate": 1e-4}).compile(program, **sets)
    assert lm.asked == 0
    assert "learning_rate: 5e-05 -> 0.0001" in caplog.text
    assert "Done again: training, gate;" in caplog.text
    assert "Kept as they are: requests, rationales, signals, groups." in caplog.text
    assert len(Run(tmp_path).read_records("training")) == 2


def test_an_lms_scores_are_kept_in_the_run(program, topic, tmp_path):
    sets = {"trainset": topic.train[:3], "valset": topic.test[:4]}
    signals = {AnswerCorrectness(scripted(answer="yeast"), depth=2): 0.5, RetrievalScore(): 0.5}
    radio_of(signals=signals, run_dir=tmp_path, **FAST).compile(program, **sets)
    assert len(Run(tmp_path).read_records("signals")) == 6
    unasked = UnaskedLM({"": {"answer": "yeast"}})
    again = {AnswerCorrectness(unasked, depth=2): 0.5, RetrievalScore(): 0.5}
    radio_of(signals=again, run_dir=tmp_path, **FAST).compile(program, **sets)


def test_a_run_in_use_is_refused(program, topic, tmp_path):
    with Run(tmp_path).exclusive(), pytest.raises(RunError, match="in use by process"):
        radio_of(run_dir=tmp_path, **FAST).compile(program, trainset=topic.train[:4], valset=topic.test)


def test_a_run_of_the_first_release_is_gone_on_with(tmp_path):
    """Made by 0.1.0 before its modules moved: nothing that was paid for is asked again, and the groups are the same."""
    shutil.copytree(ROOT / "tests" / "samples" / "run-0.1", tmp_path / "run")
    texts = ["Yeast dies above sixty degrees.", "Clay jugs cool water by evaporation.", "Ice floats on water."]
    texts += ["Iron rusts in wet air.", "Bread rises by yeast.", "Salt melts ice."]
    asked = {"Why did the dough stay flat?": "yeast", "Why is the jug cold?": "evaporation"}
    asked |= {"Why is the road free of ice?": "salt", "Why is the gate brown?": "rust"}
    examples = [
        dspy.Example(id=f"q{number}", question=question, answers=[answer]).with_inputs("question")
        for number, (question, answer) in enumerate(asked.items())
    ]
    index = FaissRetriever.build([Passage(str(number), text) for number, text in enumerate(texts)], encoder=ENCODER)
    student = RetrieveRerankAnswer(index, Rerank(index.encoder, "bi-encoder"), candidates=4, k=2)
    lm = DummyLM([])
    signals = {RationaleSimilarity(index.encoder): 0.5, AnswerCorrectness(lm, depth=1): 0.25, RetrievalScore(): 0.25}
    optimizer = radio_of(
        lm, signals=signals, run_dir=tmp_path / "run", epochs=1, max_length=32, gate=False, candidates=4
    )  # fmt: skip
    optimizer.compile(student, trainset=examples[:3], valset=examples[3:])
    assert optimizer.report.spending == {}
    assert optimizer.report.rationales["reused"] == 3
    recorded = ROOT / "tests" / "samples" / "run-0.1" / "groups.jsonl"
    assert (tmp_path / "run" / "groups.jsonl").read_bytes() == recorded.read_bytes()
