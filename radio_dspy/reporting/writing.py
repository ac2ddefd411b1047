"""Writing a report beside what it is made of: at the end of a compile, of an evaluation, and again when asked."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal, get_args

from radio_dspy import __version__
from radio_dspy.comparison import Comparison
from radio_dspy.errors import SettingsError
from radio_dspy.files import replacing
from radio_dspy.redaction import told
from radio_dspy.reporting.markdown import render_markdown
from radio_dspy.reporting.page import render_page
from radio_dspy.reporting.summary import EVALUATION, Summary, read_summary
from radio_dspy.runs import MANIFEST, Run

logger = logging.getLogger(__name__)

ReportForm = Literal["html", "markdown", "json"]
FORMS: tuple[ReportForm, ...] = get_args(ReportForm)
NAMES: dict[ReportForm, str] = {"html": "report.html", "markdown": "report.md", "json": "summary.json"}


def write_report(folder: str | PathLike[str], forms: Sequence[ReportForm] = FORMS) -> list[Path]:
    """Make a run's report again from the files of its folder.

    Args:
        folder: What was ``run_dir`` of a compile, or the folder of an evaluation's report.
        forms: ``"html"``, ``"markdown"``, ``"json"``.

    Returns:
        What was written: ``report.html``, ``report.md``, ``summary.json``.

    Raises:
        DataError: If the folder is no run's, the run has no report yet, or a file cannot be read.
    """
    path = Path(folder)
    summary, questions = read_summary(path)
    written = []
    for form in forms:
        written.append(path / NAMES[form])
        with replacing(written[-1]) as temporary:
            temporary.write_text(_rendered(form, summary, questions), encoding="utf-8")
    return written


def keep_report(run: Run, comparison: Comparison) -> None:
    """Write a finished compile's questions and pages; what goes wrong here is told, and takes nothing away."""
    try:
        run.write_records("comparison", comparison.records())
        write_report(run.path)
    except Exception as error:  # the program is there, and its report.json: a page is no reason to lose them
        logger.warning(
            "report.html could not be written (%s). The compile is whole; `radio-dspy report %s` tries again.",
            told(error),
            run.path,
        )


def write_evaluation(
    folder: str | PathLike[str], comparison: Comparison, answers: Mapping[str, Mapping[str, float]] | None = None
) -> Path:
    """Write a comparison as a report of its own.

    Args:
        folder: A new folder, or that of an earlier evaluation, which is replaced.
        comparison: What is reported.
        answers: Row -> answer metric -> mean, where an LM answered as well.

    Returns:
        The page.

    Raises:
        SettingsError: If the folder holds a compile run.
    """
    run, path = Run(folder), Path(folder)
    check_free(path)
    run.write_records("comparison", comparison.records())
    report: dict[str, Any] = {
        "kind": EVALUATION,
        "release": __version__,
        "written": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "decision": comparison.sentence,
        "before": comparison.before,
        "after": comparison.after,
        "judged": comparison.judgement.judged,
        "relevance": comparison.judgement.source,
        "metrics": comparison.means,
        "answers": {row: dict(values) for row, values in (answers or {}).items()},
    }
    run.write("report", report)
    return write_report(path)[0]


def check_free(folder: Path) -> None:
    """Make sure that a folder can take an evaluation's report.

    Raises:
        SettingsError: If it holds a compile run.
        DataError: If it is a file.
    """
    report = Run(folder).read("report")
    if (folder / MANIFEST).exists() or (report is not None and report.get("kind") != EVALUATION):
        raise SettingsError(f"{folder}: holds a compile run or a program; give another folder for this report.")


def _rendered(form: ReportForm, summary: Summary, questions: Sequence[Mapping[str, Any]]) -> str:
    if form == "html":
        return render_page(summary, questions)
    if form == "markdown":
        return render_markdown(summary, questions)
    return json.dumps(summary.as_dict(), indent=2, allow_nan=False) + "\n"
