"""What all speed benchmarks share: timing side by side, what the machine can do, and one line of their table."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Row:
    """A figure with its target.

    Attributes:
        benchmark: What was measured.
        ours: This library's figure, with its unit.
        peer: What it is held against.
        ratio: The figure that has a target.
        target: Its target.
        bound: Whether the ratio should be ``"at least"`` or ``"at most"`` the target.
        note: Spread, sizes, what the figure rests on.
        share: Of what the machine can do, measured in the same run; empty where that says nothing.
    """

    benchmark: str
    ours: str
    peer: str
    ratio: float
    target: float
    bound: Literal["at least", "at most"]
    note: str = ""
    share: str = ""

    @property
    def verdict(self) -> str:
        """``ok``, or ``missed``."""
        met = self.ratio >= self.target if self.bound == "at least" else self.ratio <= self.target
        return "ok" if met else "missed"


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    lines = ["| benchmark | ours | peer | ratio | target | share of the machine | | note |", "|" + " --- |" * 8]
    lines += [
        f"| {row.benchmark} | {row.ours} | {row.peer} | {row.ratio:.2f} | {row.bound} {row.target:g} | {row.share} "
        f"| {row.verdict} | {row.note} |"
        for row in rows
    ]
    return "\n".join(lines)


def interleaved(work: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each piece of work, one after the other in rounds, so that a slow minute hits all of them.

    Args:
        work: What to time, by name; each runs once before for warmth.
        repeats: Rounds.
    """
    for one in work.values():
        one()
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(repeats):
        for name, one in work.items():
            seconds[name].append(seconds_of(one))
    return seconds


def compared(seconds: dict[str, list[float]], ours: str, peer: str) -> tuple[float, str]:
    """How many times faster ours is: the median over the rounds, and its spread in words."""
    ratios = [slow / fast for slow, fast in zip(seconds[peer], seconds[ours], strict=True)]
    return statistics.median(ratios), f"{min(ratios):.2f} to {max(ratios):.2f} in {len(ratios)} rounds"


def peak_flops() -> float:
    """Floating-point operations a second that this machine reaches in a large matrix product (float32)."""
    import torch

    left, right = torch.randn(1024, 1024), torch.randn(1024, 1024)
    best = min(seconds_of(lambda: left @ right) for _ in range(10))
    return 2 * 1024**3 / best


def peak_bytes() -> float:
    """Bytes a second that this machine reads from memory, more of them than any cache holds."""
    import numpy as np

    numbers = np.ones(1 << 27, dtype=np.float32)  # 512 MiB
    best = min(seconds_of(lambda: numbers.max()) for _ in range(5))
    return numbers.nbytes / best


def seconds_of(work: Callable[[], Any]) -> float:
    """How long a piece of work takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
