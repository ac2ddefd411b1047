"""Draw docs/drawings/*.svg, in the style of the report's plots.

    python docs/tools/drawings.py

Each has a title and a description inside, for who does not see it; the pages give the same words as the image's text.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from radio_dspy.distillation import fuse, min_max
from radio_dspy.reporting.plots import colour, svg_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.patches import FancyBboxPatch

FOLDER = Path(__file__).resolve().parents[1] / "drawings"
Drawing = tuple[str, str, Callable[["Axes"], None], str, tuple[float, float]]

# A question on its way: what it has become, and an example or what happens there.
WAY = (
    ("Question with its answer", "Why did the dough not rise? The water was too hot.", "ink"),
    ("Candidates", "50 passages that the first stage finds", "ink"),
    ("Rationale", "an LM says why: Yeast dies in hot water.", "accent"),
    ("Teacher", "candidates by closeness to the rationale, and rank", "accent"),
    ("Preference groups", "one passage to prefer, others to rank below it", "accent"),
    ("Trained reranker", "reads the question alone, without the answer", "accent"),
    ("Gate", "does it beat the base on held-out questions?", "good"),
    ("Aligned program", "trained weights, a mixture, or the base again", "ink"),
)
# Five candidates of one question: what each is about, the first stage's score, similarity to the rationale.
CANDIDATES = (
    ("how long dough rises", 0.71, 0.40),
    ("rye dough and wheat dough", 0.69, 0.31),
    ("yeast dies above 60 degrees", 0.55, 0.78),
    ("water temperature for tea", 0.48, 0.52),
    ("why bread goes stale", 0.52, 0.28),
)
# Gains on held-out questions with 95 % intervals: one training that helped, and one that did not.
HELPED = (
    (0.25, 0.012, 0.004, 0.021),
    (0.5, 0.021, 0.008, 0.034),
    (0.75, 0.026, 0.009, 0.042),
    (1.0, 0.019, 0.001, 0.037),
)
IDLE = (
    (0.25, 0.002, -0.004, 0.008),
    (0.5, 0.003, -0.008, 0.014),
    (0.75, -0.002, -0.016, 0.012),
    (1.0, -0.009, -0.027, 0.009),
)


def way(axes: Axes) -> None:
    """Boxes from top to bottom, each what the one above has become."""
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.set_ylim(len(WAY), 0)
    for place, (name, words, kind) in enumerate(WAY):
        box = {"boxstyle": "round,pad=0.02", "facecolor": "none", "edgecolor": colour(kind), "linewidth": 1.4}
        axes.add_patch(_box(0.03, place + 0.1, 0.94, 0.66, box))
        axes.text(0.5, place + 0.30, name, ha="center", va="center", fontweight="bold", color=colour(kind))
        axes.text(0.5, place + 0.58, words, ha="center", va="center", fontsize=8.5)
        if place:
            axes.annotate(
                "", (0.5, place + 0.08), (0.5, place - 0.22), arrowprops={"arrowstyle": "->", "color": colour("muted")}
            )


def _box(left: float, top: float, width: float, height: float, style: dict[str, Any]) -> FancyBboxPatch:
    from matplotlib.patches import FancyBboxPatch

    return FancyBboxPatch((left, top), width, height, **style)


def signals(axes: Axes) -> None:
    """Fused scores as bars of two parts, the teacher's order from top to bottom."""
    retrieval, rationale = ([row[place] for row in CANDIDATES] for place in (1, 2))
    fused = fuse({"retrieval": retrieval, "rationale": rationale}, {"retrieval": 0.5, "rationale": 0.5})
    order = np.argsort(-np.array(fused))
    names = [f"{CANDIDATES[row][0]} (was {row + 1})" for row in order]
    first, second = (0.5 * np.array(min_max(one))[order] for one in (retrieval, rationale))
    axes.barh(range(len(order)), first, color=colour("muted"), label="retrieval score")
    axes.barh(range(len(order)), second, left=first, color=colour("accent"), label="closeness to the rationale")
    axes.set_yticks(range(len(order)), [""] * len(order))
    for place, name in enumerate(names):
        axes.text(0.005, place - 0.5, name, va="center", fontsize=9)
    axes.set_ylim(len(order) - 0.4, -0.8)
    for bar in axes.patches:
        bar.set_height(0.42)
        bar.set_y(bar.get_y() + 0.19)
    axes.set_xlabel("fused score: half of each, brought to [0, 1] for this question")
    axes.figure.legend(loc="outside upper center", ncols=2, frameon=False)


def gate(axes: Axes) -> None:
    """Two trainings at the gate: gains with intervals, and which weights are returned."""
    labels = []
    for start, rows, returned in ((0, HELPED, "mixture 0.75"), (6, IDLE, "base")):
        axes.plot([0, 0], [start - 0.4, start + 4.4], color=colour("ink"), linewidth=1)
        names = ["base", *(f"mixture {share:g}" if share < 1 else "trained" for share, *_ in rows)]
        values = [(0.0, 0.0, 0.0), *(row[1:] for row in rows)]
        for place, (name, (mean, low, high)) in enumerate(zip(names, values, strict=True), start=start):
            kind = "good" if name == returned else "muted"
            axes.errorbar([mean], [place], xerr=[[mean - low], [high - mean]], fmt="o", capsize=3, color=colour(kind))
            if name == returned:
                axes.annotate(
                    "returned", (high, place), (6, 0), textcoords="offset points", va="center", color=colour("good")
                )
            labels.append((place, name))
    axes.set_yticks([place for place, _ in labels], [name for _, name in labels])
    axes.set_ylim(10.7, -1.2)
    axes.text(-0.03, -0.8, "A training that helped", va="center", fontweight="bold")
    axes.text(-0.03, 5.2, "One that cannot be told from nothing", va="center", fontweight="bold")
    axes.set_xlim(-0.032, 0.062)
    axes.set_xlabel("gain in nDCG@10 over the base, 95 % interval")


def drawings() -> list[Drawing]:
    """Name, title, what draws it, its text alternative, width and height in inches."""
    steps = " ".join(f"{number}. {name}: {words.rstrip('.')}." for number, (name, words, _) in enumerate(WAY, start=1))
    turned = (
        "Bars of five candidates by fused score. The passage on yeast, third for the first stage, comes first, being "
        "closest to the rationale; the first stage's favourite, how long dough rises, comes second."
    )
    returned = (
        "Two examples. In the first the mixtures and the trained weights gain on held-out questions, with intervals "
        "above zero, and the best, the mixture of three quarters, is returned. In the second all intervals hold zero, "
        "and the base is returned."
    )
    return [
        ("way", "What a question becomes on its way", way, steps, (4.6, 6.4)),
        ("signals", "Two signals make the teacher's order", signals, turned, (4.6, 3.7)),
        ("gate", "What the gate returns", gate, returned, (4.6, 4.2)),
    ]


def main() -> None:
    """Write every drawing."""
    FOLDER.mkdir(exist_ok=True)
    for name, title, draw, words, size in drawings():
        (FOLDER / f"{name}.svg").write_text(svg_file(draw, name, title, words, size), encoding="utf-8")


if __name__ == "__main__":
    main()
