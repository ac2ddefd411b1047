import json

import pytest

from radio_dspy.core.errors import DataError
from radio_dspy.reporting import summary as summaries
from radio_dspy.reporting.report import CHOSEN_ON
from radio_dspy.reporting.summary import read_summary
from radio_dspy.runs.run import Run
from tests.reporting.pages import comparison, finished_run, report


def test_everything_is_read_from_the_folder(tmp_path):
    summary, questions = read_summary(finished_run(tmp_path / "run"))
    assert (summary.kind, summary.before, summary.after, summary.judged) == ("compile", "base", "aligned", 12)
    assert summary.effects == {"helped": 4, "hurt": 4, "unchanged": 4}
    assert list(summary.metrics) == ["first_stage", "base", "aligned"]
    base = summary.metrics["base"]["ndcg@10"]
    assert base["low"] < base["mean"] < base["high"]
    assert summary.gains["ndcg@10"]["mean"] == pytest.approx(0.0)
    assert sum(summary.histogram["counts"]) == 12
    assert len(summary.histogram["edges"]) == len(summary.histogram["counts"]) + 1
    assert len(questions) == 12
    assert json.loads(json.dumps(summary.as_dict(), allow_nan=False))["decision"] == summary.decision


def test_a_change_stands_in_the_bin_that_holds_it():
    found = summaries._histogram([-1.0, -0.06, -0.04, 0.0, 0.04, 0.36, 1.0])
    for change, count in ((-1.0, 1), (-0.06, 1), (0.0, 3), (0.36, 1), (1.0, 1)):
        place = next(n for n, low in enumerate(found["edges"]) if low <= change < found["edges"][n + 1])
        assert found["counts"][place] == count


def test_stages_have_calls_of_the_last_compile_and_of_all_starts(tmp_path):
    summary, _ = read_summary(finished_run(tmp_path))
    by_stage = {one["stage"]: one for one in summary.stages}
    assert list(by_stage) == ["retrieval", "rationales", "signals"]
    assert (by_stage["rationales"]["calls"], by_stage["rationales"]["all_calls"]) == (9, 20)
    assert (by_stage["signals"]["cost"], by_stage["signals"]["all_calls"]) == (None, 3)
    assert by_stage["retrieval"]["seconds"] == 1.25


def test_guards_are_counted(tmp_path):
    other = {"reranker": "self.second", "groups": 5, "left_out": {"same text": 7}, "gate": None, "training": {}}
    other["training"] = report(comparison()).training
    summary, _ = read_summary(finished_run(tmp_path, others=[other]))
    assert dict(summary.guards) == {
        "training question skipped: without an answer": 2,
        "rationale asked for twice": 3,
        "question without a rationale, guided by its answer": 3,
        "useless rationale, guided by the answer: answer missing": 2,
        "negative left out: contains an answer (self.rerank)": 4,
        "negative left out: same text (self.second)": 7,
    }
    assert [one["reranker"] for one in summary.rerankers] == ["self.rerank", "self.second"]


def test_what_changed_most_comes_first_and_very_many_are_not_all_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(summaries, "SHOWN_QUESTIONS", 6)
    summary, questions = read_summary(finished_run(tmp_path))
    assert [one["effect"] for one in questions].count("unchanged") == 0
    assert [one["id"] for one in questions] == ["q0", "q1", "q3", "q4", "q6", "q7"]
    assert summary.notes == ["6 of 12 questions can be browsed: those that changed most.", CHOSEN_ON]
    assert sum(summary.effects.values()) == 12  # the figures are of all


def test_questions_of_another_compile_are_not_shown(tmp_path):
    finished_run(tmp_path)
    Run(tmp_path).write_records("comparison", comparison(7).records())
    summary, questions = read_summary(tmp_path)
    assert questions == []
    assert "comparison.jsonl is of another compile" in summary.notes[0]
    assert summary.metrics["base"]["mrr"].keys() == {"mean"}
    (tmp_path / "comparison.jsonl").unlink()
    assert "comparison.jsonl is not there" in read_summary(tmp_path)[0].notes[0]


def test_a_folder_without_a_report_says_what_it_is(tmp_path):
    with pytest.raises(DataError, match="no such folder; give what was --run-dir"):
        read_summary(tmp_path / "missing")
    with pytest.raises(DataError, match=r"not a run folder \(no report.json and no manifest of a run\)"):
        read_summary(tmp_path)
    Run(tmp_path / "run").begin({})
    with pytest.raises(DataError, match=r"this run has no report yet \(killed\)"):
        read_summary(tmp_path / "run")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="is a file"):
        read_summary(tmp_path / "file")


@pytest.mark.parametrize("name", ["report.json", "comparison.jsonl"])
@pytest.mark.parametrize("text", ["{}\n", '{"metrics": 1, "rankings": [], "kind": "evaluation"}\n', "[1]\n", "half"])
def test_a_damaged_file_is_named(name, text, tmp_path):
    finished_run(tmp_path)
    (tmp_path / name).write_text(text)
    if name == "comparison.jsonl" and not text.startswith("{"):  # a last line that was cut off is passed over
        assert read_summary(tmp_path)[1] == []
        return
    with pytest.raises(DataError, match=f"{tmp_path.name}"):
        read_summary(tmp_path)
