"""Detect a collapsing training early."""

from __future__ import annotations

import math
import statistics
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from radio_dspy.core.errors import RadioError

WINDOW = 8  # updates looked at together: one bad step is noise
MIN_SPREAD = 1e-3  # of a group's logits, as a part of the spread that the base had
LEARNT = 0.98  # a loss below this part of the chance loss shows that something had been learnt
SURE = 5  # standard errors that a loss must lie below that: noise around chance has learnt nothing
WORST = 2.0  # parts of the chance loss: one bad step counts no more than this


class CollapseDetector:
    """Watches the losses and scores of training and says when to stop.

    A run has collapsed when, over the last updates,

    - a loss is not a number;
    - the scores no longer tell the passages of a group apart: their spread fell below a thousandth of the base's;
    - the mean loss is back at or above that of equal scores (``ln(group size)`` for InfoNCE) although it had been
      below it before: what was learnt, or what the base knew, is lost. Both are asked of the mean with its standard
      error, so that neither noise around chance nor slow learning stops a run.

    Example:
        >>> detector = CollapseDetector()
        >>> detector.look(float("nan"), chance=1.9, spread=1.0)
        'the loss became nan at update 1'
    """

    def __init__(self) -> None:
        self._losses: deque[float] = deque(maxlen=WINDOW)
        self._spreads: deque[float] = deque(maxlen=WINDOW)
        self._base_spread: float | None = None
        self._was_below = False
        self._first = math.inf
        self._updates = 0

    def look(self, loss: float, chance: float, spread: float) -> str:
        """Take in one update.

        Args:
            loss: Its mean loss.
            chance: The loss that equal scores would have had.
            spread: The mean standard deviation of the logits within a group.

        Returns:
            Why to stop; empty where all is well.
        """
        self._updates += 1
        if not math.isfinite(loss):
            return f"the loss became {loss} at update {self._updates}"
        if not math.isfinite(spread):
            return f"the spread of the scores became {spread} at update {self._updates}"
        self._losses.append(min(loss / chance, WORST) if chance > 0 else 0.0)
        self._spreads.append(spread)
        if self._base_spread is None:
            self._base_spread, self._first = spread, self._losses[0]
        if len(self._losses) < WINDOW:
            return ""
        mean_loss, mean_spread = sum(self._losses) / WINDOW, sum(self._spreads) / WINDOW
        noise = statistics.pstdev(self._losses)
        error = noise / math.sqrt(WINDOW)
        if mean_spread < MIN_SPREAD * self._base_spread:
            return f"the scores of a group's passages became equal (spread {mean_spread:.1e}) at update {self._updates}"
        known = self._was_below or self._first + SURE * noise < LEARNT  # learnt here, or brought along by the base
        if mean_loss + SURE * error < LEARNT:
            self._was_below = True
        elif known and mean_loss >= 1 and mean_loss - 2 * error >= LEARNT:
            return (
                f"the loss is back at that of equal scores ({mean_loss:.2f} of it over {WINDOW} updates) "
                f"at update {self._updates}"
            )
        return ""


class TrainingWatch(TrainerCallback):
    """Keeps what each update came to, and ends a training that collapses or diverges.

    Args:
        stops: Whether a collapse ends training, with its reason in ``stopped``. Else only a loss that is not a number
            does, as an error, unless there is a best step whose weights can be taken.

    Attributes:
        history: Loss, loss of equal scores and spread of each update so far; the last two are 0 unless it ``stops``.
        stopped: Why training was stopped; empty where it was not.
        interrupted: Set by Ctrl-C, of which every process has to know at the same update.
        asked: Whether any of them was interrupted.
        reduce: Adds up over the processes.
    """

    def __init__(self, stops: bool) -> None:
        self.stops = stops
        self.history: list[tuple[float, float, float]] = []
        self.stopped = ""
        self.interrupted = threading.Event()
        self.asked = False
        self.reduce: Callable[[torch.Tensor], torch.Tensor] | None = None
        self._detector = CollapseDetector()
        self._sums = [0.0, 0.0, 0.0]

    def add(self, loss: float, chance: float, spread: float) -> None:
        """Take in a forward pass, each value as a part of its update's."""
        self._sums = [one + more for one, more in zip(self._sums, (loss, chance, spread), strict=True)]

    def resume(self, history: Sequence[Sequence[float]]) -> None:
        """Go on after these updates."""
        self.history[:] = [(float(loss), float(chance), float(spread)) for loss, chance, spread in history]
        for one in self.history if self.stops else ():
            self._detector.look(*one)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Called by Trainer.

        Raises:
            RadioError: If the loss is not a number and nothing else would stop.
        """
        sums = [*self._sums, float(self.interrupted.is_set())]
        if args.world_size > 1 and self.reduce is not None:
            sums = self.reduce(torch.tensor(sums, device=args.device)).tolist()
        loss, chance, spread, asked = sums
        self.asked = asked > 0
        self.history.append((loss, chance, spread))
        self._sums = [0.0, 0.0, 0.0]
        if self.stops:
            self.stopped = self._detector.look(loss, chance, spread)
        elif not math.isfinite(loss) and state.best_model_checkpoint is not None:
            self.stopped = f"the loss became {loss} at update {len(self.history)}"
        elif not math.isfinite(loss):
            raise RadioError(
                f"The loss became {loss} at update {len(self.history)}: training diverged. Lower learning_rate "
                f"(now {args.learning_rate:g})" + (" or use precision='fp32'." if args.bf16 or args.fp16 else ".")
            )
        control.should_training_stop = control.should_training_stop or bool(self.stopped)


def spread_of(logits: torch.Tensor, sizes: Sequence[int]) -> float:
    """The mean standard deviation of the logits within a group."""
    groups = logits.detach().view(-1).float().split(list(sizes))
    return sum(float(group.std(correction=0)) for group in groups) / len(sizes)
