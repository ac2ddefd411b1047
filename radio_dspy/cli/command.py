"""Shared by all commands: one-line errors, results as JSON, safe output."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec

import typer

from radio_dspy.cli.places import ELSEWHERE, RESULT, Out, check_places
from radio_dspy.core.errors import RadioError
from radio_dspy.core.files import check_file, write_json
from radio_dspy.core.redaction import presentable
from radio_dspy.lm.secrets import hiding_secrets

P = ParamSpec("P")
_OUT: dict[str, Out] = {"index": "index", "experiment": "shared"}  # others' is a whole
_debug = False


def show_tracebacks(shown: bool) -> None:
    """Whether an error is shown with its traceback."""
    global _debug
    _debug = shown


def command(function: Callable[P, None]) -> Callable[P, None]:
    """Look at the paths first; report an error in one line with exit code 2, an interrupt with 130."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        from dspy.utils.exceptions import DSPyError

        try:
            with hiding_secrets():
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
            raise typer.Exit(2) from error

    return run


def say(text: object, *, err: bool = False) -> None:
    """Write a line, or several, to standard output or standard error; see ``presentable``."""
    typer.echo(presentable(str(text)), err=err)


def write_result(path: Path | None, value: dict[str, Any]) -> None:
    """Write a command's result as JSON, where a file is asked for; if that fails, show it, so that nothing is lost."""
    if path is None:
        return
    text = json.dumps(value, default=str, ensure_ascii=False)
    try:
        # A path may contain an unpaired surrogate, a metric may be no number: JSON has neither.
        found = json.loads(text.encode("utf-8", "replace"), parse_constant=lambda _: None)
        write_json(check_file(path, ELSEWHERE), {"kind": RESULT, **found})
    except (OSError, RadioError):
        say(text)
        raise
