"""What an engine does: what takes long, elsewhere than in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import dspy

    from radio_dspy.models.encoder import TextEncoder


class Engine(Protocol):
    """Runs encoders, LM calls and trainings on other processes or machines; see ``radio_dspy.RayEngine``.

    Attributes:
        trainers: How many processes train together; 0 leaves training to ``TrainingSettings``.
    """

    trainers: int

    def encoder(self, encoder: TextEncoder) -> TextEncoder:
        """An encoder of the same identity and the same vectors that works elsewhere."""

    def lm(self, lm: dspy.LM) -> dspy.LM:
        """An LM of the same name and settings whose calls are made elsewhere."""

    def train(self, work: Callable[[Path], object], job: Path) -> None:
        """Do a training's work in each of the ``trainers``; each has a copy of the job's folder.

        What the first one adds to its copy is in the folder afterwards.
        """
