"""Kill a compile at random moments, resume it each time, and hold the end against a run in one go.

    python benchmarks/kill_and_resume.py [--kills 25] [--questions 160] [--lm local] [--threads 1]

The compile is the demo's. Prints the LM calls of both, and whether `groups.jsonl` is the same byte for byte and the
weights, returned and trained, are the same bit for bit; exits 1 where something differs. Calls may be as many as in one
go, and one more for every slot in flight at each kill. The response cache is off, so a call that is made is a call that
is counted.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import dspy
from dspy.utils.callback import BaseCallback

import radio_dspy as radio
from radio_dspy.cli.demonstration import ENCODER, RATIONALES, TRAINING
from radio_dspy.core.files import sha256_of, write_json
from radio_dspy.lm.opening import open_lm
from radio_dspy.runs.run import Run

READY, CALLS, RESULT = "ready", "calls", "result.json"


class Counter(BaseCallback):
    """Writes a byte for each call that begins: what is in the file outlives the process."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """Called by DSPy."""
        self._file.write(b"x")


def work(options: argparse.Namespace, folder: Path) -> None:
    """One compile in this process."""
    dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=False)
    data = radio.datasets.demo()
    retriever = radio.FaissRetriever.build(data.passages, encoder=options.encoder)
    student = radio.RetrieveRerankAnswer(retriever, radio.Rerank(options.encoder, architecture="bi-encoder"))
    with open_lm(options.lm, seed=42, max_tokens=48) as lm, dspy.context(callbacks=[Counter(folder / CALLS)]):
        optimizer = radio.RADIO(
            rationale_lm=lm,
            run_dir=folder / "run",
            rationales=RATIONALES,
            training=replace(TRAINING, save_steps=2, disable_tqdm=True),
            num_threads=options.threads,
        )
        (folder / READY).touch()
        aligned = optimizer.compile(student, trainset=data.train[: options.questions])
    # The gate may return the base: what was trained has to be the same as well.
    trained = folder / "run" / Run(folder / "run").read_records("training")[-1]["checkpoint"]
    weights = [sha256_of(Path(one) / "model.safetensors") for one in (aligned.rerank.weights.checkpoint, trained)]
    write_json(folder / RESULT, {"weights": weights, "decision": str(optimizer.report.decision)})


def start(options: argparse.Namespace, folder: Path) -> subprocess.Popen[bytes]:
    """A compile in a process of its own; returns when its stages begin."""
    folder.mkdir(exist_ok=True)
    for name in (READY, RESULT):
        (folder / name).unlink(missing_ok=True)
    command = [sys.executable, __file__, "--lm", options.lm, "--encoder", options.encoder, "--work", str(folder)]
    command += ["--questions", str(options.questions), "--threads", str(options.threads)]
    with (folder / "output").open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    while not (folder / READY).exists():
        if process.poll() is not None:
            raise SystemExit(f"the compile failed:\n{(folder / 'output').read_text()[-2000:]}")
        time.sleep(0.02)
    return process


def finish(process: subprocess.Popen[bytes], folder: Path) -> float:
    """Wait for the end; return the seconds since the stages began."""
    if process.wait():
        raise SystemExit(f"the compile failed:\n{(folder / 'output').read_text()[-2000:]}")
    return time.time() - (folder / READY).stat().st_mtime


def outcome(folder: Path) -> dict[str, Any]:
    """What one folder ended in."""
    return {
        "calls": (folder / CALLS).stat().st_size,
        "groups": sha256_of(folder / "run" / "groups.jsonl"),
        **json.loads((folder / RESULT).read_text()),
    }


def main() -> int:
    """Run both and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--questions", type=int, default=160)
    parser.add_argument("--lm", default="local", help="local, none, or any LiteLLM name")
    parser.add_argument("--encoder", default=ENCODER)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options, options.work)
        return 0
    with tempfile.TemporaryDirectory() as place:
        whole, killed = Path(place) / "whole", Path(place) / "killed"
        seconds = finish(start(options, whole), whole)
        expected = outcome(whole)
        # Everything is there already: what is left is what every resumed run repeats.
        repeated = finish(start(options, whole), whole)
        print(f"in one go: {expected['calls']} LM calls, {seconds:.0f} s; again with all records: {repeated:.0f} s")
        if outcome(whole) != expected:
            print("the same compile again: DIFFERENT", outcome(whole), expected)
            return 1
        draw = random.Random(options.seed)
        longest = repeated + 2 * max(0.0, seconds - repeated) / (options.kills + 1)
        kills = 0
        while kills < options.kills:
            process = start(options, killed)
            try:
                process.wait(draw.uniform(0, longest))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills += 1
                left = sorted(path.name for path in (killed / "run").glob("*")) if (killed / "run").is_dir() else []
                print(f"kill {kills}: {', '.join(left)}", flush=True)
        finish(start(options, killed), killed)
        found = outcome(killed)
    most = expected["calls"] + kills * options.threads
    same = {name: found[name] == expected[name] for name in ("groups", "weights", "decision")}
    print(f"{kills} kills: {found['calls']} LM calls; in one go {expected['calls']}, at most {most} may be")
    print(", ".join(f"{name} {'equal' if equal else 'DIFFERENT'}" for name, equal in same.items()))
    return 0 if all(same.values()) and found["calls"] <= most else 1


if __name__ == "__main__":
    sys.exit(main())
