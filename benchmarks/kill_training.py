"""Kill a training at random moments, resume it each time, and hold its weights against those of a training in one go.

    python benchmarks/kill_training.py [--kills 25] [--architecture bi-encoder] [--lora] [--tower query] [--best]

Trains all-MiniLM-L6-v2 on groups of the demo set with dropout, and saves every other update. Prints after which update
each kill came and whether losses and weights are the same to the bit; exits 1 where they are not.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

import radio_dspy as radio
from radio_dspy.core.files import sha256_of, write_json
from radio_dspy.distillation.preferences.groups import PreferenceGroup

KEY = "0" * 16
READY, RESULT, OUTPUT = "ready", "result.json", "out"


def demo_groups(count: int) -> list[PreferenceGroup]:
    """Questions of the demo set with a labelled passage and six others."""
    data, draw = radio.datasets.demo(), random.Random(1)
    texts = {one.id: one.contents for one in data.passages}
    groups = []
    for one in data.train[:count]:
        positive = texts[min(one.relevant)]
        others = draw.sample([text for text in texts.values() if text != positive], 6)
        groups.append(PreferenceGroup(one.question, positive, tuple(others)))
    return groups


def work(options: argparse.Namespace, folder: Path) -> None:
    """One training in this process, from the last checkpoint in the folder."""
    from radio_dspy.distillation.training.checkpoints import TrainingCheckpoints
    from radio_dspy.distillation.training.reranker import train_reranker

    settings = radio.TrainingSettings(
        num_train_epochs=2,
        learning_rate=3e-5,
        max_length=64,
        per_device_train_batch_size=4,
        tower=options.tower,
        lora=radio.LoraSettings(rank=4) if options.lora else None,
        eval_steps=3 if options.best else None,
        load_best_model_at_end=options.best,
        disable_tqdm=True,
    )
    new_head = options.architecture == "cross-encoder"
    weights = radio.Rerank(options.weights, options.architecture, new_head=new_head).weights
    groups = demo_groups(options.groups)
    (folder / READY).touch()
    checkpoints = TrainingCheckpoints(folder, KEY, 2)
    done = train_reranker(weights, groups, folder / OUTPUT, settings, watch=True, checkpoints=checkpoints)
    write_json(folder / RESULT, {"weights": sha256_of(folder / OUTPUT / "model.safetensors"), "losses": done.losses})


def start(options: argparse.Namespace, folder: Path) -> multiprocessing.process.BaseProcess:
    """A training in a process of its own; returns when it begins."""
    (folder / READY).unlink(missing_ok=True)
    process = multiprocessing.get_context("forkserver").Process(target=work, args=(options, folder))
    process.start()
    while not (folder / READY).exists():
        if process.exitcode is not None:
            raise SystemExit("the training failed")
        time.sleep(0.01)
    return process


def main() -> int:
    """Train in one go and with kills, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--groups", type=int, default=48)
    parser.add_argument("--weights", default="all-MiniLM-L6-v2")
    parser.add_argument("--architecture", choices=["bi-encoder", "cross-encoder"], default="bi-encoder")
    parser.add_argument("--tower", choices=["both", "query"], default="both")
    parser.add_argument("--lora", action="store_true")
    parser.add_argument("--best", action="store_true", help="judge every third update and take the best step")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["radio_dspy.distillation.training.reranker"])
    with tempfile.TemporaryDirectory() as place:
        whole, killed = Path(place) / "whole", Path(place) / "killed"
        whole.mkdir()
        killed.mkdir()
        process, begun = start(options, whole), time.monotonic()
        process.join()
        if process.exitcode:
            raise SystemExit("the training failed")
        seconds = time.monotonic() - begun
        expected = json.loads((whole / RESULT).read_text())
        print(f"in one go: {len(expected['losses'])} updates, {seconds:.1f} s")
        draw, kills = random.Random(options.seed), 0
        while kills < options.kills:
            process = start(options, killed)
            process.join(draw.uniform(0, max(1.0, seconds / 4)))
            if process.exitcode is None:
                process.kill()
                process.join()
                kills += 1
                print(f"kill {kills}: {sorted(one.name for one in killed.glob('*training-*'))}", flush=True)
            elif process.exitcode:
                raise SystemExit("the resumed training failed")
            else:  # it came to its end: the next begins anew
                shutil.rmtree(killed)
                killed.mkdir()
        if not (killed / RESULT).exists():
            start(options, killed).join()
        found = json.loads((killed / RESULT).read_text())
    same = {name: found[name] == expected[name] for name in expected}
    print(f"{kills} kills: " + ", ".join(f"{name} {'equal' if one else 'DIFFERENT'}" for name, one in same.items()))
    return 0 if all(same.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
