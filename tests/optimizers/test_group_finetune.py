import json
import logging

import dspy
import pytest
from radio_dspy.optimizers import GroupFinetune

import radio_dspy as radio
from radio_dspy.core.errors import DataError, SettingsError
from radio_dspy.distillation import Gate, TrainingSettings
from radio_dspy.distillation.candidates.reranker_slots import slots_of
from radio_dspy.rerankers import Rerank
from tests.conftest import UnaskedLM, scripted
from tests.settings import radio_of

QUICK = TrainingSettings(num_train_epochs=1, learning_rate=3e-5, max_length=32, disable_tqdm=True)


@pytest.fixture(scope="module")
def groups(topic, index):
    """FlagEmbedding's lines of the topic: the labelled passages against what the first stage finds."""
    contents = {one.id: one.contents for one in topic.passages}
    rows = []
    for example in [*topic.train, *topic.test]:
        found = index.search([example.question], 5)[0].ids
        positives = [contents[key] for key in example.relevant]
        negatives = [contents[key] for key in found if key not in example.relevant]
        rows.append({"query": example.question, "pos": positives, "neg": negatives})
    return radio.load_groups(rows)


def test_it_learns_what_the_groups_prefer_without_an_lm(program, groups, tmp_path):
    settings = TrainingSettings(num_train_epochs=3, learning_rate=2e-4, max_length=32, disable_tqdm=True)
    optimizer = GroupFinetune(settings, gate=Gate(mixtures=()), run_dir=tmp_path)
    before = program.rerank.weights.dump_state()
    with dspy.context(lm=UnaskedLM({})):
        aligned = optimizer.compile(program, trainset=groups[:16], valset=groups[:16])  # by heart: can it learn?
    assert program.rerank.weights.dump_state() == before
    assert aligned.rerank.weights.checkpoint.startswith(str(tmp_path))
    report = optimizer.report
    assert report.gain() > 0.1
    assert report.metrics["aligned"]["ndcg@10"] == pytest.approx(
        next(one["mean"] for one in report.gate["candidates"] if one["name"] == report.gate["chosen"]), abs=1e-6
    )
    assert report.questions == {
        "train": 16, "used": 16, "skipped": {}, "judged": 16, "recorded": False,
    }  # fmt: skip
    assert "rationales" not in str(report)
    assert len((tmp_path / "comparison.jsonl").read_text().splitlines()) == 16
    assert "Training loss" in (tmp_path / "report.html").read_text()
    assert json.loads((tmp_path / "report.json").read_text()) == report.as_dict()


def test_what_is_not_better_is_not_returned(program, groups):
    wrong = [dspy.Example(question=one.question, pos=one.neg[-1:], neg=one.pos) for one in groups[:12]]
    optimizer = GroupFinetune(QUICK, gate=Gate(mixtures=(0.5,)))
    aligned = optimizer.compile(program, trainset=wrong, valset=groups[12:24])
    assert aligned.rerank.weights.dump_state() == program.rerank.weights.dump_state()
    assert optimizer.report.decision.startswith("Returned the base")
    assert optimizer.report.metrics["aligned"] == optimizer.report.metrics["base"]


def test_a_reranker_alone_is_a_student_too(small, groups):
    optimizer = GroupFinetune(QUICK, gate=False)
    aligned = optimizer.compile(Rerank(small, "bi-encoder"), trainset=groups[:20])
    assert isinstance(aligned, Rerank)
    assert aligned.weights.checkpoint != small.name
    assert optimizer.report.questions["train"] + optimizer.report.questions["judged"] == 20
    assert optimizer.report.questions["judged"] <= 10


def test_a_question_is_never_on_both_sides(small, groups):
    """Also for a cross-encoder, which has no vectors to compare questions by."""
    optimizer = GroupFinetune(QUICK)
    doubled = [*groups[:8], *groups[:8]]
    for rerank in (Rerank(small, "cross-encoder", new_head=True), Rerank(small, "bi-encoder")):
        train, held_out = optimizer._split(rerank, slots_of(rerank)[0], doubled, None)
        assert train
        assert held_out
        assert not {one.question for one in train} & {one.question for one in held_out}


def test_every_reranker_of_a_program_is_trained_and_equal_ones_once(small, groups, tmp_path):
    class Many(dspy.Module):
        def __init__(self):
            super().__init__()
            self.first = Rerank(small, "bi-encoder")
            self.shared = self.first
            self.same = Rerank(small, "bi-encoder")
            self.other = Rerank(small, "cross-encoder", new_head=True)

    optimizer = GroupFinetune(QUICK, gate=False, run_dir=tmp_path)
    aligned = optimizer.compile(Many(), trainset=groups[:6], valset=groups[6:8])
    assert aligned.shared.weights is aligned.first.weights
    assert aligned.same.weights.checkpoint == aligned.first.weights.checkpoint
    assert aligned.other.weights.checkpoint != aligned.first.weights.checkpoint
    assert len(list(tmp_path.glob("reranker-*"))) == 2
    assert [one.reranker for one in optimizer.report.rerankers[1:]] == ["self.same", "self.other"]


