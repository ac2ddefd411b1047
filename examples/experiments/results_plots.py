"""The plots of ``docs/results.md``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pooling import Gain, Pooled

from radio_dspy.experiments.settings import Experiment
from radio_dspy.reporting.plots import colour, drawable_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CURVE_POINTS = 3  # rows that differ in a number, from which on a plot over it says something

# Name, title, what draws it, its text alternative, height in inches.
Drawing = tuple[str, str, Callable[["Axes"], None], str, float]


def drawings(experiment: Experiment, rows: Sequence[Pooled]) -> list[Drawing]:
    """The plots that an experiment's rows are enough for: gains by row, and over a number in which the rows differ."""
    judged = [(one, gain) for one in rows if (gain := one.ranking) is not None]
    if not judged:
        return []
    found = [_forest(experiment, judged)]
    by_questions = {one.row.settings.data.train_questions: gain for one, gain in judged}
    if len(by_questions) == len(judged) >= _CURVE_POINTS and None not in by_questions:
        points = sorted((float(count or 0), gain) for count, gain in by_questions.items())
        found.append(_curve(experiment, "questions", "training questions", points, logarithmic=True))
    weights = _sweep(judged)
    if len(weights) >= _CURVE_POINTS:
        found.append(_curve(experiment, "weight", "w, weight of the rationale", weights))
    qualities = [(one.number("teacher", "teacher ndcg@10"), gain) for one, gain in judged]
    known = sorted(((value, gain) for value, gain in qualities if value is not None), key=lambda pair: pair[0])
    same = len({one.number("teacher", "questions") for one, _ in judged}) == 1  # else they are not comparable
    if same and len({value for value, _ in known}) >= _CURVE_POINTS:
        found.append(_curve(experiment, "teacher", "teacher's nDCG@10 in training", known, joined=False))
    return found


def _sweep(judged: Sequence[tuple[Pooled, Gain]]) -> list[tuple[float, Gain]]:
    """The rows whose teacher is the rationale and the retrieval score, by the rationale's weight."""
    found: dict[float, Gain] = {}
    for one, gain in judged:
        signals = one.row.settings.teacher.signals
        total = sum(signals.values())
        if one.row.settings.method == "radio" and set(signals) <= {"rationale", "retrieval"} and total:
            found.setdefault(signals.get("rationale", 0.0) / total, gain)
    return sorted(found.items(), key=lambda pair: pair[0])


def _forest(experiment: Experiment, judged: Sequence[tuple[Pooled, Gain]]) -> Drawing:
    names = [one.row.name for one, _ in judged]
    gains = [gain for _, gain in judged]

    def draw(axes: Axes) -> None:
        axes.axvline(0, color=colour("muted"), linewidth=1)
        for place, gain in enumerate(gains):
            kind = {"better": "good", "worse": "bad"}.get(gain.verdict, "muted")
            axes.errorbar(
                [gain.mean], [place], xerr=[[gain.mean - gain.low], [gain.high - gain.mean]], fmt="o", capsize=3,
                color=colour(kind),
            )  # fmt: skip
        axes.set_yticks(range(len(names)), [drawable_text(name) for name in names])
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlabel(f"gain in {title_of(gains[0].metric)} over the base")
        axes.grid(axis="x")

    words = "Gain by row: " + "; ".join(f"{name}: {shown_gain(gain)}" for name, gain in zip(names, gains, strict=True))
    height = 1.1 + 0.32 * len(names)
    return f"{experiment.name}-gains", f"{experiment.title} Gains with 95 % intervals", draw, words, height


def _curve(
    experiment: Experiment,
    kind: str,
    label: str,
    points: Sequence[tuple[float, Gain]],
    *,
    logarithmic: bool = False,
    joined: bool = True,
) -> Drawing:
    def draw(axes: Axes) -> None:
        places, gains = [place for place, _ in points], [gain for _, gain in points]
        axes.axhline(0, color=colour("muted"), linewidth=1)
        axes.errorbar(
            places, [gain.mean for gain in gains],
            yerr=[[gain.mean - gain.low for gain in gains], [gain.high - gain.mean for gain in gains]],
            fmt="o-" if joined else "o", capsize=3, color=colour("accent"),
        )  # fmt: skip
        if logarithmic:
            axes.set_xscale("log")
            axes.set_xticks(places, [f"{place:g}" for place in places])
            axes.minorticks_off()
        axes.set_xlabel(label)
        axes.set_ylabel(f"gain in {title_of(points[0][1].metric)}")
        axes.grid()

    words = f"Gain by {label}: " + "; ".join(f"{place:.4g}: {shown_gain(gain)}" for place, gain in points)
    return f"{experiment.name}-{kind}", f"{experiment.title} By {label}", draw, words, 3.0


def title_of(metric: str) -> str:
    """A metric's name as people write it."""
    names = {"ndcg@10": "nDCG@10", "mrr": "MRR", "exact_match": "exact match", "token_f1": "token F1"}
    names |= {"sub_exact_match": "answer within the reply", "answer_likelihood": "log-likelihood of the right answer"}
    return names.get(metric, metric)


def shown_gain(gain: Gain) -> str:
    """A gain with its interval."""
    return f"{gain.mean:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})"
