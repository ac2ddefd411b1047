"""Commands that train: index, compile, train."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from radio_dspy.cli.command import command, say, write_result
from radio_dspy.cli.inputs import PLACES, FirstStage, open_engine, read_rationales
from radio_dspy.cli.options import (
    DEFAULT_ENCODER,
    Architecture,
    BaseWeights,
    Batches,
    Candidates,
    GateSwitch,
    GivenRationales,
    JsonFile,
    Judges,
    Limit,
    Lm,
    Processes,
    RayCluster,
    ReadPassages,
    RunDir,
    Scoring,
    Task,
    TrainedTower,
    declared,
)
from radio_dspy.cli.remembered import remember_command
from radio_dspy.core.errors import SettingsError
from radio_dspy.core.files import check_new
from radio_dspy.distillation.preferences.settings import PreferenceSettings
from radio_dspy.distillation.rationales.settings import RationaleSettings
from radio_dspy.distillation.training.settings import Tower, TrainingSettings
from radio_dspy.lm.limits import Budget
from radio_dspy.optimizers.presets import LOCAL_PREFERENCES, LOCAL_TRAINING

if TYPE_CHECKING:
    from radio_dspy.optimizers.diagnosis import Diagnosis
    from radio_dspy.optimizers.estimate import Estimate
    from radio_dspy.reporting.report import Report

_NEW_OUT = "give a new folder for --out."
_TRAINING = ("loss", "num_train_epochs", "learning_rate", "max_length", "averaged_runs", "save_steps")
_PREFERENCES = ("sampling", "random_negatives", "confident_share")


@command
def index(
    corpus: Annotated[
        Path, typer.Argument(help="Passages as FlashRAG or BEIR JSON Lines or Parquet: a file, or a folder of them.")
    ],
    out: Annotated[Path, typer.Argument(help="Folder for the index.")],
    encoder: Annotated[
        str, typer.Option(help="Folder, hub name or LiteLLM name (openai/text-embedding-3-small) of the text encoder.")
    ] = DEFAULT_ENCODER,
    query_prefix: Annotated[str | None, typer.Option(help='Put before queries, for example "query: " for E5.')] = None,
    passage_prefix: Annotated[str | None, typer.Option(help='Put before passages, for example "passage: ".')] = None,
    ray: RayCluster = None,
    json_file: JsonFile = None,
) -> None:
    """Encode passages and write a FAISS index.

    Example: `radio-dspy index corpus.jsonl index/`
    """
    import radio_dspy as radio
    from radio_dspy.models.open_encoder import as_encoder

    chosen = as_encoder(encoder, query_prefix=query_prefix, passage_prefix=passage_prefix)
    with open_engine(ray) as engine:
        retriever = radio.FaissRetriever.build_from(corpus, out, chosen, engine=engine, show_progress=True)
    write_result(json_file, {"passages": len(retriever), "index": str(out), "encoder": retriever.encoder.identity})
    say(f"{len(retriever)} passages indexed in {out}")


@command
@declared(
    rationale=(RationaleSettings(), ("weight",)),
    preferences=(LOCAL_PREFERENCES, _PREFERENCES),
    training=(LOCAL_TRAINING, _TRAINING),
    budget=(Budget(), ("max_calls", "max_cost")),
    place=(FirstStage(), PLACES),
)
def compile_(
    train: Annotated[Path, typer.Option(help="Questions with answers, as JSON Lines.")],
    out: Annotated[Path, typer.Option(help="New folder for the aligned program.")],
    rationale: RationaleSettings,
    preferences: PreferenceSettings,
    training: TrainingSettings,
    budget: Budget,
    place: FirstStage,
    given: dict[str, Any],
    dev: Judges = None,
    lm: Lm = "local",
    rationales: GivenRationales = None,
    reranker: BaseWeights = DEFAULT_ENCODER,
    architecture: Scoring = "bi-encoder",
    task: Task = "qa",
    hops: Annotated[int, typer.Option(help="Searches of a multihop question at most.")] = 2,
    tower: TrainedTower = None,
    guards: Annotated[bool, typer.Option(help="Leave out false negatives and useless rationales.")] = True,
    gate: GateSwitch = True,
    candidates: Candidates = 20,
    k: ReadPassages = 5,
    limit: Limit = None,
    num_threads: Annotated[int | None, typer.Option(help="LM calls in flight at the same time; else DSPy's 8.")] = None,
    estimate: Annotated[bool, typer.Option("--estimate", help="Say what it will ask of LMs, and do nothing.")] = False,
    diagnose: Annotated[
        bool, typer.Option("--diagnose", help="Say from 50 questions whether it is likely to help, and train nothing.")
    ] = False,
    max_tokens: Annotated[int, typer.Option(help="Longest rationale of the local LM.")] = 96,
    batch: Batches = False,
    ray: RayCluster = None,
    num_processes: Processes = 1,
    run_dir: RunDir = None,
    seed: Annotated[int, typer.Option(help="Seed of the LM and of training.")] = 42,
    json_file: JsonFile = None,
) -> None:
    """Align a reranker on your own questions and save the program.

    The settings that no option changes are those of `local_preset`: a bi-encoder's query side, trained on two cores.
    Its signals are rationale 0.25, answer 0.25 and retrieval score 0.5; with --rationale-weight W they are rationale W
    and retrieval score 1 - W.

    Example: `radio-dspy compile --corpus corpus.jsonl --train train.jsonl --dev dev.jsonl --out aligned`
    """
    import dspy

    import radio_dspy as radio
    from radio_dspy.lm.opening import open_lm
    from radio_dspy.programs.tasks import open_program

    check_new(out, _NEW_OUT)
    if batch and run_dir is None:
        raise SettingsError("--batch needs --run-dir: a batch is fetched from there, also after the command has ended.")
    say(
        f"settings: local_preset ({architecture}, {training.loss}, {training.num_train_epochs} epochs, learning rate "
        f"{training.learning_rate:g}, max_length {training.max_length}, {candidates} candidates)"
    )
    if not (estimate or diagnose):
        remember_command(run_dir, "compile", given)
    questions, valset = radio.load_questions(train), radio.load_questions(dev) if dev else []
    trainset = questions[:limit]
    texts = read_rationales(rationales, [*questions, *valset], [*trainset, *valset]) if rationales else {}
    retriever = place.open()
    rerank = radio.Rerank(reranker, architecture=architecture)
    student = open_program(task, retriever, rerank, candidates=candidates, k=k, hops=hops)
    with open_lm(lm, seed=seed, max_tokens=max_tokens) as model, open_engine(ray, num_processes) as engine:
        launcher = _launcher(num_processes) if engine is None else ()
        optimizer = radio.RADIO(
            rationale_lm=False if model is None else model,
            encoder=retriever.encoder,
            signals=radio.local_preset(retriever)["signals"] if rationale.weight is None else None,
            rationales=replace(rationale, given=texts, check=guards),
            preferences=_preferences(preferences, training, guards),
            training=replace(training, tower=_tower(tower, architecture), seed=seed, launcher=launcher),
            gate=gate,
            budget=budget,
            run_dir=run_dir,
            num_threads=num_threads,
            batch=batch,
            engine=engine,
        )
        # A multihop question needs the LM before its second search.
        with dspy.context(lm=model) if task == "multihop" else nullcontext():
            if estimate:
                _tell(optimizer.estimate(student, trainset=trainset, valset=valset or None), json_file)
            elif diagnose:
                _tell(optimizer.diagnose(student, trainset), json_file)
            else:
                aligned = optimizer.compile(student, trainset=trainset, valset=valset or None)
                _keep(aligned, optimizer.report, out, json_file)


def _tell(found: Estimate | Diagnosis, json_file: Path | None) -> None:
    write_result(json_file, found.as_dict())
    say(found)


def _preferences(given: PreferenceSettings, training: TrainingSettings, guards: bool) -> PreferenceSettings:
    """The preferences as the loss and ``--no-guards`` change them."""
    if not training.open_loss().contrastive and given.sampling == LOCAL_PREFERENCES.sampling:
        given = replace(given, sampling=None)  # the loss's own
    return given if guards else replace(given, false_negatives=None)


def _launcher(processes: int) -> tuple[str, ...]:
    """Arguments of ``accelerate launch``, whose name for several processes is ``--multi_gpu``, also on CPUs.

    Port 0 is any free one: by default all trainings on a machine would meet at one port.
    """
    several = ("--multi_gpu", "--num_processes", str(processes), "--main_process_port", "0")
    return several if processes > 1 else ()


def _tower(chosen: Tower | None, architecture: Architecture) -> Tower:
    return chosen or ("query" if architecture == "bi-encoder" else "both")


def _keep(aligned: Any, report: Report | None, out: Path, json_file: Path | None) -> None:
    """Save what an optimizer returned, and tell what it did."""
    import radio_dspy as radio

    radio.save(aligned, out)
    write_result(json_file, report.as_dict() if report else {})
    say(f"\n{report}\nsaved in {out}")


@command
@declared(
    training=(LOCAL_TRAINING, ("loss", "num_train_epochs", "learning_rate", "max_length")),
    place=(FirstStage(), PLACES),
)
def train(
    groups: Annotated[
        Path, typer.Argument(help='FlagEmbedding\'s {"query", "pos", "neg"} lines, or a run\'s groups.jsonl.')
    ],
    out: Annotated[Path, typer.Option(help="New folder for the program with the trained reranker.")],
    training: TrainingSettings,
    place: FirstStage,
    dev: Judges = None,
    reranker: BaseWeights = DEFAULT_ENCODER,
    architecture: Scoring = "bi-encoder",
    tower: TrainedTower = None,
    negatives: Annotated[int, typer.Option(help="Negatives drawn for each positive.")] = 7,
    gate: GateSwitch = True,
    candidates: Candidates = 20,
    k: ReadPassages = 5,
    run_dir: RunDir = None,
    seed: Annotated[int, typer.Option(help="Seed of training.")] = 42,
    json_file: JsonFile = None,
) -> None:
    """Train a reranker on preference groups that you have, without an LM, and save the program.

    The losses listwise and margin read the lines' pos_scores and neg_scores.

    Example: `radio-dspy train groups.jsonl --corpus corpus.jsonl --out aligned`
    """
    import radio_dspy as radio
    from radio_dspy.programs.tasks import open_program
    from radio_dspy.runs.run import Run

    check_new(out, _NEW_OUT)
    for path in filter(None, (groups, dev)):
        if not path.is_file():
            raise SettingsError(f"{path}: no such file; give preference groups as JSON Lines.")
    Run(run_dir).check("GroupFinetune")
    rerank = radio.Rerank(reranker, architecture=architecture)
    training = replace(training, tower=_tower(tower, architecture), seed=seed)
    training.check(architecture)
    optimizer = radio.GroupFinetune(training, negatives=negatives, gate=gate, run_dir=run_dir)
    retriever = place.open()
    trainset, valset = (radio.load_groups(path, retriever) if path else [] for path in (groups, dev))
    student = open_program("qa", retriever, rerank, candidates=candidates, k=k, hops=1)
    aligned = optimizer.compile(student, trainset=trainset, valset=valset or None)
    _keep(aligned, optimizer.report, out, json_file)
