"""``docs/results.md`` and its plots, made of the experiments' files and the stored records alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pooling import ANSWER_METRICS, Gain, Pooled, pooled
from results_plots import drawings, shown_gain, title_of

from radio_dspy.core.errors import SettingsError
from radio_dspy.core.files import replacing
from radio_dspy.core.html import plain
from radio_dspy.evaluation.effects import MOVED
from radio_dspy.experiments.loading import load_experiment
from radio_dspy.experiments.settings import DEMO, Experiment
from radio_dspy.reporting.plots import svg_file

_HEAD = "<!-- Made of the records by examples/experiments/results.py; what is changed here by hand is lost. -->"
_AGREEMENT = {  # of a teacher's order with what an LM's likelihood says of each passage
    "rank_correlation": "rank correlation with the likelihood",
    "of_the_first": "likelihood after its first passage, over the mean candidate",
    "of_the_best": "after the best",
}
GATED = ", with the gate"  # ends the name of a row that repeats another with its gate on


def render_results(files: Sequence[Path], records: Path) -> dict[str, str]:
    """The page and its plots: the same records give the same bytes.

    Args:
        files: The experiments' YAML files, in the order of the page; the first one answers whether it helps.
        records: Folder of the records. A file ``NAME.md`` in it is put under the experiment's table as it is, and
            ``summary.md`` at the top of the page.

    Returns:
        ``results.md``, and for each plot ``results/NAME.svg``.

    Raises:
        SettingsError: If there are no files.
        DataError: If a record is broken.
        MissingExtraError: If there is something to draw and matplotlib is missing.
    """
    if not files:
        raise SettingsError("No experiments' files were given; they are in examples/experiments.")
    experiments = [load_experiment(path) for path in files]
    found = [pooled(experiment, records) for experiment in experiments]
    plots: dict[str, str] = {}
    summary = records / "summary.md"
    sections = []
    for path, experiment, rows in zip(files, experiments, found, strict=True):
        sections += _section(path, experiment, rows, records, plots)
    lines = [
        _HEAD,
        "# Results",
        "",
        *([summary.read_text(encoding="utf-8").strip(), ""] if summary.is_file() else []),
        _verdict(found[0]),
        "",
        "A gain is the row's own ranking minus the base reranker's, on the same questions; in brackets its 95 % "
        "interval",
        "(paired bootstrap over the questions, each averaged over the seeds first). How to run and to read an "
        "experiment: [experiments](experiments.md).",
        "",
        *sections,
    ]
    return {"results.md": "\n".join(lines).rstrip() + "\n", **plots}


def write_results(files: Sequence[Path], records: Path, docs: Path) -> list[Path]:
    """Write what ``render_results`` makes into the folder ``docs``.

    Returns:
        The files.
    """
    written = []
    for name, text in render_results(files, records).items():
        with replacing(docs / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
        written.append(docs / name)
    return written


def _verdict(rows: Sequence[Pooled]) -> str:
    """What a hurried reader can rely on: one paragraph, also where it does not help."""
    judged = [(one, gain) for one in rows if (gain := one.ranking) is not None]
    if not judged:
        return "**Whether aligning helps has not been measured yet**: the first experiment has no records."
    gated = [(one, gain) for one, gain in judged if one.row.settings.gate.by != "none"]
    bare = [(one, gain) for one, gain in judged if one.row.settings.gate.by == "none"]
    text = ""
    for those, subject in ((gated, "what `RADIO` returns with its gate"), (bare, "what training alone gives")):
        real = [(one, gain) for one, gain in those if one.row.settings.data.corpus != DEMO]
        if real:
            text += f"On real data {subject} {_told(real)}. "
    text = f"**{text.strip()}**" if text else ""
    own = [(one, gain) for one, gain in (*gated, *bare) if one.row.settings.data.corpus == DEMO]
    if own:
        text += (
            " On the demo set, which is this project's own and was written to show the method, the gain is "
            f"{_briefly(*own[0])}: no evidence for other data."
        )
    answers = {_name(one): one.answers for one, _ in (*gated, *bare) if one.answers}  # without the gate, where both are
    if answers:
        sides = [
            [name for name, gains in answers.items() if any(gain.verdict == verdict for gain in gains)]
            for verdict in ("better", "worse")
        ]
        where, elsewhere = (_listed(names) if names else "none" for names in sides)
        asked = max(gain.questions for gains in answers.values() for gain in gains)
        text += (
            f" Answers by the LM, to {asked} questions of each set at most, are better on {where} of {len(answers)} "
            f"sets and worse on {elsewhere}, by any metric of the table."
        )
    missing = "" if all(len(one.records) > 1 for one in rows) else " Some rows have a single seed."
    return text.strip() + missing


def _told(gains: Sequence[tuple[Pooled, Gain]]) -> str:
    """Where it is better, worse and neither, in one clause."""
    parts = []
    for verdict, words in (
        ("better", "ranks better than the base on"),
        ("worse", "ranks worse than the base on"),
        ("no difference shown", "shows no difference beyond chance on"),
    ):
        names = [f"{_name(one)} ({_briefly(one, gain)})" for one, gain in gains if gain.verdict == verdict]
        if names:
            parts.append(f"{words} {_listed(names)}")
    text = ", ".join(parts)
    return text if parts and parts[0].startswith("ranks better") else f"shows no gain: it {text}"


def _name(one: Pooled) -> str:
    return one.row.name.removesuffix(GATED)


def _briefly(one: Pooled, gain: Gain) -> str:
    if set(_returned(one)) == {"base"}:
        return "the base came back"
    return f"{shown_gain(gain)} {title_of(gain.metric)}"


def _returned(one: Pooled) -> list[str]:
    """What the gate gave back, with each seed."""
    return [str(record["gate"]["chosen"]) for record in one.records if record.get("gate")]


def _section(
    path: Path, experiment: Experiment, rows: Sequence[Pooled], records: Path, plots: dict[str, str]
) -> list[str]:
    command = f"radio-dspy experiment examples/experiments/{path.name} --data FOLDER --records docs/results"
    lines = [f"## {experiment.title}", "", experiment.question, "", "```", command, "```", ""]
    runs, done = len(list(experiment.runs())), sum(len(one.records) for one in rows)
    path_of_notes = records / f"{experiment.name}.md"
    notes = [path_of_notes.read_text(encoding="utf-8").strip(), ""] if path_of_notes.is_file() else []
    if not rows:
        return [*lines, "Not run yet: there are no records.", "", *notes]
    lines += [f"{done} of {runs} runs are done. {_machines(rows)}", "", *_table(rows), ""]
    absent = [row.name for row in experiment.rows if row.name not in {one.row.name for one in rows}]
    if absent:
        lines += [f"Not run yet: {_listed(absent)}.", ""]
    for name, title, draw, words, height in drawings(experiment, rows):
        plots[f"results/{name}.svg"] = svg_file(draw, name, title, words, (6.4, height))
        lines += [f"![{title}. {words}](results/{name}.svg)", ""]
    lines += notes
    for one in rows:
        lines += _cases(one)
    return lines


def _table(rows: Sequence[Pooled]) -> list[str]:
    """A line a row; columns of which no row has anything are left out."""
    columns: list[tuple[str, Callable[[Pooled], str]]] = [
        ("row", lambda one: one.row.name),
        ("seeds", lambda one: str(len(one.records))),
        (
            "training questions",
            lambda one: _whole(one.number("training", "groups") and one.number("questions", "train")),
        ),
        ("test questions", lambda one: str(one.ranking.questions) if one.ranking else ""),
        ("relevant", lambda one: "" if _by_labels(rows) else str(one.records[0]["relevance"])),
        ("metric", lambda one: title_of(one.ranking.metric) if one.ranking else ""),
        ("first stage", lambda one: _three(one.ranking.first_stage) if one.ranking else ""),
        ("base", lambda one: _three(one.ranking.base) if one.ranking else ""),
        ("result", lambda one: _three(one.ranking.result) if one.ranking else ""),
        ("gain", lambda one: shown_gain(one.ranking) if one.ranking else ""),
        ("seeds from, to", lambda one: _span(one.ranking.seeds) if one.ranking and len(one.records) > 1 else ""),
        ("returned by the gate", lambda one: ", ".join(_returned(one))),
        *((f"answers: {title_of(name)}", _answers(name)) for name in ANSWER_METRICS),
        *((title, _agreement(name)) for name, title in _AGREEMENT.items()),
        ("teacher's nDCG@10 in training", lambda one: _three(one.number("teacher", "teacher ndcg@10"))),
        ("rationales", lambda one: _whole(_rationales(one))),
        ("minutes of training", lambda one: _one(one.number("training_seconds"), 60)),
    ]
    cells = [[column(one) for _, column in columns] for one in rows]
    kept = [number for number in range(len(columns)) if any(row[number] for row in cells)]
    return [
        "| " + " | ".join(columns[number][0] for number in kept) + " |",
        "| " + " | ".join("---" for _ in kept) + " |",
        *("| " + " | ".join(row[number].replace("|", "\\|") for number in kept) + " |" for row in cells),
    ]


def _by_labels(rows: Sequence[Pooled]) -> bool:
    """Whether all rows are judged by labels, so that it need not be said."""
    return all(record["relevance"] == "labels" for one in rows for record in one.records)


def _agreement(name: str) -> Callable[[Pooled], str]:
    def cell(one: Pooled) -> str:
        found = (one.records[0].get("agreement") or {}).get(name)
        return "" if found is None else "{:+.2f} ({:+.2f} to {:+.2f})".format(*found)

    return cell


def _answers(name: str) -> Callable[[Pooled], str]:
    def cell(one: Pooled) -> str:
        gain = one.gain(name, "answers", "answer_changes")
        told = f"{gain.base:.3f} → {gain.result:.3f}, {shown_gain(gain)}" if gain else ""
        return f"{told}; {gain.questions} questions" if gain and name == "answer_likelihood" else told

    return cell


def _rationales(one: Pooled) -> float | None:
    """How many the row's questions have, whoever wrote them and when."""
    counts = [one.number("rationales", name) for name in ("given", "reused", "written")]
    return None if None in counts else sum(count or 0 for count in counts)


