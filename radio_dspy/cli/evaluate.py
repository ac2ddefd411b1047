"""Commands that use a saved program: evaluate, ask, export, report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from radio_dspy.cli.command import command, say, write_result
from radio_dspy.cli.inputs import open_first_stage
from radio_dspy.cli.options import (
    CorpusFile,
    EncoderName,
    IndexFolder,
    JsonFile,
    Limit,
    Lm,
    Program,
    StoreAddress,
    StoreColumns,
    StoreTable,
)
from radio_dspy.core.errors import SettingsError

if TYPE_CHECKING:
    import dspy

    from radio_dspy.core.passages import Ranking, RankRequest
    from radio_dspy.rerankers.rerank import Rerank

ReportForm = Literal["html", "markdown", "json"]
Format = Literal["sentence-transformers", "flagembedding", "onnx"]


@command
def evaluate(
    program: Program,
    questions: Annotated[Path, typer.Option(help="Questions to judge by, as JSON Lines.")],
    corpus: CorpusFile = None,
    index_folder: IndexFolder = None,
    store: StoreAddress = None,
    table: StoreTable = None,
    column: StoreColumns = None,
    encoder: EncoderName = None,
    lm: Lm = "none",
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            help="Also rank by this reranker: a LiteLLM name (cohere/rerank-v3.5), or a cross-encoder's folder or hub "
            "name. Give it once for each."
        ),
    ] = None,
    limit: Limit = None,
    report_dir: Annotated[
        Path | None, typer.Option("--report", help="Also write report.html and its data to this folder.", metavar="DIR")
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Judge a saved program: rankings before and after; with --lm also its answers.

    Example: `radio-dspy evaluate aligned --corpus corpus.jsonl --questions dev.jsonl --lm local`
    """
    import radio_dspy as radio
    from radio_dspy.datasets.examples import check_judgeable
    from radio_dspy.reporting.report import metrics_table
    from radio_dspy.reporting.writing import check_free
    from radio_dspy.retrievers.requests import known_labels, rank_requests

    if report_dir is not None:  # before anything is paid for
        check_free(report_dir)

    examples = radio.load_questions(questions)[:limit]
    check_judgeable(examples, str(questions))
    retriever = open_first_stage(index_folder, corpus, encoder, store, table, column)
    examples = known_labels(examples, retriever)
    aligned: Any = radio.load(program, retriever=retriever)
    requests = rank_requests(examples, retriever, aligned.candidates)
    base, rows = _rows(aligned.rerank, requests, baseline or [])
    compared = radio.Comparison(requests, rows, before="base" if base else "first_stage")
    verdict = compared.judgement
    result: dict[str, Any] = {"metrics": compared.means, "judged": verdict.judged, "relevance": verdict.source}
    write_result(json_file, result)  # the LM may fail
    say(metrics_table(result["metrics"], f"{verdict.judged} questions, relevant by {verdict.source}"))
    answers = _answers(lm, aligned, base, examples)
    result |= {{"base": "base_answers", "aligned": "answers"}[name]: values for name, values in answers.items()}
    write_result(json_file, result)
    for name, values in answers.items():
        say(f"answers, {name}: " + ", ".join(f"{metric} {value:.3f}" for metric, value in values.items()))
    if report_dir is not None:
        say(f"report in {compared.save(report_dir, answers)}")


def _rows(
    aligned: Rerank, requests: Sequence[RankRequest], baselines: Sequence[str]
) -> tuple[Rerank | None, dict[str, Sequence[Ranking]]]:
    """The base reranker, where its weights are on this machine; and the rankings of each row of the table."""
    from radio_dspy.rerankers.remote import as_reranker

    rows: dict[str, Sequence[Ranking]] = {"first_stage": [one.ranking() for one in requests]}
    base = aligned.deepcopy()
    base.weights = base.weights.untrained()
    here = Path(base.weights.checkpoint).is_dir()  # never download a model only for a row of a table
    if here:
        rows["base"] = base.rank_all(requests)
    rows["aligned"] = aligned.rank_all(requests)
    return base if here else None, rows | {name: as_reranker(name).rank_all(requests) for name in baselines}


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
def ask(
    program: Program,
    question: Annotated[str, typer.Argument(help="What you want to know.")],
    choice: Annotated[
        list[str] | None, typer.Option(help="An option of a multiple-choice question; give it once for each.")
    ] = None,
    corpus: CorpusFile = None,
    index_folder: IndexFolder = None,
    store: StoreAddress = None,
    table: StoreTable = None,
    column: StoreColumns = None,
    encoder: EncoderName = None,
    lm: Lm = "local",
    json_file: JsonFile = None,
) -> None:
    """Answer a question with a saved program and show what it read.

    Example: `radio-dspy ask aligned "Why did the dough not rise?" --index index/`
    """
    import dspy

    import radio_dspy as radio
    from radio_dspy.lm.opening import open_lm

    retriever = open_first_stage(index_folder, corpus, encoder, store, table, column)
    aligned = radio.load(program, retriever=retriever)
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
