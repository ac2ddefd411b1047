"""The gate: a tuned reranker is returned only where it beats the base on held-out questions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from radio_dspy.core.errors import SettingsError
from radio_dspy.distillation.training.averaging import mix_weights
from radio_dspy.evaluation.measures import measure_of, shown_measure
from radio_dspy.evaluation.significance import interval, paired_bootstrap
from radio_dspy.models.weights import RerankerWeights
from radio_dspy.runs.run import Run

_LOST = 0.05  # of recall@50: few questions show no loss beyond the noise, and a guard does not wait for them
NDCG = "ndcg@10"
# A value for every held-out question, the higher the better; or such values by measure, the main one first.
Values = Sequence[float] | Mapping[str, Sequence[float]]
# A judge gives them for rankings by some weights.
Judge = Callable[[RerankerWeights], Values]


@dataclass(frozen=True, slots=True)
class Gate:
    """How the decision between base, trained weights and their mixtures is made.

    Attributes:
        mixtures: Shares of the trained weights in each mixture with the base (Wortsman et al. 2022, WiSE-FT).
        confidence: Part of the bootstrap samples of the questions in which a candidate must beat the base.
        min_questions: With fewer held-out questions nothing can be told from noise, and the base is returned.
        measures: What rankings are judged by: names of ir-measures (``nDCG@10``, ``RR@10``, ``R@5``). Of several one
            has to win, and none may lose: a candidate is refused where the whole 95 % interval of one is below 0.
        tokens: Judge what the LM reads: of each ranking only the first passages that have so many tokens together, so
            that longer passages are no advantage. One is counted for each word, and for four bytes of long ones.
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
    measures: tuple[str, ...] = (NDCG,)
    tokens: int | None = None

    def __post_init__(self) -> None:
        names: Any = self.measures
        if isinstance(names, str) or not names or len({*map(measure_of, names)}) < len(names):
            raise SettingsError(f"measures must be one or several different names in a tuple, got {names!r}.")
        if self.tokens is not None and self.tokens < 1:
            raise SettingsError(f"tokens must be at least 1, or None to judge whole rankings; got {self.tokens}.")
        if any(not 0 < share < 1 for share in self.mixtures):
            raise SettingsError(f"mixtures must lie between 0 and 1, got {self.mixtures}.")
        if not 0.5 <= self.confidence < 1 or self.min_questions < 1 or self.samples < 100:
            raise SettingsError(
                "Need 0.5 <= confidence < 1, min_questions >= 1 and samples >= 100, "
                f"got {self.confidence}, {self.min_questions} and {self.samples}."
            )


