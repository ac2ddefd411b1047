"""What has a page's name and is none is never replaced."""

import pytest

from radio_dspy.core.errors import SettingsError
from radio_dspy.reporting.writing import check_free, write_report
from tests.reporting.pages import comparison, finished_run

OTHERS = [
    ("report.md", "# Thesis\n\nFour years of work.\n"),
    ("report.md", "# Cats against dogs\n\n## Before\n"),
    ("report.html", "<!doctype html><title>radio-dspy</title>"),
    ("summary.json", '{"kind": "evaluation", "passed": 7}'),
    ("summary.json", "[]"),
]


@pytest.mark.parametrize(("name", "text"), OTHERS)
@pytest.mark.parametrize("kind", ["run", "evaluation"])
def test_a_page_of_somebody_else_stays(tmp_path, name, text, kind):
    finished_run(tmp_path / "it") if kind == "run" else comparison().save(tmp_path / "it")
    (tmp_path / "it" / name).write_text(text)
    with pytest.raises(SettingsError, match=f"{name}: holds something else than a report's"):
        write_report(tmp_path / "it")
    assert (tmp_path / "it" / name).read_text() == text


@pytest.mark.parametrize(("name", "text"), [*OTHERS, ("comparison.jsonl", '{"id": "mine"}\n')])
def test_nor_does_the_next_evaluation_replace_it(tmp_path, name, text):
    comparison().save(tmp_path / "it")
    before = (tmp_path / "it" / "report.json").read_bytes()
    (tmp_path / "it" / name).write_text(text)
    with pytest.raises(SettingsError, match=f"{name}: holds something else than a report's"):
        comparison(6).save(tmp_path / "it")
    assert ((tmp_path / "it" / name).read_text(), (tmp_path / "it" / "report.json").read_bytes()) == (text, before)


def test_a_compile_keeps_it_and_is_whole(tmp_path, caplog):
    finished_run(tmp_path / "it")
    (tmp_path / "it" / "report.md").write_text("mine")
    finished_run(tmp_path / "it")
    assert (tmp_path / "it" / "report.md").read_text() == "mine"
    assert "report.html could not be written" in caplog.text


@pytest.mark.parametrize("kind", ["run", "evaluation"])
def test_pages_of_ours_are_replaced_also_empty_ones_and_with_other_line_ends(tmp_path, kind):
    finished_run(tmp_path / "it") if kind == "run" else comparison().save(tmp_path / "it")
    pages = [tmp_path / "it" / name for name in ("report.html", "report.md")]
    for path in pages:
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    (tmp_path / "it" / "summary.json").write_text("")
    assert len(write_report(tmp_path / "it")) == 3
    assert all(b"\r\n" not in path.read_bytes() for path in pages)
    if kind == "evaluation":
        check_free(tmp_path / "it")
