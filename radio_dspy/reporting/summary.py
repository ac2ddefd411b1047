"""Summarize a run or an evaluation for its pages."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from radio_dspy.core.errors import DataError
from radio_dspy.core.redaction import redacted_value
from radio_dspy.evaluation.effects import MAIN_METRIC, count_effects, effect_of
from radio_dspy.evaluation.significance import SAMPLES, interval, paired_bootstrap
from radio_dspy.reporting.report import CHOSEN_ON, ROW_TITLES, Report
from radio_dspy.runs.journal import MISSHAPEN
from radio_dspy.runs.run import Run, look_at

EVALUATION = "evaluation"  # the kind of a report.json that no compile wrote
SHOWN_QUESTIONS = 1000  # a page of more is slow on a phone
_DRAWS = 20_000_000  # of the bootstrap for one interval; more questions get fewer samples, at least a thousand
_BINS = 20  # of the changes, which lie between -1 and 1


@dataclass(frozen=True)
class Summary:
    """One run's result.

    Attributes:
        kind: ``"compile"`` or ``"evaluation"``.
        decision: What came out, in one sentence.
        before: The row to start from.
        after: The row that is held against it.
        judged: Questions that could be judged.
        relevance: ``labels`` or ``answers``: what counts as relevant.
        metrics: Row -> metric -> ``mean``, and ``low`` and ``high`` where single questions are known.
        gains: Metric -> ``mean``, ``low``, ``high`` and ``p`` of after minus before.
        effects: How many questions were ``helped``, ``hurt`` and left ``unchanged``.
        histogram: ``edges`` of the bins and ``counts`` of the changes.
        rerankers: What happened to each: name, groups, training with its losses, the gate's candidates.
        stages: Seconds, calls, tokens and cost of each.
        guards: What was left out or replaced, as pairs of a text and a count.
        answers: Answer metrics of an evaluation, by row.
        facts: Further lines about the run.
        notes: What is missing on the page and why, and what its figures are not good for.
        metric: What the effects, the histogram and the questions' changes are changes of.
    """

    kind: str
    decision: str
    before: str
    after: str
    judged: int
    relevance: str
    metrics: dict[str, dict[str, dict[str, float]]]
    gains: dict[str, dict[str, float]] = field(default_factory=dict)
    effects: dict[str, int] = field(default_factory=dict)
    histogram: dict[str, list[float]] = field(default_factory=dict)
    rerankers: list[dict[str, Any]] = field(default_factory=list)
    stages: list[dict[str, Any]] = field(default_factory=list)
    guards: list[tuple[str, int]] = field(default_factory=list)
    answers: dict[str, dict[str, float]] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    metric: str = MAIN_METRIC

    def title_of(self, row: str) -> str:
        """A row's name for people."""
        return ROW_TITLES.get(row, row)

    def as_dict(self) -> dict[str, Any]:
        """The summary as JSON types."""
        return asdict(self)


def read_summary(folder: Path) -> tuple[Summary, list[dict[str, Any]]]:
    """Read a run's folder.

    Returns:
        The summary, and the questions to browse: all, or those that changed most where there are very many.

    Raises:
        DataError: If the folder is no run's, the run has no report yet, or a file cannot be read.
    """
    run = Run(folder)
    report = run.read("report")
    if report is None:
        raise DataError(_why_missing(folder))
    try:
        if report.get("kind") == EVALUATION:
            return summary_of_evaluation(report, run.records("comparison"))
        return summary_of_compile(Report.from_dict(report), run.records("comparison"), run.read_records("log"))
    except DataError:
        raise
    except MISSHAPEN as error:
        raise unreadable(folder, error) from error


def unreadable(folder: Path, error: Exception) -> DataError:
    """The error for a report that says something else than reports do."""
    return DataError(
        f"{folder}: its report.json or comparison.jsonl is none that this release reads "
        f"({type(error).__name__}: {error!s:.200}); compile or evaluate again."
    )


