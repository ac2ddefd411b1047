"""The typed result of ``RADIO.diagnose``, and the one sentence that it comes to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from radio_dspy.optimizers.estimate import StageEstimate, _dollars

from radio_dspy.distillation.teacher.rationale_quality import RationaleQuality
from radio_dspy.evaluation.significance import paired_bootstrap

MIN_JUDGED = 10  # below that nothing can be told from noise
LITTLE_HEADROOM = 0.02  # nDCG@10 between the reranker and the best order of the same candidates
FEW_FOUND = 0.3  # of the questions: then the first stage is what is to be mended
AS_GOOD = 0.01  # nDCG@10: a cheaper teacher that is no further behind is taken


@dataclass(frozen=True, slots=True)
class Agreement:
    """How well one ranking of the candidates agrees with what is relevant.

    Attributes:
        name: The signal's, or ``first_stage``, ``base`` (the reranker as it is), ``best`` (the relevant ones first) and
            ``teacher`` (RADIO's own mixture of signals).
        ndcg: Mean nDCG@10.
        gain: Mean difference to the reranker as it is.
        low: Lower end of its 95 % interval (paired bootstrap).
        high: Its upper end.
        calls: LM calls that it takes on all training questions; 0 for a signal that asks none.
        kind: The signal's class; empty for what is none.
    """

    name: str
    ndcg: float
    gain: float
    low: float
    high: float
    calls: int = 0
    kind: str = ""

    @property
    def title(self) -> str:
        """What a reader may call it."""
        return self.kind or _TITLES.get(self.name, self.name)


@dataclass(frozen=True)
class Diagnosis:
    """What can be said before training: is there something to gain, and who could teach it.

    Attributes:
        questions: How many were looked at.
        judged: How many of them can be judged.
        relevance: ``labels`` or ``answers``: what counts as relevant, as in ``Report``.
        candidates: Passages a question.
        found: Part of the judged questions that have a relevant passage among their candidates.
        rows: ``first_stage``, ``base`` and ``best``.
        signals: Each signal of the teacher, the ``teacher`` itself, and free ones to compare with; the best first.
        rationales: What the rationales are worth to the LM; None where none were asked for.
        agreement: Mean agreement of several rationales of a question; None for a single one.
        choices: What teachers would cost on all training questions.
        calls: LM calls that this took; what they brought is kept in ``run_dir`` and used by ``compile``.
        recommendation: What to do, in one sentence.
    """

    questions: int
    judged: int
    relevance: str
    candidates: int
    found: float
    rows: tuple[Agreement, ...]
    signals: tuple[Agreement, ...]
    rationales: RationaleQuality | None
    agreement: float | None
    choices: tuple[StageEstimate, ...]
    calls: int
    recommendation: str = ""

    @property
    def headroom(self) -> float:
        """NDCG@10 between the reranker as it is and the best order of the same candidates."""
        return self.row("best").ndcg - self.row("base").ndcg

    @property
    def worth_training(self) -> bool:
        """Whether the recommendation is to train."""
        return self.recommendation.startswith("Train")

    def row(self, name: str) -> Agreement:
        """One of ``rows`` or ``signals`` by its name."""
        return next(one for one in (*self.rows, *self.signals) if one.name == name)

    def as_dict(self) -> dict[str, Any]:
        """The diagnosis as JSON types."""
        return {**asdict(self), "headroom": self.headroom, "worth_training": self.worth_training}

    def __str__(self) -> str:
        from rich.table import Table

        from radio_dspy.reporting.report import render

        ranked, asked = Table(), Table()
        for column in ("ranking of the candidates", "nDCG@10", "against the reranker", "95 % interval", "LM calls"):
            ranked.add_column(column)
        for one in (*self.rows, *self.signals):
            ranked.add_row(
                one.title,
                f"{one.ndcg:.3f}",
                f"{one.gain:+.3f}",
                f"{one.low:+.3f} to {one.high:+.3f}",
                str(one.calls),
            )
        for column in ("teacher, on all training questions", "LM calls", "tokens sent", "cost"):
            asked.add_column(column)
        for choice in self.choices:
            asked.add_row(choice.note, str(choice.calls), str(choice.prompt_tokens), _dollars(choice.cost))
        relevant = "labelled passages" if self.relevance == "labels" else "passages that contain an answer"
        lines = [
            self.recommendation,
            "",
            f"{self.questions} questions, {self.judged} judged by {relevant}; {self.found:.0%} have one among their "
            f"{self.candidates} candidates. {self.calls} LM calls.",
            render(ranked).rstrip(),
            *([f"rationales: {self.rationales}"] if self.rationales else []),
            *([f"rationales agree on the first passage: {self.agreement:.0%}"] if self.agreement is not None else []),
            *([render(asked).rstrip()] if self.choices else []),
        ]
        return "\n".join(lines)


_TITLES = {
    "first_stage": "first stage",
    "base": "the reranker as it is",
    "best": "best possible order",
    "teacher": "the teacher (all its signals)",
}


def agreement_of(
    name: str, values: Sequence[float], base: Sequence[float], calls: int = 0, kind: str = ""
) -> Agreement:
    """A ranking's row, from its nDCG@10 on every judged question and the reranker's on the same.

    Example:
        >>> row = agreement_of("answer", [1.0, 0.5], [0.5, 0.5])
        >>> row.ndcg, row.gain
        (0.75, 0.25)
    """
    if not values:
        return Agreement(name, 0.0, 0.0, 0.0, 0.0, calls, kind)
    found = paired_bootstrap(base, values)
    return Agreement(name, sum(values) / len(values), found.mean, found.low, found.high, calls, kind)


def recommend(found: Diagnosis) -> str:
    """What to do, in one sentence, by the first of these that holds.

    Too few questions can be judged; the first stage finds too little, or seems to; the reranker leaves nothing to gain;
    no signal ranks better than the reranker does; else: train with the cheapest teacher that is about as good as the
    best.
    """
    base, best = found.row("base"), found.row("best")
    if found.judged < MIN_JUDGED:
        return (
            f"Cannot tell: only {found.judged} of {found.questions} questions can be judged, and {MIN_JUDGED} are "
            "needed; give questions with labelled passages (relevant) or with answers that passages can contain."
        )
    if found.found < FEW_FOUND and found.relevance == "answers":
        return (
            f"Cannot tell: only {found.found:.0%} of the questions have a candidate that contains an answer. Either "
            "the first stage finds too little, or passages put it in other words: label those that help (relevant)."
        )
    if found.found < FEW_FOUND:
        return (
            f"Do not train yet, mend the first stage: only {found.found:.0%} of the questions have a relevant passage "
            f"among their {found.candidates} candidates, and no reranker can bring what is not there."
        )
    if found.headroom < LITTLE_HEADROOM:
        return (
            f"Do not train: the first stage leaves nothing to gain; the reranker has nDCG@10 {base.ndcg:.3f} of "
            f"{best.ndcg:.3f} that its candidates allow."
        )
    able = [one for one in found.signals if one.low > 0]
    if not able:
        first = max(found.signals, key=lambda one: one.ndcg)
        return (
            f"Do not train with these signals: none ranks the passages better than the reranker does already (the best "
            f"is {first.title}, {first.gain:+.3f} nDCG@10, 95 % interval {first.low:+.3f} to {first.high:+.3f}); try "
            "another LM or signal."
        )
    highest = max(one.ndcg for one in able)
    chosen = min((one for one in able if one.ndcg >= highest - AS_GOOD), key=lambda one: (one.calls, -one.ndcg))
    return (
        f"Train with {chosen.title} ({chosen.calls} LM calls): it ranks the candidates at "
        f"nDCG@10 {chosen.ndcg:.3f}, the reranker at {base.ndcg:.3f}, and {best.ndcg:.3f} is possible{_aside(found)}."
    )


def _aside(found: Diagnosis) -> str:
    if found.rationales is not None and not found.rationales.useful:
        return "; this LM's rationales do not help it to the answers, so do not pay for them"
    return ""
