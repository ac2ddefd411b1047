"""What a benchmark hands on: one line of its table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """A figure with its target.

    Attributes:
        benchmark: What was measured.
        ours: This library's figure, with its unit.
        peer: What it is held against.
        ratio: The figure that has a target.
        target: Its target.
        share: How the two compare: ``"at most"`` or ``"at least"``.
        note: Spread, sizes, what the figure rests on.
    """

    benchmark: str
    ours: str
    peer: str
    ratio: float
    target: float
    share: str
    note: str = ""
