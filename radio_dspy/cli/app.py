"""The command line: radio-dspy demo, index, questions, compile and so on."""

from __future__ import annotations

import logging
import os
from typing import Annotated

import typer

from radio_dspy._version import __version__
from radio_dspy.cli.command import show_tracebacks
from radio_dspy.cli.compile import compile_, index, train
from radio_dspy.cli.demo import demo
from radio_dspy.cli.evaluate import ask, evaluate, export, report
from radio_dspy.cli.experiment import experiment
from radio_dspy.cli.questions import questions
from radio_dspy.cli.runs import list_, resume, show
from radio_dspy.cli.serve import serve
from radio_dspy.cli.streams import keep_streams

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Align the reranker of a RAG program with the LM that has to answer.",
)
runs = typer.Typer(
    no_args_is_help=True, rich_markup_mode="markdown", help="Compile runs: what they have, and going on."
)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"radio-dspy {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    show_tracebacks(debug)


app.command()(demo)
app.command()(index)
app.command()(questions)
app.command("compile")(compile_)
app.command()(train)
app.command("import", hidden=True)(train)  # its name in release 0.1
app.command()(evaluate)
app.command()(ask)
app.command()(export)
app.command()(report)
app.command()(serve)
app.command()(experiment)
app.add_typer(runs, name="runs")
runs.command("list")(list_)
runs.command()(show)
runs.command()(resume)


def main() -> None:
    """Run the command line."""
    keep_streams()
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # no price list from the network for a local run
    logging.getLogger("dspy.clients.lm").setLevel(logging.ERROR)
    app()


if __name__ == "__main__":
    main()
