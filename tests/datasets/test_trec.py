"""TREC's files, and figures that are ir-measures' own on the same files."""

import ir_measures
import pytest

import radio_dspy as radio
from radio_dspy import Passage, Ranking
from radio_dspy.core.errors import DataError
from radio_dspy.evaluation.measures import whole_gains
from radio_dspy.evaluation.metrics import mean_metrics, ranking_metrics

RUN = """q1 Q0 a 1 3.5 bm25
q1\tQ0\tb 2 3.5 bm25
q1 Q0 c 3 9 bm25
q2 Q0 c 1 1e-3 bm25

q2 Q0 d 2 -4 bm25
q3 Q0 a 1 2 bm25
"""
QRELS = "q1 0 a 1\nq1 0 b 3\nq1 0 x 2\nq2 0 d 2\nq2 0 c 0\nq4 0 a 1\n"
MEASURES = ("nDCG@10", "nDCG@1", "RR", "RR@10", "AP", "AP@2", "P(rel=2)@2", "R@1", "Judged@2", "Success@1", "Rprec")


@pytest.fixture
def files(tmp_path):
    (tmp_path / "run.txt").write_text(RUN)
    (tmp_path / "qrels.txt").write_text(QRELS)
    return tmp_path


def test_a_run_is_read_in_trec_evals_order(files):
    run = radio.load_run(files / "run.txt")
    assert list(run["q1"]) == ["c", "b", "a"]  # of equal scores the larger id comes first
    assert run["q2"] == {"c": 0.001, "d": -4.0}


def test_figures_are_those_of_ir_measures(files):
    run, qrels = radio.load_run(files / "run.txt"), radio.load_qrels(files / "qrels.txt")
    ours = mean_metrics(
        ranking_metrics([list(run.get(key, ())) for key in qrels], [whole_gains(qrels[key]) for key in qrels], MEASURES)
    )
    theirs = ir_measures.calc_aggregate(
        list(map(ir_measures.parse_measure, MEASURES)),
        ir_measures.read_trec_qrels(str(files / "qrels.txt")),
        ir_measures.read_trec_run(str(files / "run.txt")),
    )
    assert ours == pytest.approx({str(name): value for name, value in theirs.items()})


def test_what_is_written_is_read_by_others_in_the_same_order(files):
    passages = [Passage(key, key) for key in ("z", "a", "m", "b")]
    rankings = {"q1": Ranking("why?", tuple(passages), (1.0, 1.0, 1.0, 0.1)), "q2": Ranking("how?", (), ())}
    radio.write_run(rankings, files / "out.txt", "mine")
    read = sorted(ir_measures.read_trec_run(str(files / "out.txt")), key=lambda one: -one.score)
    assert [one.doc_id for one in read] == ["z", "a", "m", "b"]
    assert len({one.score for one in read}) == 4
    assert list(radio.load_run(files / "out.txt")["q1"]) == ["z", "a", "m", "b"]
    grades = radio.load_qrels(files / "qrels.txt")
    assert radio.load_qrels(radio.write_qrels(grades, files / "again.txt")) == grades


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q1 Q0 a 1 2", r"run.txt:1: expected six columns"),
        ("q1 Q0 a 1 2 t\nq1 Q0 b 1 high t", r"run.txt:2: the score must be a number"),
        ("q1 Q0 a 1 nan t", r"must be a number"),
        ("q1 Q0 a 1 2 t\nq1 Q0 a 2 1 t", r"run.txt:2: passage 'a' was already ranked"),
        ("\n", "holds no ranking"),
    ],
)
def test_what_is_no_run_is_named_by_its_line(tmp_path, text, message):
    (tmp_path / "run.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        radio.load_run(tmp_path / "run.txt")


def test_what_the_formats_cannot_hold_is_refused(tmp_path):
    with pytest.raises(DataError, match="'my passage' has white space"):
        radio.write_run({"q": Ranking("w", (Passage("my passage", "x"),), (1.0,))}, tmp_path / "run.txt")
    with pytest.raises(DataError, match="whole numbers"):
        radio.write_qrels({"q": {"a": 0.5}}, tmp_path / "qrels.txt")
    assert list(tmp_path.iterdir()) == []
