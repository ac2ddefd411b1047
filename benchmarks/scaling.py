"""How time and memory grow with the work.

    python benchmarks/scaling.py [--quick] [--only training] [DATA]

Each stage that users wait for is run at 1, 2, 4, 8... times the work along one axis: questions, candidates, passages,
group size, text length. Each point is measured in a process of its own with one thread: CPU time of several runs, and
peak memory above what the inputs take. A line is laid through the logarithms of the larger sizes; its slope is the
exponent, 1 where twice the work takes twice as long. What should be linear may have 1.1 at most. A figure that hardly
grows has the exponent 0.

Vectors of the first stage are drawn by a hash of the text where the library's own part is measured; encoding, training
and reranking run all-MiniLM-L6-v2 with the first of its six layers. The words of all texts are drawn from the corpora
under DATA (every corpus.jsonl there), or from the bundled demo set. Memory is read from /proc: this needs Linux.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from measuring import Row
from scipy import stats
from stages import (
    Load,
    Texts,
    Work,
    building,
    encoding,
    preferring,
    reranking,
    reranking_apart,
    saving,
    searching,
    small_model,
    splitting,
    training,
    words_under,
)

LINEAR = 1.1  # at most, for what should be linear
HARDLY = 1.25  # from the smallest to the largest size: below it nothing grows
ENOUGH = 4  # values from which an interval says something
HARDLY_MIB = 8.0  # as much comes and goes with the allocator

# The modules that the points need; loaded once, in the process from which theirs are forked.
PRELOADED = [
    "radio_dspy.distillation.training.reranker",
    "sentence_transformers",
    "faiss",
    "scipy.stats",
    "measuring",
    "stages",
]


@dataclass(frozen=True)
class Case:
    """A line of the table: one stage along one axis.

    Attributes:
        title: The stage.
        work: What is run.
        axis: The field of ``Load`` that grows.
        least: Its smallest size.
        at_most: The exponent that is allowed.
        should: What the exponent should be, in words.
        base: The rest of the work.
    """

    title: str
    work: Callable[[Texts, Load], Work]
    axis: str
    least: int
    at_most: float = LINEAR
    should: str = "linear"
    base: Load = field(default_factory=Load)

    @property
    def name(self) -> str:
        """Stage and axis."""
        return f"{self.title}, {AXES[self.axis]}"


AXES = {
    "questions": "questions",
    "candidates": "candidates",
    "passages": "passages",
    "group": "group size",
    "words": "text length",
    "updates": "updates",
    "update": "groups an update",
}
_ATTENTION = {"at_most": 2.0, "should": "at most quadratic (attention)"}
_DUPLICATES = {"at_most": 2.0, "should": "quadratic (every pair)"}
_LARGE = Load(passages=64_000, words=8)  # more vectors than any cache holds
_ENCODED = Load(passages=32)
_TRAINED = Load(group=4, words=20, updates=1)
_RERANKED = Load(questions=4, candidates=8)
CASES = [
    Case("index building", building, "passages", 16_000),
    Case("index building", building, "words", 40),
    Case("saving and loading", saving, "passages", 8000),
    Case("search", searching, "questions", 2000),
    Case("search", searching, "candidates", 25, base=_LARGE),
    Case("search", searching, "passages", 32_000, base=_LARGE),
    Case("preferences", preferring, "questions", 200),
    Case("preferences", preferring, "candidates", 40),
    Case("preferences", preferring, "passages", 16_000, base=_LARGE),
    Case("preferences", preferring, "group", 32, base=Load(candidates=512)),
    Case("preferences", preferring, "words", 100),
    Case("encoding", encoding, "passages", 32),
    Case("encoding", encoding, "words", 20, base=_ENCODED, **_ATTENTION),
    Case("training", training, "updates", 1, base=_TRAINED),
    Case("training", training, "update", 2, base=_TRAINED),
    Case("training", training, "group", 4, base=_TRAINED),
    Case("training", training, "words", 20, base=_TRAINED, **_ATTENTION),
    Case("reranking, cross-encoder", reranking, "questions", 4, base=_RERANKED),
    Case("reranking, cross-encoder", reranking, "candidates", 8, base=_RERANKED),
    Case("reranking, cross-encoder", reranking, "words", 20, base=_RERANKED, **_ATTENTION),
    Case("reranking, bi-encoder", reranking_apart, "questions", 4, base=_RERANKED),
    Case("reranking, bi-encoder", reranking_apart, "candidates", 8, base=_RERANKED),
    Case("near-duplicates", splitting, "questions", 1000, **_DUPLICATES),
]


@dataclass(frozen=True)
class Point:
    """What one size took: CPU seconds of each run, and MiB above the inputs at the peak."""

    size: int
    seconds: tuple[float, ...]
    mebibytes: float


def run_point(job: tuple[int, Texts, int, int]) -> Point:
    """Measure one size in this process, which does nothing else."""
    number, texts, size, repeats = job
    case = CASES[number]
    work = case.work(texts, replace(case.base, **{case.axis: size}))
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here on
    before, seconds = _mebibytes("VmRSS"), []
    for _ in range(repeats + 1):
        started = time.process_time()  # others on the machine do not count
        result = work()
        seconds.append(time.process_time() - started)
        del result
    # The first run is left out of the times: it meets every page of memory and every lazy import.
    return Point(size, tuple(seconds[1:]), _mebibytes("VmHWM") - before)


def _mebibytes(name: str) -> float:
    """What the kernel counts for this process: ``VmRSS`` is its memory now, ``VmHWM`` the peak."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))


