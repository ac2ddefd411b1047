"""Settings of rationales: their source and their weight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from radio_dspy.core.errors import SettingsError
from radio_dspy.core.validation import shown

if TYPE_CHECKING:
    from radio_dspy.distillation.rationales.extractor import RationaleExtractor

PAPER_WEIGHT = 0.5  # section 3.3: w


@dataclass(frozen=True)
class RationaleSettings:
    """How questions get their rationales, and what these weigh; the defaults are the paper's but for ``check``.

    Attributes:
        weight: Weight ``w`` of the rationale (or of the answer, where no LM is asked) against the retrieval score, in
            [0, 1]; None is the paper's 0.5. ``RADIO(signals=)`` has weights of its own.
        given: Precomputed rationales, by question id; the LM is asked only for the others.
        extractor: Asks the LM; None is ``RationaleExtractor()``.
        check: Leave out rationales that are no use as a guide: empty ones, refusals, loops, those that do not name the
            answer or are longer than the encoder reads. False takes all, as the paper does.

    Example:
        >>> RationaleSettings(weight=0.7).check
        True
    """

    weight: float | None = None
    given: Mapping[str, str] = field(default_factory=dict)
    extractor: RationaleExtractor | None = None
    check: bool = True

    def __post_init__(self) -> None:
        if self.weight is not None and not 0 <= self.weight <= 1:
            raise SettingsError(f"The weight of rationales must lie in [0, 1], got {shown(self.weight)}.")
        if not isinstance(self.given, Mapping):
            raise SettingsError(f"rationales go by question id: give a dict, got {type(self.given).__name__}.")

    def open_extractor(self) -> RationaleExtractor:
        """The module that asks the LM."""
        from radio_dspy.distillation.rationales.extractor import RationaleExtractor

        return self.extractor or RationaleExtractor()