class _Seen:
    """``comparison.jsonl``, gone through once: every question's values, and the texts of those to show."""

    def __init__(self, records: Iterable[dict[str, Any]]) -> None:
        self.values: dict[str, dict[str, list[float]]] = {}
        self.rows: list[str] = []
        self.total = 0
        self.metric = MAIN_METRIC  # the first that the records have
        most: list[tuple[float, int, dict[str, Any]]] = []
        for number, record in enumerate(map(redacted_value, records)):
            self.total += 1
            self.rows = list(record["rankings"])
            for row, metrics in record["metrics"].items():
                self.metric = next(iter(metrics), MAIN_METRIC)
                for metric, value in metrics.items():
                    self.values.setdefault(row, {}).setdefault(metric, []).append(float(value))
            change = self._change(record["metrics"])
            item = (-1.0 if change is None else abs(change), -number, _shown(record, self.rows, change))
            (heapq.heappush if len(most) < SHOWN_QUESTIONS else heapq.heappushpop)(most, item)
        self.questions = [one for _, _, one in sorted(most, key=lambda item: (-item[0], -item[1]))]

    def _change(self, metrics: Mapping[str, Mapping[str, float]]) -> float | None:
        if not metrics:
            return None
        before, after = (metrics[row][self.metric] for row in self.rows)
        return float(after) - float(before)

    @property
    def changes(self) -> list[float]:
        """Of every judged question."""
        if not self.values:
            return []
        before, after = (self.values[row][self.metric] for row in self.rows)
        return [new - old for old, new in zip(before, after, strict=True)]

    def fits(self, metrics: Mapping[str, Mapping[str, float]]) -> bool:
        """Whether these are the questions whose means the report gives."""
        return all(
            abs(sum(values) / len(values) - metrics.get(row, {}).get(metric, 2.0)) < 1e-6
            for row, found in self.values.items()
            for metric, values in found.items()
        )

    def measured(self) -> dict[str, Any]:
        """The parts of a summary that need single questions."""
        if not self.values:
            return {}
        changes = self.changes
        before, after = self.rows
        return {
            "metrics": {
                row: {metric: _interval(values) for metric, values in found.items()}
                for row, found in self.values.items()
            },
            "gains": {
                metric: _gain(self.values[before][metric], self.values[after][metric]) for metric in self.values[after]
            },
            "metric": self.metric,
            "effects": count_effects(changes),
            "histogram": _histogram(changes),
        }


def summary_of_compile(
    report: Report, records: Iterable[dict[str, Any]], events: Sequence[Mapping[str, Any]]
) -> tuple[Summary, list[dict[str, Any]]]:
    """Summarize a compile.

    Args:
        report: Its report.
        records: One for each held-out question; see ``Comparison.records``.
        events: The run's log.

    Returns:
        The summary, and the questions to browse.
    """
    seen = _Seen(records)
    fits = bool(seen.total) and seen.fits(report.metrics)
    notes = []
    if not fits:
        why = "is of another compile" if seen.total else "is not there"
        notes.append(f"There are no intervals and no questions to browse: comparison.jsonl {why}. Compile again.")
        seen.questions = []
    elif len(seen.questions) < seen.total:
        notes.append(f"{len(seen.questions)} of {seen.total} questions can be browsed: those that changed most.")
    figures: dict[str, Any] = {
        "metrics": {
            row: {name: {"mean": value} for name, value in values.items()} for row, values in report.metrics.items()
        },
        **(seen.measured() if fits else {}),
    }
    if report.chosen_on_these:
        notes.append(CHOSEN_ON)
    summary = Summary(
        kind="compile",
        decision=report.decision,
        before="base",
        after="aligned",
        judged=int(report.questions["judged"]),
        relevance=report.relevance,
        rerankers=[asdict(one) for one in report.rerankers],
        stages=_stages(report, events),
        guards=_guards(report),
        facts=_facts(report, events),
        notes=notes,
        **figures,
    )
    return summary, seen.questions


def summary_of_evaluation(
    report: Mapping[str, Any], records: Iterable[dict[str, Any]]
) -> tuple[Summary, list[dict[str, Any]]]:
    """Summarize an evaluation from its ``report.json``; see ``summary_of_compile``."""
    seen = _Seen(records)
    notes = []
    if len(seen.questions) < seen.total:
        notes.append(f"{len(seen.questions)} of {seen.total} questions can be browsed: those that changed most.")
    summary = Summary(
        kind=EVALUATION,
        decision=str(report["decision"]),
        before=str(report["before"]),
        after=str(report["after"]),
        judged=int(report["judged"]),
        relevance=str(report["relevance"]),
        answers=dict(report["answers"]),
        facts={"release": str(report["release"]), "written": str(report["written"])},
        notes=notes,
        **{"metrics": {}, **seen.measured()},
    )
    return summary, seen.questions