def test_the_weights_remember_what_trained_them(program, groups, tmp_path):
    settings = TrainingSettings(num_train_epochs=1, learning_rate=3e-5, max_length=32, tower="query")
    optimizer = GroupFinetune(settings, gate=False, negatives=2)
    aligned = optimizer.compile(program, trainset=groups[:6], valset=groups[6:8])
    (record,) = aligned.rerank.weights.training
    assert record["base"]["name"] == program.rerank.weights.base
    assert (record["settings"]["tower"], record["settings"]["negatives"]) == ("query", 2)
    assert record["groups"] == optimizer.report.groups
    assert record["metrics"] == optimizer.report.metrics
    assert program.rerank.weights.training == ()
    card = (radio.export(aligned, tmp_path / "out") / "README.md").read_text(encoding="utf-8")
    assert "Trained by radio-dspy on 6 questions" in card
    assert "no LM was asked" in card
    loaded = radio.load(radio.save(aligned, tmp_path / "saved"), retriever=program.retriever)
    assert loaded.rerank.weights.training == (record,)


def test_losses_that_follow_a_teacher_need_its_scores(program, groups):
    scored = [
        dspy.Example(**one.toDict(), pos_scores=[1.0] * len(one.pos), neg_scores=[0.0] * len(one.neg))
        for one in groups[:8]
    ]
    settings = TrainingSettings(num_train_epochs=1, max_length=32, loss="listwise", target_temperature=0.5)
    optimizer = GroupFinetune(settings, gate=False)
    optimizer.compile(program, trainset=scored, valset=groups[8:10])
    assert optimizer.report.training["updates"] == 1
    with pytest.raises(DataError, match="give every group its scores"):
        optimizer.compile(program, trainset=groups[:8], valset=groups[8:10])


def test_the_groups_of_an_earlier_run_train_another_reranker(program, small, topic, tmp_path):
    first = radio_of(epochs=1, max_length=32, candidates=8, gate=False, run_dir=tmp_path)
    first.compile(program, trainset=topic.train[:4], valset=topic.test[:2])
    bought = radio.load_groups(tmp_path / "groups.jsonl", passages=topic.passages)
    assert len(bought) == first.report.groups
    second = GroupFinetune(QUICK, gate=False)
    aligned = second.compile(Rerank(small, "cross-encoder", new_head=True), trainset=bought[:3], valset=bought[3:])
    assert aligned.weights.checkpoint != small.name


def test_better_together_around_it(program, groups, tmp_path):
    lm = scripted(answer="yeast")
    program.set_lm(lm)
    together = dspy.BetterTogether(
        metric=lambda example, prediction, trace=None: float(bool(prediction.passages)),
        g=GroupFinetune(QUICK, gate=False, run_dir=tmp_path),
    )
    with dspy.context(lm=lm):
        result = together.compile(program, trainset=groups[:8], valset=groups[8:10], strategy="g")
    assert result.flag_compilation_error_occurred is False
    assert any(one["program"].rerank.weights.checkpoint.startswith(str(tmp_path)) for one in result.candidate_programs)


def test_prompts_in_the_lines_are_warned_of(small, groups, caplog):
    rows = [dspy.Example(**one.toDict(), prompt="Find it: ") for one in groups[:4]]
    with caplog.at_level(logging.WARNING):
        GroupFinetune(QUICK, gate=False).compile(Rerank(small, "bi-encoder"), trainset=rows, valset=groups[4:6])
    assert "prompts are not read" in caplog.text


def test_what_it_refuses(program, groups, small):
    optimizer = GroupFinetune(QUICK)
    with pytest.raises(SettingsError, match="no trainable reranker"):
        optimizer.compile(dspy.Predict("question -> answer"), trainset=groups)
    with pytest.raises(DataError, match="row 1: needs a list of strings 'neg'"):
        optimizer.compile(program, trainset=[dspy.Example(question="why?", answer="yeast")])
    with pytest.raises(DataError, match="one group leaves nothing to judge by"):
        optimizer.compile(program, trainset=groups[:1])
    with pytest.raises(DataError, match=r"{'without a negative': 2}"):
        optimizer.compile(program, trainset=[dspy.Example(question="q", pos=["a"], neg=[])] * 2, valset=groups[:1])
    with pytest.raises(SettingsError, match="negatives must be at least 1"):
        GroupFinetune(negatives=0)
    with pytest.raises(SettingsError, match="groups hold texts"):
        GroupFinetune(gate=Gate(retrieval=True))
    with pytest.raises(SettingsError, match="tower='query' needs a bi-encoder"):
        GroupFinetune(TrainingSettings(tower="query")).compile(
            Rerank(small, "cross-encoder", new_head=True), trainset=groups
        )
