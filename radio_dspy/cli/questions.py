"""The command that makes questions from documents."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from radio_dspy.cli.command import command, say, write_result
from radio_dspy.cli.inputs import PLACES, FirstStage
from radio_dspy.cli.options import (
    JsonFile,
    Lm,
    RunDir,
    declared,
)
from radio_dspy.lm.limits import Budget


@command
@declared(budget=(Budget(), ("max_calls", "max_cost")), place=(FirstStage(), PLACES[1:]))
def questions(
    corpus: Annotated[Path, typer.Argument(help="Passages as JSON Lines.")],
    out: Annotated[Path, typer.Option(help="New file for the questions to train on.")],
    budget: Budget,
    place: FirstStage,
    lm: Lm = "local",
    n: Annotated[
        int | None, typer.Option("-n", "--n", help="How many; else one is asked for of every passage.")
    ] = None,
    style: Annotated[
        list[str] | None,
        typer.Option(help="fact, why, case, keywords, multihop or comparison. Give it once for each."),
    ] = None,
    dev_out: Annotated[
        Path | None,
        typer.Option("--dev", help="New file for the questions of other documents, to judge by.", metavar="FILE"),
    ] = None,
    dev_share: Annotated[float, typer.Option(help="Part of the passages whose documents are for --dev.")] = 0.2,
    document: Annotated[
        str | None, typer.Option(help="Field of the metadata that names a passage's document; else the usual ones.")
    ] = None,
    k: Annotated[int, typer.Option("-k", "--k", help="The first stage must find the passage among so many.")] = 20,
    num_threads: Annotated[int | None, typer.Option(help="LM calls in flight at the same time; else DSPy's 8.")] = None,
    max_tokens: Annotated[int, typer.Option(help="Longest reply of the local LM.")] = 128,
    run_dir: RunDir = None,
    seed: Annotated[int, typer.Option(help="Seed of the LM, the order of the passages and the split.")] = 42,
    json_file: JsonFile = None,
) -> None:
    """Make questions with answers from passages, where you have documents and no questions.

    A question stays if its answer stands in the passage, the first stage finds the passage, and the LM does not give
    the answer without it.

    Example: `radio-dspy questions corpus.jsonl --lm openai/gpt-4o-mini -n 300 --out train.jsonl --dev dev.jsonl`
    """
    import radio_dspy as radio
    from radio_dspy.core.errors import SettingsError
    from radio_dspy.datasets.questions import check_questions_file
    from radio_dspy.lm.opening import open_lm

    for path in filter(None, (out, dev_out)):
        check_questions_file(path)
    passages = radio.load_corpus(corpus)
    retriever = (place if place.index_folder or place.store else replace(place, corpus=corpus)).open()
    with open_lm(lm, seed=seed, max_tokens=max_tokens) as model:
        if model is None:
            raise SettingsError("--lm none writes no questions; give `local` or a LiteLLM name.")
        made = radio.make_questions(
            passages,
            model,
            n=n,
            style=style or None,
            dev=dev_share if dev_out else 0.0,
            retriever=retriever,
            k=k,
            document=document,
            budget=budget,
            run_dir=run_dir,
            num_threads=num_threads,
            seed=seed,
        )
    made.save(out, dev_out)
    files = {"train": str(out), "dev": str(dev_out) if dev_out else None}
    write_result(json_file, {"counts": made.counts, "spending": made.spending, "stopped": made.stopped, **files})
    say(made)
    say(f"written to {out}" + (f" and {dev_out}" if dev_out else "") + f"; the LM's replies are kept in {made.run_dir}")
