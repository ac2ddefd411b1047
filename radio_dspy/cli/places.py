"""Check where a command will write, before it does anything."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from radio_dspy.core.errors import DataError, SettingsError

ELSEWHERE = "give another place."
RESULT = "radio-dspy result"  # the kind that a file of --json says it is
Out = Literal["whole", "index", "shared"]
_STREAM = re.compile(r"/dev/(stdout|stderr|stdin|fd/)|/proc/")
_WRITTEN = {  # arguments that name places to write to
    "out": "the output folder",
    "dev_out": "the file of --dev",
    "run_out": "the file of --write-run",
    "run_dir": "the run folder",
    "report_dir": "the report's folder",
    "records": "the folder of the records",
    "json_file": "the file of --json",
}


def check_places(arguments: Mapping[str, Any], out: Out) -> None:
    """Check that a command can write to its output places before it starts.

    Args:
        arguments: Of the command, by name.
        out: What becomes of its ``out``: something whole, which nothing may be added to; an index; or a folder for all.

    Raises:
        SettingsError: If a place cannot be made, is one that is read, or lies in another one where it would do harm.
    """
    from radio_dspy.core.files import place_problem, resolved
    from radio_dspy.runs.folders import is_reserved

    given = {name: Path(arguments[name]) for name in _WRITTEN if arguments.get(name) is not None}
    if str(given.get("json_file")) == "-":  # standard output
        del given["json_file"]
    found = {name: resolved(path, ELSEWHERE) for name, path in given.items()}
    for name, path in found.items():
        if not path.exists() and (problem := place_problem(path)):
            raise SettingsError(f"{given[name]}: {problem}; {ELSEWHERE}")
        for other, folder in found.items():
            if name == other or not path.is_relative_to(folder):
                continue
            inner = path.relative_to(folder).parts
            if out == "shared" and other != "json_file" and (inner or name != "json_file"):
                continue
            whole = other == "json_file" or (other == "out" and out == "whole")
            no_run = other == "run_dir" and arguments.get("estimate") and not folder.exists()  # nor will there be one
            if not inner or whole or no_run or is_reserved(inner[0]):
                raise SettingsError(
                    f"{given[name]}: {_WRITTEN[name]} cannot be {'in ' if inner else ''}{_WRITTEN[other]}, "
                    f"{given[other]}; {ELSEWHERE}"
                )
    if "json_file" in given:
        _check_result(given["json_file"], [one for name, one in arguments.items() if name not in _WRITTEN])


def _check_result(path: Path, read: Sequence[Any]) -> None:
    """See that a result may be written to a file: a new one, an empty one, or an earlier result.

    Raises:
        SettingsError: If it is anything else, such as a file that is read.
    """
    from radio_dspy.core.files import check_file, check_replaced

    if _STREAM.match(path.absolute().as_posix()):  # a name of an open file, which cannot be replaced
        raise SettingsError(f"{path}: is no file of its own; {ELSEWHERE}")
    target = check_file(path, ELSEWHERE)
    if target.exists() and any(_is_same(target, one) for one in read):
        raise SettingsError(f"{path}: is read, and --json would replace it; {ELSEWHERE}")
    check_replaced(path, _is_result, "an earlier result of this release", ELSEWHERE)


def _is_result(file: Path) -> bool:
    from radio_dspy.runs.journal import read_object

    try:
        return read_object(file, "").get("kind") == RESULT
    except DataError:
        return False


def _is_same(file: Path, argument: Any) -> bool:
    """Whether an argument of a command, of whatever kind, names a file."""
    try:
        return isinstance(argument, str | Path) and file.samefile(argument)
    except (OSError, ValueError):
        return False