def _why_missing(folder: Path) -> str:
    if not folder.is_dir():
        return f"{folder}: no such folder; give what was --run-dir or run_dir=, or the --report of an evaluation."
    try:
        state = look_at(folder).state
    except DataError:
        return (
            f"{folder}: not a run folder (no report.json and no manifest of a run); give what was --run-dir or "
            "run_dir=, or the --report of an evaluation."
        )
    return f"{folder}: this run has no report yet ({state}); one is written at its end (radio-dspy runs resume)."


def _shown(record: Mapping[str, Any], rows: Sequence[str], change: float | None) -> dict[str, Any]:
    """A record as the page's script reads it."""
    return {
        **{name: record[name] for name in ("id", "question", "answers", "metrics", "relevant", "passages")},
        "before": record["rankings"][rows[0]],
        "after": record["rankings"][rows[1]],
        "change": change,
        "effect": "unjudged" if change is None else effect_of(change),
    }


def _samples(count: int) -> int:
    return max(1000, min(SAMPLES, _DRAWS // count))


def _interval(values: Sequence[float]) -> dict[str, float]:
    mean, low, high = interval(values, samples=_samples(len(values)))
    return {"mean": mean, "low": low, "high": high}


def _gain(before: Sequence[float], after: Sequence[float]) -> dict[str, float]:
    return asdict(paired_bootstrap(before, after, samples=_samples(len(before))))


def _histogram(changes: Sequence[float]) -> dict[str, list[float]]:
    """Bins of equal width around 0, so that small changes to either side stand in the middle one."""
    width = 2 / _BINS
    counts = [0.0] * (_BINS + 1)
    for one in changes:
        counts[min(_BINS, max(0, round(one / width) + _BINS // 2))] += 1
    return {"edges": [round((place - _BINS / 2 - 0.5) * width, 6) for place in range(_BINS + 2)], "counts": counts}


def _stages(report: Report, events: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each stage of the last compile; ``all_calls`` adds up what the log knows of earlier starts as well."""
    found = []
    for name in dict.fromkeys([*report.seconds, *report.spending]):
        logged = [
            int(one.get("calls", 0)) for one in events if one.get("event") == "stage" and one.get("stage") == name
        ]
        spent = report.spending.get(name) or {}
        found.append(
            {
                "stage": name,
                "seconds": report.seconds.get(name, 0.0),
                **{
                    one: spent.get(one, 0)
                    for one in ("calls", "failed", "cached", "prompt_tokens", "completion_tokens")
                },
                "cost": spent.get("cost", 0.0),
                "all_calls": max(sum(logged), spent.get("calls", 0)),
            }
        )
    return found


def _guards(report: Report) -> list[tuple[str, int]]:
    rationales = report.rationales
    counts = {f"training question skipped: {why}": count for why, count in report.questions["skipped"].items()}
    counts["question in the corpus, left out of its candidates"] = report.questions.get("in_corpus", 0)
    if rationales:
        counts["rationale refused by the LM"] = rationales["refused"]
        counts["rationale asked for twice"] = rationales["retried"]
        counts["question without a rationale, guided by its answer"] = rationales["empty"]
        counts |= {f"useless rationale, guided by the answer: {why}": n for why, n in rationales["useless"].items()}
    for part in report.rerankers:
        where = f" ({part.reranker})" if len(report.rerankers) > 1 else ""
        counts |= {f"negative left out: {why}{where}": count for why, count in part.left_out.items()}
    return [(what, int(count)) for what, count in counts.items() if count]


def _facts(report: Report, events: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    starts = [one for one in events if one.get("event") == "started"]
    facts = {
        "training questions": f"{report.questions['used']} of {report.questions['train']} used",
        "candidates": "recorded from the running program" if report.questions.get("recorded") else "by the retriever",
    }
    if starts:
        facts["started"] = f"{starts[0]['time']}, {len(starts)} " + ("time" if len(starts) == 1 else "times")
        facts["release"] = str(starts[-1].get("release", "unknown"))
    if changed := [one for one in events if one.get("event") == "changed"]:
        names = dict.fromkeys(name for one in changed for name in one["settings"])
        facts["settings changed on the way"] = ", ".join(names)
    return facts
