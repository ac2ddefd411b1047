import json
import logging
import math
from pathlib import Path

import dspy
import pytest
from radio_dspy.optimizers.pipeline import _curve

import radio_dspy as radio
from radio_dspy import Rerank, RetrieveRerankAnswer
from radio_dspy.core.errors import DataError, LanguageModelError, SettingsError
from radio_dspy.distillation.preferences.guards import FalseNegatives
from radio_dspy.distillation.teacher.signals import RetrievalScore
from radio_dspy.models.files import fingerprint
from tests.conftest import LaunchableLM, UnaskedLM, scripted
from tests.settings import radio_of

FAST = {"epochs": 1, "learning_rate": 5e-5, "max_length": 64, "per_device_train_batch_size": 8}
TRAINED = {**FAST, "gate": False}  # whatever it is worth


def explaining(examples) -> LaunchableLM:
    """An LM whose rationale for each question names the answer."""
    return LaunchableLM({one.question: {"rationale": f"The reason is this: {one.answers[0]}."} for one in examples})


@pytest.fixture(scope="module")
def aligned_run(topic, index, small, tmp_path_factory):
    """One compile with a scripted LM that several tests look at."""
    student = RetrieveRerankAnswer(index, Rerank(small, "bi-encoder"), candidates=10, k=3)
    folder = tmp_path_factory.mktemp("run")
    optimizer = radio_of(rationale_lm=explaining(topic.train), encoder=small, run_dir=folder, **TRAINED)
    unusable = [
        dspy.Example(id="none", question="Who?", answers=[]).with_inputs("question"),
        dspy.Example(id="blank", question="What?", answers=["  "]).with_inputs("question"),
    ]
    aligned = optimizer.compile(student, trainset=[*topic.train, *unusable], valset=topic.test)
    return student, aligned, optimizer, folder


def test_the_student_stays_and_the_copy_learns(aligned_run):
    student, aligned, _, folder = aligned_run
    assert student.rerank.weights.checkpoint == student.retriever.encoder.name
    assert aligned.rerank.weights.checkpoint.startswith(str(folder))
    assert aligned.rerank.weights.base == "encoder"  # a name for people
    assert not aligned._compiled
    query, passages = "why?", ["Yeast dies in hot water.", "The dough lay in a bowl."]
    assert aligned.rerank(query, passages).scores != student.rerank(query, passages).scores


def test_the_report_counts_everything(aligned_run, topic):
    _, _, optimizer, folder = aligned_run
    report = optimizer.report
    assert report.questions == {
        "train": 22,
        "used": 20,
        "skipped": {"without an answer": 2},
        "judged": 10,
        "recorded": False,
    }
    counts = {name: count for name, count in report.rationales.items() if count}
    assert counts == {"written": 20}
    assert [(stage, spent["calls"], spent["cost"]) for stage, spent in report.spending.items()] == [
        ("rationales", 20, None)  # a scripted LM has no price
    ]
    assert report.groups == 20
    assert report.gate is None
    assert report.decision == "Returned what was trained: there was no gate."
    assert report.relevance == "labels"
    assert list(report.metrics) == ["first_stage", "base", "aligned"]
    assert report.metrics["base"] == pytest.approx(report.metrics["first_stage"])
    assert set(report.seconds) == {"retrieval", "rationales", "signals", "evaluation", "training"}
    assert json.loads((folder / "report.json").read_text()) == report.as_dict()
    text = str(report)
    assert "2 without an answer" in text
    assert f"{report.metrics['aligned']['ndcg@10']:.3f}" in text


