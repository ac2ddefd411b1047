"""The seeds of a row as one line: means over the seeds, and intervals over the questions."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from radio_dspy.core.errors import DataError
from radio_dspy.evaluation.significance import interval
from radio_dspy.experiments.records import read_record, record_path
from radio_dspy.experiments.settings import Experiment, Row

ANSWER_METRICS = ("accuracy", "exact_match", "sub_exact_match", "token_f1", "answer_likelihood")


@dataclass(frozen=True)
class Gain:
    """The row's own ranking against the base.

    Attributes:
        metric: Which.
        first_stage: Mean over the seeds.
        base: Mean over the seeds.
        result: Mean over the seeds.
        mean: Result minus base.
        low: Lower end of its 95 % interval: each question's change is averaged over the seeds, then the questions are
            drawn again and again.
        high: Its upper end.
        seeds: The gain of each seed.
        questions: How many were judged.
    """

    metric: str
    first_stage: float
    base: float
    result: float
    mean: float
    low: float
    high: float
    seeds: tuple[float, ...]
    questions: int

    @property
    def verdict(self) -> str:
        """``better``, ``worse`` or ``no difference shown``."""
        return "better" if self.low > 0 else "worse" if self.high < 0 else "no difference shown"


@dataclass(frozen=True)
class Pooled:
    """A row with all its records.

    Attributes:
        row: The row.
        records: One a seed; at least one.
    """

    row: Row
    records: tuple[Mapping[str, Any], ...]

    @property
    def ranking(self) -> Gain | None:
        """The main metric of rankings; None where nothing could be judged."""
        return self.gain(self.row.settings.metrics[0], "metrics", "changes")

    @property
    def answers(self) -> list[Gain]:
        """The metrics of answers, where a generator was asked."""
        found = [self.gain(name, "answers", "answer_changes") for name in ANSWER_METRICS]
        return [one for one in found if one is not None]

    def gain(self, metric: str, means: str, changes: str) -> Gain | None:
        """One metric of the records' ``means`` and ``changes``."""
        columns = [record[changes].get(metric) for record in self.records]
        if not all(columns):
            return None
        if len({len(one) for one in columns}) != 1 or len({record["test_ids"] for record in self.records}) != 1:
            raise DataError(f"{self.row.name}: its records judge different questions; delete those that are old.")
        averaged = [statistics.fmean(one) for one in zip(*columns, strict=True)]
        mean, low, high = interval(averaged)
        levels = {
            name: statistics.fmean(record[means][name][metric][0] for record in self.records)
            for name in ("first_stage", "base", "result")
        }
        each = tuple(statistics.fmean(one) for one in columns)
        return Gain(metric, **levels, mean=mean, low=low, high=high, seeds=each, questions=len(averaged))

    def number(self, *path: str) -> float | None:
        """The mean of a number deep in the records; None where one has none."""
        found = [_deep(record, path) for record in self.records]
        known = [float(one) for one in found if isinstance(one, int | float)]
        return statistics.fmean(known) if known and len(known) == len(found) else None


def pooled(experiment: Experiment, folder: Path) -> list[Pooled]:
    """Every row of an experiment that has records, in the order of its file."""
    found = []
    for row in experiment.rows:
        paths = [record_path(folder, experiment, row, seed) for one, seed in experiment.runs() if one is row]
        records = tuple(read_record(path) for path in paths if path.exists())
        if records:
            found.append(Pooled(row, records))
    return found


def _deep(value: Any, path: Sequence[str]) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
