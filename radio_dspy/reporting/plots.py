"""Draw the report's curves as SVG."""

from __future__ import annotations

import contextlib
import io
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from radio_dspy.core.errors import MissingExtraError
from radio_dspy.core.html import escaped
from radio_dspy.core.locks import ThreadLock
from radio_dspy.core.redaction import logger_of
from radio_dspy.core.terminal import printable
from radio_dspy.evaluation.measures import shown_measure
from radio_dspy.reporting.summary import Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

logger = logger_of(__name__)

INSTALL = "pip install 'radio-dspy[report]'"
# Colours that nobody uses stand for the page's variables: matplotlib knows no variables.
_VARIABLES = {
    "#000101": "ink",
    "#000102": "muted",
    "#000103": "accent",
    "#000104": "good",
    "#000105": "bad",
    "#000106": "line",
}
_COLOUR = {name: colour for colour, name in _VARIABLES.items()}
_SIZE = (4.6, 3.0)  # inches, wide enough for its text on a phone
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "radio-dspy",
    "text.parse_math": False,
    "font.size": 10.0,
    "axes.axisbelow": True,
    "axes.unicode_minus": False,
    "axes.edgecolor": _COLOUR["muted"],
    "axes.labelcolor": _COLOUR["ink"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": _COLOUR["line"],
    "text.color": _COLOUR["ink"],
    "xtick.color": _COLOUR["ink"],
    "ytick.color": _COLOUR["ink"],
}
# For a drawing in a file of its own: the page's colours, light and dark (templates/report.css).
_STYLE = (
    "<style>svg{--ink:#1d2126;--muted:#5c6570;--line:#d9d6ce;--accent:#1f5fa8;--good:#1c7044;--bad:#b03a2e}"
    "@media (prefers-color-scheme:dark){svg{--ink:#e7e5df;--muted:#a3abb5;--line:#363c44;--accent:#7fb3ee;"
    "--good:#6cc596;--bad:#f0958a}}</style>"
)
_DRAWING = ThreadLock()  # matplotlib's settings belong to the whole process
_LINES = ("-", "--", "-.", ":")


@dataclass(frozen=True)
class Figure:
    """One figure: the drawing, what it says in words, and its numbers.

    Attributes:
        title: Its heading.
        words: What it shows, for who does not see it.
        head: Column heads of its numbers.
        rows: Its numbers.
        svg: The drawing; empty without matplotlib.
    """

    title: str
    words: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    svg: str = ""


def drawable() -> bool:
    """Whether matplotlib is there."""
    return find_spec("matplotlib") is not None


def figures(summary: Summary) -> list[Figure]:
    """All figures of a report, drawn where matplotlib is there."""
    found = [_metrics(summary), _changes(summary)]
    several = len(summary.rerankers) > 1
    for number, part in enumerate(summary.rerankers):
        where = f" of {part['reranker']}" if several else ""
        found += [_losses(part, where, number), _validation(part, where, number)]
    return [one for one in found if one is not None]


def _metrics(summary: Summary) -> Figure | None:
    names = list(next(iter(summary.metrics.values()), {}))
    if not names:
        return None
    rows = [
        (summary.title_of(row), name, _three(values[name]["mean"]), *_ends(values[name]))
        for name in names
        for row, values in summary.metrics.items()
    ]

    def draw(axes: Axes) -> None:
        shown = list(summary.metrics)
        marks = "sodv^<>"
        for place, row in enumerate(shown):
            colour = _COLOUR["accent" if row == summary.after else "ink" if row == summary.before else "muted"]
            values = [summary.metrics[row][name] for name in names]
            heights = [number + (place - (len(shown) - 1) / 2) * 0.7 / len(shown) for number in range(len(names))]
            means = [one["mean"] for one in values]
            below = [one["mean"] - one.get("low", one["mean"]) for one in values]
            above = [one.get("high", one["mean"]) - one["mean"] for one in values]
            axes.errorbar(
                means, heights, xerr=[below, above], fmt=marks[place % len(marks)], color=colour, capsize=3,
                label=drawable_text(summary.title_of(row)),
            )  # fmt: skip
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.grid(axis="x")
        axes.figure.legend(loc="outside upper center", ncols=min(3, len(shown)), frameon=False)

    gain = next(iter(summary.gains.items()), None)
    words = "; ".join(
        f"{row} {name} {mean}" + (f" ({low} to {high})" if low else "") for row, name, mean, low, high in rows
    )
    if gain:
        words += f". Gain in {gain[0]}: {gain[1]['mean']:+.3f} ({gain[1]['low']:+.3f} to {gain[1]['high']:+.3f})"
    head = ("ranking", "metric", "mean", "95 % from", "to")
    return _figure("Before and after", f"Means with 95 % intervals. {words}.", head, rows, draw, "metrics")


