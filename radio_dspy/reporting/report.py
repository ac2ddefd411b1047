"""The report of a compile, as values, as JSON and as text."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from radio_dspy.core.html import html_table, paragraph
from radio_dspy.core.redaction import presentable

ROW_TITLES = {"first_stage": "first stage", "base": "base reranker", "aligned": "aligned reranker"}
NO_GATE = "Returned what was trained: there was no gate."
_CUTOFFS = ("min_score (probability)", "passages left", "of the relevant ones", "questions that keep one")
CHOSEN_ON = "The gate chose on these very questions, so a final figure needs others."


@dataclass(frozen=True)
class RerankerReport:
    """The outcome for one reranker.

    Attributes:
        reranker: Where in the program it stands.
        groups: Preference groups trained on.
        training: Updates, first and last loss (None where it was never a number), the ``losses`` in between (means of
            several updates where there are more than 500; of ``runs`` averaged trainings one after the other),
            architecture and base weights, and why it was stopped, if it was.
        left_out: Negatives that the guard left out, by reason.
        gate: The gate's ``Decision`` as JSON types; None without a gate.
        rounds: Of ``RADIO(rounds=)``, what each came to: groups, passages that the LM was asked about for the first
            time, what the gate chose and its mean; the other attributes are those of the round that was taken. Empty
            for a single one.
    """

    reranker: str
    groups: int
    training: dict[str, Any]
    left_out: dict[str, int] = field(default_factory=dict)
    gate: dict[str, Any] | None = None
    rounds: list[dict[str, Any]] = field(default_factory=list)

    @property
    def decision(self) -> str:
        """The gate's decision, in one sentence."""
        return NO_GATE if self.gate is None else str(self.gate["sentence"])


