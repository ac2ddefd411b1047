"""Commands for run folders: list, show, resume."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from radio_dspy.cli.command import command, say, write_result
from radio_dspy.cli.compile import compile_
from radio_dspy.cli.demo import demo
from radio_dspy.cli.options import JsonFile
from radio_dspy.cli.remembered import check_arguments, restored_arguments
from radio_dspy.core.errors import RadioError, SettingsError


@command
def list_(
    folder: Annotated[Path, typer.Argument(help="Where the run folders are.")] = Path("runs"),
    json_file: JsonFile = None,
) -> None:
    """Show every run of a folder: whether it is running, finished, stopped or was killed.

    Example: `radio-dspy runs list runs`
    """
    from radio_dspy.runs.run import look_at, runs_in

    found, paths = [], runs_in(folder)
    for path in paths:
        try:
            found.append(look_at(path))
        except (RadioError, OSError) as error:  # one that is damaged does not hide the others
            say(f"{path.name}: cannot be read: {error}")
    for one in found:
        kept = ", ".join(f"{count} {name}" for name, count in one.counts.items())
        say(f"{one.path.name}: {one.state}, started {one.started}, {one.calls} LM calls; {kept or 'no records'}")
    if not paths:
        say(f"no runs in {folder}")
    write_result(json_file, {"runs": [vars(one) for one in found]})


@command
def show(
    run_dir: Annotated[Path, typer.Argument(help="The run folder.")],
    json_file: JsonFile = None,
) -> None:
    """Show what a run is, what it has, and how to go on.

    Example: `radio-dspy runs show runs/first`
    """
    from radio_dspy.runs.run import Run, look_at

    one, run = look_at(run_dir), Run(run_dir)
    settings = one.settings
    say(f"{one.path}: {one.state}" + (f" ({one.holder})" if one.holder else ""))
    say(f"started {one.started}, {one.calls} LM calls in all")
    for name, count in one.counts.items():
        say(f"  {name}.jsonl: {count} records")
    for name, value in settings.items():
        say(f"  {name} = {value}")
    for event in run.records("log"):
        say("  " + " ".join(str(value) for value in event.values()))
    if one.state in ("stopped", "killed"):
        again = f"radio-dspy runs resume {run_dir}" if run.read("command") else "the same call with this run_dir"
        say(f"go on with: {again}")
    write_result(json_file, {**vars(one), "settings": settings})


@command
def resume(
    run_dir: Annotated[Path, typer.Argument(help="The run folder.")],
    yes: Annotated[
        bool, typer.Option("--yes", help="Ask the hosted models that the folder names; this run is one of your own.")
    ] = False,
) -> None:
    """Run the command that made a run again: what is there is not asked and not trained twice.

    Example: `radio-dspy runs resume runs/first`
    """
    from radio_dspy.core.states import ADDRESS
    from radio_dspy.runs.run import Run, look_at

    look_at(run_dir)  # raises for what is no run
    saved = Run(run_dir).read("command")
    if saved is None:
        raise SettingsError(
            f"{run_dir}: no command was kept there. A run of RADIO(run_dir=...) in a program goes on when the same "
            "compile is called again."
        )
    commands: dict[str, Callable[..., None]] = {"compile": compile_, "demo": demo}
    command = commands.get(str(saved.get("command")))
    given, folder = saved.get("arguments"), saved.get("folder")
    if isinstance(folder, str) and ADDRESS.search(folder) and not yes:  # a look at it would ask the other machine
        raise SettingsError(f"{run_dir}: was run in {folder!r:.80}, on another machine; if you trust it, add --yes.")
    if command is None or not isinstance(given, dict) or not isinstance(folder, str) or not Path(folder).is_dir():
        raise SettingsError(f"{run_dir}: its command.json holds no command of this release; run the command again.")
    given = {"save_steps" if name == "checkpoint_updates" else name: value for name, value in given.items()}  # 0.1's
    if unknown := set(given) - set(inspect.signature(command).parameters):
        raise SettingsError(
            f"{run_dir}: its command.json has unknown options {sorted(unknown)}; run the command again."
        )
    check_arguments(run_dir, command, given, folder=Path(folder), yes=yes)
    if (Path(folder) / str(given.get("run_dir"))).resolve() != run_dir.resolve():
        raise SettingsError(f"{run_dir}: its command.json is another folder's; run the command yourself.")
    os.chdir(folder)  # relative paths and names are meant from there
    arguments = restored_arguments(command, given)
    say(f"resuming: {saved['command']} " + " ".join(f"{name}={one!r}" for name, one in given.items() if one))
    out = arguments.get("out")
    if out is not None and out.exists() and look_at(arguments["run_dir"]).state == "finished":
        say(f"{run_dir}: finished; the program is in {out}")
        return
    command(**arguments)
