"""How a reranker is fine-tuned: the paper's values, checked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from radio_dspy.errors import SettingsError

Precision = Literal["auto", "fp32", "bf16", "fp16"]

# The paper's fine-tuning (section 4.1 and the authors' run script).
PAPER_EPOCHS = 2
PAPER_LEARNING_RATE = 6e-5
PAPER_WEIGHT_DECAY = 0.01
PAPER_GROUPS_PER_STEP = 16
PAPER_ACCUMULATION_STEPS = 4
PAPER_MAX_LENGTH = 512
# With few questions the paper's 64 groups an update would leave hardly any updates.
MIN_UPDATES = 20


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """How the reranker is fine-tuned; the defaults are the paper's.

    Attributes:
        epochs: Passes over the groups.
        learning_rate: AdamW's, at the start; it decays linearly to 0, without warm-up.
        weight_decay: AdamW's.
        groups_per_step: Groups in one forward pass.
        accumulation_steps: Forward passes in one update. None takes the paper's 4, or fewer where that would leave less
            than 20 updates in all.
        max_length: Longest input in tokens while training, at most the checkpoint's own; it keeps its own for use.
        temperature: InfoNCE's; 1 is the paper's.
        precision: ``"auto"`` is fp32 on a CPU and bf16 (or fp16) on a GPU.
        seed: Decides the order of the groups and the dropout.
        device: Where to train; None chooses.
    """

    epochs: int = PAPER_EPOCHS
    learning_rate: float = PAPER_LEARNING_RATE
    weight_decay: float = PAPER_WEIGHT_DECAY
    groups_per_step: int = PAPER_GROUPS_PER_STEP
    accumulation_steps: int | None = None
    max_length: int = PAPER_MAX_LENGTH
    temperature: float = 1.0
    precision: Precision = "auto"
    seed: int = 42
    device: str | None = None

    def __post_init__(self) -> None:
        whole = {
            "epochs": self.epochs,
            "groups_per_step": self.groups_per_step,
            "accumulation_steps": 1 if self.accumulation_steps is None else self.accumulation_steps,
            "max_length": self.max_length,
        }
        for name, value in whole.items():
            if not isinstance(value, int) or value < 1:
                raise SettingsError(f"{name} must be a whole number of at least 1, got {value!r}.")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise SettingsError(f"learning_rate must be above 0, got {self.learning_rate!r}.")
        if not self.weight_decay >= 0 or not self.temperature > 0:
            raise SettingsError(
                "weight_decay must be at least 0 and temperature above 0, "
                f"got {self.weight_decay} and {self.temperature}."
            )
        if self.precision not in get_args(Precision):
            raise SettingsError(f"precision must be one of {get_args(Precision)}, got {self.precision!r}.")

    def accumulation(self, groups: int) -> int:
        """Forward passes in one update for this many groups."""
        if self.accumulation_steps is not None:
            return self.accumulation_steps
        passes = self.epochs * math.ceil(groups / self.groups_per_step)
        return max(1, min(PAPER_ACCUMULATION_STEPS, passes // MIN_UPDATES))