@dataclass(frozen=True)
class Report:
    """The result of ``RADIO.compile`` or ``GroupFinetune.compile``.

    ``reranker``, ``groups``, ``training``, ``left_out`` and ``gate`` are those of the first reranker.

    Attributes:
        metrics: Row (``first_stage``, ``base``, ``aligned``) -> metric -> mean over the held-out questions that can be
            judged. ``aligned`` is what was returned: the base again where the gate chose it. The gate chose on these
            very questions, so a final figure needs others.
        questions: Counts: ``train``, ``used``, ``judged``, and ``skipped`` with a count for each reason; ``recorded``
            says whether the candidates were recorded from the running program; ``in_corpus``, where there are any, how
            many questions stood in the corpus themselves and were left out of their candidates.
        rationales: Counts: see ``RationaleCounts``.
        rerankers: What happened to each, in the program's order; the metrics are those of the first.
        relevance: ``labels`` or ``answers``: what the metrics count as relevant.
        seconds: Wall-clock time by stage.
        spending: LM calls by stage, where there were any: see ``radio_dspy.lm.budget.Spending``.
        run_dir: Where records and checkpoint are.
        calibration: The first reranker's scores as probabilities of relevance, fitted to these questions, and what
            bounds on them leave out: see ``fit_to_rankings``. None where nothing could be judged.
    """

    metrics: dict[str, dict[str, float]]
    questions: dict[str, Any]
    rationales: dict[str, Any]
    rerankers: list[RerankerReport]
    relevance: str
    seconds: dict[str, float]
    spending: dict[str, dict[str, Any]] = field(default_factory=dict)
    run_dir: str = ""
    calibration: dict[str, Any] | None = None

    @property
    def reranker(self) -> str:
        """The first reranker's place in the program."""
        return self.rerankers[0].reranker

    @property
    def groups(self) -> int:
        """Preference groups of the first reranker."""
        return self.rerankers[0].groups

    @property
    def training(self) -> dict[str, Any]:
        """Training of the first reranker."""
        return self.rerankers[0].training

    @property
    def left_out(self) -> dict[str, int]:
        """Negatives left out for the first reranker."""
        return self.rerankers[0].left_out

    @property
    def gate(self) -> dict[str, Any] | None:
        """The gate's decision about the first reranker."""
        return self.rerankers[0].gate

    @property
    def decision(self) -> str:
        """The gate's decision, in one sentence."""
        return self.rerankers[0].decision

    @property
    def chosen_on_these(self) -> bool:
        """Whether the judged questions had a say in what was returned, and so flatter it."""
        return self.gate is not None and self.gate["chosen"] != "base"

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON types, as ``report.json`` has them: the first reranker's at the top, ``others`` below."""
        values = asdict(self)
        first, *others = values.pop("rerankers")
        return {**values, **first, "others": others}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Report:
        """A report from what ``as_dict`` gave.

        Raises:
            KeyError: If a value is missing.
            TypeError: If there is one too many.
        """
        rest = dict(values)
        names = [one.name for one in fields(RerankerReport)]
        first = {"reranker": "self.rerank", **{name: rest.pop(name) for name in names if name in rest}}
        parts = [first, *rest.pop("others", [])]
        return cls(**rest, rerankers=[RerankerReport(**part) for part in parts])

    def _repr_html_(self) -> str:
        names = list(next(iter(self.metrics.values()), {}))
        rows = [
            [ROW_TITLES.get(row, row), *(f"{values[one]:.3f}" for one in names)] for row, values in self.metrics.items()
        ]
        parts = [
            paragraph(self.decision),
            html_table(f"{self.questions['judged']} held-out questions", ["ranking", *names], rows),
        ]
        if self.gate and self.gate["candidates"]:
            head = ["at the gate", self.gate["metric"], "95 % interval", "gain", "95 % interval"]
            parts.append(html_table(f"{self.gate['questions']} questions", head, _gate_rows(self.gate)))
        if self.calibration is not None:
            parts.append(html_table("What min_score leaves to read", list(_CUTOFFS), _cutoff_rows(self.calibration)))
        page = Path(self.run_dir) / "report.html"
        return "".join(parts) + (paragraph(f"More in {page}") if self.run_dir and page.is_file() else "")

    def __str__(self) -> str:
        questions = self.questions
        judged = "labelled passages" if self.relevance == "labels" else "passages that contain an answer"
        gain = self.gain()
        verdict = f"aligned against base: {gain:+.3f} nDCG@10"
        verdict += "" if gain > 0 else f"  ({'a loss' if gain < 0 else 'no gain'}: see docs/troubleshooting.md)"
        if self.relevance == "answers" and not any(any(row.values()) for row in self.metrics.values()):
            verdict = "no candidate contains an answer, so that the table says nothing: label the held-out questions"
        if not questions["judged"]:
            verdict = "nothing could be judged: give questions with labelled passages or with answers"
        lines = [
            metrics_table(self.metrics, f"{questions['judged']} held-out questions, relevant: {judged}").rstrip(),
            f"{verdict}{f'. {CHOSEN_ON}' if self.chosen_on_these else ''}",
            *_gate_lines(self.gate),
            self.decision,
            f"questions: {questions['used']} of {questions['train']} used, skipped: {_counts(questions['skipped'])}",
            *(
                [f"in the corpus themselves: {found} questions, left out of their candidates"]
                if (found := questions.get("in_corpus"))
                else []
            ),
            *_rationale_lines(self.rationales),
            f"training: {self.groups} groups, negatives left out: {_counts(self.left_out)}; "
            f"{self.training['updates']} updates, {_losses(self.training)}, "
            f"{self.training['architecture']} from {self.training['base']}",
            *(
                f"round {one['round']}: {one['groups']} groups, {one['new_passages']} passages newly asked about. "
                f"{one['decision']}"
                for one in self.rerankers[0].rounds
            ),
            *(f"{other.reranker}: {other.groups} groups. {other.decision}" for other in self.rerankers[1:]),
            *_cutoff_lines(self.calibration),
            *(_spending_line(stage, spent) for stage, spent in self.spending.items()),
            "seconds: " + ", ".join(f"{stage} {value:.1f}" for stage, value in self.seconds.items()),
            f"run: {self.run_dir}",
        ]
        return presentable("\n".join(lines))

    def gain(self, metric: str = "ndcg@10") -> float:
        """Aligned minus base."""
        return self.metrics["aligned"].get(metric, 0.0) - self.metrics["base"].get(metric, 0.0)


