"""The gate through RADIO: what is returned is never worse than the base on the held-out questions."""

import json
import logging
import random

import dspy
import pytest
from radio_dspy.programs import RetrieveRerankAnswer

from radio_dspy import Rerank
from radio_dspy.core.errors import SettingsError
from radio_dspy.core.passages import Passage
from radio_dspy.core.rankings import Ranking
from radio_dspy.distillation.gate.decision import Gate
from radio_dspy.distillation.teacher.signals import Labels
from radio_dspy.models.encoder import Encoder
from radio_dspy.retrievers import FaissRetriever, Retriever
from tests.conftest import ENCODER, LaunchableLM, UnaskedLM, scripted
from tests.settings import radio_of

FAST = {"epochs": 1, "learning_rate": 5e-4, "max_length": 32, "per_device_train_batch_size": 8, "candidates": 10}
RUINOUS = {**FAST, "learning_rate": 1e-1}  # loses more than 0.1 nDCG@10
SHARES = [0.0, 0.25, 0.5, 0.75, 1.0]
QUICK = {"gate": Gate(mixtures=(0.5,))}


def ranks_alike(program, student, examples) -> bool:
    """Whether two programs rerank alike, to the last bit."""
    found = [
        [(ranked.indices, ranked.scores) for ranked in (one.rerank(example.question, passages),)]
        for one in (program, student)
        for example in examples
        for passages in [[passage.contents for passage in student.retriever(example.question, k=10).passages]]
    ]
    half = len(examples)
    return found[:half] == found[half:]


def by_share(report):
    return {one["share"]: one for one in report.gate["candidates"]}


def unlabelled(examples):
    bare = [dspy.Example(id=one.id, question=one.question, answers=one.answers) for one in examples]
    return [one.with_inputs("question") for one in bare]


@pytest.mark.slow
@pytest.mark.timeout(1800)
class TestBadOnPurpose:
    def test_a_ruinous_learning_rate(self, program, topic, tmp_path):
        optimizer = radio_of(run_dir=tmp_path, **{**RUINOUS, "candidates": 50})
        returned = optimizer.compile(program, trainset=topic.train, valset=topic.test)
        report = optimizer.report
        assert returned.rerank.weights.dump_state() == program.rerank.weights.dump_state()
        assert ranks_alike(returned, program, topic.test)
        assert report.decision.startswith("Returned the base: of the candidates ")
        assert "is not above the noise, on 10 held-out questions." in report.decision
        assert report.metrics["aligned"] == report.metrics["base"]
        rows = by_share(report)
        assert list(rows) == SHARES
        assert rows[1.0]["mean"] < rows[0.0]["mean"] - 0.1  # it really was ruinous
        assert rows[1.0]["gain_high"] < 0
        assert json.loads((tmp_path / "report.json").read_text())["gate"]["chosen"] == "base"

    def test_a_loss_that_is_no_number(self, program, topic):
        optimizer = radio_of(**{**FAST, "learning_rate": 1e6, "epochs": 8, "per_device_train_batch_size": 2})
        returned = optimizer.compile(program, trainset=topic.train[:6], valset=topic.test)
        assert ranks_alike(returned, program, topic.test[:3])
        assert "training was stopped because the loss became nan" in optimizer.report.decision
        assert "lower learning_rate" in str(optimizer.report)
        assert optimizer.report.training["stopped"].startswith("the loss became nan")
        assert optimizer.report.gate["candidates"] == []

    def test_many_epochs_on_ten_questions(self, program, topic):
        optimizer = radio_of(
            **{**FAST, **QUICK, "epochs": 20, "per_device_train_batch_size": 10, "negative_range": (3, 5)}
        )
        returned = optimizer.compile(program, trainset=topic.train[:10], valset=topic.test)
        report = optimizer.report
        rows = by_share(report)
        assert report.training["updates"] == 20
        assert report.training["last_loss"] < 0.2 * report.training["first_loss"]  # learnt by heart
        assert rows[1.0]["gain_low"] < 0  # and worth nothing elsewhere
        assert report.gate["chosen"] != "trained"
        assert report.metrics["aligned"]["ndcg@10"] >= report.metrics["base"]["ndcg@10"]
        assert ranks_alike(returned, program, topic.test[:3]) == (report.gate["chosen"] == "base")

    def test_a_babbling_lm(self, program, topic, tmp_path):
        babble = "the " * 40
        optimizer = radio_of(rationale_lm=scripted(rationale=babble), run_dir=tmp_path, **FAST, **QUICK)
        optimizer.compile(program, trainset=topic.train[:6], valset=topic.test)
        report = optimizer.report
        assert sum(report.rationales["useless"].values()) == 6
        assert (report.rationales["retried"], report.spending["rationales"]["calls"]) == (6, 12)
        assert "0 without a rationale, 6 with a useless one" in str(report)
        kept = [json.loads(line) for line in (tmp_path / "rationales.jsonl").read_text().splitlines()]
        assert [bool(one["problem"]) for one in kept] == [True] * 6
        # The answer alone guides them: the same groups as without any LM.
        alone = radio_of(run_dir=tmp_path / "alone", **FAST, **QUICK)
        alone.compile(program, trainset=topic.train[:6], valset=topic.test)
        assert (tmp_path / "groups.jsonl").read_text() == (tmp_path / "alone" / "groups.jsonl").read_text()
        assert alone.report.gate == report.gate

    def test_shuffled_labels(self, program, topic):
        labels = [one.relevant for one in topic.train]
        random.Random(1).shuffle(labels)
        shuffled = [one.copy(relevant=found) for one, found in zip(topic.train, labels, strict=True)]
        optimizer = radio_of(signals={Labels(): 1.0}, **{**FAST, **QUICK, "candidates": 52, "epochs": 2})
        returned = optimizer.compile(program, trainset=shuffled, valset=topic.test)
        assert optimizer.report.gate["chosen"] == "base"
        assert ranks_alike(returned, program, topic.test[:3])


