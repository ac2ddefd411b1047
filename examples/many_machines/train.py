"""Train a reranker with many processes: each takes its share of every update's groups, and gradients are averaged.

    accelerate launch --multi_gpu --num_processes 8 examples/many_machines/train.py WORK/groups.jsonl WORK/reranker \
        --base BAAI/bge-reranker-base

The script calls `train_reranker`, as a single process would: under accelerate's launcher it finds its share by itself.
An update has the same groups whatever the number of processes, so losses agree within rounding, but for dropout.
"""

import argparse
import json
from pathlib import Path

import radio_dspy as radio
from radio_dspy.core.files import write_json
from radio_dspy.distillation import PreferenceGroup, TrainingSettings, train_reranker


def main() -> None:
    """Read the groups and train; the first process saves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", type=Path, help="what prefer.py wrote")
    parser.add_argument("output", type=Path, help="the checkpoint folder to write; losses go beside it")
    parser.add_argument("--base", required=True, help="a folder or a hub name")
    parser.add_argument("--architecture", choices=["cross-encoder", "bi-encoder"], default="cross-encoder")
    parser.add_argument("--epochs", type=int, default=TrainingSettings().num_train_epochs)
    parser.add_argument("--learning-rate", type=float, default=TrainingSettings().learning_rate)
    parser.add_argument("--groups-per-step", type=int, default=TrainingSettings().per_device_train_batch_size)
    parser.add_argument("--max-length", type=int, default=TrainingSettings().max_length)
    options = parser.parse_args()
    rows = map(json.loads, options.groups.read_text(encoding="utf-8").splitlines())
    groups = [
        PreferenceGroup(**{key: tuple(v) if isinstance(v, list) else v for key, v in row.items()}) for row in rows
    ]
    settings = TrainingSettings(
        num_train_epochs=options.epochs,
        learning_rate=options.learning_rate,
        per_device_train_batch_size=options.groups_per_step,
        max_length=options.max_length,
    )
    weights = radio.Rerank(options.base, options.architecture).weights
    losses = train_reranker(weights, groups, options.output, settings).losses
    write_json(options.output.with_name(f"{options.output.name}-losses.json"), losses)
    print(f"{len(losses)} updates, loss {losses[0]:.4f} to {losses[-1]:.4f}")


if __name__ == "__main__":
    main()
