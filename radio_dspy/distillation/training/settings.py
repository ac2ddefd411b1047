"""How a reranker is fine-tuned: the paper's values, checked."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from numbers import Real
from typing import Any, Literal, get_args

from radio_dspy.core.errors import SettingsError
from radio_dspy.core.renamed import old_names
from radio_dspy.core.validation import shown
from radio_dspy.distillation.loss import Loss, LossName

Precision = Literal["auto", "fp32", "bf16", "fp16"]
Tower = Literal["both", "query"]
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
_NUMBERS = ("learning_rate", "weight_decay", "temperature", "target_temperature")
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
        learning_rate: AdamW's, at the start; it decays linearly to 0, without warm-up.
        weight_decay: AdamW's.
        per_device_train_batch_size: Groups in one forward pass.
        gradient_accumulation_steps: Forward passes in one update. None takes the paper's 4, or fewer where that would
            leave less than 20 updates in all.
        max_length: Longest input in tokens while training, at most the checkpoint's own; it keeps its own for use.
        loss: ``"infonce"`` (the paper's), ``"listwise"``, ``"margin"``, or a loss of one's own; see ``Loss``.
        temperature: The loss's; 1 is the paper's.
        target_temperature: The listwise loss's, for the teacher's fused scores.
        tower: What a bi-encoder trains: ``"both"`` the shared encoder, ``"query"`` its query side alone, while the
            passages' vectors stay what they are.
        in_batch_negatives: Also take the other groups' positives of a forward pass as negatives.
        lora: Train low-rank adapters (peft) instead of all weights; None trains all.
        precision: ``"auto"`` is fp32 on a CPU and bf16 (or fp16) on a GPU.
        averaged_runs: Train so many times from the base, each in another order and with other dropout, and average the
            weights; 1 is the paper's. Costs as many times as much and evens out what a single seed happens to do.
        seed: Decides the order of the groups and the dropout.
        device: Where to train; None chooses.
        save_steps: Updates between two training checkpoints in the run folder; None saves about every five minutes, so
            that a shorter training saves none.
        disable_tqdm: Show no progress bars.
    """

    num_train_epochs: int = PAPER_EPOCHS
    learning_rate: float = PAPER_LEARNING_RATE
    weight_decay: float = PAPER_WEIGHT_DECAY
    per_device_train_batch_size: int = PAPER_GROUPS_PER_STEP
    gradient_accumulation_steps: int | None = None
    max_length: int = PAPER_MAX_LENGTH
    loss: LossName | Loss = "infonce"
    temperature: float = 1.0
    target_temperature: float = 0.05
    tower: Tower = "both"
    in_batch_negatives: bool = False
    lora: LoraSettings | None = None
    precision: Precision = "auto"
    averaged_runs: int = 1
    seed: int = 42
    device: str | None = None
    save_steps: int | None = None
    disable_tqdm: bool = False

    def __post_init__(self) -> None:
        whole = {
            "num_train_epochs": self.num_train_epochs,
            "per_device_train_batch_size": self.per_device_train_batch_size,
            "gradient_accumulation_steps": 1 if (steps := self.gradient_accumulation_steps) is None else steps,
            "max_length": self.max_length,
            "averaged_runs": self.averaged_runs,
            "save_steps": 1 if self.save_steps is None else self.save_steps,
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
        names = [one.name for one in fields(self) if one.name not in ("device", "save_steps", "disable_tqdm")]
        return {_KEPT_AS.get(name, name): getattr(self, name) for name in names}

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
