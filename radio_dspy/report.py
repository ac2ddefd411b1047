"""What happened in a compile, as values, as JSON and as text."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

ROW_TITLES = {"first_stage": "first stage", "base": "base reranker", "aligned": "aligned reranker"}


@dataclass(frozen=True)
class Report:
    """The result of ``RADIO.compile``.

    Attributes:
        metrics: Row (``first_stage``, ``base``, ``aligned``) -> metric -> mean over the judged questions.
        questions: Counts: ``train``, ``used``, ``judged``, and ``skipped`` with a count for each reason.
        rationales: Counts: see ``RationaleCounts``.
        groups: Preference groups trained on.
        training: Updates, first and last loss, architecture and base weights.
        relevance: ``labels`` or ``answers``: what the metrics count as relevant.
        seconds: Wall-clock time by stage.
        run_dir: Where records and checkpoint are.
    """

    metrics: dict[str, dict[str, float]]
    questions: dict[str, Any]
    rationales: dict[str, int]
    groups: int
    training: dict[str, Any]
    relevance: str
    seconds: dict[str, float]
    run_dir: str = field(default="")

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON types."""
        return asdict(self)

    def __str__(self) -> str:
        questions, rationales = self.questions, self.rationales
        skipped = ", ".join(f"{count} {reason}" for reason, count in questions["skipped"].items()) or "none"
        judged = "labelled passages" if self.relevance == "labels" else "passages that contain an answer"
        gain = self.gain()
        verdict = f"aligned against base: {gain:+.3f} nDCG@10"
        if not questions["judged"]:
            verdict = "nothing could be judged: give questions with labelled passages or with answers"
        elif gain <= 0:
            verdict += "  (no gain: see docs/troubleshooting.md)"
        lines = [
            metrics_table(self.metrics, f"{questions['judged']} held-out questions, relevant: {judged}").rstrip(),
            verdict,
            f"questions: {questions['used']} of {questions['train']} used, skipped: {skipped}",
            f"rationales: {rationales['written']} written in {rationales['lm_calls']} LM calls "
            f"({rationales['cached']} from the cache, {rationales['refused']} refused, {rationales['prompt_tokens']} + "
            f"{rationales['completion_tokens']} tokens), {rationales['reused']} reused, {rationales['given']} given, "
            f"{rationales['empty']} empty (their question is guided by the answer alone)",
            f"training: {self.groups} groups, {self.training['updates']} updates, "
            f"loss {self.training['first_loss']:.3f} -> {self.training['last_loss']:.3f}, "
            f"{self.training['architecture']} from {self.training['base']}",
            "seconds: " + ", ".join(f"{stage} {value:.1f}" for stage, value in self.seconds.items()),
            f"run: {self.run_dir}",
        ]
        return "\n".join(lines)

    def gain(self, metric: str = "ndcg@10") -> float:
        """Aligned minus base."""
        return self.metrics["aligned"].get(metric, 0.0) - self.metrics["base"].get(metric, 0.0)


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

    console = Console(file=io.StringIO(), width=100, color_system=None, legacy_windows=False)
    console.print(item)
    return console.file.getvalue()  # type: ignore[attr-defined]  # the StringIO above