def exponent(sizes: Sequence[float], values: Sequence[float]) -> tuple[float, float, float]:
    """The slope through the logarithms, with its 95 % interval (least squares)."""
    line = stats.linregress(np.log(sizes), np.log(values))
    half = stats.t.ppf(0.975, len(sizes) - 2) * line.stderr
    return float(line.slope), float(line.slope - half), float(line.slope + half)


def rows_of(case: Case, points: Sequence[Point]) -> Iterator[Row]:
    """Time and memory of a case; the fit leaves the smallest size out."""
    sizes = f"{points[0].size} to {points[-1].size}"
    medians = [float(np.median(one.seconds)) for one in points]
    peaks = [max(one.mebibytes, 0.1) for one in points]
    larger = points[1:]
    each = [(one.size, value) for one in larger for value in one.seconds]
    grows = {
        "time": (medians, f"{medians[0]:.3f} to {medians[-1]:.3f} s", each),
        "memory": (peaks, f"{peaks[0]:.0f} to {peaks[-1]:.0f} MiB", [(one.size, one.mebibytes) for one in larger]),
    }
    for what, (values, ours, fitted) in grows.items():
        spread = max(values) - min(values)
        if max(values) < HARDLY * min(values) or (what == "memory" and spread < HARDLY_MIB):
            yield Row(f"{case.name}: {what}", ours, case.should, 0.0, case.at_most, "at most", f"{sizes}; hardly grows")
            continue
        slope, low, high = exponent([size for size, _ in fitted], [max(value, 0.1e-3) for _, value in fitted])
        few = len(fitted) < ENOUGH
        note = sizes if few else f"{sizes}; 95 % interval {low:.2f} to {high:.2f}"
        yield Row(f"{case.name}: {what}", ours, case.should, slope, case.at_most, "at most", note)


def measure(*, quick: bool = False, data: Path | None = None, only: str = "") -> list[Row]:
    """Measure every case whose name contains ``only``.

    Args:
        quick: Four sizes and three runs each instead of five and five.
        data: Where corpora lie; None takes the demo set's words.
        only: A part of a case's name.
    """
    os.environ["OMP_NUM_THREADS"] = "1"  # for the points' processes: CPU time counts threads that wait for work, too
    sizes, repeats = (4, 3) if quick else (5, 5)
    rows: list[Row] = []
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        texts = Texts(words_under(data), small_model(Path(folder) / "model"))
        # Forked from a process that has loaded the modules and nothing else: a point costs no start, and none sees
        # another's memory.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        with context.Pool(1, maxtasksperchild=1) as pool:
            for number, case in enumerate(CASES):
                if only in case.name:
                    jobs = [(number, texts, case.least << step, repeats) for step in range(sizes)]
                    rows += rows_of(case, pool.map(run_point, jobs, chunksize=1))
                    print(f"{time.monotonic() - began:4.0f} s: {case.name}", file=sys.stderr, flush=True)
    return rows


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    lines = ["| what grows | from, to | should be | exponent | at most | |", "| --- | --- | --- | --- | --- | --- |"]
    lines += [
        f"| {one.benchmark} | {one.ours} | {one.peer} | {one.ratio:.2f} | {one.target:.1f} | "
        f"{'' if one.verdict == 'ok' else '**above**; '}{one.note} |"
        for one in rows
    ]
    return "\n".join(lines)


def main() -> int:
    """Measure, print the table, and fail where something grows faster than it should."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="a folder that holds corpora, at any depth")
    parser.add_argument("--quick", action="store_true", help="smaller sizes and fewer runs")
    parser.add_argument("--only", default="", help="only cases whose name contains this")
    options = parser.parse_args()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # a warning for each forked process otherwise
    rows = measure(quick=options.quick, data=options.data, only=options.only)
    print(table(rows))
    return int(any(one.verdict == "missed" for one in rows))


if __name__ == "__main__":
    sys.exit(main())
