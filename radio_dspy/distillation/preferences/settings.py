"""How preferences are made of the teacher's rankings."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from radio_dspy.core.errors import SettingsError
from radio_dspy.core.renamed import old_names
from radio_dspy.core.validation import is_whole, shown
from radio_dspy.distillation.preferences.guards import NO_GUARD, FalseNegatives
from radio_dspy.distillation.preferences.sampling import DEPTH, Sampling, SamplingFunction, preference_groups

_GUARD = FalseNegatives()
PAPER_CANDIDATES = 50  # section 3.1: candidates a training question


@old_names(hard_negatives="negative_range", guard="false_negatives")
@dataclass(frozen=True)
class PreferenceSettings:
    """How preference groups are made of the teacher's rankings.

    Attributes:
        candidates: Passages retrieved for a training question; the paper's 50.
        sampling: ``"shift"`` (the paper's), ``"shift_all_neg"``, ``"iteration"``, ``"all"``, or an own function; None
            is ``"all"`` for listwise losses and for several positives, else ``"shift"``. See ``preference_groups``.
        depth: How much of the fused list is sampled from; None is all candidates for the listwise loss and the paper's
            20 for the others.
        negative_range: Positions (first, last) of the fused list that negatives come from, counted from 0; None is the
            sampling's own.
        random_negatives: Passages drawn from the whole corpus for each group; the paper has none.
        confident_share: Learn from this part of the questions only: those where the teacher's first passage stands
            highest above its second. The paper takes all; half costs half, for about the same gain (docs/ablation.md).
        min_agreement: Learn from no question whose rationales agree less than this (see
            ``RationaleSimilarity.agreement``); for ``RationaleExtractor(n=)``. 0 takes all.
        null_passage: Let an empty context take part in the groups, ranked by the signals that can say what the LM does
            without any passage (``AnswerGain`` and its kin; one of them is needed). The reranker's score then has a
            zero, and ``Rerank(min_score="null")`` leaves out what it ranks below. The paper has none.
        false_negatives: Which negatives are left out; None leaves out none, as the paper does. A listwise loss follows
            the teacher's scores and knows no negatives: there nothing is left out.

    Example:
        >>> PreferenceSettings(candidates=20, sampling="shift_all_neg").for_loss(contrastive=True).depth
        20
    """

    candidates: int = PAPER_CANDIDATES
    sampling: Sampling | SamplingFunction | None = None
    depth: int | None = None
    negative_range: tuple[int, int] | None = None
    random_negatives: int = 0
    confident_share: float = 1.0
    false_negatives: FalseNegatives | None = _GUARD
    null_passage: bool = False
    min_agreement: float = 0.0

    def __post_init__(self) -> None:
        if not is_whole(self.candidates) or self.candidates < 2:
            raise SettingsError(f"candidates must be at least 2 and whole, got {shown(self.candidates)}.")
        depth = DEPTH if self.depth is None else self.depth
        preference_groups(
            [], self.sampling or "shift", depth, negative_range=self.negative_range
        )  # raises for bad ones
        if self.random_negatives < 0:
            raise SettingsError(f"random_negatives must be at least 0, got {self.random_negatives}.")
        if not 0 <= self.min_agreement <= 1:
            raise SettingsError(f"min_agreement must lie in [0, 1], got {shown(self.min_agreement)}.")
        if not 0 < self.confident_share <= 1:
            raise SettingsError(f"confident_share must lie above 0 and up to 1, got {self.confident_share}.")

    def for_loss(self, contrastive: bool, *, several_positives: bool = False) -> PreferenceSettings:
        """The settings with what a kind of loss decides in place of every None.

        Args:
            contrastive: As a ``Loss`` says of itself.
            several_positives: Whether passages as good as the positive are positives, too, for which no guard needs to
                look.
        """
        guard = self.false_negatives if contrastive else None
        if guard is not None and several_positives:
            guard = replace(guard, absolute_margin=0.0)
        return replace(
            self,
            sampling=self.sampling or ("shift" if contrastive and not several_positives else "all"),
            depth=(DEPTH if contrastive else self.candidates) if self.depth is None else self.depth,
            false_negatives=guard,
        )

    def decisive(self) -> dict[str, Any]:
        """The settings under the names that run folders and saved programs keep them by."""
        judge = None if self.false_negatives is None else self.false_negatives.relabel
        guard = asdict(replace(self.false_negatives or NO_GUARD, relabel=None))
        del guard["relabel"]
        if judge is not None:
            guard["relabel"] = str(judge.model).rpartition("/")[2]  # of a model named by its file, no path
        values = {**vars(self), "hard_negatives": self.negative_range}
        del values["negative_range"], values["false_negatives"]
        for name in ("null_passage", "min_agreement"):  # run folders of earlier releases do not have them
            if not values[name]:
                del values[name]
        margin = guard.pop("absolute_margin")
        return {**values, "guards": {**guard, "margin": margin}}