def test_the_trained_reranker_says_how_likely_a_passage_is_relevant_also_when_it_is_loaded(
    aligned_run, topic, index, tmp_path
):
    _, aligned, optimizer, _ = aligned_run
    report = optimizer.report
    everything, *_, little = report.calibration["cutoffs"]
    assert (everything["min_score"], everything["recall"]) == (0.0, 1.0)
    assert little["passages"] < everything["passages"]
    assert "passages left" in str(report)
    assert "passages left" in report._repr_html_()
    loaded = radio.load(radio.save(aligned, tmp_path / "saved"), retriever=index)
    texts = [one.contents for one in topic.passages[:8]]
    raw = loaded.rerank(topic.test[0].question, texts)
    loaded.rerank.activation = "probability"
    likely = loaded.rerank(topic.test[0].question, texts).scores
    loaded.rerank.min_score = likely[2]
    found = loaded.rerank(topic.test[0].question, texts)
    assert all(0 <= one <= 1 for one in likely)
    assert found.scores == [one for one in likely if one >= likely[2]] != likely
    assert found.indices == raw.indices[: len(found.indices)]


def test_the_run_folder_holds_records_and_checkpoint(aligned_run, topic):
    _, aligned, _, folder = aligned_run
    rationales = [json.loads(line) for line in (folder / "rationales.jsonl").read_text().splitlines()]
    groups = [json.loads(line) for line in (folder / "groups.jsonl").read_text().splitlines()]
    assert [one["id"] for one in rationales] == [one.id for one in topic.train]
    assert [one["id"] for one in groups] == [one.id for one in topic.train]
    assert max(len(one["negatives"]) for one in groups) == 6
    assert all(one["negatives"] and one["positive"] not in one["negatives"] for one in groups)
    checkpoint = folder / f"reranker-{fingerprint(aligned.rerank.weights.checkpoint)}"
    assert str(checkpoint) == aligned.rerank.weights.checkpoint
    assert (checkpoint / "model.safetensors").is_file()
    assert not [one for one in folder.iterdir() if one.name.startswith(".")]
    assert str(folder) not in (folder / "manifest.json").read_text()
    for path in folder.rglob("*"):
        assert path.suffix not in {".bin", ".pt", ".pkl"}


def test_the_run_folder_holds_a_page_of_every_held_out_question(aligned_run, topic):
    _, _, optimizer, folder = aligned_run
    records = [json.loads(line) for line in (folder / "comparison.jsonl").read_text().splitlines()]
    assert [one["id"] for one in records] == [one.id for one in topic.test]
    for row, metrics in optimizer.report.metrics.items():
        for metric, mean in metrics.items():
            values = [one["metrics"][row][metric] for one in records]
            assert sum(values) / len(values) == pytest.approx(mean)
    losses = optimizer.report.training["losses"]
    assert len(losses) == optimizer.report.training["updates"]
    assert losses[0] == optimizer.report.training["first_loss"]
    page = (folder / "report.html").read_text()
    assert "Training loss" in page
    assert topic.test[0].question.split(",")[0] in page
    assert {"report.md", "summary.json"} <= {one.name for one in folder.iterdir()}


def test_the_losses_of_a_long_training_are_means_and_those_of_averaged_trainings_do_not_mix():
    assert _curve([], 1) == []
    assert _curve([math.nan, 1.0], 1) == [None, 1.0]
    assert _curve([float(one) for one in range(1000)], 1) == [0.5 + 2 * one for one in range(500)]
    assert _curve([1.0] * 700 + [2.0] * 700, 2) == [1.0] * 350 + [2.0] * 350


def test_the_same_compile_again_asks_nobody_and_ends_in_the_same_weights(aligned_run, topic, small):
    student, aligned, _, folder = aligned_run
    lm = scripted(rationale="Something else entirely.")
    again = radio_of(rationale_lm=lm, encoder=small, run_dir=folder, **TRAINED)
    result = again.compile(student, trainset=topic.train, valset=topic.test)
    assert (again.report.rationales["reused"], again.report.spending) == (20, {})
    assert result.rerank.weights.checkpoint == aligned.rerank.weights.checkpoint


def test_without_an_lm_the_answer_guides(program, topic):
    optimizer = radio_of(rationale_lm=False, **TRAINED)
    with dspy.context(lm=UnaskedLM({})):
        assert optimizer.rationale_lm is None
        optimizer.compile(program, trainset=topic.train[:8], valset=[])
    assert optimizer.report.rationales["written"] == 0
    # A fifth would be two questions: too few to judge by, so half of them is held out.
    assert optimizer.report.questions["train"] == 4
    assert optimizer.report.questions["judged"] == 4