def _cases(one: Pooled) -> list[str]:
    """The first seed's questions, one after the other."""
    cases = one.records[0].get("cases")
    if not cases:
        return []
    lines = [f"### Case by case: {one.row.name}", ""]
    kinds = [kind for kind in MOVED if cases["traits"].get(kind, {}).get("questions")]
    if kinds:
        names = list(cases["traits"][kinds[0]])
        lines += ["| mean over the questions that were | " + " | ".join(kinds) + " |"]
        lines += ["| --- " * (len(kinds) + 1) + "|"]
        for name in names:
            cells = [_trait(cases["traits"][kind].get(name)) for kind in kinds]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        lines.append("")
    for kind in MOVED:
        for case in cases[kind]:
            lines += _case(kind, case)
    return lines


def _case(kind: str, case: Mapping[str, Any]) -> list[str]:
    lines = [f"**{kind}, {case['change']:+.3f}**: {plain(case['question'])}", ""]
    lines.append(f"- answer: {plain('; '.join(case['answers']))}")
    if case["rationale"]:
        lines.append(f"- rationale: {plain(case['rationale'])}")
    for name, passages in case["passages"].items():
        shown = " / ".join(f"{'✓ ' if one['relevant'] else ''}{plain(one['text'])}" for one in passages)
        lines.append(f"- {'before' if name == 'base' else 'after'}: {shown}")
    for name, reply in case["replies"].items():
        if name != "first_stage":
            lines.append(f"- answered {'before' if name == 'base' else 'after'}: {plain(reply) or 'nothing'}")
    return [*lines, ""]


def _machines(rows: Sequence[Pooled]) -> str:
    """The hardware and main versions of the records."""
    found = []
    for one in rows:
        for record in one.records:
            hardware, versions = record["hardware"], record["versions"]
            memory = f", {hardware['memory_gb']} GB" if hardware.get("memory_gb") else ""
            gpu = f", {hardware['gpu']}" if hardware.get("gpu") else ""
            cores = f"{hardware['cores']} core{'' if hardware['cores'] == 1 else 's'}"
            packages = ", ".join(
                f"{name} {versions[name]}" for name in ("radio-dspy", "dspy", "torch") if name in versions
            )
            found.append(f"{cores} of {hardware['machine']}{memory}{gpu}; {packages}")
    return "Run on " + "; and on ".join(dict.fromkeys(found)) + "."


def _span(values: Sequence[float]) -> str:
    return f"{min(values):+.3f} to {max(values):+.3f}"


def _three(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _whole(value: float | None) -> str:
    return "" if not value else f"{value:.0f}"


def _one(value: float | None, divisor: float) -> str:
    return "" if value is None else f"{value / divisor:.1f}"


def _trait(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