def _gate_lines(gate: Mapping[str, Any] | None) -> list[str]:
    """The gate's candidates as a table."""
    from rich.table import Table

    if not gate or not gate["candidates"]:
        return []
    table = Table()
    title = f"at the gate ({gate['questions']} questions)"
    for column in (title, gate["metric"], "95 % interval", "gain", "95 % interval"):
        table.add_column(column)
    for row in _gate_rows(gate):
        table.add_row(*row)
    return [render(table).rstrip()]


def _gate_rows(gate: Mapping[str, Any]) -> list[list[str]]:
    rows = []
    for one in gate["candidates"]:
        gain = [f"{one['gain']:+.3f}", f"{one['gain_low']:+.3f} to {one['gain_high']:+.3f}"] if one["share"] else []
        rows.append([one["name"], f"{one['mean']:.3f}", f"{one['low']:.3f} to {one['high']:.3f}", *gain])
    return rows


def _cutoff_rows(calibration: Mapping[str, Any]) -> list[list[str]]:
    return [
        [f"{one['min_score']:g}", f"{one['passages']:.1f}", f"{one['recall']:.0%}", f"{one['questions']:.0%}"]
        for one in calibration["cutoffs"]
    ]


def _cutoff_lines(calibration: Mapping[str, Any] | None) -> list[str]:
    """What ``Rerank(activation="probability", min_score=...)`` would leave to read."""
    from rich.table import Table

    if calibration is None:
        return []
    table = Table()
    for column in _CUTOFFS:
        table.add_column(column)
    for row in _cutoff_rows(calibration):
        table.add_row(*row)
    return [render(table).rstrip()]


def _rationale_lines(rationales: Mapping[str, Any]) -> list[str]:
    if not rationales:  # none were asked for: the groups were given
        return []
    if not any(rationales[name] for name in ("written", "reused", "given", "refused")):
        return ["rationales: none, every question is guided by its answer alone"]
    asked = sum(rationales[name] for name in ("written", "reused", "given"))
    lost = rationales["empty"] + sum(rationales["useless"].values())
    return [
        *(["no rationale can be used: see docs/troubleshooting.md"] if 0 < asked <= lost else []),
        f"rationales: {rationales['written']} written ({rationales['cached']} from the cache, "
        f"{rationales['refused']} refused, {rationales['retried']} asked twice), "
        f"{rationales['reused']} reused, {rationales['given']} given",
        f"guided by the answer alone: {rationales['empty']} without a rationale, "
        f"{sum(rationales['useless'].values())} with a useless one ({_counts(rationales['useless'])})",
    ]


def _spending_line(stage: str, spent: Mapping[str, Any]) -> str:
    cost = "price unknown" if spent["cost"] is None else f"${spent['cost']:.4f}"
    return (
        f"LM calls, {stage}: {spent['calls']} ({spent['failed']} failed), {spent['cached']} cached, "
        f"{spent['prompt_tokens']} + {spent['completion_tokens']} tokens, {cost}"
    )


def _losses(training: Mapping[str, Any]) -> str:
    if not training["updates"]:
        return "nothing was trained"
    names = ("first_loss", "last_loss") if training["updates"] > 1 else ("first_loss",)
    return "loss " + " -> ".join("not a number" if training[one] is None else f"{training[one]:.3f}" for one in names)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in counts.items()) or "none"


def metrics_table(metrics: Mapping[str, Mapping[str, float]], title: str) -> str:
    """A table of rows and metrics as text."""
    from rich.table import Table

    table = Table()
    table.add_column("ranking")
    names: Sequence[str] = list(next(iter(metrics.values()), {}))
    for name in names:
        table.add_column(name, justify="right")
    for row, values in metrics.items():
        table.add_row(ROW_TITLES.get(row, row), *(f"{values[name]:.3f}" for name in names))
    return f"{title}\n{render(table)}"


def render(item: Any) -> str:
    """A rich renderable as plain text."""
    from rich.console import Console

    file = io.StringIO()
    # Without markup: names in brackets are no styles.
    Console(file=file, width=100, color_system=None, legacy_windows=False, markup=False, emoji=False).print(item)
    return presentable(file.getvalue())
