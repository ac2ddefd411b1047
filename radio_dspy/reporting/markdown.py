"""Render ``report.md``, for terminals, pull requests and wikis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from radio_dspy.core.html import markdown_table, plain, shortened
from radio_dspy.evaluation.effects import MOVED, most_changed
from radio_dspy.evaluation.measures import shown_measure
from radio_dspy.reporting.summary import Summary

_MOST = 10  # questions of each kind; the page has them all


def render_markdown(summary: Summary, questions: Sequence[Mapping[str, Any]]) -> str:
    """The report as Markdown; texts of questions are escaped.

    Args:
        summary: What happened.
        questions: As ``read_summary`` gives them.
    """
    after, before = (summary.title_of(row) for row in (summary.after, summary.before))
    relevant = "labelled passages" if summary.relevance == "labels" else "passages that contain an answer"
    parts = [f"# {plain(after)} against {plain(before)}", plain(summary.decision)]
    parts += [f"> {plain(note)}" for note in summary.notes]
    parts += ["## Before and after", f"{summary.judged} questions, relevant: {relevant}.", _metrics(summary)]
    if summary.effects:
        parts.append(", ".join(f"{count} {name}" for name, count in summary.effects.items()) + ".")
    if summary.answers:
        names = list(next(iter(summary.answers.values())))
        rows = [[row, *(f"{value:.3f}" for value in found.values())] for row, found in summary.answers.items()]
        parts += ["## Answers", markdown_table(["program", *names], rows)]
    for part in summary.rerankers:
        parts += _reranker(part)
    changes = {place: one["change"] for place, one in enumerate(questions) if one["change"] is not None}
    for effect in MOVED:
        most = [questions[place] for place in most_changed(changes, effect)[:_MOST]]
        rows = [[f"{one['change']:+.3f}", one["id"], shortened(one["question"], 200)] for one in most]
        parts += (
            [
                f"## Most {effect}",
                markdown_table([f"change in {shown_measure(summary.metric)}", "id", "question"], rows),
            ]
            if rows
            else []
        )
    if summary.stages:
        head = ["stage", "seconds", "LM calls", "failed", "cached", "tokens sent", "received", "cost"]
        parts += ["## Calls, tokens and cost by stage", markdown_table(head, map(_stage, summary.stages))]
    if summary.guards:
        parts += ["## What the guards left out or replaced", markdown_table(["what", "count"], summary.guards)]
    if summary.facts:
        parts += ["## The run", "\n".join(f"- {plain(name)}: {plain(value)}" for name, value in summary.facts.items())]
    return "\n\n".join(part for part in parts if part) + "\n"


def _metrics(summary: Summary) -> str:
    if not summary.metrics:
        return ""
    names = list(next(iter(summary.metrics.values())))
    rows = [
        [summary.title_of(row), *(_interval(one) for one in values.values())] for row, values in summary.metrics.items()
    ]
    if summary.gains:
        rows.append(["gain", *(_interval(one, "+.3f") for one in summary.gains.values())])
    return markdown_table(["ranking", *names], rows)


def _reranker(part: Mapping[str, Any]) -> list[str]:
    training, gate = part["training"], part["gate"]
    about = (
        f"{training['architecture']} from {training['base']}, {part['groups']} preference groups, "
        f"{training['updates']} updates"
    )
    about += f", stopped because {training['stopped']}" if training.get("stopped") else ""
    parts = [f"## {plain(part['reranker'])}", plain(f"{about}.")]
    if gate and gate["candidates"]:
        rows = [
            [one["name"], _interval(one), _interval(_gain(one), "+.3f") if one["share"] else ""]
            for one in gate["candidates"]
        ]
        parts.append(markdown_table(["at the gate", gate["metric"], "gain"], rows))
    return parts


def _gain(one: Mapping[str, Any]) -> dict[str, float]:
    return {"mean": one["gain"], "low": one["gain_low"], "high": one["gain_high"]}


def _stage(one: Mapping[str, Any]) -> list[Any]:
    cost = "price unknown" if one["cost"] is None else f"${one['cost']:.4f}" if one["calls"] or one["cached"] else ""
    counts = [one[name] for name in ("calls", "failed", "cached", "prompt_tokens", "completion_tokens")]
    return [one["stage"], f"{one['seconds']:.1f}", *counts, cost]


def _interval(one: Mapping[str, float], form: str = ".3f") -> str:
    ends = f" ({one['low']:{form}} to {one['high']:{form}})" if "low" in one else ""
    return f"{one['mean']:{form}}{ends}"
