"""Commands that use a saved program: evaluate, ask, export, report."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from radio_dspy.cli.command import command, say, write_result
from radio_dspy.cli.inputs import PLACES, FirstStage, load_program
from radio_dspy.cli.judging import Inputs
from radio_dspy.cli.options import JsonFile, Limit, Lm, Program, declared
from radio_dspy.core.errors import SettingsError
from radio_dspy.core.files import check_file

if TYPE_CHECKING:
    import dspy

    from radio_dspy.core.rankings import Ranking, RankRequest
    from radio_dspy.rerankers.rerank import Rerank
    from radio_dspy.retrievers.vector import VectorRetriever

ReportForm = Literal["html", "markdown", "json"]
_CANDIDATES = 20  # without a program that says how many
Format = Literal["sentence-transformers", "flagembedding", "onnx"]


@command
@declared(place=(FirstStage(), PLACES))
def evaluate(
    place: FirstStage,
    program: Annotated[
        Path | None, typer.Argument(help="Folder that `radio-dspy compile` or radio_dspy.save wrote; else --reranker.")
    ] = None,
    questions: Annotated[
        Path | None, typer.Option(help="Questions to judge by, as JSON Lines, Parquet or by name (beir:scifact).")
    ] = None,
    qrels: Annotated[Path | None, typer.Option(help="Judgements of them, in TREC's or BEIR's format.")] = None,
    run_file: Annotated[
        Path | None,
        typer.Option("--run", help="Candidates from this TREC run, in place of a search.", metavar="FILE"),
    ] = None,
    lm: Lm = "none",
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            "--reranker",
            "--baseline",
            help="Also rank by this reranker: a LiteLLM name (cohere/rerank-v3.5), or a cross-encoder's folder or hub "
            "name. Give it once for each.",
        ),
    ] = None,
    measure: Annotated[
        list[str] | None,
        typer.Option(help="A measure by its name in ir-measures (nDCG@20, RR@10, AP). Give it once for each."),
    ] = None,
    candidates: Annotated[
        int | None, typer.Option(help="Passages reranked for a question; else the program's number, or all of --run.")
    ] = None,
    limit: Limit = None,
    report_dir: Annotated[
        Path | None, typer.Option("--report", help="Also write report.html and its data to this folder.", metavar="DIR")
    ] = None,
    run_out: Annotated[
        Path | None,
        typer.Option("--write-run", help="Also write the last row's rankings as a TREC run.", metavar="FILE"),
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Judge a saved program, a reranker or a run: rankings before and after; with --lm also a program's answers.

    Example: `radio-dspy evaluate aligned --corpus corpus.jsonl --questions dev.jsonl --lm local`

    Without a program: `radio-dspy evaluate --reranker NAME --questions beir:scifact --corpus beir:scifact --run R`
    """
    import radio_dspy as radio
    from radio_dspy.evaluation.measures import measure_of
    from radio_dspy.evaluation.relevance import METRICS
    from radio_dspy.reporting.report import metrics_table
    from radio_dspy.reporting.writing import check_free

    measures, rerankers = tuple(measure or METRICS), baseline or []
    for name in measures:  # before anything is paid for
        measure_of(name)
    if report_dir is not None:
        check_free(report_dir)
        if program is None and not rerankers:
            raise SettingsError("--report compares two rankings of the same candidates: give --reranker, too.")
    if run_out is not None:
        check_file(run_out, "give another file for --write-run.")
    if program is None and lm != "none":
        raise SettingsError("--lm answers with a program; give one, or leave out --lm.")
    given = Inputs(questions, qrels, run_file, place.corpus, candidates, limit)
    given.check(reranks=program is not None or bool(rerankers))
    first_stage = functools.cache(place.open)
    examples = given.examples()
    aligned, requests, examples = _judged(program, place, given, examples, first_stage, reranks=bool(rerankers))
    base, rows = _rows(aligned.rerank if aligned else None, requests, rerankers)
    after = "aligned" if aligned else list(rows)[-1]
    compared = radio.Comparison(requests, rows, "base" if base else "first_stage", after, measures)
    verdict = compared.judgement
    result: dict[str, Any] = {"metrics": compared.means, "judged": verdict.judged, "relevance": verdict.source}
    write_result(json_file, result)  # the LM may fail
    say(metrics_table(result["metrics"], f"{verdict.judged} questions, relevant by {verdict.source}"))
    if run_out is not None:
        last = list(rows)[-1]
        radio.write_run({one.id: ranking for one, ranking in zip(requests, rows[last], strict=True)}, run_out)
        say(f"rankings by {last} in {run_out}")
    answers = _answers(lm, aligned, base, examples)
    result |= {{"base": "base_answers", "aligned": "answers"}[name]: values for name, values in answers.items()}
    write_result(json_file, result)
    for name, values in answers.items():
        say(f"answers, {name}: " + ", ".join(f"{metric} {value:.3f}" for metric, value in values.items()))
    if report_dir is not None:
        say(f"report in {compared.save(report_dir, answers)}")