def _changes(summary: Summary) -> Figure | None:
    if not summary.histogram:
        return None
    edges, counts = summary.histogram["edges"], summary.histogram["counts"]
    rows = [
        (f"{low:+.2f} to {high:+.2f}", f"{count:.0f}")
        for low, high, count in zip(edges, edges[1:], counts, strict=False)
        if count
    ]

    def draw(axes: Axes) -> None:
        middle = len(counts) // 2
        colours = [_COLOUR["bad" if n < middle else "good" if n > middle else "muted"] for n in range(len(counts))]
        centres = [(low + high) / 2 for low, high in itertools.pairwise(edges)]
        axes.bar(centres, counts, width=(edges[1] - edges[0]) * 0.9, color=colours)
        axes.set_xlim(-1.1, 1.1)
        axes.set_xlabel(f"change in {shown_measure(summary.metric)} (hurt | helped)")
        axes.set_ylabel("questions")
        axes.locator_params(axis="y", integer=True)
        axes.grid(axis="y")

    effects = summary.effects
    words = (
        f"How much {shown_measure(summary.metric)} changed: "
        f"{effects['helped']} questions helped, {effects['hurt']} hurt, "
        f"{effects['unchanged']} unchanged. {'; '.join(f'{span}: {count}' for span, count in rows)}."
    )
    return _figure("Changes, question by question", words, ("change", "questions"), rows, draw, "changes")


