import json
import logging
import sys

import pytest

from radio_dspy.core import files
from radio_dspy.core.errors import SettingsError
from radio_dspy.reporting import writing
from radio_dspy.reporting.report import CHOSEN_ON
from radio_dspy.reporting.writing import check_free, keep_report, write_report
from radio_dspy.runs.run import Run, look_at
from tests.reporting.pages import comparison, finished_run, report


def test_a_report_is_made_again_from_its_folder(tmp_path):
    finished_run(tmp_path)
    before = (tmp_path / "report.html").read_text()
    (tmp_path / "report.html").unlink()
    (tmp_path / "report.md").unlink()
    assert write_report(tmp_path, ["html"]) == [tmp_path / "report.html"]
    assert (tmp_path / "report.html").read_text() == before
    assert not (tmp_path / "report.md").exists()
    assert [one.name for one in write_report(tmp_path)] == ["report.html", "report.md", "summary.json"]
    assert json.loads((tmp_path / "summary.json").read_text())["effects"]["helped"] == 4
    assert not [one for one in tmp_path.iterdir() if one.name.startswith(".")]


def test_every_form_says_what_the_gate_chose_on(tmp_path):
    paths = write_report(finished_run(tmp_path))
    assert len(paths) == 3
    for path in paths:
        assert CHOSEN_ON in path.read_text(encoding="utf-8"), path.name


def test_what_goes_wrong_is_told_and_takes_nothing_away(tmp_path, monkeypatch, caplog):
    finished_run(tmp_path)
    (tmp_path / "report.html").unlink()
    kept = (tmp_path / "comparison.jsonl").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Run, "write_records", full)
    with caplog.at_level(logging.WARNING):
        keep_report(Run(tmp_path), report(comparison()), comparison().records)
    assert "report.html could not be written (OSError: [Errno 28] No space left on device)" in caplog.text
    assert f"`radio-dspy report {tmp_path}` tries again" in caplog.text
    assert (tmp_path / "comparison.jsonl").read_bytes() == kept
    monkeypatch.undo()
    monkeypatch.setattr(writing, "render_page", lambda *_: 1 / 0)
    keep_report(Run(tmp_path), report(comparison()), comparison().records)
    assert "ZeroDivisionError" in caplog.text
    assert not (tmp_path / "report.html").exists()


def test_a_run_stays_a_run(tmp_path):
    finished_run(tmp_path)
    state = look_at(tmp_path)
    assert (state.state, state.counts) == ("finished", {"comparison": 12})


def test_an_evaluation_is_a_folder_of_its_own(tmp_path):
    answers = {"base": {"exact_match": 0.25}, "aligned": {"exact_match": 0.5}}
    page = comparison().save(tmp_path / "judged", answers)
    text = page.read_text()
    assert "Aligned reranker against base reranker: nDCG@10" in text
    assert "<td>0.250</td>" in text
    assert "What the guards" not in text
    assert comparison(6).save(tmp_path / "judged") == page  # an earlier one is replaced
    assert "6 questions; relevant" in page.read_text()
    report = json.loads((tmp_path / "judged" / "report.json").read_text())
    assert (report["kind"], report["judged"], report["answers"]) == ("evaluation", 6, {})


def test_a_compile_is_never_replaced(tmp_path):
    finished_run(tmp_path)
    kept = (tmp_path / "report.json").read_bytes()
    with pytest.raises(SettingsError, match="holds a compile run or a program; give another folder"):
        comparison().save(tmp_path)
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(SettingsError, match="give another folder"):
        check_free(tmp_path)
    assert (tmp_path / "report.json").read_bytes() == kept
    check_free(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_reader_never_sees_two_reports_mixed(tmp_path, monkeypatch):
    """Looked at before and after the one step that changes names."""
    comparison().save(tmp_path / "judged")
    (tmp_path / "judged" / "notes.txt").write_text("mine")
    seen = []

    def looked(step):
        def call(*arguments):
            names = ("report.json", "summary.json")
            seen.append({json.loads((tmp_path / "judged" / name).read_text())["judged"] for name in names})
            done = step(*arguments)
            seen.append({json.loads((tmp_path / "judged" / name).read_text())["judged"] for name in names})
            return done

        return call

    real = files._exchanged
    monkeypatch.setattr(files, "_exchanged", looked(real))
    comparison(6).save(tmp_path / "judged")
    if not sys.platform.startswith("linux"):
        pytest.skip("needs an exchange of two folders")
    assert seen == [{12}, {6}]
    assert (tmp_path / "judged" / "notes.txt").read_text() == "mine"
    monkeypatch.setattr(files, "_exchanged", lambda *_: False)  # each file in one step, as on other systems
    comparison().save(tmp_path / "judged")
    assert (tmp_path / "judged" / "notes.txt").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["judged"]


@pytest.mark.parametrize("form", ["folder", "link"])
def test_what_stands_in_a_reports_way_is_told_before_it_is_made(tmp_path, form):
    comparison().save(tmp_path / "judged")
    page = tmp_path / "judged" / "report.md"
    page.unlink()
    page.mkdir() if form == "folder" else page.symlink_to(tmp_path / "mine.md")
    with pytest.raises(SettingsError, match=r"report\.md: a link or a folder"):
        check_free(tmp_path / "judged")


def test_another_tools_report_is_no_evaluation(tmp_path):
    (tmp_path / "report.json").write_text('{"kind": "evaluation", "tool": "mine"}')
    with pytest.raises(SettingsError, match="give another folder"):
        check_free(tmp_path)
