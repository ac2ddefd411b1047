"""The command that runs the main job on the bundled questions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from radio_dspy.cli.command import command, say, write_result
from radio_dspy.cli.options import JsonFile, Lm
from radio_dspy.cli.remembered import remember_command

if TYPE_CHECKING:
    from radio_dspy.core.rankings import Ranking, RankRequest


@command
def demo(
    lm: Lm = "local",
    seed: Annotated[int, typer.Option(help="Seed of the LM and of training.")] = 42,
    run_dir: Annotated[Path | None, typer.Option(help="Keep rationales, groups and checkpoint here.")] = None,
    out: Annotated[Path | None, typer.Option(help="New folder for the aligned program and its index.")] = None,
    json_file: JsonFile = None,
) -> None:
    """Run the main job on the bundled questions: align a reranker and judge it on held-out questions.

    Example: `radio-dspy demo --json demo.json`
    """
    arguments = dict(locals())
    from radio_dspy.cli.demonstration import run_demo
    from radio_dspy.core.files import check_new
    from radio_dspy.lm.opening import open_lm
    from radio_dspy.persistence.saving import save
    from radio_dspy.reporting.report import metrics_table

    if out is not None:
        check_new(out, "give a new folder for --out.")
    remember_command(run_dir, "demo", arguments)
    # Short rationales: a 135M model says nothing more in a longer one.
    with open_lm(lm, seed=seed, max_tokens=48) as model:
        result = run_demo(model, seed=seed, run_dir=run_dir)
    if out is not None:
        result.program.retriever.save(out / "index")
        save(result.program, out / "aligned")
    write_result(
        json_file,
        {
            "metrics": result.metrics,
            "seconds": result.seconds,
            "lm": model.model if model else None,
            "seed": seed,
            "report": result.report.as_dict(),
        },
    )
    say(f"\n{result.report}\n")
    say(metrics_table(result.metrics, "80 test questions, which nothing was chosen by"))
    say(f"\nThe test question that gained most:\n  {result.request.query}")
    _show_passages("first stage", result.before, result.request)
    _show_passages("aligned reranker", result.after, result.request)
    say(f"\ngold answer: {result.request.answers[0]}")
    if model is not None:
        say(f"answer by {model.model}: {result.answer}")
    say(f"\n{result.seconds:.0f} seconds in all")


def _show_passages(title: str, ranking: Ranking, request: RankRequest, count: int = 3) -> None:
    say(f"\n{title}:")
    for rank, passage in enumerate(ranking.passages[:count], start=1):
        mark = "*" if passage.id in request.relevant else " "
        say(f" {mark} {rank}. {passage.title}: {passage.text:.100}...")
