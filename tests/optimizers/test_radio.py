import json
import logging

import dspy
import pytest

from radio_dspy import RADIO, Rerank
from radio_dspy.encoders import Encoder, fingerprint
from radio_dspy.errors import DataError, LanguageModelError, SettingsError
from radio_dspy.metrics import dspy_metric, token_f1
from tests.conftest import ENCODER, scripted

FAST = {"epochs": 1, "learning_rate": 5e-5, "max_length": 64, "show_progress": False}


@pytest.fixture(scope="module")
def aligned_run(topic, retriever, encoder, tmp_path_factory):
    """One compile with a scripted LM that several tests look at."""
    from radio_dspy.programs import RetrieveRerankAnswer

    student = RetrieveRerankAnswer(retriever, Rerank(encoder, architecture="bi-encoder"), candidates=10, k=3)
    folder = tmp_path_factory.mktemp("run")
    lm = scripted(rationale="Because heat kills yeast.")
    optimizer = RADIO(rationale_lm=lm, encoder=encoder, run_dir=folder, **FAST)
    unusable = [
        dspy.Example(id="none", question="Who?", answers=[]).with_inputs("question"),
        dspy.Example(id="blank", question="What?", answers=["  "]).with_inputs("question"),
    ]
    aligned = optimizer.compile(student, trainset=[*topic.train, *unusable], valset=topic.test)
    return student, aligned, optimizer, folder


def test_the_student_stays_and_the_copy_learns(aligned_run):
    student, aligned, _, folder = aligned_run
    assert student.rerank.weights.checkpoint == Encoder(ENCODER).name
    assert aligned.rerank.weights.checkpoint.startswith(str(folder))
    assert aligned.rerank.weights.base == "sentence-transformers/all-MiniLM-L6-v2"
    assert not aligned._compiled
    query, passages = "why?", ["Yeast dies in hot water.", "The dough lay in a bowl."]
    assert aligned.rerank(query, passages).scores != student.rerank(query, passages).scores


def test_the_report_counts_everything(aligned_run, topic):
    _, _, optimizer, folder = aligned_run
    report = optimizer.report
    assert report.questions == {"train": 22, "used": 20, "skipped": {"without an answer": 2}, "judged": 10}
    assert report.rationales["written"] == 20
    assert report.groups == 20
    assert report.relevance == "labels"
    assert list(report.metrics) == ["first_stage", "base", "aligned"]
    assert report.metrics["base"] == pytest.approx(report.metrics["first_stage"])
    assert set(report.seconds) == {"retrieval", "rationales", "signals", "evaluation", "training"}
    assert json.loads((folder / "report.json").read_text()) == report.as_dict()
    text = str(report)
    assert "2 without an answer" in text
    assert f"{report.metrics['aligned']['ndcg@10']:.3f}" in text


def test_the_run_folder_holds_records_and_checkpoint(aligned_run, topic):
    _, aligned, _, folder = aligned_run
    rationales = [json.loads(line) for line in (folder / "rationales.jsonl").read_text().splitlines()]
    groups = [json.loads(line) for line in (folder / "groups.jsonl").read_text().splitlines()]
    assert [one["id"] for one in rationales] == [one.id for one in topic.train]
    assert [one["id"] for one in groups] == [one.id for one in topic.train]
    assert all(len(one["negatives"]) == 6 and one["positive"] not in one["negatives"] for one in groups)
    checkpoint = folder / f"reranker-{fingerprint(aligned.rerank.weights.checkpoint)}"
    assert str(checkpoint) == aligned.rerank.weights.checkpoint
    assert (checkpoint / "model.safetensors").is_file()
    assert not [one for one in folder.iterdir() if one.name.startswith(".")]
    for path in folder.rglob("*"):
        assert path.suffix not in {".bin", ".pt", ".pkl"}