def check_judging(gate: Gate | None, metric: Any) -> None:
    """Refuse rules for rankings where a metric of the user's judges the program's predictions.

    Raises:
        SettingsError: If ``measures`` or ``tokens`` are set beside it.
    """
    if gate is not None and metric is not None and (gate.tokens is not None or gate.measures != Gate().measures):
        raise SettingsError("Gate(measures=, tokens=) judge rankings, and metric= the answers: give one of the two.")


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
        others: For each further measure its ``mean``, and the ``gain`` with ``low``, ``high`` and ``beats``.
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
    others: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def gains(self) -> float:
        """The sum of the mean gains."""
        return self.gain + sum(one.get("gain", 0.0) for one in self.others.values())

    def passes(self, confidence: float) -> bool:
        """Whether it beats the base by a measure, and is not refused."""
        found = [(self.gain, self.beats), *((one["gain"], one["beats"]) for one in self.others.values())]
        return not self.refused and any(gain > 0 and beats >= confidence for gain, beats in found)


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
    values: Mapping[float, Values], metric: str, gate: Gate, refused: Mapping[float, str] | None = None
) -> Decision:
    """Choose among the base (share 0), mixtures and the trained weights (share 1).

    The best mean wins among those that beat the base in at least ``confidence`` of the bootstrap samples; of equal
    ones the closest to the base. Without any, the base is returned. By several measures one has to win and none to
    lose.

    Args:
        values: For each share one value a held-out question, or such by measure; share 0 must be there.
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
    base = _by_measure(values[0.0])
    count = _count(values[0.0])
    if not count:
        return Decision("base", "Returned the base: no held-out question could be judged.", metric, 0)
    candidates = [
        _candidate(share, _by_measure(values[share]), base, gate, (refused or {}).get(share, ""))
        for share in sorted(values)
    ]
    others = [one for one in candidates if one.share > 0]
    passing = [one for one in others if one.passes(gate.confidence)]
    if count < gate.min_questions:
        chosen = candidates[0]
        sentence = (
            f"Returned the base: {count} held-out questions are too few to tell a gain from noise "
            f"(at least {gate.min_questions}); give a larger valset, or gate=False."
        )
    elif passing:
        chosen = max(passing, key=lambda one: (one.gains, -one.share))
        sentence = (
            f"Returned the {chosen.name} weights: {metric} {candidates[0].mean:.3f} -> {chosen.mean:.3f} "
            f"({_gain(chosen)}){_others(candidates[0], chosen)} on {count} held-out questions."
        )
    else:
        chosen, best = candidates[0], max(others, key=lambda one: (not one.refused, one.gains))
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
        values: dict[float, Values] = {0.0: judge(base)}
        refused: dict[float, str] = {}
        # Also empty where no question has a passage that must be found.
        recalled = _main(recall(base)) if recall else []
        if _count(values[0.0]):
            for share in (*gate.mixtures, 1.0):
                weights = trained
                if share < 1:
                    folders[share] = stack.enter_context(run.new_checkpoint())
                    mix_weights(base, trained, share, folders[share])
                    weights = trained.with_checkpoint(folders[share])
                values[share] = judge(weights)
                if recall and recalled:
                    found = paired_bootstrap(recalled, _main(recall(weights)), samples=gate.samples, seed=gate.seed)
                    if found.high < 0 or found.mean < -_LOST:
                        refused[share] = f"as a first stage it finds less ({found.mean:+.3f} recall@50)"
        decision = decide(values, metric, gate, refused)
        share = next((one.share for one in decision.candidates if one.name == decision.chosen), 0.0)
        if share == 0:
            return None, decision
        return str(run.keep_checkpoint(folders[share])) if share < 1 else trained.checkpoint, decision


def _by_measure(values: Values) -> Mapping[str, Sequence[float]]:
    return values if isinstance(values, Mapping) else {"": values}


def _main(values: Values) -> Sequence[float]:
    return next(iter(_by_measure(values).values()), [])


def _count(values: Values) -> int:
    return len(_main(values))


def _candidate(
    share: float, values: Mapping[str, Sequence[float]], base: Mapping[str, Sequence[float]], gate: Gate, refused: str
) -> Candidate:
    name = {0.0: "base", 1.0: "trained"}.get(share, f"mixture {share:g}")
    main, *further = values
    mean, low, high = interval(values[main], samples=gate.samples, seed=gate.seed)
    others = {one: {"mean": interval(values[one], samples=gate.samples, seed=gate.seed)[0]} for one in further}
    if share == 0:
        return Candidate(name, share, mean, low, high, others=others)
    found = {one: paired_bootstrap(base[one], values[one], samples=gate.samples, seed=gate.seed) for one in values}
    for one in further:
        gained = found[one]
        others[one] |= {"gain": gained.mean, "low": gained.low, "high": gained.high, "beats": 1 - gained.p}
    lost = next((one for one in found if further and found[one].high < 0), None)
    if lost is not None and not refused:
        refused = f"it loses {shown_measure(lost)} ({found[lost].mean:+.3f})"
    gain = found[main]
    return Candidate(name, share, mean, low, high, gain.mean, gain.low, gain.high, 1 - gain.p, refused, others)


def _others(base: Candidate, chosen: Candidate) -> str:
    return "".join(
        f", {shown_measure(name)} {base.others[name]['mean']:.3f} -> {one['mean']:.3f} ({one['gain']:+.3f})"
        for name, one in chosen.others.items()
    )


def _gain(one: Candidate) -> str:
    return f"{one.gain:+.3f}, 95 % interval {one.gain_low:+.3f} to {one.gain_high:+.3f}"
