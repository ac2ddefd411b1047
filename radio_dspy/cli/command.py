"""Shared by all commands: one-line errors, results as JSON, safe output."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec

import typer

from radio_dspy.cli.places import ELSEWHERE, RESULT, Out, check_places
from radio_dspy.core.errors import RadioError, SettingsError
from radio_dspy.core.files import check_file, write_json
from radio_dspy.core.redaction import presentable
from radio_dspy.lm.secrets import hiding_secrets

P = ParamSpec("P")
_OUT: dict[str, Out] = {"index": "index", "experiment": "shared"}  # others' is a whole
_debug = False
STANDARD_OUTPUT = Path("-")  # as the file of --json


@dataclass
class _Told:
    """What the command that runs has to tell as JSON on standard output, in place of text."""

    asked: bool = False
    result: dict[str, Any] | None = None


_told = _Told()


def show_tracebacks(shown: bool) -> None:
    """Whether an error is shown with its traceback."""
    global _debug
    _debug = shown


def command(function: Callable[P, None]) -> Callable[P, None]:
    """Look at the paths first; report an error in one line.

    The exit code is 2 for arguments that are wrong, 1 for what goes wrong with right ones, 130 for an interrupt.
    """

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        from dspy.utils.exceptions import DSPyError

        try:
            with hiding_secrets(), _telling(kwargs.get("json_file") == STANDARD_OUTPUT):
                check_places(kwargs, _OUT.get(function.__name__, "whole"))
                function(*args, **kwargs)
        except KeyboardInterrupt as error:
            default = "interrupted; run the same command again with the same --run-dir to go on."
            say(f"\n{error}" if str(error) else f"\n{default}", err=True)
            raise typer.Exit(130) from None
        except Exception as error:
            if _debug or not isinstance(error, RadioError | OSError | DSPyError):
                raise
            say(f"error: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(2 if isinstance(error, SettingsError) else 1) from error

    return run


@contextlib.contextmanager
def _telling(asked: bool) -> Iterator[None]:
    """Keep standard output for the result, and write it at the end: also of a command that failed after it had one."""
    global _told
    before, _told = _told, _Told(asked)
    try:
        yield
    finally:
        if _told.result is not None:
            typer.echo(presentable(json.dumps(_told.result, ensure_ascii=False, indent=2)))
        _told = before


def say(text: object, *, err: bool = False) -> None:
    """Write a line, or several, to standard output or standard error; see ``presentable``.

    With ``--json -`` standard output is the result's alone.
    """
    typer.echo(presentable(str(text)), err=err or _told.asked)


def write_result(path: Path | None, value: dict[str, Any]) -> None:
    """Write a command's result as JSON, where a file is asked for; if that fails, show it, so that nothing is lost."""
    if path is None:
        return
    text = json.dumps(value, default=str, ensure_ascii=False)
    # A path may contain an unpaired surrogate, a metric may be no number: JSON has neither.
    found = json.loads(text.encode("utf-8", "replace"), parse_constant=lambda _: None)
    if path == STANDARD_OUTPUT:
        _told.result = {"kind": RESULT, **found}
        return
    try:
        write_json(check_file(path, ELSEWHERE), {"kind": RESULT, **found})
    except (OSError, RadioError):
        say(text)
        raise