def test_what_is_better_passes(program, topic, tmp_path):
    """Learnt by heart and judged on the same questions: a gain beyond any noise."""
    optimizer = radio_of(signals={Labels(): 1.0}, run_dir=tmp_path, **{**FAST, "epochs": 4})
    returned = optimizer.compile(program, trainset=topic.train[:12], valset=topic.train[:12])
    report = optimizer.report
    chosen = next(one for one in report.gate["candidates"] if one["name"] == report.gate["chosen"])
    assert chosen["share"] > 0
    assert chosen["beats"] >= 0.95
    assert chosen["mean"] == max(one["mean"] for one in report.gate["candidates"] if one["beats"] >= 0.95)
    assert report.decision.startswith(f"Returned the {chosen['name']} weights: nDCG@10 against labels ")
    assert report.metrics["aligned"]["ndcg@10"] == pytest.approx(chosen["mean"], abs=1e-6)
    checkpoint = returned.rerank.weights.checkpoint
    assert checkpoint.startswith(str(tmp_path))
    assert not ranks_alike(returned, program, topic.train[:3])
    # Beside what was trained only the chosen one is kept.
    assert len(list(tmp_path.glob("reranker-*"))) == (1 if chosen["share"] == 1 else 2)


def test_without_a_gate_the_trained_weights_are_returned(program, topic):
    optimizer = radio_of(gate=False, **{**RUINOUS, "candidates": 50})
    returned = optimizer.compile(program, trainset=topic.train, valset=topic.test)
    assert optimizer.report.gate is None
    assert optimizer.report.metrics["aligned"]["ndcg@10"] < optimizer.report.metrics["base"]["ndcg@10"] - 0.1
    assert not ranks_alike(returned, program, topic.test[:3])
    assert "a loss: see docs/troubleshooting.md" in str(optimizer.report)


