"""Does a compile's memory grow with the number of questions?

    python benchmarks/memory.py [--passages 100000] [--questions 1000 20000] [--tower query] [--out FOLDER]

Each number of questions is compiled in a process of its own, over the same index of made-up passages. The LM and the
vectors of the first stage are simulated, for they come at once; records, fusing, groups and training are real (the
reranker is all-MiniLM-L6-v2 with the first of its six layers, one epoch, 32 tokens, no gate). Prints peak memory above
what the loaded index and the questions take, and its ratio to the first.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import dspy
from dspy.utils import DummyLM
from stages import Instant, small_model

import radio_dspy as radio

WORDS = 6000  # of which the passages are made
CANDIDATES = 50


def sentence(draw: random.Random, words: int) -> str:
    """Words without a meaning, some of them much more frequent than others."""
    return " ".join(f"w{int(WORDS * draw.random() ** 3)}" for _ in range(words))


def prepare(options: argparse.Namespace) -> None:
    """Write the small encoder, the index and the questions, once."""
    if not (options.out / "encoder").exists():
        small_model(options.out / "encoder")
    draw = random.Random(0)
    if not (options.out / "index").exists():
        passages = [radio.Passage(f"p{i}", sentence(draw, 24), title=f"t{i}") for i in range(options.passages)]
        encoder = Instant(str(options.out / "encoder"), max_length=32)
        radio.FaissRetriever.build(passages, encoder).save(options.out / "index")


def measure(options: argparse.Namespace, questions: int) -> dict[str, float]:
    """Compile in this process."""
    dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=False)
    encoder = Instant(str(options.out / "encoder"), max_length=32)
    index = radio.FaissRetriever.load(options.out / "index", encoder=encoder)
    draw = random.Random(1)
    train = [
        dspy.Example(id=f"q{i}", question=f"{sentence(draw, 10)}?", answers=[sentence(draw, 2)]).with_inputs("question")
        for i in range(questions)
    ]
    held_out = [
        dspy.Example(id=f"h{i}", question=sentence(draw, 10), answers=["x"], relevant=[f"p{i}"]).with_inputs("question")
        for i in range(20)
    ]
    lm = DummyLM({"": {"rationale": sentence(draw, 60)}})
    student = radio.RetrieveRerankAnswer(index, radio.Rerank(encoder, "bi-encoder"), candidates=20)
    index.search([train[0].question], CANDIDATES)  # what the first search loads
    before, started = _resident(), time.perf_counter()
    optimizer = radio.RADIO(
        lm,
        retriever=index,
        preferences=radio.PreferenceSettings(candidates=CANDIDATES, false_negatives=None),
        rationales=radio.RationaleSettings(check=False),
        training=radio.TrainingSettings(tower=options.tower),
        epochs=1,
        max_length=32,
        gate=False,
        run_dir=options.out / f"run-{options.tower}-{questions}",
    )
    optimizer.compile(student, trainset=train, valset=held_out)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"before": before, "peak": peak, "above": peak - before, "seconds": time.perf_counter() - started}


def _resident() -> float:
    """Memory of this process now, in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / (1 << 20)


def main() -> int:
    """Measure each number of questions in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--questions", type=int, nargs="+", default=[1_000, 20_000])
    parser.add_argument("--tower", choices=["query", "both"], default="both")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options, options.measure)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        options.out = (options.out or Path(folder)).resolve()
        options.out.mkdir(parents=True, exist_ok=True)
        prepare(options)
        first = 0.0
        for questions in options.questions:
            command = [sys.executable, __file__, "--out", str(options.out), "--tower", options.tower]
            shown = subprocess.check_output([*command, "--measure", str(questions)], text=True)
            found = json.loads(shown.splitlines()[-1])
            first = first or found["above"]
            print(
                f"{questions} questions: peak {found['peak']:.0f} MiB, {found['above']:.0f} MiB above index and "
                f"questions ({found['above'] / first:.2f} of the first), {found['seconds']:.0f} s",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
