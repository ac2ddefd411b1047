"""The command line: radio-dspy demo, index, compile, import, evaluate, ask, export, report, experiment, runs."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, ParamSpec

import typer

from radio_dspy.commands import (
    DEFAULT_ENCODER,
    Task,
    build_index,
    open_lm,
    open_program,
    open_retriever,
    read_rationales,
    remember_command,
    restored_arguments,
    write_result,
)
from radio_dspy.errors import RadioError, SettingsError
from radio_dspy.files import check_new

if TYPE_CHECKING:
    from radio_dspy.passages import Ranking, RankRequest
    from radio_dspy.report import Report

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Align the reranker of a RAG program with the LM that has to answer.",
)


runs = typer.Typer(
    no_args_is_help=True, rich_markup_mode="markdown", help="Compile runs: what they have, and going on."
)
app.add_typer(runs, name="runs")

Architecture = Literal["cross-encoder", "bi-encoder"]
Sampling = Literal["shift", "shift_all_neg", "iteration", "all"]
LossName = Literal["infonce", "listwise", "margin"]
Tower = Literal["both", "query"]
ReportForm = Literal["html", "markdown", "json"]
Format = Literal["sentence-transformers", "flagembedding", "onnx"]
Lm = Annotated[
    str, typer.Option("--lm", help="`local`, `none`, a GGUF file, or any LiteLLM name (openai/gpt-4o-mini).")
]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Also write the result to this file.", metavar="FILE")]
EncoderName = Annotated[
    str | None, typer.Option("--encoder", help="Folder, hub name or LiteLLM name; else the index's own.")
]
IndexFolder = Annotated[Path | None, typer.Option("--index", help="Folder that `radio-dspy index` wrote.")]
CorpusFile = Annotated[Path | None, typer.Option("--corpus", help="Passages as JSON Lines, instead of --index.")]
BaseWeights = Annotated[str, typer.Option(help="Folder or hub name of the weights to start from.")]
Scoring = Annotated[Architecture, typer.Option(help="How the reranker scores.")]
TrainedTower = Annotated[
    Tower | None, typer.Option(help="query (a bi-encoder's default): its query side alone; the index stays valid.")
]
Epochs = Annotated[int, typer.Option(help="Passes over the groups.")]
LearningRate = Annotated[float, typer.Option(help="AdamW's; the paper has 6e-5 for bge-reranker-base.")]
MaxLength = Annotated[int, typer.Option(help="Longest input in tokens.")]
Candidates = Annotated[int, typer.Option(help="Passages reranked for a question when answering.")]
ReadPassages = Annotated[int, typer.Option(help="Passages that the answering LM reads.")]
_NEW_OUT = "give a new folder for --out."


P = ParamSpec("P")
_debug = False


@app.callback()
def _options(debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False) -> None:
    global _debug
    _debug = debug


def _command(function: Callable[P, None]) -> Callable[P, None]:
    """Report an error in one line with exit code 2, an interrupt with 130."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        from dspy.utils.exceptions import DSPyError

        try:
            function(*args, **kwargs)
        except KeyboardInterrupt as error:
            default = "interrupted; run the same command again with the same --run-dir to go on."
            typer.echo(f"\n{error}" if str(error) else f"\n{default}", err=True)
            raise typer.Exit(130) from None
        except (RadioError, OSError, DSPyError) as error:
            if _debug:
                raise
            typer.echo(f"error: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(2) from error

    return run


@app.command()
@_command
def demo(
    lm: Lm = "local",
    seed: Annotated[int, typer.Option(help="Seed of the LM and of training.")] = 42,
    run_dir: Annotated[Path | None, typer.Option(help="Keep rationales, groups and checkpoint here.")] = None,
    json_file: JsonFile = None,
) -> None:
    """Run the main job on the bundled questions: align a reranker and judge it on held-out questions.

    Example: `radio-dspy demo --json demo.json`
    """
    arguments = dict(locals())
    from radio_dspy.demonstration import run_demo
    from radio_dspy.report import metrics_table

    remember_command(run_dir, "demo", arguments)
    # Short rationales: a 135M model says nothing more in a longer one.
    with open_lm(lm, seed=seed, max_tokens=48) as model:
        result = run_demo(model, seed=seed, run_dir=run_dir)
    typer.echo(f"\n{result.report}\n")
    typer.echo(metrics_table(result.metrics, "80 test questions, which nothing was chosen by"))
    typer.echo(f"\nThe test question that gained most:\n  {result.request.query}")
    _show_passages("first stage", result.before, result.request)
    _show_passages("aligned reranker", result.after, result.request)
    typer.echo(f"\ngold answer: {result.request.answers[0]}")
    if model is not None:
        typer.echo(f"answer by {model.model}: {result.answer}")
    typer.echo(f"\n{result.seconds:.0f} seconds in all")
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


@app.command()
@_command
def index(
    corpus: Annotated[Path, typer.Argument(help="Passages as FlashRAG or BEIR JSON Lines.")],
    out: Annotated[Path, typer.Argument(help="Folder for the index.")],
    encoder: Annotated[
        str, typer.Option(help="Folder, hub name or LiteLLM name (openai/text-embedding-3-small) of the text encoder.")
    ] = DEFAULT_ENCODER,
    query_prefix: Annotated[str | None, typer.Option(help='Put before queries, for example "query: " for E5.')] = None,
    passage_prefix: Annotated[str | None, typer.Option(help='Put before passages, for example "passage: ".')] = None,
    json_file: JsonFile = None,
) -> None:
    """Encode passages and write a FAISS index.

    Example: `radio-dspy index corpus.jsonl index/`
    """
    from radio_dspy.encoders import as_encoder
    from radio_dspy.retrievers.faiss import check_place

    check_place(out)  # before anything is encoded
    retriever = build_index(corpus, as_encoder(encoder, query_prefix=query_prefix, passage_prefix=passage_prefix))
    retriever.save(out)
    typer.echo(f"{len(retriever)} passages indexed in {out}")
    write_result(json_file, {"passages": len(retriever), "index": str(out), "encoder": retriever.encoder.identity})


@app.command(name="compile")
@_command
def compile_(
    train: Annotated[Path, typer.Option(help="Questions with answers, as JSON Lines.")],
    out: Annotated[Path, typer.Option(help="New folder for the aligned program.")],
    corpus: CorpusFile = None,
    index_folder: IndexFolder = None,
    dev: Annotated[
        Path | None, typer.Option(help="Questions to judge by; else a fifth of --train is held out.")
    ] = None,
    lm: Lm = "local",
    rationales: Annotated[
        Path | None, typer.Option(help='Rationales that are there: {"id", "rationale"} lines.')
    ] = None,
    encoder: EncoderName = None,
    reranker: BaseWeights = DEFAULT_ENCODER,
    architecture: Scoring = "bi-encoder",
    task: Annotated[Task, typer.Option(help="qa: short answers; choice: letters; multihop: several searches.")] = "qa",
    hops: Annotated[int, typer.Option(help="Searches of a multihop question at most.")] = 2,
    rationale_weight: Annotated[float, typer.Option(help="Weight of the guide against the retrieval score.")] = 0.5,
    sampling: Annotated[Sampling, typer.Option(help="Which passages form a group.")] = "shift_all_neg",
    loss: Annotated[LossName, typer.Option(help="What is trained on the groups.")] = "infonce",
    tower: TrainedTower = None,
    random_negatives: Annotated[int, typer.Option(help="Passages of the whole corpus in each group.")] = 0,
    confident_share: Annotated[float, typer.Option(help="Learn from the questions where the teacher is surest.")] = 1.0,
    guards: Annotated[bool, typer.Option(help="Leave out false negatives and useless rationales.")] = True,
    gate: Annotated[bool, typer.Option(help="Return the base where nothing beats it on held-out questions.")] = True,
    epochs: Epochs = 2,
    averaged_runs: Annotated[int, typer.Option(help="Train so many times and average the weights.")] = 1,
    learning_rate: LearningRate = 3e-5,
    max_length: MaxLength = 128,
    candidates: Candidates = 20,
    k: ReadPassages = 5,
    limit: Annotated[int | None, typer.Option(help="Use only the first N training questions.", min=1)] = None,
    num_threads: Annotated[int, typer.Option(help="LM calls in flight at the same time.")] = 1,
    max_calls: Annotated[
        int | None, typer.Option(help="Stop before one more LM call; what was bought is kept.")
    ] = None,
    max_cost: Annotated[
        float | None, typer.Option(help="The same in US dollars, where LiteLLM knows the price.")
    ] = None,
    estimate: Annotated[bool, typer.Option("--estimate", help="Say what it will ask of LMs, and do nothing.")] = False,
    max_tokens: Annotated[int, typer.Option(help="Longest rationale of the local LM.")] = 96,
    run_dir: Annotated[
        Path | None, typer.Option(help="Keep records here; a run that stopped goes on from them.")
    ] = None,
    checkpoint_updates: Annotated[
        int | None, typer.Option(help="Updates between two training checkpoints; else about every five minutes.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the LM and of training.")] = 42,
    json_file: JsonFile = None,
) -> None:
    """Align a reranker on your own questions and save the program.

    Example: `radio-dspy compile --corpus corpus.jsonl --train train.jsonl --dev dev.jsonl --out aligned`
    """
    arguments = dict(locals())
    import dspy

    import radio_dspy as radio

    check_new(out, _NEW_OUT)
    if not estimate:
        remember_command(run_dir, "compile", arguments)
    questions = radio.load_questions(train)
    trainset = questions[:limit]
    valset = radio.load_questions(dev) if dev else []
    given = read_rationales(rationales, [*questions, *valset], [*trainset, *valset]) if rationales else {}
    retriever = open_retriever(index_folder, corpus, encoder)
    rerank = radio.Rerank(reranker, architecture=architecture)
    student = open_program(task, retriever, rerank, candidates=candidates, k=k, hops=hops)
    with open_lm(lm, seed=seed, max_tokens=max_tokens) as model:
        optimizer = radio.RADIO(
            rationale_lm=model,
            encoder=retriever.encoder,
            rationale_weight=rationale_weight,
            sampling="all" if loss == "listwise" else sampling,
            loss=loss,
            tower=_tower(tower, architecture),
            random_negatives=random_negatives,
            guards=guards,
            confident_share=confident_share,
            gate=gate,
            epochs=epochs,
            averaged_runs=averaged_runs,
            learning_rate=learning_rate,
            max_length=max_length,
            rationales=given,
            num_threads=num_threads,
            max_calls=max_calls,
            max_cost=max_cost,
            run_dir=run_dir,
            checkpoint_updates=checkpoint_updates,
            seed=seed,
        )
        # A multihop question needs the LM before its second search.
        with dspy.context(lm=model) if task == "multihop" else nullcontext():
            if estimate:
                expected = optimizer.estimate(student, trainset=trainset, valset=valset or None)
                typer.echo(expected)
                write_result(json_file, expected.as_dict())
                return
            aligned = optimizer.compile(student, trainset=trainset, valset=valset or None)
    _keep(aligned, optimizer.report, out, json_file)


def _tower(chosen: Tower | None, architecture: Architecture) -> Tower:
    return chosen or ("query" if architecture == "bi-encoder" else "both")


def _keep(aligned: Any, report: Report | None, out: Path, json_file: Path | None) -> None:
    """Save what an optimizer returned, and tell what it did."""
    import radio_dspy as radio

    radio.save(aligned, out)
    typer.echo(f"\n{report}\nsaved in {out}")
    write_result(json_file, report.as_dict() if report else {})


@app.command(name="import")
@_command
def import_(
    groups: Annotated[
        Path, typer.Argument(help='FlagEmbedding\'s {"query", "pos", "neg"} lines, or a run\'s groups.jsonl.')
    ],
    out: Annotated[Path, typer.Option(help="New folder for the program with the trained reranker.")],
    corpus: CorpusFile = None,
    index_folder: IndexFolder = None,
    dev: Annotated[
        Path | None, typer.Option(help="Groups to judge by; else a fifth of the groups is held out.")
    ] = None,
    encoder: EncoderName = None,
    reranker: BaseWeights = DEFAULT_ENCODER,
    architecture: Scoring = "bi-encoder",
    loss: Annotated[
        LossName, typer.Option(help="listwise and margin read the lines' pos_scores, neg_scores.")
    ] = "infonce",
    tower: TrainedTower = None,
    negatives: Annotated[int, typer.Option(help="Negatives drawn for each positive.")] = 7,
    gate: Annotated[bool, typer.Option(help="Return the base where nothing beats it on held-out groups.")] = True,
    epochs: Epochs = 2,
    learning_rate: LearningRate = 3e-5,
    max_length: MaxLength = 128,
    candidates: Candidates = 20,
    k: ReadPassages = 5,
    run_dir: Annotated[Path | None, typer.Option(help="Keep checkpoints and report here.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of training.")] = 42,
    json_file: JsonFile = None,
) -> None:
    """Train a reranker on preference groups that you have, without an LM, and save the program.

    Example: `radio-dspy import train.jsonl --corpus corpus.jsonl --out aligned`
    """
    import radio_dspy as radio
    from radio_dspy.runs import MANIFEST

    check_new(out, _NEW_OUT)
    for path in filter(None, (groups, dev)):
        if not path.is_file():
            raise SettingsError(f"{path}: no such file; give preference groups as JSON Lines.")
    if run_dir is not None and (run_dir / MANIFEST).exists():
        raise SettingsError(f"{run_dir}: a compile's run folder, whose report would be lost; give another --run-dir.")
    rerank = radio.Rerank(reranker, architecture=architecture)
    training = radio.TrainingSettings(
        loss=loss,
        tower=_tower(tower, architecture),
        epochs=epochs,
        learning_rate=learning_rate,
        max_length=max_length,
        seed=seed,
    )
    training.check(architecture)
    optimizer = radio.GroupFinetune(training, negatives=negatives, gate=gate, run_dir=run_dir)
    retriever = open_retriever(index_folder, corpus, encoder)
    trainset, valset = (radio.load_groups(path, retriever.passages) if path else [] for path in (groups, dev))
    student = open_program("qa", retriever, rerank, candidates=candidates, k=k, hops=1)
    aligned = optimizer.compile(student, trainset=trainset, valset=valset or None)
    _keep(aligned, optimizer.report, out, json_file)


@app.command()
@_command
def evaluate(
    program: Annotated[Path, typer.Argument(help="Folder that `radio-dspy compile` or radio_dspy.save wrote.")],
    questions: Annotated[Path, typer.Option(help="Questions to judge by, as JSON Lines.")],
    corpus: CorpusFile = None,
    index_folder: IndexFolder = None,
    encoder: EncoderName = None,
    lm: Lm = "none",
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            help="Also rank by this reranker: a LiteLLM name (cohere/rerank-v3.5), or a cross-encoder's folder or hub "
            "name. Give it once for each."
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Use only the first N questions.", min=1)] = None,
    report_dir: Annotated[
        Path | None, typer.Option("--report", help="Also write report.html and its data to this folder.", metavar="DIR")
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Judge a saved program: rankings before and after; with --lm also its answers.

    Example: `radio-dspy evaluate aligned --corpus corpus.jsonl --questions dev.jsonl --lm local`
    """
    import radio_dspy as radio
    from radio_dspy.datasets import check_labels
    from radio_dspy.distillation.preferences import rank_requests
    from radio_dspy.evaluation import answer_metrics
    from radio_dspy.report import metrics_table
    from radio_dspy.reporting.writing import check_free, write_evaluation
    from radio_dspy.rerankers.remote import as_reranker

    if report_dir is not None:  # before anything is paid for
        check_free(report_dir)

    examples = radio.load_questions(questions)[:limit]
    retriever = open_retriever(index_folder, corpus, encoder)
    check_labels(examples, retriever.passages)
    aligned: Any = radio.load(program, retriever=retriever)
    requests = rank_requests(examples, retriever, aligned.candidates)
    rows = {"first_stage": [one.ranking() for one in requests]}
    base = aligned.rerank.deepcopy()
    base.weights.checkpoint, base.weights.passage_checkpoint = radio.weights(base.weights.base), None
    if Path(base.weights.checkpoint).is_dir():  # never download a model only for a row of a table
        rows["base"] = base.rank_all(requests)
    rows["aligned"] = aligned.rerank.rank_all(requests)
    rows |= {name: as_reranker(name).rank_all(requests) for name in baseline or []}
    compared = radio.Comparison(requests, rows, before="base" if "base" in rows else "first_stage")
    verdict = compared.judgement
    result: dict[str, Any] = {"metrics": compared.means, "judged": verdict.judged, "relevance": verdict.source}
    typer.echo(metrics_table(result["metrics"], f"{verdict.judged} questions, relevant by {verdict.source}"))
    with open_lm(lm, seed=42, max_tokens=32) as model:
        if model is not None:
            result["answers"] = answer_metrics(aligned, examples, model)
            _show_answers("aligned", result["answers"])
            if "base" in rows:
                before = aligned.deepcopy()
                before.rerank = base
                result["base_answers"] = answer_metrics(before, examples, model)
                _show_answers("base", result["base_answers"])
    if report_dir is not None:
        answers = {
            name: result[key] for name, key in (("base", "base_answers"), ("aligned", "answers")) if key in result
        }
        typer.echo(f"report in {write_evaluation(report_dir, compared, answers)}")
    write_result(json_file, result)


@app.command()
@_command
def ask(
    program: Annotated[Path, typer.Argument(help="Folder that `radio-dspy compile` or radio_dspy.save wrote.")],
    question: Annotated[str, typer.Argument(help="What you want to know.")],
    choice: Annotated[
        list[str] | None, typer.Option(help="An option of a multiple-choice question; give it once for each.")
    ] = None,
    corpus: CorpusFile = None,
    index_folder: IndexFolder = None,
    encoder: EncoderName = None,
    lm: Lm = "local",
    json_file: JsonFile = None,
) -> None:
    """Answer a question with a saved program and show what it read.

    Example: `radio-dspy ask aligned "Why did the dough not rise?" --index index/`
    """
    import dspy

    import radio_dspy as radio

    retriever = open_retriever(index_folder, corpus, encoder)
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
    typer.echo(result.answer)
    for number, (passage, score) in enumerate(zip(result.passages, result.scores, strict=True), start=1):
        typer.echo(f"  {number}. [{passage.id}] {score:.3f} {passage.contents!r:.110}")
    passages = [
        {"id": passage.id, "score": score} for passage, score in zip(result.passages, result.scores, strict=True)
    ]
    write_result(json_file, {"answer": result.answer, "passages": passages, "lm": model.model})


@app.command()
@_command
def export(
    program: Annotated[Path, typer.Argument(help="Folder that `radio-dspy compile` or radio_dspy.save wrote.")],
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
    typer.echo(f"written to {folder}; its README.md says how to load it")
    write_result(json_file, {"folder": str(folder), "format": form, "groups": len(examples or [])})


@app.command()
@_command
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
        typer.echo(f"written to {path}")


@app.command()
@_command
def experiment(
    file: Annotated[Path, typer.Argument(help="An experiment's YAML file; see docs/experiments.md.")],
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", help="Replace a setting in every row: training.epochs=1. Give it once for each."),
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

    from radio_dspy.experiments.plan import plan as planned
    from radio_dspy.experiments.runner import run_experiment
    from radio_dspy.experiments.settings import load_experiment

    chosen = load_experiment(file, sets or (), data)
    kept = records or out / "records"
    if plan:
        found = planned(chosen, kept, rows=rows or (), seeds=seeds or ())
        typer.echo(found)
        write_result(json_file, found.as_dict())
        return
    dspy.disable_logging()
    try:
        paths = run_experiment(chosen, out, records=kept, rows=rows or (), seeds=seeds or (), on_row=typer.echo)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; run the same command again to go on: what is done is kept.") from None
    typer.echo(f"{len(paths)} records in {kept / chosen.name}")
    write_result(json_file, {"records": [str(path) for path in paths]})


@runs.command(name="list")
@_command
def list_(
    folder: Annotated[Path, typer.Argument(help="Where the run folders are.")] = Path("runs"),
    json_file: JsonFile = None,
) -> None:
    """Show every run of a folder: whether it is running, finished, stopped or was killed.

    Example: `radio-dspy runs list runs`
    """
    from radio_dspy.runs import look_at, runs_in

    found = [look_at(path) for path in runs_in(folder)]
    for one in found:
        kept = ", ".join(f"{count} {name}" for name, count in one.counts.items())
        typer.echo(f"{one.path.name}: {one.state}, started {one.started}, {one.calls} LM calls; {kept or 'no records'}")
    if not found:
        typer.echo(f"no runs in {folder}")
    write_result(json_file, {"runs": [vars(one) for one in found]})


@runs.command()
@_command
def show(
    run_dir: Annotated[Path, typer.Argument(help="The run folder.")],
    json_file: JsonFile = None,
) -> None:
    """Show what a run is, what it has, and how to go on.

    Example: `radio-dspy runs show runs/first`
    """
    from radio_dspy.runs import Run, look_at

    one, run = look_at(run_dir), Run(run_dir)
    settings = (run.read("manifest") or {})["settings"]
    typer.echo(f"{one.path}: {one.state}" + (f" ({one.holder})" if one.holder else ""))
    typer.echo(f"started {one.started}, {one.calls} LM calls in all")
    for name, count in one.counts.items():
        typer.echo(f"  {name}.jsonl: {count} records")
    for name, value in settings.items():
        typer.echo(f"  {name} = {value}")
    for event in run.records("log"):
        typer.echo("  " + " ".join(str(value) for value in event.values()))
    if one.state in ("stopped", "killed"):
        typer.echo(f"go on with: radio-dspy runs resume {run_dir}")
    write_result(json_file, {**vars(one), "settings": settings})


@runs.command()
@_command
def resume(run_dir: Annotated[Path, typer.Argument(help="The run folder.")]) -> None:
    """Run the command that made a run again: what is there is not asked and not trained twice.

    Example: `radio-dspy runs resume runs/first`
    """
    from radio_dspy.runs import Run, look_at

    saved = Run(run_dir).read("command")
    if saved is None:
        raise SettingsError(
            f"{run_dir}: no command was kept there. A run of RADIO(run_dir=...) in a program goes on when the same "
            "compile is called again."
        )
    commands: dict[str, Callable[..., None]] = {"compile": compile_, "demo": demo}
    command = commands[str(saved["command"])]
    os.chdir(saved["folder"])  # relative paths and names are meant from there
    arguments = restored_arguments(command, saved["arguments"])
    out = arguments.get("out")
    if out is not None and out.exists() and look_at(arguments["run_dir"]).state == "finished":
        typer.echo(f"{run_dir}: finished; the program is in {out}")
        return
    command(**arguments)


def _show_answers(title: str, values: dict[str, float]) -> None:
    typer.echo(f"answers, {title}: " + ", ".join(f"{name} {value:.3f}" for name, value in values.items()))


def _show_passages(title: str, ranking: Ranking, request: RankRequest, count: int = 3) -> None:
    typer.echo(f"\n{title}:")
    for rank, passage in enumerate(ranking.passages[:count], start=1):
        mark = "*" if passage.id in request.relevant else " "
        typer.echo(f" {mark} {rank}. {passage.title}: {passage.text:.100}...")


def main() -> None:
    """Run the command line."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # no price list from the network for a local run
    logging.getLogger("dspy.clients.lm").setLevel(logging.ERROR)
    app()


if __name__ == "__main__":
    main()