class TestMetric:
    """A metric of the user's own decides, whatever the labels say."""

    @staticmethod
    def spy(student, prefer_change):
        calls = []

        def changed(example, prediction):
            same = (
                prediction.passages
                == student.rerank(example.question, student.retriever(example.question, k=10).passages, k=3).passages
            )
            calls.append((example, prediction))
            return same is not prefer_change

        return changed, calls

    def test_it_lets_pass_what_it_prefers(self, program, topic):
        metric, calls = self.spy(program, prefer_change=True)
        optimizer = radio_of(metric=metric, gate=Gate(mixtures=()), **RUINOUS)
        with dspy.context(lm=(lm := scripted(answer="an answer"))):
            returned = optimizer.compile(program, trainset=topic.train[:8], valset=topic.test)
        report = optimizer.report
        assert report.gate["metric"] == "changed"
        assert report.gate["chosen"] != "base"
        assert by_share(report)[0.0]["mean"] == 0.0
        assert returned.rerank.weights.checkpoint != program.rerank.weights.checkpoint
        assert report.metrics["aligned"]["ndcg@10"] < report.metrics["base"]["ndcg@10"]  # not what was asked for
        # On the program's own predictions: base and trained, each on every held-out question.
        assert [example for example, _ in calls] == topic.test * 2
        assert {prediction.answer for _, prediction in calls} == {"an answer"}
        assert not lm.history

    @pytest.mark.slow
    def test_it_holds_back_what_it_does_not(self, program, topic):
        metric, calls = self.spy(program, prefer_change=False)
        optimizer = radio_of(metric=metric, num_threads=2, **RUINOUS, **QUICK)
        with dspy.context(lm=scripted(answer="an answer")):
            returned = optimizer.compile(program, trainset=topic.train[:8], valset=topic.test)
        assert optimizer.report.gate["chosen"] == "base"
        assert by_share(optimizer.report)[0.0]["mean"] == 1.0
        assert len(calls) == 3 * 10
        assert returned.rerank.weights.dump_state() == program.rerank.weights.dump_state()

    @pytest.mark.parametrize("num_threads", [1, 2])
    def test_a_missing_lm_is_no_fault_of_the_reranker(self, program, topic, num_threads):
        """Else every question would score 0, and the gate would say that no candidate beats the base."""
        metric, calls = self.spy(program, prefer_change=True)
        optimizer = radio_of(metric=metric, num_threads=num_threads, **FAST)
        with pytest.raises(
            SettingsError, match="failed on every held-out question, at first with ValueError: No LM is"
        ):
            optimizer.compile(program, trainset=topic.train[:4], valset=topic.test)
        assert not calls

    @pytest.mark.slow
    def test_a_question_on_which_the_program_fails_scores_nothing(self, program, topic):
        metric, calls = self.spy(program, prefer_change=False)
        retrieve = program.retriever

        class Broken(dspy.Module):
            def forward(self, query, k):
                if query == topic.test[3].question:
                    raise ConnectionError("the shelf is gone")
                return retrieve(query, k=k)

        program = RetrieveRerankAnswer(Broken(), program.rerank, candidates=10, k=3)
        optimizer = radio_of(metric=metric, retriever=retrieve, **FAST, **QUICK)
        with dspy.context(lm=scripted(answer="an answer")):
            optimizer.compile(program, trainset=topic.train[:4], valset=topic.test)
        assert by_share(optimizer.report)[0.0]["mean"] == 0.9
        assert len(calls) == 3 * 9


class Strings(dspy.Module):
    """Hands the texts of the passages alone to its reranker."""

    def __init__(self, index, encoder):
        super().__init__()
        self.index = index
        self.rerank = Rerank(encoder, "bi-encoder")

    def forward(self, question):
        return self.rerank(question, [one.contents for one in self.index(question, k=8).passages])


class TestTeacher:
    @pytest.mark.parametrize("named", ["id", "text"])
    def test_labels_of_passages_without_ids(self, index, small, topic, caplog, named):
        """Those by text count; that those by id cannot is said."""
        contents = {one.id: one.contents for one in topic.passages}
        examples = [
            one.copy(relevant=[contents[key] if named == "text" else key for key in one.relevant])
            for one in [*topic.train[:4], *topic.test]
        ]
        optimizer = radio_of(encoder=small, **FAST, **QUICK)
        program = Strings(lambda question, k: index(question, k=k), small)
        with caplog.at_level(logging.WARNING):
            optimizer.compile(program, trainset=examples[:4], valset=examples[4:])
        assert optimizer.report.gate["metric"] == f"nDCG@10 against {'labels' if named == 'text' else 'the teacher'}"
        assert ("are not used, the gate follows the teacher" in caplog.text) == (named == "id")

    @staticmethod
    def lm(examples):
        return LaunchableLM({one.question: {"rationale": f"Because: {one.answers[0]}."} for one in examples})

    def test_without_labels_the_teacher_judges_and_explains_the_held_out_questions(self, program, topic, tmp_path):
        train, held_out = unlabelled(topic.train[:6]), unlabelled(topic.test)
        optimizer = radio_of(rationale_lm=self.lm(train + held_out), run_dir=tmp_path, **FAST, **QUICK)
        optimizer.compile(program, trainset=train, valset=held_out)
        assert optimizer.report.gate["metric"] == "nDCG@10 against the teacher"
        assert optimizer.report.gate["questions"] == 10
        assert optimizer.report.rationales["written"] == 16
        kept = [json.loads(line)["id"] for line in (tmp_path / "rationales.jsonl").read_text().splitlines()]
        assert kept == [one.id for one in train + held_out]
        # The teacher saw those rationales: without them it ranks, and so judges, otherwise.
        alone = radio_of(**FAST, **QUICK)
        alone.compile(program, trainset=train, valset=held_out)
        assert by_share(alone.report)[0.0]["mean"] != by_share(optimizer.report)[0.0]["mean"]

    @pytest.mark.parametrize("settings", [QUICK, {"gate": False}], ids=["labels", "no gate"])
    def test_else_nothing_is_asked_about_them(self, program, topic, settings):
        held_out = topic.test if settings["gate"] else unlabelled(topic.test)
        optimizer = radio_of(rationale_lm=self.lm(topic.train), **FAST, **settings)
        optimizer.compile(program, trainset=topic.train[:4], valset=held_out)
        assert optimizer.report.spending["rationales"]["calls"] == 4
        if settings["gate"]:
            assert optimizer.report.gate["metric"] == "nDCG@10 against labels"


