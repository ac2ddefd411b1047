"""Run an experiment row by row; finished rows are not run again."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import dspy

from radio_dspy.core.errors import RadioError, RunError, SettingsError
from radio_dspy.core.files import place_problem, resolved
from radio_dspy.core.html import shortened
from radio_dspy.core.rankings import Ranking, RankRequest
from radio_dspy.core.redaction import logger_of
from radio_dspy.evaluation.effects import MOVED, most_changed
from radio_dspy.evaluation.relevance import Judgement, compare_each, judge
from radio_dspy.evaluation.significance import interval, paired_bootstrap
from radio_dspy.experiments.answering import answers_from
from radio_dspy.experiments.materials import Materials
from radio_dspy.experiments.methods import Task, base_reranker, run_method, training_folder
from radio_dspy.experiments.records import FORMAT_VERSION, environment, is_done, record_path, write_record
from radio_dspy.experiments.settings import Experiment, Row, RowSettings
from radio_dspy.lm.budget import Ledger
from radio_dspy.retrievers.requests import question_id, rank_requests
from radio_dspy.runs.folders import LOCK, MANIFEST, is_of_a_run, is_run, remove
from radio_dspy.runs.run import locked

logger = logger_of(__name__)

_OTHER = "give another --out (and --records)."
RESULT = "result"  # the row's own ranking, beside first_stage and base
_CASE_PASSAGES, _CASE_CHARACTERS = 3, 200

Values = dict[str, dict[str, list[float]]]


def run_experiment(
    experiment: Experiment,
    out: Path,
    *,
    records: Path | None = None,
    rows: Sequence[str] = (),
    seeds: Sequence[int] = (),
    show_progress: bool = True,
    on_row: Callable[[str], None] = lambda line: None,
) -> list[Path]:
    """Run every row with every seed that has no record yet.

    Args:
        experiment: See ``load_experiment``.
        out: Folder for indexes, rationales, scores and trainings; the next start uses what is there.
        records: Folder for the records; None is ``out/records``.
        rows: Only rows whose name contains one of these.
        seeds: Only these.
        show_progress: Show progress bars.
        on_row: Called with a line for every row that is done.

    Returns:
        The records, new and old.

    Raises:
        SettingsError: If a record was made with other settings or data, or a setting does not fit the data.
        RadioError: At the end, if a row ended with an error; the others are kept.
    """
    folder = records or out / "records"
    runs = list(experiment.runs(rows, seeds))
    paths = [record_path(folder, experiment, row, seed) for row, seed in runs]
    for path in (out / "indexes", *paths):
        if problem := place_problem(resolved(path, _OTHER)):
            raise SettingsError(f"{path.parent}: {problem}; {_OTHER}")
    with Materials(out, show_progress=show_progress) as materials:
        todo = []
        for (row, seed), path in zip(runs, paths, strict=True):  # other settings are an error before any work
            if is_done(path, row.settings.decisive(), materials.hashes(row.settings)):
                on_row(f"{row.name}, seed {seed}: there already")
            else:
                todo.append((row, seed, path))
        failed = []
        for number, (row, seed, path) in enumerate(todo):
            try:
                record = _run_row(experiment, row, seed, materials)
            except RadioError as error:  # a model that is not here must not cost the rows after it
                failed.append(f"{row.name}, seed {seed}")
                logger.debug("%s", failed[-1], exc_info=error)
                on_row(f"{failed[-1]}: not run: {error}")
                continue
            write_record(path, record)
            on_row(_line(row, seed, record))
            _forget(materials, row, seed, [(later, other) for later, other, _ in todo[number + 1 :]])
    if failed:
        raise RadioError(
            f"{experiment.name}: {len(failed)} of {len(runs)} runs ended with an error: {'; '.join(failed)}. "
            "The others are kept; start again to run only these."
        )
    return paths


def _run_row(experiment: Experiment, row: Row, seed: int, materials: Materials) -> dict[str, Any]:
    from radio_dspy.models.shared import forget_models

    started = time.perf_counter()
    settings, ledger = row.settings, Ledger()
    questions = materials.questions(settings)
    retriever = materials.retriever(settings, test=True)
    requests = rank_requests(questions.test, retriever, settings.first_stage.candidates)
    hashes = materials.hashes(settings)
    folder = training_folder(materials.out, settings, seed, hashes)
    rankings: dict[str, Sequence[Ranking]] = {"first_stage": [one.ranking() for one in requests]}
    rankings["base"] = base_reranker(materials, settings).rank_all(requests)
    outcome = run_method(materials, Task(settings, seed, questions, requests, folder, ledger))
    rankings[RESULT] = outcome.rankings
    verdict = judge(requests)
    ranked = {name: one for name, one in rankings.items() if any(one)}  # without passages there is nothing to judge
    values = compare_each(ranked, requests, settings.metrics, judgement=verdict)
    answered = time.perf_counter()
    with ledger.stage("answers"):
        replies, scores = answers_from(materials, settings, questions.test, rankings)
    answer_seconds = time.perf_counter() - answered
    record: dict[str, Any] = {
        "format": FORMAT_VERSION,
        "experiment": experiment.name,
        "row": row.name,
        "seed": seed,
        "settings": settings.decisive(),
        "data": hashes,
        **environment(),
        "questions": {"train": len(questions.train), "test": len(questions.test), "judged": verdict.judged},
        "relevance": verdict.source,
        "test_ids": hashlib.sha256("\n".join(one.id for one in requests).encode()).hexdigest()[:16],
        "metrics": _means(values),
        "gains": _gains(values),
        "changes": _changes(values),
        "answers": _means(scores),
        "answer_gains": _gains(scores),
        "answer_changes": _changes(scores),
        **outcome.told,
        "lm_calls": {name: asdict(spent) for name, spent in ledger.stages.items() if spent.calls or spent.cached},
        "answer_seconds": answer_seconds,
        "seconds": time.perf_counter() - started,
    }
    if settings.cases and verdict.judged and RESULT in values:
        with ledger.stage("cases"):
            record["cases"] = _cases(materials, settings, questions.test, requests, rankings, verdict, values, replies)
    forget_models()  # each row has checkpoints of its own
    return record


def _means(values: Values) -> dict[str, dict[str, list[float]]]:
    """Mean and 95 % interval of every metric."""
    return {row: {name: list(interval(one)) for name, one in metrics.items() if one} for row, metrics in values.items()}


def _gains(values: Values) -> dict[str, dict[str, dict[str, float]]]:
    """What the row's ranking is better by than the base and the first stage, with 95 % intervals."""
    if RESULT not in values:
        return {}
    return {
        before: {
            name: asdict(paired_bootstrap(values[before][name], after))
            for name, after in values[RESULT].items()
            if after
        }
        for before in ("base", "first_stage")
    }