def test_of_twenty_questions_ten_are_held_out_and_asked_alike_they_stay_together(program, topic, tmp_path):
    twins = [
        dspy.Example(**{**one.toDict(), "id": f"{one.id}-{suffix}", "question": one.question + suffix}).with_inputs(
            "question"
        )
        for one in topic.train[:10]
        for suffix in ("", " ?")
    ]
    optimizer = radio_of(run_dir=tmp_path, **TRAINED)
    optimizer.compile(program, trainset=twins)
    assert (optimizer.report.questions["train"], optimizer.report.questions["judged"]) == (10, 10)
    learnt = {json.loads(line)["id"] for line in (tmp_path / "groups.jsonl").read_text().splitlines()}
    assert len(learnt) == 10
    assert all((f"{one.id}-" in learnt) == (f"{one.id}- ?" in learnt) for one in topic.train[:10])


def test_unlabelled_questions_are_judged_by_the_answers_in_the_candidates(program, topic):
    bare = [dspy.Example(question=one.question, answer=one.answer).with_inputs("question") for one in topic.train]
    salt = [dspy.Example(question="What draws the water out of a ham?", answer="salt").with_inputs("question")]
    optimizer = radio_of(**FAST)
    optimizer.compile(program, trainset=bare[:6], valset=salt)
    assert optimizer.report.relevance == "answers"
    assert optimizer.report.metrics["first_stage"]["mrr"] > 0
    assert "passages that contain an answer" in str(optimizer.report)
    assert optimizer.report.gate["metric"] == "nDCG@10 against the teacher"


def test_the_cross_encoder_trains_too(index, small, topic):
    student = RetrieveRerankAnswer(index, Rerank(small, "cross-encoder", new_head=True), candidates=10)
    optimizer = radio_of(**TRAINED)
    aligned = optimizer.compile(student, trainset=topic.train[:8], valset=topic.test[:4])
    assert aligned.rerank.weights.architecture == "cross-encoder"
    assert aligned.rerank.weights.checkpoint != student.rerank.weights.checkpoint
    assert len(aligned.rerank("why?", ["a", "b"]).scores) == 2


class TwoRerankers(dspy.Module):
    """A user's own program: two rerankers on the same weights, one of them nested."""

    def __init__(self, retriever, encoder):
        super().__init__()
        self.retriever = retriever
        self.first = Rerank(encoder, "bi-encoder")
        self.stages = [Rerank(encoder, "bi-encoder", k=2)]

    def forward(self, question):
        found = self.retriever(question, k=8)
        return self.stages[0](question, self.first(question, found.passages, k=4).passages)


def test_a_users_own_program_trains_equal_weights_once(index, small, topic, tmp_path, monkeypatch):
    from radio_dspy.distillation import train_and_gate as alignment

    trained = []
    train = alignment.train_reranker
    monkeypatch.setattr(
        alignment, "train_reranker", lambda *args, **kwargs: trained.append(1) or train(*args, **kwargs)
    )
    optimizer = radio_of(run_dir=tmp_path, **TRAINED)
    aligned = optimizer.compile(TwoRerankers(index, small), trainset=topic.train[:8], valset=topic.test)
    assert trained == [1]
    assert aligned.first.weights.checkpoint == aligned.stages[0].weights.checkpoint
    assert aligned.first.weights is not aligned.stages[0].weights  # they were two, and may be trained apart later
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

    optimizer = radio_of(rationale_lm=Failing(explaining(topic.train).answers), run_dir=tmp_path, **FAST)
    with pytest.raises(LanguageModelError, match="connection refused"):
        optimizer.compile(program, trainset=topic.train, valset=topic.test)
    assert len((tmp_path / "rationales.jsonl").read_text().splitlines()) == 3