def test_the_same_compile_again_asks_nobody_and_ends_in_the_same_weights(aligned_run, topic, encoder):
    student, aligned, _, folder = aligned_run
    lm = scripted(rationale="Something else entirely.")
    again = RADIO(rationale_lm=lm, encoder=encoder, run_dir=folder, **FAST)
    result = again.compile(student, trainset=topic.train, valset=topic.test)
    assert (again.report.rationales["reused"], again.report.rationales["written"]) == (20, 0)
    assert result.rerank.weights.checkpoint == aligned.rerank.weights.checkpoint


def test_without_an_lm_the_answer_guides(program, topic):
    optimizer = RADIO(**FAST)
    optimizer.compile(program, trainset=topic.train[:8], valset=[])
    assert optimizer.report.rationales["written"] == 0
    assert optimizer.report.questions["train"] == 6  # two of eight are held out to judge by
    assert optimizer.report.questions["judged"] == 2


def test_unlabelled_questions_are_judged_by_the_answers_in_the_candidates(program, topic):
    bare = [dspy.Example(question=one.question, answer=one.answer).with_inputs("question") for one in topic.train]
    salt = [dspy.Example(question="What draws the water out of a ham?", answer="salt").with_inputs("question")]
    optimizer = RADIO(**FAST)
    optimizer.compile(program, trainset=bare, valset=salt)
    assert optimizer.report.relevance == "answers"
    assert optimizer.report.metrics["first_stage"]["mrr"] > 0
    assert "passages that contain an answer" in str(optimizer.report)


def test_the_cross_encoder_trains_too(retriever, topic):
    from radio_dspy.programs import RetrieveRerankAnswer

    student = RetrieveRerankAnswer(retriever, Rerank(ENCODER, "cross-encoder"), candidates=10)
    optimizer = RADIO(**FAST)
    aligned = optimizer.compile(student, trainset=topic.train, valset=topic.test)
    assert aligned.rerank.weights.architecture == "cross-encoder"
    assert aligned.rerank.weights.checkpoint != student.rerank.weights.checkpoint
    assert len(aligned.rerank("why?", ["a", "b"]).scores) == 2


class TwoRerankers(dspy.Module):
    """A user's own program: two rerankers on the same weights, one of them nested."""

    def __init__(self, retriever):
        super().__init__()
        self.retriever = retriever
        self.first = Rerank(ENCODER, "bi-encoder")
        self.stages = [Rerank(ENCODER, "bi-encoder", k=2)]

    def forward(self, question):
        found = self.retriever(question, k=8)
        return self.stages[0](question, self.first(question, found.passages, k=4).passages)


def test_a_users_own_program_trains_shared_weights_once(retriever, topic, tmp_path):
    optimizer = RADIO(run_dir=tmp_path, **FAST)
    aligned = optimizer.compile(TwoRerankers(retriever), trainset=topic.train[:8], valset=topic.test)
    assert aligned.first.weights.checkpoint == aligned.stages[0].weights.checkpoint
    assert len(list(tmp_path.glob("reranker-*"))) == 1
    assert len(aligned(question="why?").passages) == 2


def test_a_failing_lm_ends_the_run_with_what_was_written(program, topic, tmp_path):
    class Failing(type(scripted(rationale="x"))):
        calls = 0

        def __call__(self, *args, **kwargs):
            self.calls += 1
            if self.calls > 3:
                raise dspy.LMTransportError("connection refused", model="m", provider="p")
            return super().__call__(*args, **kwargs)

    optimizer = RADIO(rationale_lm=Failing({"": {"rationale": "because"}}), run_dir=tmp_path, **FAST)
    with pytest.raises(LanguageModelError, match="connection refused"):
        optimizer.compile(program, trainset=topic.train, valset=topic.test)
    assert len((tmp_path / "rationales.jsonl").read_text().splitlines()) == 3


