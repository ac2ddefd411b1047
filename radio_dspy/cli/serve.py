"""The command that serves a saved program over HTTP."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from radio_dspy.cli.command import command, say
from radio_dspy.cli.inputs import PLACES, FirstStage
from radio_dspy.cli.options import (
    Lm,
    Program,
    declared,
)
from radio_dspy.core.errors import MissingExtraError
from radio_dspy.serving.settings import LIMITS, ServerSettings


@command
@declared(settings=(ServerSettings(), ("host", "port", "workers", *LIMITS)), place=(FirstStage(), PLACES))
def serve(
    program: Program,
    settings: ServerSettings,
    place: FirstStage,
    lm: Lm = "none",
    max_tokens_answer: Annotated[int, typer.Option(help="Longest answer of the local LM, in tokens.")] = 64,
    api_key_file: Annotated[
        Path | None, typer.Option(help="Keys, one a line, of which every request needs one.", metavar="FILE")
    ] = None,
    origin: Annotated[
        list[str] | None,
        typer.Option(help="A web page of another server that may ask (https://app.example). Give it once for each."),
    ] = None,
    feedback: Annotated[
        Path | None, typer.Option(help="Add feedback to this JSON Lines file, to train on.", metavar="FILE")
    ] = None,
) -> None:
    """Serve a saved program over HTTP: the routes of rerankers, retrieval, answers, and a page to try it.

    Example: `radio-dspy serve aligned --index index/ --lm local`
    """
    from radio_dspy.lm.opening import open_lm
    from radio_dspy.persistence.saving import check_kind, load_weights

    try:
        from radio_dspy.serving.running import serve as run
        from radio_dspy.serving.service import Source
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("fastapi", "prometheus_client", "starlette", "uvicorn"):
            raise
        raise MissingExtraError("Serving needs a package more: pip install 'radio-dspy[serve]'") from None
    place.check()
    check_kind(program)
    load_weights(program)  # refuses a folder that cannot be loaded, before anything is opened
    source = Source(
        program,
        place.open,
        functools.partial(open_lm, lm, seed=42, max_tokens=max_tokens_answer),
    )
    settings = replace(settings, origins=tuple(origin or ()), api_key_file=api_key_file, feedback=feedback)
    run(source, settings, lambda address: say(f"serving at {address}"))
