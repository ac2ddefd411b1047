"""Write a report's pages, at the end of a compile or an evaluation or again when asked."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal, get_args

from radio_dspy._version import __version__
from radio_dspy.core.errors import RadioError, SettingsError
from radio_dspy.core.files import (
    check_new,
    disk_errors,
    is_empty,
    new_folder,
    replacing,
    resolved,
    take_place,
)
from radio_dspy.core.redaction import logger_of, told
from radio_dspy.reporting.html_page import render_page
from radio_dspy.reporting.markdown import render_markdown
from radio_dspy.reporting.pages import check_page
from radio_dspy.reporting.report import Report
from radio_dspy.reporting.summary import EVALUATION, Summary, read_summary, summary_of_compile, unreadable
from radio_dspy.runs.folders import LOCK, MANIFEST
from radio_dspy.runs.journal import MISSHAPEN
from radio_dspy.runs.run import Run, locked

logger = logger_of(__name__)

_OTHER = "give another folder for this report."

ReportForm = Literal["html", "markdown", "json"]
FORMS: tuple[ReportForm, ...] = get_args(ReportForm)
NAMES: dict[ReportForm, str] = {"html": "report.html", "markdown": "report.md", "json": "summary.json"}
_FILES = ("comparison.jsonl", "report.json", *NAMES.values())
_SAYS = {"release", "before", "after", "judged", "metrics"}  # what every evaluation's report.json says


def write_report(folder: str | PathLike[str], forms: Sequence[ReportForm] = FORMS) -> list[Path]:
    """Make a run's report again from the files of its folder.

    Args:
        folder: What was ``run_dir`` of a compile, or the folder of an evaluation's report.
        forms: ``"html"``, ``"markdown"``, ``"json"``.

    Returns:
        What was written: ``report.html``, ``report.md``, ``summary.json``.

    Raises:
        DataError: If the folder is no run's, the run has no report yet, or a file cannot be read.
        SettingsError: If something else than a report's page has a page's name.
        RunError: If the disk is full.
    """
    path = Path(folder)
    summary, questions = read_summary(path)
    try:
        return _write_pages(path, summary, questions, forms)
    except RadioError:
        raise
    except MISSHAPEN as error:
        raise unreadable(path, error) from error


def _write_pages(
    path: Path, summary: Summary, questions: Sequence[Mapping[str, Any]], forms: Sequence[ReportForm]
) -> list[Path]:
    for form in forms:
        check_page(path / NAMES[form])
    pages = {path / NAMES[form]: _rendered(form, summary, questions) for form in forms}
    with disk_errors(path, "Nothing else was changed; make room, and `radio-dspy report` tries again."):
        for page, text in pages.items():
            with replacing(page) as temporary:
                temporary.write_text(text, encoding="utf-8")
    return list(pages)


def keep_report(run: Run, report: Report, records: Callable[[], Iterable[dict[str, Any]]]) -> None:
    """Write a finished compile's questions and pages; what goes wrong here is told, and takes nothing away.

    Args:
        run: The compile's folder.
        report: What happened.
        records: Gives one for each held-out question; see ``Comparison.records``.
    """
    try:
        run.write_records("comparison", records())
        _write_pages(run.path, *summary_of_compile(report, records(), run.read_records("log")), FORMS)
    except Exception as error:  # the program is there, and its report.json: a page is no reason to lose them
        logger.warning(
            "report.html could not be written (%s). The compile is whole; `radio-dspy report %s` tries again.",
            told(error),
            run.path,
        )


def write_evaluation(
    folder: str | PathLike[str],
    records: Iterable[dict[str, Any]],
    outcome: Mapping[str, Any],
    answers: Mapping[str, Mapping[str, float]] | None = None,
) -> Path:
    """Write a comparison as a report of its own.

    Args:
        folder: A new folder, or that of an earlier evaluation, which is replaced.
        records: One for each question; see ``Comparison.records``.
        outcome: What came out; see ``Comparison.outcome``.
        answers: Row -> answer metric -> mean, where an LM answered as well.

    Returns:
        The page.

    Raises:
        SettingsError: If the folder holds anything else.
        RunError: If another process is writing there, or the disk is full.
    """
    path = Path(folder)
    check_free(path)
    report: dict[str, Any] = {
        "kind": EVALUATION,
        "release": __version__,
        "written": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        **outcome,
        "answers": {row: dict(values) for row, values in (answers or {}).items()},
    }
    if not path.exists() or is_empty(path):
        with new_folder(path, _OTHER) as making:
            _fill(making, report, records)
        return path / NAMES["html"]
    place = path.resolve()
    beside = place.parent if os.access(place.parent, os.W_OK) and not place.is_mount() else place
    with (
        disk_errors(path, "The earlier report is still there; make room, and evaluate again."),
        tempfile.TemporaryDirectory(dir=beside, prefix=".radio-dspy-") as temporary,
        locked(place / LOCK),
    ):
        check_free(place)
        making = Path(temporary) / place.name
        making.mkdir()
        _fill(making, report, records)
        if not take_place(making, place):  # then each file takes its place in one step
            for name in _FILES:
                (making / name).replace(place / name)
    return path / NAMES["html"]


def _fill(folder: Path, report: Mapping[str, Any], records: Iterable[dict[str, Any]]) -> None:
    """Write the whole of a report into a folder that nobody reads yet."""
    run = Run(folder)
    run.write_records("comparison", records)
    run.write("report", report)
    write_report(folder)


def check_free(folder: Path) -> None:
    """Make sure that a folder can take an evaluation's report: it is new, empty, or holds an earlier one.

    Raises:
        SettingsError: If it holds anything else, such as a compile run, or cannot be written.
        DataError: If it is a file, or its report.json is damaged.
    """
    folder = resolved(folder, _OTHER)
    for path in (folder / name for name in (*_FILES, LOCK)):
        if path.is_symlink() or path.is_dir():
            raise SettingsError(f"{path}: a link or a folder, where reports keep a file of theirs; {_OTHER}")
        check_page(path)
    report = Run(folder).read("report")
    ours = report is not None and report.get("kind") == EVALUATION and report.keys() >= _SAYS
    if (folder / MANIFEST).exists() or (report is not None and not ours):
        raise SettingsError(f"{folder}: holds a compile run or a program; {_OTHER}")
    if report is None:
        check_new(folder, _OTHER)


def _rendered(form: ReportForm, summary: Summary, questions: Sequence[Mapping[str, Any]]) -> str:
    if form == "html":
        return render_page(summary, questions)
    if form == "markdown":
        return render_markdown(summary, questions)
    return json.dumps(summary.as_dict(), indent=2, allow_nan=False) + "\n"
