"""Estimate what an experiment takes: rows, questions, LM calls with their price, and memory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from radio_dspy.core.errors import SettingsError
from radio_dspy.core.redaction import presentable
from radio_dspy.datasets.loading import demo
from radio_dspy.experiments.materials import located
from radio_dspy.experiments.memory import lines_in, memory_of
from radio_dspy.experiments.methods import LISTWISE_STEP, LISTWISE_WINDOW
from radio_dspy.experiments.records import is_done, record_path
from radio_dspy.experiments.settings import DEMO, DataSettings, Experiment, Row, RowSettings
from radio_dspy.lm.adapters import LOCAL_PROVIDER
from radio_dspy.optimizers.estimate import (
    TYPICAL_ANSWER_TOKENS,
    TYPICAL_RATIONALE_TOKENS,
    Estimate,
    StageEstimate,
    mean_stage,
)
from radio_dspy.rerankers.lm import windows_of

_PROMPT = 200  # tokens around a question
_PASSAGE_TOKENS = 150


@dataclass(frozen=True)
class PlannedRow:
    """One row of a plan.

    Attributes:
        name: The row's.
        method: The row's.
        seeds: With which it runs.
        done: Of these, how many have a record.
        train: Training questions; None where it is not known.
        test: Test questions; None where it is not known.
    """

    name: str
    method: str
    seeds: int
    done: int
    train: int | None
    test: int | None


@dataclass(frozen=True)
class Plan:
    """What an experiment will take.

    Attributes:
        title: The experiment's.
        question: The experiment's.
        rows: What runs.
        calls: LM calls; what rows share is counted once.
        memory: Bytes by what they are for; None where it is not known.
        missing: Files of the data that are not here.
    """

    title: str
    question: str
    rows: tuple[PlannedRow, ...]
    calls: Estimate
    memory: dict[str, float | None]
    missing: tuple[str, ...]

    def __str__(self) -> str:
        from rich.table import Table

        from radio_dspy.reporting.report import render

        table = Table()
        for column in ("row", "method", "training questions", "test questions", "runs", "done"):
            table.add_column(column)
        for one in self.rows:
            table.add_row(one.name, one.method, _told(one.train), _told(one.test), str(one.seeds), str(one.done))
        runs, done = sum(one.seeds for one in self.rows), sum(one.done for one in self.rows)
        unknown = sorted({one.note for one in self.calls.stages if one.cost is None})
        cost = sum(one.cost or 0 for one in self.calls.stages)
        most = sum(one.cost_at_most or 0 for one in self.calls.stages)
        lines = [
            f"{self.title}: {self.question}",
            render(table).rstrip(),
            f"{runs} runs, {done} done.",
            f"LM calls: {self.calls.calls} to be expected, {self.calls.calls_at_most} at most; cost ${cost:.2f}, "
            f"${most:.2f} at most" + (f", and that of {', '.join(unknown)}, not known to LiteLLM" if unknown else ""),
            str(self.calls),
            "memory:",
            *(f"  {name}: {_size(value)}" for name, value in self.memory.items()),
        ]
        if self.missing:
            lines.append(f"not here: {', '.join(self.missing)}; give their folder with --data FOLDER")
        return presentable("\n".join(lines))

    def as_dict(self) -> dict[str, Any]:
        """The plan as JSON types."""
        return {
            "title": self.title,
            "rows": [vars(one) for one in self.rows],
            "calls": self.calls.as_dict(),
            "memory": self.memory,
            "missing": list(self.missing),
        }


def plan(experiment: Experiment, records: Path, *, rows: Sequence[str] = (), seeds: Sequence[int] = ()) -> Plan:
    """Look at an experiment's settings and files; no LM is asked, no model loaded and nothing written.

    Args:
        experiment: See ``load_experiment``.
        records: Folder of the records that there may be already.
        rows: Only rows whose name contains one of these.
        seeds: Only these.
    """
    runs = list(experiment.runs(rows, seeds))
    chosen = list({row.name: row for row, _ in runs}.values())
    planned = []
    for row in chosen:
        mine = [seed for one, seed in runs if one is row]
        done = sum(is_done(record_path(records, experiment, row, seed), row.settings.decisive()) for seed in mine)
        train, test = sizes(row.settings.data)
        planned.append(PlannedRow(row.name, row.settings.method, len(mine), done, train, test))
    return Plan(
        experiment.title,
        experiment.question,
        tuple(planned),
        Estimate(tuple(_stages(runs))),
        memory_of([row.settings for row in chosen]),
        tuple(sorted({name for row in chosen for name in _missing(row.settings)})),
    )


def sizes(data: DataSettings) -> tuple[int | None, int | None]:
    """Training and test questions: counted where the files are here, as expected where they are not."""
    if data.train is None:
        bundled = demo()
        train, test = len(bundled.train), len(bundled.test)
    else:
        train = lines_in(data, data.train) or (data.expected.train if data.expected else 0)
        if data.test is not None:
            test = lines_in(data, data.test) or (data.expected.test if data.expected else 0)
        else:
            train, test = train - train // 2, train // 2
    return _at_most(train, data.train_questions), _at_most(test, data.test_questions)


def _at_most(count: int, limit: int | None) -> int | None:
    return min(count, limit or count) if count else limit


def _missing(settings: RowSettings) -> list[str]:
    data = settings.data
    names = [data.train, data.test, data.test_corpus, settings.rationale.file]
    found = []
    for name in [*names, None if data.corpus == DEMO else data.corpus]:
        if name and name != DEMO:
            try:
                located(data, name)
            except SettingsError:
                found.append(name)
    return found


def _stages(runs: Sequence[tuple[Row, int]]) -> list[StageEstimate]:
    """Every bulk of calls once: rationales and scores are kept, and the same prompt is answered by DSPy's cache."""
    found: dict[str, StageEstimate] = {}
    for row, seed in runs:
        own = row.settings
        train, test = (count or 0 for count in sizes(own.data))
        learnt = test if own.method == "teacher" else train
        shared = json.dumps([own.data.model_dump(), own.first_stage.model_dump(), own.preferences.candidates])
        if own.explained and own.rationale.lm != "none":
            found.setdefault(f"rationales {own.rationale.model_dump()} {shared} {learnt}", _rationales(own, learnt))
        for signal in own.asked_signals:
            key = f"{signal} {own.teacher.lm} {own.teacher.depth} {shared} {learnt}"
            found.setdefault(key, _scores(own, learnt, signal))
        if own.method == "lm-listwise":
            windows = len(windows_of(own.first_stage.candidates, LISTWISE_WINDOW, LISTWISE_STEP))
            found.setdefault(
                f"listwise {own.teacher.lm} {shared}",
                _stage("reranking", own.teacher.lm, test * windows, _PROMPT + LISTWISE_WINDOW * 80, 30, row.name),
            )
        if own.generator.lm != "none":
            asked = test if own.generator.questions is None else min(test, own.generator.questions)
            asked += min(test, own.generator.likelihood)  # as many calls again, if shorter ones
            generator = own.generator.model_dump()
            for name in ("first_stage", "base", "result"):
                key = f"answers {generator} {shared}"
                key += {"first_stage": " first", "base": f" {own.reranker.model_dump()}"}.get(
                    name, f" {row.name} {seed}"
                )
                if name == "result" and own.method in ("first-stage", "base"):
                    continue
                prompt = _PROMPT + own.generator.k * _PASSAGE_TOKENS
                note = f"{row.name}, {name}"
                found.setdefault(key, _stage("answers", own.generator.lm, asked, prompt, TYPICAL_ANSWER_TOKENS, note))
    return _summed([one for one in found.values() if one.calls])


