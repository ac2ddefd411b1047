"""Check where a command will write, before it does anything."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from radio_dspy.core.errors import DataError, SettingsError

ELSEWHERE = "give another place."
Out = Literal["whole", "index", "shared"]
_STREAM = re.compile(r"/dev/(stdout|stderr|stdin|fd/)|/proc/")
_WRITTEN = {  # arguments that name places to write to
    "out": "the output folder",
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
    """See that a result may be written to a file: a new one, an empty one, or one that may be an earlier result.

    Raises:
        SettingsError: If it is anything else, such as a file that is read.
    """
    from radio_dspy.core.files import check_file
    from radio_dspy.runs.folders import MANIFEST, is_file_of_runs, is_run
    from radio_dspy.runs.journal import read_object

    if _STREAM.match(path.absolute().as_posix()):  # a name of an open file, which cannot be replaced
        raise SettingsError(f"{path}: is no file of its own; {ELSEWHERE}")
    target = check_file(path, ELSEWHERE)
    if not target.exists():
        return
    if any(_is_same(target, one) for one in read):
        raise SettingsError(f"{path}: is read, and --json would replace it; {ELSEWHERE}")
    of_weights = target.name == "config.json" or any(target.parent.glob("*.safetensors"))
    if target.name == MANIFEST or of_weights or (is_file_of_runs(target) and is_run(target.parent)):
        raise SettingsError(f"{path}: is a part of what the folder holds; {ELSEWHERE}")
    if target.stat().st_size:
        try:
            read_object(target, "")
        except DataError:
            raise SettingsError(f"{path}: holds no result (a JSON object), and stays; {ELSEWHERE}") from None


def _is_same(file: Path, argument: Any) -> bool:
    """Whether an argument of a command, of whatever kind, names a file."""
    try:
        return isinstance(argument, str | Path) and file.samefile(argument)
    except (OSError, ValueError):
        return False
