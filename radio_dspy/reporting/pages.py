"""Tell a report's own files from others of the same names, by their content: only these are replaced."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

from radio_dspy.core.errors import DataError
from radio_dspy.core.files import check_replaced
from radio_dspy.reporting.summary import Summary
from radio_dspy.runs.journal import decoded, first_line, read_object

_LONGEST = 1 << 28  # bytes of a page
_HTML = re.compile(
    rb"<!doctype html>.*script-src 'sha256-.*<p class=\"kind\">radio-dspy (compile|evaluation)</p>", re.DOTALL
)
_MARKDOWN = re.compile(rb"# [^\n]+ against [^\n]+\n\n.*^## Before and after$", re.DOTALL | re.MULTILINE)
_SUMMARY = {one.name for one in fields(Summary) if one.default is one.default_factory}  # what every release has
_RECORD = {"id", "question", "answers", "rankings", "metrics", "relevant", "passages"}


def check_page(path: Path) -> None:
    """See that a file of a report may be replaced: it is missing, empty, or proves to be a report's.

    Raises:
        SettingsError: If it is anything else.
    """
    if (is_ours := _PROOFS.get(path.name)) is not None:
        check_replaced(path, is_ours, f"a report's {path.name}", "move it away, or give another folder.")


def _begins(pattern: re.Pattern[bytes]) -> Callable[[Path], bool]:
    def begins(path: Path) -> bool:
        with path.open("rb") as file:
            return pattern.match(file.read(_LONGEST).replace(b"\r\n", b"\n")) is not None

    return begins


def _is_summary(path: Path) -> bool:
    try:
        return read_object(path, "").keys() >= _SUMMARY
    except DataError:
        return False


def _is_comparison(path: Path) -> bool:
    return (decoded(first_line(path)) or {}).keys() >= _RECORD


_PROOFS: dict[str, Callable[[Path], bool]] = {
    "report.html": _begins(_HTML),
    "report.md": _begins(_MARKDOWN),
    "summary.json": _is_summary,
    "comparison.jsonl": _is_comparison,
}