def test_guards_leave_out_false_negatives_and_useless_rationales(program, topic, tmp_path):
    """With a wide margin only the last candidates can be negatives; without guards there are six a question."""
    lm = scripted(rationale="I cannot help with that.")
    counts = {}
    for guards in (FalseNegatives(absolute_margin=0.25), False):
        optimizer = radio_of(
            rationale_lm=lm,
            false_negatives=guards or None,
            check=bool(guards),
            run_dir=tmp_path / str(bool(guards)),
            **TRAINED,
        )
        optimizer.compile(program, trainset=topic.train[:4], valset=topic.test[:2])
        groups = [json.loads(one) for one in (optimizer.report.run_dir / Path("groups.jsonl")).read_text().splitlines()]
        negatives = [score for one in groups for score in (one["scores"][0] - other for other in one["scores"][1:])]
        rationales = {**optimizer.report.rationales, "calls": optimizer.report.spending["rationales"]["calls"]}
        counts[bool(guards)] = (optimizer.report.left_out, rationales, negatives)
    left_out, rationales, gaps = counts[True]
    assert left_out["within the margin"] + len(gaps) == 24
    assert min(gaps) >= 0.25
    assert (rationales["useless"], rationales["retried"], rationales["calls"]) == ({"refusal": 4}, 4, 8)
    left_out, rationales, gaps = counts[False]
    assert (left_out, len(gaps)) == ({}, 24)
    assert min(gaps) < 0.25
    assert (rationales["useless"], rationales["retried"], rationales["calls"]) == ({}, 0, 4)
    optimizer = radio_of(rationale_lm=lm, false_negatives=FalseNegatives(absolute_margin=0.9), **TRAINED)
    with pytest.raises(DataError, match=r"self\.rerank: no preference group came of 4 questions; left out: \{'within"):
        optimizer.compile(program, trainset=topic.train[:4], valset=topic.test[:2])
    assert optimizer.report.rationales["written"] == 4  # what was paid for is told all the same
    assert optimizer.report.metrics["aligned"] == optimizer.report.metrics["base"]
    assert "0 groups" in str(optimizer.report)
    assert "nothing was trained" in str(optimizer.report)


def test_repeated_questions_are_counted_and_shared_ones_warned_of(program, topic, caplog):
    optimizer = radio_of(**TRAINED)
    with caplog.at_level(logging.WARNING):
        optimizer.compile(program, trainset=[*topic.train[:4], topic.train[0]], valset=topic.train[3:6])
    assert optimizer.report.questions["skipped"] == {"repeated": 1}
    assert optimizer.report.groups == 4
    assert "1 questions are in trainset and valset" in caplog.text


def test_a_student_without_a_reranker_or_retriever_is_told_what_to_add(small, topic):
    with pytest.raises(SettingsError, match=r"holds no trainable reranker\. Add one"):
        radio_of(**FAST).compile(dspy.Predict("question -> answer"), trainset=topic.train)

    class Bare(dspy.Module):
        def __init__(self):
            super().__init__()
            self.rerank = Rerank(small, "bi-encoder")

    with pytest.raises(SettingsError, match=r"give RADIO\(retriever=\.\.\.\)"):
        radio_of(**FAST).compile(Bare(), trainset=topic.train)
    bare = Bare()
    bare.rerank = Rerank(small, "cross-encoder", new_head=True)
    with pytest.raises(SettingsError, match="Give RADIO an encoder=: the retriever has none to share"):
        radio_of(**FAST).compile(bare, trainset=topic.train)


def test_a_trainset_that_cannot_be_used(program, topic):
    with pytest.raises(DataError, match="trainset is empty"):
        radio_of(**FAST).compile(program, trainset=[])
    with pytest.raises(DataError, match="leaves nothing to judge by"):
        radio_of(**FAST).compile(program, trainset=topic.train[:1])
    unanswered = [dspy.Example(question="Who?").with_inputs("question")]
    with pytest.raises(DataError, match=r"\{'without an answer': 1\}"):
        radio_of(**FAST).compile(program, trainset=unanswered, valset=topic.test)
    with pytest.raises(DataError, match="Example 0 has no 'question'"):
        radio_of(**FAST).compile(program, trainset=[dspy.Example(asker="Who?")], valset=topic.test)
    alike = [dspy.Example(question=f"Why is ice slippery{end}", answer="x").with_inputs("question") for end in "?!."]
    with pytest.raises(DataError, match="The 3 training questions are almost alike"):
        radio_of(**FAST).compile(program, trainset=alike)