def _judged(
    program: Path | None,
    place: FirstStage,
    given: Inputs,
    examples: list[dspy.Example],
    first_stage: Callable[[], VectorRetriever],
    *,
    reranks: bool,
) -> tuple[Any, list[RankRequest], list[dspy.Example]]:
    """The program, if there is one; the questions with their candidates; and the questions as examples."""
    from radio_dspy.retrievers.requests import known_labels, rank_requests

    aligned = load_program(program, place, first_stage) if program is not None else None
    if given.run is None:
        examples = known_labels(examples, first_stage())
    if given.run is not None:
        requests = given.of_run(examples, first_stage, reranks=reranks or aligned is not None)
        return aligned, requests, examples
    count = given.candidates or (aligned.candidates if aligned else _CANDIDATES)
    return aligned, rank_requests(examples, first_stage(), count), examples


def _rows(
    aligned: Rerank | None, requests: Sequence[RankRequest], rerankers: Sequence[str]
) -> tuple[Rerank | None, dict[str, Sequence[Ranking]]]:
    """The base reranker, where its weights are on this machine; and the rankings of each row of the table."""
    from radio_dspy.rerankers.remote import as_reranker

    rows: dict[str, Sequence[Ranking]] = {"first_stage": [one.ranking() for one in requests]}
    base: Rerank | None = None
    here = False
    if aligned is not None:
        base = aligned.deepcopy()
        base.weights = base.weights.untrained()
        here = Path(base.weights.checkpoint).is_dir()  # never download a model only for a row of a table
        if here:
            rows["base"] = base.rank_all(requests)
        rows["aligned"] = aligned.rank_all(requests)
    return base if here else None, rows | {name: as_reranker(name).rank_all(requests) for name in rerankers}


def _answers(
    lm: str, aligned: Any, base: Rerank | None, examples: Sequence[dspy.Example]
) -> dict[str, dict[str, float]]:
    """Answer metrics of the program, with its base reranker and as it is; none without an LM."""
    from radio_dspy.evaluation.relevance import answer_metrics
    from radio_dspy.lm.opening import open_lm

    with open_lm(lm, seed=42, max_tokens=32) as model:
        if model is None:
            return {}
        found = {"aligned": answer_metrics(aligned, examples, model)}
        if base is None:
            return found
        before = aligned.deepcopy()
        before.rerank = base
        return {"base": answer_metrics(before, examples, model), **found}


@command
@declared(place=(FirstStage(), PLACES))
def ask(
    program: Program,
    question: Annotated[str, typer.Argument(help="What you want to know.")],
    place: FirstStage,
    choice: Annotated[
        list[str] | None, typer.Option(help="An option of a multiple-choice question; give it once for each.")
    ] = None,
    lm: Lm = "local",
    json_file: JsonFile = None,
) -> None:
    """Answer a question with a saved program and show what it read.

    Example: `radio-dspy ask aligned "Why did the dough not rise?" --index index/`
    """
    import dspy

    import radio_dspy as radio
    from radio_dspy.lm.opening import open_lm

    aligned = load_program(program, place)
    if isinstance(aligned, radio.MultipleChoice) != bool(choice):
        raise SettingsError(
            f"{program} holds a {type(aligned).__name__}: --choice is for multiple choice, which needs at least two."
        )
    with open_lm(lm, seed=42, max_tokens=64) as model:
        if model is None:
            raise SettingsError("--lm none cannot answer; give `local` or a LiteLLM name.")
        with dspy.context(lm=model):
            result = aligned(question=question, **({"choices": choice} if choice else {}))
    passages = [
        {"id": passage.id, "score": score} for passage, score in zip(result.passages, result.scores, strict=True)
    ]
    write_result(json_file, {"answer": result.answer, "passages": passages, "lm": model.model})
    say(result.answer)
    for number, (passage, score) in enumerate(zip(result.passages, result.scores, strict=True), start=1):
        say(f"  {number}. [{passage.id}] {score:.3f} {passage.contents!r:.110}")


@command
def export(
    program: Program,
    out: Annotated[Path, typer.Option(help="New folder for the reranker.")],
    form: Annotated[Format, typer.Option("--format", help="Who is to load it.")] = "sentence-transformers",
    reranker: Annotated[str | None, typer.Option(help="Which one, where the program holds several.")] = None,
    groups: Annotated[
        Path | None, typer.Option(help="Also write these (a run's groups.jsonl) as FlagEmbedding's train.jsonl.")
    ] = None,
    corpus: Annotated[Path | None, typer.Option(help="Passages that such groups name by id.")] = None,
    json_file: JsonFile = None,
) -> None:
    """Write a saved program's reranker for sentence-transformers, FlagEmbedding or onnxruntime.

    Example: `radio-dspy export aligned --out reranker`
    """
    import radio_dspy as radio

    passages = radio.load_corpus(corpus) if corpus else []
    examples = radio.load_groups(groups, passages) if groups else None
    folder = radio.export(program, out, form, reranker=reranker, groups=examples)
    write_result(json_file, {"folder": str(folder), "format": form, "groups": len(examples or [])})
    say(f"written to {folder}; its README.md says how to load it")


@command
def report(
    run_dir: Annotated[Path, typer.Argument(help="What was --run-dir of compile, or --report of evaluate.")],
    form: Annotated[
        ReportForm | None,
        typer.Option("--format", help="Only this one: report.html, report.md or summary.json; else all three."),
    ] = None,
) -> None:
    """Make a run's report again from the files of its folder.

    Example: `radio-dspy report runs/first --format html`
    """
    from radio_dspy.reporting.writing import FORMS, write_report

    for path in write_report(run_dir, (form,) if form else FORMS):
        say(f"written to {path}")