def _rationales(own: RowSettings, train: int) -> StageEstimate:
    there = lines_in(own.data, own.rationale.file) if own.rationale.file else 0
    count = max(0, train - there) + (own.gate.questions if own.gate.by == "teacher" and own.data.train_questions else 0)
    completion = min(TYPICAL_RATIONALE_TOKENS, own.rationale.max_tokens)
    twice = 2 if own.rationale.check else 1
    return _stage(
        "rationales",
        own.rationale.lm,
        count,
        _PROMPT + 40,
        completion,
        "",
        twice=twice,
        longest=own.rationale.max_tokens,
    )


def _scores(own: RowSettings, train: int, name: str) -> StageEstimate:
    calls = train * min(own.teacher.depth, own.preferences.candidates)
    return _stage("signals", own.teacher.lm, calls, _PROMPT + _PASSAGE_TOKENS, TYPICAL_ANSWER_TOKENS, name)


def _stage(
    stage: str, lm: str, calls: int, prompt: int, completion: int, note: str, *, twice: int = 1, longest: int = 0
) -> StageEstimate:
    local = lm == "local" or lm.endswith(".gguf")
    return mean_stage(
        stage,
        f"{LOCAL_PROVIDER}/{lm}" if local else lm,
        calls,
        calls * twice,
        prompt=prompt,
        completion=completion,
        longest=longest or completion,
        note=f"{lm}{'; ' + note if note else ''}",
    )


def _summed(stages: Sequence[StageEstimate]) -> list[StageEstimate]:
    """The calls of one stage to one LM as one line."""
    groups: dict[tuple[str, str], list[StageEstimate]] = {}
    for one in stages:
        groups.setdefault((one.stage, one.note.partition(";")[0]), []).append(one)
    return [
        StageEstimate(
            stage=stage,
            calls=sum(one.calls for one in found),
            calls_at_most=sum(one.calls_at_most for one in found),
            prompt_tokens=sum(one.prompt_tokens for one in found),
            completion_tokens=sum(one.completion_tokens for one in found),
            cost=_sum([one.cost for one in found]),
            cost_at_most=_sum([one.cost_at_most for one in found]),
            note=lm,
        )
        for (stage, lm), found in groups.items()
    ]


def _sum(costs: Sequence[float | None]) -> float | None:
    known = [cost for cost in costs if cost is not None]
    return sum(known) if len(known) == len(costs) else None


def _told(count: int | None) -> str:
    return "not known" if count is None else f"{count:,}"


def _size(value: float | None) -> str:
    if value is None:
        return "not known"
    return f"{value / 1e9:.1f} GB" if value >= 1e8 else f"{value / 1e6:.1f} MB"
