"""What an engine does: the two things that take long, encoding texts and asking LMs, elsewhere than in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import dspy

    from radio_dspy.models.encoder import TextEncoder


class Engine(Protocol):
    """Runs encoders and LM calls on other processes or machines; see ``radio_dspy.RayEngine``."""

    def encoder(self, encoder: TextEncoder) -> TextEncoder:
        """An encoder of the same identity and the same vectors that works elsewhere."""

    def lm(self, lm: dspy.LM) -> dspy.LM:
        """An LM of the same name and settings whose calls are made elsewhere."""
