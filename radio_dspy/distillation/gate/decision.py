"""The gate: a tuned reranker is returned only where it beats the base on held-out questions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from radio_dspy.core.errors import SettingsError
from radio_dspy.distillation.training.averaging import mix_weights
from radio_dspy.evaluation.significance import interval, paired_bootstrap
from radio_dspy.models.weights import RerankerWeights
from radio_dspy.runs.run import Run

_LOST = 0.05  # of recall@50: few questions show no loss beyond the noise, and a guard does not wait for them
# A judge gives every held-out question a value, the higher the better, for rankings by these weights.
Judge = Callable[[RerankerWeights], Sequence[float]]


@dataclass(frozen=True, slots=True)
class Gate:
    """How the decision between base, trained weights and their mixtures is made.

    Attributes:
        mixtures: Shares of the trained weights in each mixture with the base (Wortsman et al. 2022, WiSE-FT).
        confidence: Part of the bootstrap samples of the questions in which a candidate must beat the base.
        min_questions: With fewer held-out questions nothing can be told from noise, and the base is returned.
        retrieval: Also refuse a query encoder that finds less than the base as a first stage: recall@50 lower by more
            than 0.05, or beyond the noise.
        samples: Bootstrap samples.
        seed: Of the bootstrap.
    """

    mixtures: tuple[float, ...] = (0.25, 0.5, 0.75)
    confidence: float = 0.95
    min_questions: int = 10
    retrieval: bool = False
    samples: int = 10_000
    seed: int = 0

    def __post_init__(self) -> None:
        if any(not 0 < share < 1 for share in self.mixtures):
            raise SettingsError(f"mixtures must lie between 0 and 1, got {self.mixtures}.")
        if not 0.5 <= self.confidence < 1 or self.min_questions < 1 or self.samples < 100:
            raise SettingsError(
                "Need 0.5 <= confidence < 1, min_questions >= 1 and samples >= 100, "
                f"got {self.confidence}, {self.min_questions} and {self.samples}."
            )


def as_gate(gate: bool | Gate) -> Gate | None:
    """The gate of an optimizer's ``gate=``: True is a gate with the default rules, False is none."""
    return gate if isinstance(gate, Gate) else Gate() if gate else None


@dataclass(frozen=True, slots=True)
class Candidate:
    """One set of weights at the gate.

    Attributes:
        name: ``base``, ``mixture 0.25``..., ``trained``.
        share: Of the trained weights in it.
        mean: Of the metric over the held-out questions.
        low: Lower end of the mean's 95 % interval.
        high: Its upper end.
        gain: Mean difference to the base.
        gain_low: Lower end of the difference's 95 % interval (paired bootstrap).
        gain_high: Its upper end.
        beats: Part of the bootstrap samples in which it beats the base.
        refused: Why it is out whatever its mean; empty where it is not.
    """

    name: str
    share: float
    mean: float
    low: float
    high: float
    gain: float = 0.0
    gain_low: float = 0.0
    gain_high: float = 0.0
    beats: float = 0.0
    refused: str = ""


@dataclass(frozen=True)
class Decision:
    """The gate's choice, and the reason.

    Attributes:
        chosen: The candidate's name.
        sentence: The decision in one sentence.
        metric: What the candidates were judged by.
        questions: How many held-out questions.
        candidates: All of them, the base first.
    """

    chosen: str
    sentence: str
    metric: str
    questions: int
    candidates: tuple[Candidate, ...] = field(default=())

    def as_dict(self) -> dict[str, Any]:
        """The decision as JSON types."""
        return {**asdict(self), "candidates": [asdict(one) for one in self.candidates]}