class Shelf(Retriever):
    """Another first stage: always the same passages."""

    def search(self, queries, k):
        found = tuple(Passage(str(number), f"passage {number}") for number in range(k))
        return [Ranking(query, found, tuple(-float(one.id) for one in found)) for query in queries]


@pytest.fixture(scope="module")
def wide(demo, small):
    """The whole demo corpus: there recall@50 can fall."""
    return FaissRetriever.build(demo.passages, encoder=small)


class TestRetrieval:
    def test_a_query_encoder_that_finds_less_is_refused(self, wide, small, topic):
        student = RetrieveRerankAnswer(wide, Rerank(small, "bi-encoder"), candidates=10, k=3)
        metric, _ = TestMetric.spy(student, prefer_change=True)
        gate = Gate(mixtures=(), retrieval=True)
        optimizer = radio_of(tower="query", metric=metric, gate=gate, **{**RUINOUS, "learning_rate": 1e-1})
        with dspy.context(lm=scripted(answer="x")):
            optimizer.compile(student, trainset=topic.train, valset=topic.train)
        report = optimizer.report
        rows = by_share(report)
        assert rows[1.0]["mean"] > rows[0.0]["mean"] + 0.5  # the metric alone would have let it pass
        assert report.gate["chosen"] == "base"
        assert rows[1.0]["refused"].startswith("as a first stage it finds less (-0.")
        assert "trained came closest, and as a first stage it finds less (-0." in report.decision

    def test_one_that_finds_as_much_is_not(self, index, program, topic):
        """All of the topic's passages are among the first 50 or so."""
        optimizer = radio_of(tower="query", gate=Gate(mixtures=(), retrieval=True), **FAST)
        optimizer.compile(program, trainset=topic.train[:4], valset=topic.test)
        assert by_share(optimizer.report)[1.0]["refused"] == ""

    def test_held_out_questions_of_which_no_passage_must_be_found(self, program, topic):
        lost = [dspy.Example(question=f"{one.question} really", answers=["zzz"]) for one in topic.test]
        optimizer = radio_of(tower="query", gate=Gate(mixtures=(), retrieval=True), **FAST)
        optimizer.compile(program, trainset=topic.train[:4], valset=[one.with_inputs("question") for one in lost])
        assert by_share(optimizer.report)[1.0]["refused"] == ""

    @pytest.mark.parametrize(
        ("rerank", "settings"),
        [
            (lambda small: Rerank(small, "bi-encoder"), {"tower": "both"}),
            (lambda small: Rerank(small, "bi-encoder"), {"tower": "query", "retriever": Shelf()}),
            (lambda small: Rerank(ENCODER, "bi-encoder"), {"tower": "query"}),
            (lambda small: Rerank(Encoder(small.name, passage_prefix="passage: "), "bi-encoder"), {"tower": "query"}),
        ],
        ids=["both towers", "no FAISS index", "another encoder", "another prefix"],
    )
    def test_where_it_does_not_apply_that_is_said_before_anything_is_paid_for(
        self, index, small, topic, rerank, settings
    ):
        student = RetrieveRerankAnswer(index, rerank(small), candidates=10, k=3)
        optimizer = radio_of(UnaskedLM({}), small, gate=Gate(retrieval=True), **FAST, **settings)
        with pytest.raises(
            SettingsError, match=r"Gate\(retrieval=True\) judges .* it needs tower='query', a VectorRetriev"
        ):
            optimizer.compile(student, trainset=topic.train[:4], valset=topic.test)


def test_several_measures_and_tokens_decide_and_stand_in_the_report(program, topic, tmp_path):
    gate = Gate(mixtures=(), measures=("RR@10", "ndcg@10"), tokens=200)
    optimizer = radio_of(run_dir=tmp_path, **{**RUINOUS, "candidates": 50, "gate": gate})
    returned = optimizer.compile(program, trainset=topic.train, valset=topic.test)
    report = optimizer.report
    assert report.gate["metric"] == "RR@10 (and nDCG@10) in 200 tokens against labels"
    base, trained = report.gate["candidates"]
    assert trained["gain"] < 0
    assert set(trained["others"]) == {"ndcg@10"}
    assert returned.rerank.weights.dump_state() == program.rerank.weights.dump_state()
    assert list(report.metrics["base"]) == ["ndcg@10", "recall@5", "mrr", "RR@10"]
    # Within what the LM reads a passage may be missing that the whole ranking has.
    assert base["mean"] <= report.metrics["base"]["RR@10"]
    assert r"| RR\@10 |" in (tmp_path / "report.md").read_text()