def test_a_query_tower_of_a_cross_encoder_is_refused_before_anything_is_paid_for(index, small, topic):
    student = RetrieveRerankAnswer(index, Rerank(small, "cross-encoder", new_head=True), candidates=10)
    optimizer = radio_of(rationale_lm=UnaskedLM({}), tower="query", **FAST)
    with pytest.raises(SettingsError, match="tower='query' needs a bi-encoder"):
        optimizer.compile(student, trainset=topic.train, valset=topic.test)


def test_what_joins_by_id_must_be_there(program, topic):
    optimizer = radio_of(rationales={"kit-q99": "Because."}, **FAST)
    with pytest.raises(DataError, match=r"'kit-q99', which is no question"):
        optimizer.compile(program, trainset=topic.train, valset=topic.test)
    lost = dspy.Example(id="q", question="Why?", answers=["x"], relevant=["kit98", "kit99"]).with_inputs("question")
    with pytest.raises(DataError, match="Question 'q': relevant passage 'kit98' is not in the corpus"):
        radio_of(**FAST).compile(program, trainset=[lost], valset=[lost.copy(id="r", question="How?")])
    clash = dspy.Example(id=topic.train[0].id, question="Another?", answers=["x"]).with_inputs("question")
    with pytest.raises(DataError, match=f"Two questions share the id '{clash.id}'"):
        radio_of(**FAST).compile(program, trainset=[topic.train[0], clash], valset=topic.test)


def test_given_rationales_guide_and_the_lm_writes_the_others(program, topic, tmp_path):
    given = {one.id: f"I know it: {one.answers[0]}." for one in topic.train[:2]}
    given[topic.train[2].id] = "  "  # blank: as if it were not there
    given[topic.test[0].id] = "Not asked for, and no error."
    optimizer = radio_of(rationale_lm=explaining(topic.train), rationales=given, run_dir=tmp_path, **TRAINED)
    optimizer.compile(program, trainset=topic.train[:4], valset=topic.test[:2])
    assert (optimizer.report.rationales["given"], optimizer.report.rationales["written"]) == (2, 2)
    kept = [json.loads(line) for line in (tmp_path / "rationales.jsonl").read_text().splitlines()]
    assert {one["id"]: one["source"] for one in kept} == dict(
        zip([one.id for one in topic.train[:4]], ["given", "given", "lm", "lm"], strict=True)
    )


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"weight": 1.5}, r"weight of rationales must lie in \[0, 1\], got 1.5"),
        ({"sampling": "hard"}, "sampling must be one of"),
        ({"candidates": 1}, "candidates must be at least 2"),
        ({"num_threads": 0}, "num_threads must be at least 1"),
        ({"signals": {}}, "signals must be a dict of at least one signal"),
        ({"signals": [RetrievalScore()]}, "signals must be a dict of at least one signal"),
        ({"signals": {RetrievalScore: 1.0}}, "RetrievalScore'> is no signal: give an object, not a class"),
        ({"signals": {"retrieval": 1.0}}, "'retrieval' is no signal"),
        ({"signals": {RetrievalScore(): 0.5, RetrievalScore(): 0.5}}, "must have different names"),
        ({"signals": {RetrievalScore(): 1.0}, "weight": 0.5}, "signals have weights of their own"),
        ({"depth": 0}, "depth and block must be at least 2"),
        ({"tower": "passage"}, "tower must be one of"),
    ],
)
def test_settings_are_checked_when_they_are_given(setting, message):
    with pytest.raises(SettingsError, match=message):
        radio_of(**setting)
