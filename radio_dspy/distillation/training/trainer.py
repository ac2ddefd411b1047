"""transformers' Trainer over preference groups: the engine of all fine-tuning here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import ProgressCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState, PrinterCallback

from radio_dspy.distillation.loss import Loss
from radio_dspy.distillation.preferences.groups import PreferenceGroup
from radio_dspy.distillation.training.batches import DealtGroups, GroupCollator, GroupLoader
from radio_dspy.distillation.training.checkpoints import TrainingCheckpoints, not_resumable
from radio_dspy.distillation.training.collapse import TrainingWatch, spread_of
from radio_dspy.distillation.training.settings import TrainingSettings
from radio_dspy.evaluation.metrics import ranking_metrics
from radio_dspy.models.randomness import RandomState, random_tensors, random_values, set_random_state
from radio_dspy.models.scorer import Scorer

NDCG = "ndcg@10"
_GAIN_STEPS = 1000  # trec_eval's gains are whole numbers


class GroupLoss(torch.nn.Module):
    """A reranker with its loss as one module, which accelerate can wrap.

    Args:
        scorer: The reranker; its module is trained, in float32: half precision would lose most small updates.
        loss: Of the groups of a forward pass.
    """

    accepts_loss_kwargs = False  # read by Trainer

    def __init__(self, scorer: Scorer, loss: Loss) -> None:
        super().__init__()
        self.reranker = scorer.module.float()
        self._parts = (scorer, loss)  # in a tuple: a loss is no part of what is trained

    def forward(
        self, pairs: Sequence[tuple[str, str]], sizes: Sequence[int], scores: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """The mean loss over the groups, and the logits."""
        logits = self._parts[0].logits(pairs)
        return {"loss": self.loss_of(logits, sizes, scores), "logits": logits}

    def loss_of(self, logits: torch.Tensor, sizes: Sequence[int], scores: torch.Tensor) -> torch.Tensor:
        """The loss of any logits."""
        loss = self._parts[1]
        return loss(logits, sizes, scores if loss.needs_scores else None)


class Flow(TrainerCallback):
    """Shows progress, ends after the update in hand when interrupted, and says when to save.

    Args:
        bar: tqdm's.
        checkpoints: None saves nothing.
        watch: Its losses are shown, and what it stops is not saved.
    """

    def __init__(self, bar: Any, checkpoints: TrainingCheckpoints | None, watch: TrainingWatch) -> None:
        self._bar, self._checkpoints, self._watch = bar, checkpoints, watch
        self.saving = False

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Called by Trainer."""
        self._bar.total, self._bar.n = state.max_steps, state.global_step
        self._bar.refresh()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Called by Trainer."""
        self._bar.update()
        self._bar.set_postfix(loss=f"{self._watch.history[-1][0]:.3f}")
        last, kept = state.global_step >= state.max_steps, self._checkpoints
        if kept is None or self._watch.stopped:
            self.saving = False
        else:
            self.saving = self._watch.asked or (not last and kept.due(state.global_step))
        control.should_save = control.should_save or self.saving
        control.should_training_stop = control.should_training_stop or self._watch.asked


class RerankerTrainer(Trainer):
    """Fine-tunes a reranker on preference groups.

    Every group of an update weighs the same. Random numbers are drawn from a state of the training's own, and
    checkpoints are safetensors and JSON.

    Args:
        model: The reranker with its loss.
        groups: What to learn.
        settings: How; ``arguments`` follow from them.
        arguments: Trainer's own.
        own: Where dropout is drawn from.
        watch: Takes in each update.
        flow: Says when to save.
        checkpoints: Where to save; None saves nothing.
        judged: Groups for ``eval_ndcg@10``.
    """

    loss_is_scaled_for_ga = True  # read by Trainer: ``compute_loss`` weighs each forward pass itself

    def __init__(
        self,
        model: GroupLoss,
        groups: Sequence[PreferenceGroup],
        settings: TrainingSettings,
        arguments: TrainingArguments,
        *,
        own: RandomState,
        watch: TrainingWatch,
        flow: Flow,
        checkpoints: TrainingCheckpoints | None = None,
        judged: Sequence[PreferenceGroup] = (),
    ) -> None:
        self._lesson, self._settings, self._own, self._watch, self._flow = model, settings, own, watch, flow
        self._checkpoints, self._groups, self._judged = checkpoints, list(groups), list(judged)
        self._restored: tuple[dict[str, dict[str, torch.Tensor]], dict[str, Any]] | None = None
        super().__init__(
            model=model,
            args=arguments,
            data_collator=GroupCollator(groups[0], settings.in_batch_negatives),
            train_dataset=self._groups,
            eval_dataset=self._judged or None,
            callbacks=[watch, *settings.callbacks, flow],
        )
        watch.reduce = lambda sums: self.accelerator.reduce(sums, "sum")
        for unwanted in (ProgressCallback, PrinterCallback):
            self.remove_callback(unwanted)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The groups, dealt out among the processes."""
        how = self._settings
        count = len(self._groups)
        dealt = DealtGroups(
            count,
            how.per_device_train_batch_size,
            how.accumulation(count),
            how.seed,
            self.args.process_index,
            self.args.world_size,
        )
        groups: Any = self._groups  # a list is a data set that does not say so
        generator = torch.Generator()  # else each epoch would draw from the process's own
        return GroupLoader(groups, batch_sampler=dealt, collate_fn=self.data_collator, generator=generator)

    def training_step(self, *args: Any, **options: Any) -> torch.Tensor:
        """A forward and backward pass."""
        with self._own.drawing():
            return super().training_step(*args, **options)

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> int:
        """The groups of an update, in all processes."""
        count = sum(one["count"] for one in batch_samples)
        if self.args.world_size == 1:
            return count
        return int(self.accelerator.reduce(torch.tensor(count, device=device), "sum").item())

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The loss of a forward pass, as a part of its update's."""
        part = inputs.pop("count") / num_items_in_batch
        outputs = model(**inputs)
        loss = outputs["loss"] * part
        seen = [loss.item(), 0.0, 0.0]
        if self._watch.stops:
            logits, sizes = outputs["logits"].detach(), inputs["sizes"]
            equal = self._lesson.loss_of(torch.zeros_like(logits), sizes, inputs["scores"])
            seen[1:] = [equal.item() * part, spread_of(logits, sizes) * part]
        self._watch.add(*seen)
        loss = loss * self.args.world_size  # gradients are averaged over the processes
        return (loss, outputs) if return_outputs else loss

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """The loss and the nDCG of groups that are not trained on; gains are the teacher's scores, if there are any."""
        groups = self._judged if eval_dataset is None else list(eval_dataset)
        collate, size = GroupCollator(groups[0]), self._settings.per_device_train_batch_size
        total, rankings, gains = 0.0, [], []
        self._lesson.eval()
        for batch in (groups[start : start + size] for start in range(0, len(groups), size)):
            inputs = self._prepare_inputs(collate(batch))
            count = inputs.pop("count")
            with torch.no_grad():
                outputs = self._lesson(**inputs)
            total += outputs["loss"].item() * count
            for group, logits in zip(batch, outputs["logits"].split(inputs["sizes"]), strict=True):
                rankings.append(_ranked(logits.tolist()))
                teacher = enumerate(group.scores or [1.0])
                gains.append({str(row): round(_GAIN_STEPS * max(0.0, score)) for row, score in teacher})
        ndcg = ranking_metrics(rankings, gains, (NDCG,))[NDCG]
        means = {"loss": total / len(groups), NDCG: sum(ndcg) / len(groups)}
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in means.items()}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """Whether to save after an evaluation."""
        return super()._determine_best_metric(metrics, trial) or self._flow.saving

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write what is restored below."""
        if self._checkpoints is None or not self.args.should_save:
            return
        if self.state.best_global_step:
            self.state.best_model_checkpoint = str(self._checkpoints.path(self.state.best_global_step))
        moving: Any = (self.optimizer, self.lr_scheduler)
        optimizer, schedule = (one.state_dict() for one in moving)
        moments = {f"{row}.{name}": one for row, own in optimizer["state"].items() for name, one in own.items()}
        scaler = self.accelerator.scaler
        with self._own.drawing():
            drawn = random_tensors(), random_values()
        callbacks: list[Any] = [*self.callback_handler.callbacks, self.control]
        callbacks = [one for one in callbacks if isinstance(one, ExportableState)]
        state = replace(self.state, stateful_callbacks=callbacks, best_model_checkpoint=None)  # no path in a file
        self._checkpoints.save(
            self.state.global_step,
            {"model": self._tensors(), "optimizer": moments, "random": drawn[0]},
            {
                "history": self._watch.history,
                "param_groups": optimizer["param_groups"],
                "schedule": schedule,
                "scaler": scaler.state_dict() if scaler else {},
                "random": drawn[1],
            },
            asdict(state),
            self.state.best_global_step,
        )

    def _tensors(self) -> dict[str, torch.Tensor]:
        """Trained parameters and all buffers, by name."""
        module = self._lesson.reranker
        trained = {name: one.data for name, one in module.named_parameters() if one.requires_grad}
        return {**trained, **dict(module.named_buffers())}

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Take up the weights."""
        if self._checkpoints is None:
            return
        path = Path(resume_from_checkpoint)
        self._restored = self._checkpoints.load(path)
        saved, own = self._restored[0]["model"], self._tensors()
        if {name: one.shape for name, one in saved.items()} != {name: one.shape for name, one in own.items()}:
            raise not_resumable(path, ValueError("its tensors do not fit the model"))
        with torch.no_grad():
            for name, one in own.items():
                one.copy_(saved[name])
        self._watch.resume(self._restored[1]["history"])

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Take up the optimizer and its schedule."""
        if self._restored is None or self._checkpoints is None:
            return
        tensors, state = self._restored
        moving: Any = (self.optimizer, self.lr_scheduler)
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in tensors["optimizer"].items():
            row, _, moment = name.partition(".")
            moments.setdefault(int(row), {})[moment] = value
        optimizer, schedule = moving
        optimizer.load_state_dict({"state": moments, "param_groups": state["param_groups"]})
        schedule.load_state_dict(state["schedule"])
        best = self._checkpoints.path(self.state.best_global_step or 0)
        self.state.best_model_checkpoint = str(best) if best.is_dir() else None

    def _load_scaler(self, checkpoint: str | None) -> None:
        """Take up the scaler of half precision."""
        if self._restored is not None and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(self._restored[1]["scaler"])

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Take up the random state."""
        if self._restored is not None:
            with self._own.drawing():
                set_random_state(self._restored[0]["random"], self._restored[1]["random"])

    def _load_best_model(self) -> None:
        """Take the weights of the best step."""
        if self._checkpoints is None:
            return
        best = self._checkpoints.load(Path(str(self.state.best_model_checkpoint)))[0]["model"]
        with torch.no_grad():
            for name, one in self._tensors().items():
                one.copy_(best[name])


def _ranked(logits: Sequence[float]) -> list[str]:
    """The rows, best first. Of equal ones the later come first: the positive, the first, gains nothing by that."""
    keys = [one if math.isfinite(one) else -math.inf for one in logits]
    return [str(row) for row in sorted(range(len(keys)), key=lambda row: (-keys[row], -row))]