def _losses(part: Mapping[str, Any], where: str, number: int) -> Figure | None:
    training = part["training"]
    curves = _curves(training.get("losses") or [], int(training.get("runs", 1)))
    if not any(one is not None for curve in curves for one in curve):
        return None
    every = max(1, int(training["updates"]) // max(1, sum(map(len, curves))))
    positions = [[1 + every * place for place in range(len(curve))] for curve in curves]
    rows = [
        (f"run {run}", str(update), "not a number" if loss is None else _three(loss))
        for run, (places, curve) in enumerate(zip(positions, curves, strict=True), start=1)
        for update, loss in zip(places, curve, strict=True)
    ]

    def draw(axes: Axes) -> None:
        for run, (places, curve) in enumerate(zip(positions, curves, strict=True)):
            values = [float("nan") if loss is None else loss for loss in curve]
            line = _LINES[run % len(_LINES)]
            axes.plot(
                places, values, line, color=_COLOUR["accent"], marker="o" if len(curve) < 30 else "", markersize=3
            )
        axes.set_xlabel("update")
        axes.set_ylabel("training loss")
        axes.grid()

    first, last = (next((one for one in values if one is not None), None) for values in (curves[0], curves[-1][::-1]))
    words = f"Training loss over {training['updates']} updates, from {_three(first)} to {_three(last)}."
    if len(curves) > 1:
        words += f" {len(curves)} trainings, whose weights were averaged."
    if training.get("stopped"):
        words += f" Training was stopped because {training['stopped']}."
    return _figure(f"Training loss{where}", words, ("training", "update", "loss"), rows, draw, f"loss-{number}")


def _validation(part: Mapping[str, Any], where: str, number: int) -> Figure | None:
    gate = part["gate"]
    if not gate or not gate["candidates"]:
        return None
    found = gate["candidates"]
    rows = [(one["name"], *map(_three, (one["mean"], one["low"], one["high"])), _gain(one)) for one in found]

    def draw(axes: Axes) -> None:
        shares = [100 * one["share"] for one in found]
        lows, highs = [one["low"] for one in found], [one["high"] for one in found]
        axes.fill_between(shares, lows, highs, color=_COLOUR["accent"], alpha=0.15, linewidth=0)
        axes.plot(shares, [one["mean"] for one in found], "-o", color=_COLOUR["accent"], markersize=4)
        chosen = next(one for one in found if one["name"] == gate["chosen"])
        axes.plot(100 * chosen["share"], chosen["mean"], "o", color=_COLOUR["good"], markersize=10, fillstyle="none")
        axes.annotate(
            "returned", (100 * chosen["share"], chosen["mean"]), xytext=(0, 10), textcoords="offset points",
            ha="center", color=_COLOUR["good"],
        )  # fmt: skip
        axes.set_xlim(-8, 108)
        axes.set_xlabel("share of the trained weights, % (0 is the base)")
        axes.set_ylabel("held-out mean")
        axes.grid()

    words = (
        f"{gate['metric']} on {gate['questions']} held-out questions, from the base weights to the trained ones: "
        f"{'; '.join(f'{name} {mean} ({low} to {high})' for name, mean, low, high, _ in rows)}. "
        f"Returned: {gate['chosen']}."
    )
    head = ("weights", "mean", "95 % from", "to", "gain over the base")
    return _figure(f"At the gate{where}: {gate['metric']}", words, head, rows, draw, f"gate-{number}")


def _figure(
    title: str, words: str, head: tuple[str, ...], rows: Sequence[tuple[str, ...]], draw: Any, name: str
) -> Figure:
    svg = ""
    if drawable():
        try:
            svg = _drawn(draw, name, title, words)
        except Exception as error:  # the numbers are there as a table: a page without a drawing is better than none
            logger.warning("%s could not be drawn (%s: %s).", title, type(error).__name__, error)
    return Figure(title, words, head, tuple(rows), svg)


def svg_file(draw: Any, name: str, title: str, words: str, size: tuple[float, float] = _SIZE) -> str:
    """A drawing as an SVG file of its own; the same matplotlib gives the same bytes.

    Args:
        draw: Called with matplotlib's axes.
        name: Part of the ids inside.
        title: Its name, for who does not see it.
        words: What it shows, for who does not see it.
        size: Width and height in inches.

    Raises:
        MissingExtraError: Without matplotlib.
    """
    if not drawable():
        raise MissingExtraError(f"Plots need matplotlib: {INSTALL}")
    svg = _drawn(draw, name, title, words, size)
    start = svg.index(">") + 1
    head = svg[:start].replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    return f"{head}{_STYLE}{svg[start:].rstrip()}\n"


def colour(name: str) -> str:
    """The placeholder of a page colour in a drawing: ink, muted, accent, good, bad or line."""
    return _COLOUR[name]


def _drawn(draw: Any, name: str, title: str, words: str, size: tuple[float, float] = _SIZE) -> str:
    with _own_settings():
        from matplotlib.figure import Figure as Canvas

        canvas = Canvas(figsize=size, layout="constrained")
        draw(canvas.subplots())
        file = io.StringIO()
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        canvas.savefig(file, format="svg", transparent=True, metadata=metadata)
    return _inline(file.getvalue(), name, title, words)


@contextlib.contextmanager
def _own_settings() -> Iterator[None]:
    """Our settings and none of the user's for the length of the block."""
    import matplotlib

    with _DRAWING, matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        yield


def _inline(svg: str, name: str, title: str, words: str) -> str:
    """A drawing as an element of the page: a role and a name, ids that no other drawing has, the page's colours."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", body)
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, f"var(--{variable})")
    box = re.search(r'viewBox="([^"]*)"', body)
    start = body.index(">") + 1
    return (
        f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{box[1] if box else ""}" role="img" '
        f'aria-labelledby="{name}-name" aria-describedby="{name}-words">'
        f'<title id="{name}-name">{escaped(title)}</title><desc id="{name}-words">{escaped(words)}</desc>{body[start:]}'
    )


def _curves(losses: Sequence[float | None], runs: int) -> list[Sequence[float | None]]:
    """The losses of each training, which follow one another."""
    size = -(-len(losses) // max(1, runs)) or 1
    return [losses[start : start + size] for start in range(0, len(losses), size)]


def _ends(value: Mapping[str, float]) -> tuple[str, str]:
    return (_three(value["low"]), _three(value["high"])) if "low" in value else ("", "")


def _gain(one: Mapping[str, Any]) -> str:
    return f"{one['gain']:+.3f} ({one['gain_low']:+.3f} to {one['gain_high']:+.3f})" if one["share"] else ""


def _three(value: float | None) -> str:
    return "not a number" if value is None else f"{value:.3f}"


def drawable_text(text: str) -> str:
    """The text with a question mark for each character that matplotlib's own font may lack."""
    return printable(text).encode("ascii", "replace").decode()
