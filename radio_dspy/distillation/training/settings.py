"""How a reranker is fine-tuned: the paper's values, checked."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields, replace
from importlib.util import find_spec
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal, get_args

from radio_dspy.core.errors import MissingExtraError, SettingsError
from radio_dspy.core.renamed import old_names
from radio_dspy.core.validation import shown
from radio_dspy.distillation.loss import Loss, LossName

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import TrainerCallback
else:
    LoraConfig = TrainerCallback = object  # for those who read the types of the fields

Precision = Literal["auto", "fp32", "bf16", "fp16"]
Tower = Literal["both", "query"]
LoggerName = Literal["mlflow", "tensorboard", "trackio", "wandb"]
# The paper's fine-tuning (section 4.1 and the authors' run script).
PAPER_EPOCHS = 2
PAPER_LEARNING_RATE = 6e-5
PAPER_WEIGHT_DECAY = 0.01
PAPER_GROUPS_PER_STEP = 16
PAPER_ACCUMULATION_STEPS = 4
PAPER_MAX_LENGTH = 512
# With few questions the paper's 64 groups an update would leave hardly any updates.
MIN_UPDATES = 20
_KEPT_AS = {
    "num_train_epochs": "epochs",
    "per_device_train_batch_size": "groups_per_step",
    "gradient_accumulation_steps": "accumulation_steps",
}
_NUMBERS = ("learning_rate", "weight_decay", "temperature", "target_temperature", "warmup_steps")
# What does not decide the result; and what run folders of earlier releases do not know, which is kept where it is used.
_FREE = ("device", "save_steps", "disable_tqdm", "gradient_checkpointing", "report_to", "save_adapter", "launcher")
_LATER = ("warmup_steps", "eval_steps", "load_best_model_at_end", "callbacks")
MAX_SEED = 2**62  # torch takes 64 bits, and averaged runs count up from it
SEED_STEP = 1000  # between the seeds of averaged runs, so that neighbouring seeds share none


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """Low-rank adapters for large rerankers (Hu et al. 2021), trained by peft and merged into the checkpoint.

    Attributes:
        rank: Of the update matrices.
        alpha: Their scale; the update is multiplied by ``alpha / rank``.
        dropout: In front of the adapters.
        target_modules: Names of the layers to adapt; all linear ones by default.
    """

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.05
    target_modules: str | tuple[str, ...] = "all-linear"

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha < 1 or not 0 <= self.dropout < 1:
            raise SettingsError(
                f"Need rank >= 1, alpha >= 1 and 0 <= dropout < 1, got {self.rank}, {self.alpha} and {self.dropout}."
            )


@old_names(
    epochs="num_train_epochs",
    groups_per_step="per_device_train_batch_size",
    accumulation_steps="gradient_accumulation_steps",
)
@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """How the reranker is fine-tuned; the defaults are the paper's, the names those of ``transformers``.

    Attributes:
        num_train_epochs: Passes over the groups.
        learning_rate: AdamW's, at its highest; it decays linearly to 0.
        weight_decay: AdamW's.
        warmup_steps: Updates in which the learning rate rises to its highest, or below 1 their share of all.
        per_device_train_batch_size: Groups in one forward pass.
        gradient_accumulation_steps: Forward passes in one update. None takes the paper's 4, or fewer where that would
            leave less than 20 updates in all.
        max_length: Longest input in tokens while training, at most the checkpoint's own; it keeps its own for use.
        loss: ``"infonce"`` (the paper's), ``"multi-positive"``, ``"listwise"``, ``"margin"``, one of
            sentence-transformers' (``"lambda"``, ``"ranknet"``, ``"adr-mse"``, ``"margin-mse"``, ``"listnet"``,
            ``"plistmle"``) or such an object, or a loss of one's own; see ``Loss``.
        temperature: The loss's, where it has one; 1 is the paper's.
        target_temperature: The listwise loss's, for the teacher's fused scores.
        tower: What a bi-encoder trains: ``"both"`` the shared encoder, ``"query"`` its query side alone, while the
            passages' vectors stay what they are.
        in_batch_negatives: Also take the other groups' positives of a forward pass as negatives.
        lora: Train low-rank adapters instead of all weights: ``LoraSettings`` or peft's ``LoraConfig``.
        save_adapter: Also keep the adapters here, as peft does; where something is already, in the next free name
            (``here-2``). The trained checkpoint has them merged.
        gradient_checkpointing: Compute activations twice instead of keeping them: less memory, the same weights.
        precision: ``"auto"`` is fp32 on a CPU and bf16 (or fp16) on a GPU.
        averaged_runs: Train so many times from the base, each in another order and with other dropout, and average the
            weights; 1 is the paper's. Costs as many times as much and evens out what a single seed happens to do.
        seed: Decides the order of the groups and the dropout.
        device: Where to train; None chooses.
        save_steps: Updates between two training checkpoints in the run folder; None saves about every five minutes, so
            that a shorter training saves none.
        disable_tqdm: Show no progress bars.
        eval_steps: Judge every so many updates by nDCG@10 on about a fifth of the training questions, which are then
            not trained on; the gate's questions are others. None trains on all.
        load_best_model_at_end: Take the weights that were best in this, not the last ones.
        report_to: Loggers of the loss, the learning rate and nDCG: ``"mlflow"``, ``"tensorboard"``, ``"trackio"`` or
            ``"wandb"``, or several.
        callbacks: ``TrainerCallback`` objects of your own, such as ``transformers.EarlyStoppingCallback``.
        launcher: Train in a process of its own under ``accelerate launch`` with these arguments, for example
            ``("--multi_gpu", "--num_processes", "2")``; empty trains in this process.
    """

    num_train_epochs: int = PAPER_EPOCHS
    learning_rate: float = PAPER_LEARNING_RATE
    weight_decay: float = PAPER_WEIGHT_DECAY
    warmup_steps: float = 0.0
    per_device_train_batch_size: int = PAPER_GROUPS_PER_STEP
    gradient_accumulation_steps: int | None = None
    max_length: int = PAPER_MAX_LENGTH
    loss: LossName | Loss = "infonce"
    temperature: float = 1.0
    target_temperature: float = 0.05
    tower: Tower = "both"
    in_batch_negatives: bool = False
    lora: LoraSettings | LoraConfig | None = None
    save_adapter: str | None = None
    gradient_checkpointing: bool = False
    precision: Precision = "auto"
    averaged_runs: int = 1
    seed: int = 42
    device: str | None = None
    save_steps: int | None = None
    disable_tqdm: bool = False
    eval_steps: int | None = None
    load_best_model_at_end: bool = False
    report_to: LoggerName | tuple[LoggerName, ...] = ()
    callbacks: tuple[TrainerCallback, ...] = ()
    launcher: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        whole = {
            "num_train_epochs": self.num_train_epochs,
            "per_device_train_batch_size": self.per_device_train_batch_size,
            "gradient_accumulation_steps": 1 if (steps := self.gradient_accumulation_steps) is None else steps,
            "max_length": self.max_length,
            "averaged_runs": self.averaged_runs,
            "save_steps": 1 if self.save_steps is None else self.save_steps,
            "eval_steps": 1 if self.eval_steps is None else self.eval_steps,
        }
        for name, value in whole.items():
            if not isinstance(value, int) or value < 1:
                raise SettingsError(f"{name} must be a whole number of at least 1, got {value!r}.")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or not abs(self.seed) < MAX_SEED:
            raise SettingsError(f"seed must be a whole number between -2**62 and 2**62, got {shown(self.seed)}.")
        numbers = {name: getattr(self, name) for name in _NUMBERS}
        if odd := [name for name, value in numbers.items() if isinstance(value, bool) or not isinstance(value, Real)]:
            raise SettingsError(f"{odd[0]} must be a number, got {shown(numbers[odd[0]])}.")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise SettingsError(f"learning_rate must be above 0, got {self.learning_rate!r}.")
        if not 0 <= self.warmup_steps < math.inf:
            raise SettingsError(f"warmup_steps must be at least 0, got {self.warmup_steps!r}.")
        if not self.weight_decay >= 0 or not self.temperature > 0 or not self.target_temperature > 0:
            raise SettingsError(
                "weight_decay must be at least 0 and the temperatures above 0, "
                f"got {self.weight_decay}, {self.temperature} and {self.target_temperature}."
            )
        if self.tower not in get_args(Tower):
            raise SettingsError(f"tower must be one of {get_args(Tower)}, got {self.tower!r}.")
        if self.tower == "query" and self.lora is not None:
            raise SettingsError("tower='query' trains a whole small encoder; it does not go with lora.")
        if not callable(self.loss) and self.loss not in get_args(LossName):
            raise SettingsError(f"loss must be one of {get_args(LossName)} or a loss of your own, got {self.loss!r}.")
        if self.precision not in get_args(Precision):
            raise SettingsError(f"precision must be one of {get_args(Precision)}, got {self.precision!r}.")
        if self.load_best_model_at_end and self.eval_steps is None:
            raise SettingsError("load_best_model_at_end needs eval_steps: how often the weights are judged.")
        if self.save_adapter is not None and self.lora is None:
            raise SettingsError("save_adapter keeps the adapters of lora=, which is not given.")
        self._check_loggers()
        self._check_launcher()

    def _check_loggers(self) -> None:
        names = (self.report_to,) if isinstance(self.report_to, str) else tuple(self.report_to)
        for name in names:
            if name not in get_args(LoggerName):
                raise SettingsError(
                    f"report_to must be of {get_args(LoggerName)}, got {name!r}; give other loggers' callbacks as "
                    "callbacks=."
                )
            if find_spec(name) is None:
                raise MissingExtraError(f"report_to={name!r} needs {name}: pip install {name}")
        object.__setattr__(self, "report_to", names)
        object.__setattr__(self, "callbacks", tuple(self.callbacks))

    def _check_launcher(self) -> None:
        object.__setattr__(self, "launcher", tuple(self.launcher))
        if self.launcher:
            self.check_portable()

    def check_portable(self) -> None:
        """Make sure that other processes can be told these settings.

        Raises:
            SettingsError: If something in them is no JSON.
        """
        own_lora = self.lora is not None and not isinstance(self.lora, LoraSettings)
        if not isinstance(self.loss, str) or self.callbacks or own_lora:
            raise SettingsError(
                "launcher= and an engine's trainers= train in other processes, which get settings as JSON: give loss= "
                "by its name, lora= as LoraSettings and no callbacks=; or call train_reranker in a script that you "
                "start with accelerate."
            )

    def check(self, architecture: str) -> None:
        """Make sure that a reranker of this architecture can be trained so.

        Raises:
            SettingsError: If ``tower="query"`` meets a cross-encoder.
        """
        if self.tower == "query" and architecture == "cross-encoder":
            raise SettingsError(
                "tower='query' needs a bi-encoder: a cross-encoder has no query side of its own. "
                "Give Rerank(..., architecture='bi-encoder') or tower='both'."
            )

    def decisive(self) -> dict[str, Any]:
        """The settings that decide the result, under the names that run folders and saved programs keep them by."""
        named = {one.name: (getattr(self, one.name), one.default) for one in fields(self) if one.name not in _FREE}
        kept = {name: value for name, (value, default) in named.items() if name not in _LATER or value != default}
        if self.callbacks:
            kept["callbacks"] = [type(one).__name__ for one in self.callbacks]
        return {_KEPT_AS.get(name, name): value for name, value in {**kept, "lora": self._adapters()}.items()}

    def _adapters(self) -> dict[str, Any] | None:
        """The adapters' settings in JSON types."""
        if self.lora is None or isinstance(self.lora, LoraSettings):
            return asdict(self.lora) if self.lora else None
        return json.loads(
            json.dumps(self.lora.to_dict(), default=lambda one: sorted(one) if isinstance(one, set) else str(one))
        )

    def each_run(self) -> list[TrainingSettings]:
        """The settings of each of the ``averaged_runs``; the first has this seed."""
        return [
            replace(self, averaged_runs=1, seed=self.seed + SEED_STEP * number) for number in range(self.averaged_runs)
        ]

    def open_loss(self) -> Loss:
        """The loss itself."""
        from radio_dspy.distillation.losses import open_loss

        return open_loss(self.loss, self.temperature, self.target_temperature)

    def accumulation(self, groups: int) -> int:
        """Forward passes in one update for this many groups."""
        if self.gradient_accumulation_steps is not None:
            return self.gradient_accumulation_steps
        passes = self.num_train_epochs * math.ceil(groups / self.per_device_train_batch_size)
        return max(1, min(PAPER_ACCUMULATION_STEPS, passes // MIN_UPDATES))
