"""All speed benchmarks, one after the other, as one table.

    pip install --no-deps -r benchmarks/requirements.txt
    python benchmarks/run_all.py DATA [--quick] [--only search] [--out rows.json]

DATA is a folder with corpus.jsonl, train.jsonl and rationales_*.jsonl (EntailmentBank in FlashRAG's form). Each
benchmark runs in a process of its own, with nothing of the others in memory; its rows are printed when it is done and
all rows at the end, each `ok` or `missed`. --quick is a smoke test: small sizes and one round, whose figures say
nothing. --out writes the rows as JSON after each benchmark, with what the machine was and how busy. A benchmark that
lacks its peer says so and the others go on; the exit status is 1 if one could not run, not if a target was missed.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from measuring import Row, table

NEEDED = "pip install --no-deps -r benchmarks/requirements.txt"

# Nothing is fetched while something is timed, and forked processes are not warned about.
OFFLINE = {"HF_HUB_OFFLINE": "1", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "TOKENIZERS_PARALLELISM": "false"}


@dataclass(frozen=True)
class Benchmark:
    """A file of this folder with a ``measure``.

    Attributes:
        name: The file.
        quick: Arguments of a smoke test.
        data: Whether it takes the folder.
        whole: Arguments of the real run.
    """

    name: str
    quick: dict[str, Any]
    data: bool = True
    whole: dict[str, Any] = field(default_factory=dict)


BENCHMARKS = [
    Benchmark("training", {"repeats": 1, "size": 2, "updates": 1}),
    Benchmark("preferences", {"repeats": 1, "sample": 3, "questions": 20}),
    Benchmark("reranking", {"repeats": 1, "queries": 2, "passages": (4,), "learn": False}),
    Benchmark("search", {"repeats": 1, "sizes": (25_000,)}),
    Benchmark("rationales", {"repeats": 1, "prompts": 64, "latencies": (0.05,)}),
    Benchmark("overhead", {"repeats": 1, "questions": 2}, data=False),
    Benchmark("serving", {"seconds": 2, "connections": 8}, data=False),
    Benchmark("scaling", {"quick": True, "only": "index building"}, whole={"quick": True}),
]


def run(benchmark: Benchmark, data: Path, quick: bool) -> list[Row]:
    """Measure in this process."""
    arguments = benchmark.quick if quick else benchmark.whole
    given = {"data": data} if benchmark.data else {}
    rows: list[Row] = importlib.import_module(benchmark.name).measure(**given, **arguments)
    return rows


def apart(benchmark: Benchmark, data: Path, quick: bool) -> list[Row]:
    """Measure in a process of its own.

    Raises:
        RuntimeError: If it cannot be run; the message says what to do where that is known.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(run, benchmark, data, quick).result()
        except ImportError as error:
            raise RuntimeError(f"needs {error.name}: {NEEDED}") from error
        except BrokenProcessPool as error:
            raise RuntimeError("its process was killed, as a rule for want of memory") from error
        except (Exception, SystemExit) as error:  # whatever it is, the others go on
            raise RuntimeError(f"{type(error).__name__}: {error}") from error


def machine() -> dict[str, Any]:
    """What the figures rest on."""
    import dspy
    import faiss
    import sentence_transformers
    import torch

    packages = (dspy, faiss, sentence_transformers, torch)
    return {
        "cores": os.cpu_count(),
        "processor": processor(),
        "python": platform.python_version(),
        "packages": {one.__name__: one.__version__ for one in packages},
    }


def processor() -> str:
    """The processor's name, where the system tells it."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def measure_all(benchmarks: Sequence[Benchmark], data: Path, quick: bool) -> Iterator[dict[str, Any]]:
    """Run them, and tell of each when it is done."""
    for benchmark in benchmarks:
        began, busy = time.monotonic(), os.getloadavg()[0]
        try:
            rows, failure = apart(benchmark, data, quick), ""
        except RuntimeError as error:
            rows, failure = [], str(error)
        yield {
            "name": benchmark.name,
            "seconds": round(time.monotonic() - began),
            "processes waiting before": busy,  # the load average: what else ran
            "rows": rows,
            "failure": failure,
        }


def main() -> int:
    """Run what was asked for and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--quick", action="store_true", help="small sizes and one round, as a smoke test")
    parser.add_argument("--only", nargs="+", choices=[one.name for one in BENCHMARKS], help="these alone")
    parser.add_argument("--out", type=Path, help="a JSON file for the rows")
    options = parser.parse_args()
    chosen = [one for one in BENCHMARKS if not options.only or one.name in options.only]
    for name, value in OFFLINE.items():
        os.environ.setdefault(name, value)
    done: list[dict[str, Any]] = []
    for result in measure_all(chosen, options.data.resolve(), options.quick):
        done.append(result)
        print(f"\n{result['name']}, {result['seconds']} s", flush=True)
        print(result["failure"] or table(result["rows"]), flush=True)
        if options.out:
            report = {"quick": options.quick, "machine": machine(), "benchmarks": [as_json(one) for one in done]}
            options.out.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"\nall, {sum(one['seconds'] for one in done)} s")
    print(table([row for one in done for row in one["rows"]]))
    failed = [f"{one['name']}: {one['failure']}" for one in done if one["failure"]]
    print(*failed, sep="\n", file=sys.stderr)
    return int(bool(failed))


def as_json(result: dict[str, Any]) -> dict[str, Any]:
    """A benchmark's result as JSON types."""
    return {**result, "rows": [{**asdict(row), "verdict": row.verdict} for row in result["rows"]]}


if __name__ == "__main__":
    sys.exit(main())