def test_bootstrap_few_shot_around_radio_keeps_the_weights(aligned_run, topic):
    _, aligned, _, _ = aligned_run
    metric = dspy_metric(token_f1)
    with dspy.context(lm=scripted(answer=topic.train[0].answer)):
        shot = dspy.BootstrapFewShot(metric=metric, max_bootstrapped_demos=1, max_labeled_demos=1).compile(
            aligned, trainset=topic.train[:4]
        )
    assert shot.rerank.weights.checkpoint == aligned.rerank.weights.checkpoint
    assert shot.answer.demos
    optimizer = RADIO(**FAST)
    again = optimizer.compile(shot, trainset=topic.train[:8], valset=topic.test)
    assert again.answer.demos == shot.answer.demos
    assert again.rerank.weights.checkpoint != aligned.rerank.weights.checkpoint


@pytest.mark.parametrize("strategy", ["r -> p", "p -> r"])
def test_better_together_around_radio(program, topic, strategy, tmp_path):
    lm = scripted(answer=topic.train[0].answer)
    program.set_lm(lm)
    together = dspy.BetterTogether(
        metric=dspy_metric(token_f1),
        r=RADIO(run_dir=tmp_path, **FAST),
        p=dspy.BootstrapFewShot(metric=dspy_metric(token_f1), max_bootstrapped_demos=1),
    )
    with dspy.context(lm=lm):
        result = together.compile(program, trainset=topic.train[:8], valset=topic.test[:3], strategy=strategy)
    assert result.flag_compilation_error_occurred is False
    trained = [one for one in result.candidate_programs if "r" in (one["strategy"] or "")]
    assert trained
    assert all(one["program"].rerank.weights.checkpoint.startswith(str(tmp_path)) for one in trained)


def test_repeated_questions_are_counted(program, topic):
    optimizer = RADIO(**FAST)
    optimizer.compile(program, trainset=[*topic.train[:4], topic.train[0]], valset=topic.test[:2])
    assert optimizer.report.questions["skipped"] == {"repeated": 1}


def test_shared_questions_are_warned_of(program, topic, caplog):
    with caplog.at_level(logging.WARNING):
        RADIO(**FAST).compile(program, trainset=topic.train[:4], valset=topic.train[3:6])
    assert "1 questions are in trainset and valset" in caplog.text


def test_a_student_without_a_reranker_or_retriever_is_told_what_to_add(retriever, topic):
    with pytest.raises(SettingsError, match=r"holds no trainable reranker\. Add one"):
        RADIO(**FAST).compile(dspy.Predict("question -> answer"), trainset=topic.train)

    class Bare(dspy.Module):
        def __init__(self):
            super().__init__()
            self.rerank = Rerank(ENCODER, "bi-encoder")

    with pytest.raises(SettingsError, match=r"give RADIO\(retriever=\.\.\.\)"):
        RADIO(**FAST).compile(Bare(), trainset=topic.train)
    aligned = RADIO(retriever=retriever, **FAST).compile(Bare(), trainset=topic.train[:6], valset=topic.test)
    assert aligned.rerank.weights.checkpoint != Bare().rerank.weights.checkpoint


def test_a_trainset_that_cannot_be_used(program, topic):
    with pytest.raises(DataError, match="trainset is empty"):
        RADIO(**FAST).compile(program, trainset=[])
    with pytest.raises(DataError, match="leaves nothing to judge by"):
        RADIO(**FAST).compile(program, trainset=topic.train[:1])
    unanswered = [dspy.Example(question="Who?").with_inputs("question")]
    with pytest.raises(DataError, match=r"None of the 1 training questions can be used: \{'without an answer': 1\}"):
        RADIO(**FAST).compile(program, trainset=unanswered, valset=topic.test)
    with pytest.raises(DataError, match="Example 0 has no 'question'"):
        RADIO(**FAST).compile(program, trainset=[dspy.Example(query="Who?")], valset=topic.test)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"rationale_weight": 1.5}, r"rationale_weight must lie in \[0, 1\], got 1.5"),
        ({"sampling": "hard"}, "sampling must be one of"),
        ({"candidates": 1}, "candidates >= 2"),
    ],
)
def test_settings_are_checked_when_they_are_given(setting, message):
    with pytest.raises(SettingsError, match=message):
        RADIO(**setting)