def decide(
    values: Mapping[float, Sequence[float]], metric: str, gate: Gate, refused: Mapping[float, str] | None = None
) -> Decision:
    """Choose among the base (share 0), mixtures and the trained weights (share 1).

    The best mean wins among those that beat the base in at least ``confidence`` of the bootstrap samples; of equal
    ones the closest to the base. Without any, the base is returned.

    Args:
        values: For each share one value a held-out question; share 0 must be there.
        metric: Its name, for the sentence.
        gate: The rules.
        refused: Shares that are out, with the reason.

    Example:
        >>> gains = [0.5, 0.5, 0.4, 0.6, 0.3, 0.7, 0.5, 0.2, 0.1, 0.5]
        >>> decide({0.0: gains, 1.0: [one + 0.1 for one in gains]}, "nDCG@10", Gate()).chosen
        'trained'
        >>> decide({0.0: gains, 1.0: gains}, "nDCG@10", Gate()).chosen
        'base'
    """
    base = values[0.0]
    count = len(base)
    if not count:
        return Decision("base", "Returned the base: no held-out question could be judged.", metric, 0)
    candidates = [
        _candidate(share, values[share], base, gate, (refused or {}).get(share, "")) for share in sorted(values)
    ]
    others = [one for one in candidates if one.share > 0]
    passing = [one for one in others if not one.refused and one.gain > 0 and one.beats >= gate.confidence]
    if count < gate.min_questions:
        chosen = candidates[0]
        sentence = (
            f"Returned the base: {count} held-out questions are too few to tell a gain from noise "
            f"(at least {gate.min_questions}); give a larger valset, or gate=False."
        )
    elif passing:
        chosen = max(passing, key=lambda one: (one.mean, -one.share))
        sentence = (
            f"Returned the {chosen.name} weights: {metric} {candidates[0].mean:.3f} -> {chosen.mean:.3f} "
            f"({_gain(chosen)}) on {count} held-out questions."
        )
    else:
        chosen, best = candidates[0], max(others, key=lambda one: (not one.refused, one.mean))
        why = best.refused or f"{_gain(best)} is not above the noise"
        sentence = (
            f"Returned the base: of the candidates {best.name} came closest, and {why}, on {count} held-out questions."
        )
    return Decision(chosen.name, sentence, metric, count, tuple(candidates))


def pass_gate(
    base: RerankerWeights,
    trained: RerankerWeights,
    judge: Judge,
    metric: str,
    gate: Gate,
    run: Run,
    *,
    recall: Judge | None = None,
) -> tuple[str | None, Decision]:
    """Judge base, mixtures and trained weights, and keep the checkpoint of the one that is chosen.

    Args:
        base: The weights that training started from.
        trained: The same with the new checkpoint.
        judge: Values of the held-out questions.
        metric: What the judge measures.
        gate: The rules.
        run: Where a chosen mixture is kept.
        recall: Judges the query encoder as a first stage; candidates that are worse than the base are refused.

    Returns:
        The chosen checkpoint, None for the base; and the decision.
    """
    with ExitStack() as stack:
        folders: dict[float, Path] = {}
        values: dict[float, Sequence[float]] = {0.0: judge(base)}
        refused: dict[float, str] = {}
        recalled = recall(base) if recall else []  # also empty where no question has a passage that must be found
        if values[0.0]:
            for share in (*gate.mixtures, 1.0):
                weights = trained
                if share < 1:
                    folders[share] = stack.enter_context(run.new_checkpoint())
                    mix_weights(base, trained, share, folders[share])
                    weights = trained.with_checkpoint(folders[share])
                values[share] = judge(weights)
                if recall and recalled:
                    found = paired_bootstrap(recalled, recall(weights), samples=gate.samples, seed=gate.seed)
                    if found.high < 0 or found.mean < -_LOST:
                        refused[share] = f"as a first stage it finds less ({found.mean:+.3f} recall@50)"
        decision = decide(values, metric, gate, refused)
        share = next((one.share for one in decision.candidates if one.name == decision.chosen), 0.0)
        if share == 0:
            return None, decision
        return str(run.keep_checkpoint(folders[share])) if share < 1 else trained.checkpoint, decision


def _candidate(share: float, values: Sequence[float], base: Sequence[float], gate: Gate, refused: str) -> Candidate:
    name = {0.0: "base", 1.0: "trained"}.get(share, f"mixture {share:g}")
    mean, low, high = interval(values, samples=gate.samples, seed=gate.seed)
    if share == 0:
        return Candidate(name, share, mean, low, high)
    found = paired_bootstrap(base, values, samples=gate.samples, seed=gate.seed)
    return Candidate(name, share, mean, low, high, found.mean, found.low, found.high, 1 - found.p, refused)


def _gain(one: Candidate) -> str:
    return f"{one.gain:+.3f}, 95 % interval {one.gain_low:+.3f} to {one.gain_high:+.3f}"
