"""The command for experiments."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from radio_dspy.cli.command import command, say, write_result
from radio_dspy.cli.options import JsonFile


@command
def experiment(
    file: Annotated[Path, typer.Argument(help="An experiment's YAML file; see docs/experiments.md.")],
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Replace a setting in every row: training.num_train_epochs=1. Give it once for each."
        ),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Folder that the file's data names are in.")] = None,
    out: Annotated[
        Path, typer.Option(help="Folder for indexes, rationales and trainings; the same one goes on from there.")
    ] = Path("runs/experiments"),
    records: Annotated[Path | None, typer.Option(help="Folder for the result records; else one in --out.")] = None,
    rows: Annotated[
        list[str] | None, typer.Option(help="Only rows whose name contains this. Give it once for each.")
    ] = None,
    seeds: Annotated[list[int] | None, typer.Option(help="Only this seed. Give it once for each.")] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what it takes (rows, LM calls, cost, memory), and do nothing.")
    ] = False,
    json_file: JsonFile = None,
) -> None:
    """Run an experiment row by row; what is done already is not done again.

    Example: `radio-dspy experiment examples/experiments/1-does-it-help.yaml --data FOLDER --plan`
    """
    import dspy

    from radio_dspy.experiments.loading import load_experiment
    from radio_dspy.experiments.plan import plan as planned
    from radio_dspy.experiments.runner import run_experiment

    chosen = load_experiment(file, sets or (), data)
    kept = records or out / "records"
    if plan:
        found = planned(chosen, kept, rows=rows or (), seeds=seeds or ())
        write_result(json_file, found.as_dict())
        say(found)
        return
    dspy.disable_logging()
    try:
        paths = run_experiment(chosen, out, records=kept, rows=rows or (), seeds=seeds or (), on_row=say)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; run the same command again to go on: what is done is kept.") from None
    write_result(json_file, {"records": [str(path) for path in paths]})
    say(f"{len(paths)} records in {kept / chosen.name}")
