"""Train a reranker with many processes: each takes its share of every update's groups, and gradients are averaged.

    accelerate launch --multi_gpu --num_processes 8 examples/many_machines/train.py WORK/groups.jsonl WORK/reranker \
        --base BAAI/bge-reranker-base

The updates are those of `train_reranker`: the same groups in the same order, whatever the number of processes, so the
losses agree within rounding. For this dropout is off, or with --dropout drawn anew for each group by a seed of its own
(each group is then a forward pass). In-batch negatives are left out: they would depend on who holds which group.
"""

import argparse
import contextlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs

import radio_dspy as radio
from radio_dspy.core.files import write_json
from radio_dspy.distillation import PreferenceGroup, TrainingSettings
from radio_dspy.distillation.loss import Loss
from radio_dspy.distillation.training.loop import MAX_GRADIENT_NORM, open_optimizer, planned_updates, reading_at_most
from radio_dspy.models.cache import open_scorer
from radio_dspy.models.scorer import Scorer


class GroupLoss(torch.nn.Module):
    """The loss of some groups, as one module: what accelerate wraps and averages the gradients of."""

    def __init__(self, scorer: Scorer, loss: Loss) -> None:
        super().__init__()
        self.module = scorer.module
        self._scorer, self._loss = scorer, loss

    def forward(self, groups: Sequence[PreferenceGroup], seeds: Sequence[int]) -> torch.Tensor:
        """The mean over the groups; with seeds each group is read alone, with dropout of its own."""
        pairs = [[(one.query, text) for text in (one.positive, *one.negatives)] for one in groups]
        if seeds:
            logits = torch.cat([self._seeded(own, seed) for own, seed in zip(pairs, seeds, strict=True)])
        else:
            logits = self._scorer.logits([pair for own in pairs for pair in own])
        scores = logits.new_tensor([score for one in groups for score in one.scores])
        return self._loss(logits, [len(own) for own in pairs], scores if self._loss.needs_scores else None)

    def _seeded(self, pairs: Sequence[tuple[str, str]], seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return self._scorer.logits(pairs)


def shares(rows: list[int], size: int, accelerator: Accelerator) -> list[tuple[list[int], float]]:
    """The forward passes of this process in one update, each with its weight: every group weighs the same."""
    own = rows[accelerator.process_index :: accelerator.num_processes]
    if not own:  # a short last update: gradients are averaged over all processes, so this one takes part with nothing
        return [(rows[:1], 0.0)]
    return [(own[i : i + size], len(own[i : i + size]) / len(rows)) for i in range(0, len(own), size)]


def train(
    groups: list[PreferenceGroup], scorer: Scorer, settings: TrainingSettings, accelerator: Accelerator, dropout: bool
) -> list[float]:
    """Train in place; return the loss of each update."""
    updates = planned_updates(settings, len(groups))
    optimizer, schedule = open_optimizer(scorer.module.float(), settings, len(updates))
    scorer.module.train(dropout)
    # The schedule is not prepared: accelerate's would take a step for each process.
    step, optimizer = accelerator.prepare(GroupLoss(scorer, settings.open_loss()), optimizer)
    losses = []
    for number, passes in enumerate(updates):
        rows = [row for batch in passes for row in batch]
        total = torch.zeros((), device=accelerator.device)
        parts = shares(rows, settings.per_device_train_batch_size, accelerator)
        for part, weight in parts:
            seeds = [settings.seed + number * len(groups) + row for row in part] if dropout else []
            # Gradients are averaged once an update, after its last forward pass.
            with contextlib.nullcontext() if part is parts[-1][0] else accelerator.no_sync(step):
                loss = step([groups[row] for row in part], seeds) * weight
                accelerator.backward(loss * accelerator.num_processes)  # the average divides by it
            total += loss.detach()
        losses.append(accelerator.reduce(total, "sum").item())
        accelerator.clip_grad_norm_(step.parameters(), MAX_GRADIENT_NORM)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    return losses


def main() -> None:
    """Read the groups, train, save in the first process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", type=Path, help="what prefer.py wrote")
    parser.add_argument("output", type=Path, help="the checkpoint folder to write; losses go beside it")
    parser.add_argument("--base", required=True, help="a folder or a hub name")
    parser.add_argument("--architecture", choices=["cross-encoder", "bi-encoder"], default="cross-encoder")
    parser.add_argument("--epochs", type=int, default=TrainingSettings().num_train_epochs)
    parser.add_argument("--learning-rate", type=float, default=TrainingSettings().learning_rate)
    parser.add_argument("--groups-per-step", type=int, default=TrainingSettings().per_device_train_batch_size)
    parser.add_argument("--max-length", type=int, default=TrainingSettings().max_length)
    parser.add_argument("--dropout", action="store_true", help="seeded for each group")
    options = parser.parse_args()
    # Parts of a model that no score needs, such as BERT's pooler, have no gradient to wait for.
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), kwargs_handlers=[unused])
    settings = TrainingSettings(
        num_train_epochs=options.epochs,
        learning_rate=options.learning_rate,
        per_device_train_batch_size=options.groups_per_step,
        max_length=options.max_length,
    )
    rows = map(json.loads, options.groups.read_text(encoding="utf-8").splitlines())
    groups = [
        PreferenceGroup(**{key: tuple(v) if isinstance(v, list) else v for key, v in row.items()}) for row in rows
    ]
    weights = radio.Rerank(options.base, options.architecture).weights
    scorer = open_scorer(weights, str(accelerator.device))
    with reading_at_most(scorer.module, settings.max_length):
        losses = train(groups, scorer, settings, accelerator, options.dropout)
    if accelerator.is_main_process:
        scorer.save(options.output)
        write_json(options.output.with_name(f"{options.output.name}-losses.json"), losses)
        print(f"{len(losses)} updates, loss {losses[0]:.4f} to {losses[-1]:.4f}")
    accelerator.end_training()


if __name__ == "__main__":
    main()