def _changes(values: Values) -> dict[str, list[float]]:
    """Question by question against the base: seeds are pooled by it, and two records are compared."""
    if RESULT not in values:
        return {}
    return {
        name: [new - old for old, new in zip(values["base"][name], after, strict=True)]
        for name, after in values[RESULT].items()
    }


def _cases(
    materials: Materials,
    settings: RowSettings,
    test: Sequence[dspy.Example],
    requests: Sequence[RankRequest],
    rankings: Mapping[str, Sequence[Ranking]],
    verdict: Judgement,
    values: Values,
    replies: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """The questions that gained and that lost most, with what they have in common.

    Their rationales are asked for here: when a question is answered, none is written.
    """
    metric = settings.metrics[0]
    judged = [position for position, ids in enumerate(verdict.relevant) if ids is not None]
    changes = dict(zip(judged, _changes(values)[metric], strict=True))
    before = dict(zip(judged, values["base"][metric], strict=True))
    found: dict[str, Any] = {"traits": {}}
    for effect in MOVED:
        of_kind = most_changed(changes, effect)
        chosen = of_kind[: settings.cases]
        texts: dict[str, str] = {}
        if settings.explained and chosen:
            asked = [one for one in test if question_id(one) in {requests[position].id for position in chosen}]
            texts, _ = materials.rationales(settings, asked, materials.encoder(settings.first_stage))
        found[effect] = [_case(requests[one], rankings, one, changes[one], verdict, texts, replies) for one in chosen]
        found["traits"][effect] = _traits([requests[one] for one in of_kind], [before[one] for one in of_kind], verdict)
    return found


def _case(
    one: RankRequest,
    rankings: Mapping[str, Sequence[Ranking]],
    position: int,
    change: float,
    verdict: Judgement,
    texts: Mapping[str, str],
    replies: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    relevant = verdict.relevant[position] or frozenset()
    shown = {
        name: [
            {
                "id": passage.id,
                "text": shortened(passage.contents, _CASE_CHARACTERS),
                "relevant": passage.id in relevant,
            }
            for passage in rankings[name][position].passages[:_CASE_PASSAGES]
        ]
        for name in ("base", RESULT)
    }
    return {
        "id": one.id,
        "question": shortened(one.query, 2 * _CASE_CHARACTERS),
        "answers": [shortened(answer, _CASE_CHARACTERS) for answer in one.answers[:1]],
        "change": change,
        "rationale": shortened(texts.get(one.id, ""), 2 * _CASE_CHARACTERS),
        "passages": shown,
        "replies": {name: given[position] for name, given in replies.items() if position < len(given)},
    }


def _traits(requests: Sequence[RankRequest], before: Sequence[float], verdict: Judgement) -> dict[str, float]:
    """Means over questions: what may tell those that were hurt from those that were helped."""
    if not requests:
        return {"questions": 0}

    def mean(numbers: Sequence[float]) -> float:
        return sum(numbers) / len(numbers)

    words = [set(one.query.lower().split()) for one in requests]
    shared = [
        mean([len(asked & set(passage.contents.lower().split())) / len(asked) for passage in labelled])
        for one, asked in zip(requests, words, strict=True)
        if (labelled := [passage for passage in one.candidates if passage.id in one.relevant])
    ]
    return {
        "questions": len(requests),
        "base value": mean(before),
        "words of the question": mean([float(len(one.query.split())) for one in requests]),
        "labelled passages": mean([float(len(one.relevant)) for one in requests]),
        "share of its words in a labelled candidate": mean(shared) if shared else 0.0,
    }


def _line(row: Row, seed: int, record: Mapping[str, Any]) -> str:
    metric = row.settings.metrics[0]
    gain = record["gains"].get("base", {}).get(metric)
    told = f"{gain['mean']:+.4f} ({gain['low']:+.4f} to {gain['high']:+.4f}) {metric}" if gain else "nothing to judge"
    return f"{row.name}, seed {seed}: {told} in {record['seconds']:.0f} s"


def _forget(materials: Materials, row: Row, seed: int, later: Sequence[tuple[Row, int]]) -> None:
    """Remove what a training wrote, unless a row that is still to come is trained in the same way."""
    own = training_folder(materials.out, row.settings, seed, materials.hashes(row.settings))
    others = {training_folder(materials.out, one.settings, at, materials.hashes(one.settings)) for one, at in later}
    if own in others or not is_run(own):
        return
    with contextlib.suppress(RunError, OSError), locked(own / LOCK):  # in use: whoever has it removes it
        for path in [one for one in own.iterdir() if one.name not in (LOCK, MANIFEST) and is_of_a_run(one)]:
            remove(path)
        if {one.name for one in own.iterdir()} == {LOCK, MANIFEST}:
            shutil.rmtree(own)
