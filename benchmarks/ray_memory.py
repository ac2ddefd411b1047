"""Does the driver's memory grow with the questions or the passages that go through a cluster?

    python benchmarks/ray_memory.py [--questions 1000 20000] [--passages 100000 1000000]

Each size runs in a process of its own, on a cluster of this machine. The LM answers at once and vectors are made up;
the rest is real: prompts, replies and records, and an index from a folder of JSON Lines files to a folder. Prints the
most anonymous memory of the driver (what no file backs), and for passages also without the index, which is the store.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from ray_engine import rationales, stub_lm

import radio_dspy as radio
from radio_dspy.models.callable_encoder import CallableEncoder

DIMENSION = 32
WORDS = " ".join(f"word{number}" for number in range(60))
FILES = 20


def anonymous() -> float:
    """This process's memory that no file backs, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(one.split()[1]) for one in lines if one.startswith("RssAnon")) / 1024


def most(work: Callable[[], object]) -> float:
    """The most of it while something is done."""
    seen, done = [anonymous()], threading.Event()

    def look() -> None:
        while not done.wait(0.02):
            seen.append(anonymous())

    thread = threading.Thread(target=look)
    thread.start()
    work()
    done.set()
    thread.join()
    return max(seen)


def simulated(texts: list[str]) -> list[list[float]]:
    """Vectors of numbers that follow from a text."""
    return [[1.0 + byte for byte in hashlib.sha256(text.encode()).digest()] for text in texts]


def write_corpus(folder: Path, count: int) -> None:
    """A folder of files with made-up passages of 480 characters."""
    for file in range(FILES):
        with (folder / f"part-{file:03}.jsonl").open("w") as out:
            for number in range(file * count // FILES, (file + 1) * count // FILES):
                out.write(json.dumps({"id": f"p{number}", "contents": f"Title {number}\n{number} {WORDS}"}) + "\n")


def measure(what: str, count: int) -> dict[str, float]:
    """The driver's peak for one size."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as place, radio.RayEngine(cpus_per_encoder=0.3, cpus_per_asker=0.1) as engine:
        if what == "questions":
            with stub_lm(0) as lm:
                remote = engine.lm(lm)
                peak = most(lambda: rationales(remote, count))
            index = 0.0
        else:
            corpus, folder = Path(place) / "corpus", Path(place) / "index"
            corpus.mkdir()
            write_corpus(corpus, count)
            encoder = CallableEncoder(simulated, name="simulated")
            peak = most(lambda: radio.FaissRetriever.build_from(corpus, folder, encoder, engine=engine))
            index = count * DIMENSION * 4 / 2**20
    return {"peak": peak, "index": index, "seconds": time.perf_counter() - began}


def main() -> None:
    """Measure each size in a process of its own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--questions", type=int, nargs="*", default=[1000, 20_000])
    parser.add_argument("--passages", type=int, nargs="*", default=[100_000, 1_000_000])
    parser.add_argument("--one", nargs=2, metavar=("WHAT", "COUNT"), help="Measure this size here.")
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.one[0], int(given.one[1]))))
        return
    for what in ("questions", "passages"):
        for count in getattr(given, what):
            command = [sys.executable, __file__, "--one", what, str(count)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found = json.loads(done.stdout.splitlines()[-1])
            print(
                f"{count:,} {what}: {found['peak']:.0f} MiB, {found['peak'] - found['index']:.0f} without the index "
                f"({found['seconds']:.0f} s)",
                flush=True,
            )


if __name__ == "__main__":
    main()
