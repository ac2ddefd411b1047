"""Scores as probabilities that a passage is relevant, and what a bound on them leaves out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from radio_dspy.core.errors import DataError
from radio_dspy.core.rankings import Ranking

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

ENOUGH = 1000  # judged passages for isotonic regression; a curve with two parameters needs fewer (scikit-learn's guide)
BOUNDS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
_SMALLEST = 1e-6


@dataclass(frozen=True)
class Calibration:
    """A rising curve from scores to probabilities of relevance.

    Attributes:
        kind: ``"platt"``: a logistic curve through two points; ``"isotonic"``: straight lines between points.
        scores: Of the points, rising.
        probabilities: Of the points, in [0, 1].

    Example:
        >>> curve = Calibration.fit([2.0, 1.0, -1.0, 0.5, -2.0, -3.0], [True, True, False, False, False, False])
        >>> [round(one, 2) for one in curve([-3.0, 0.0, 3.0])]
        [0.02, 0.32, 0.9]
    """

    kind: Literal["platt", "isotonic"]
    scores: tuple[float, ...]
    probabilities: tuple[float, ...]

    @classmethod
    def fit(
        cls, scores: Sequence[float], relevant: Sequence[bool], kind: Literal["platt", "isotonic"] | None = None
    ) -> Calibration:
        """Fit a curve by scikit-learn.

        Args:
            scores: Of passages.
            relevant: Whether each is.
            kind: None takes isotonic regression for 1,000 passages or more, else Platt's logistic curve.

        Raises:
            DataError: If all passages are relevant, or none is.
        """
        import numpy as np
        from sklearn.isotonic import IsotonicRegression
        from sklearn.linear_model import LogisticRegression

        values, labels = np.asarray(scores, dtype=float), np.asarray(relevant, dtype=bool)
        if labels.all() or not labels.any():
            raise DataError("A calibration needs passages that are relevant and passages that are not.")
        if (kind or ("isotonic" if len(values) >= ENOUGH else "platt")) == "isotonic":
            found = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(values, labels)
            points = found.X_thresholds_, found.y_thresholds_
            return cls("isotonic", *(tuple(map(float, one)) for one in points))
        model = LogisticRegression().fit(values[:, None], labels)
        slope = max(float(model.coef_[0, 0]), _SMALLEST)  # a score that misleads says nothing
        middle, spread = float(values.mean()), max(float(values.std()), _SMALLEST)
        ends = np.array([middle - spread, middle + spread])
        chances = 1 / (1 + np.exp(-(slope * ends + float(model.intercept_[0]))))
        return cls("platt", tuple(ends.tolist()), tuple(np.clip(chances, _SMALLEST, 1 - _SMALLEST).tolist()))

    def __call__(self, scores: Sequence[float]) -> list[float]:
        """The probabilities of scores."""
        import numpy as np

        values = np.asarray(scores, dtype=float)
        if self.kind == "isotonic":
            return np.interp(values, self.scores, self.probabilities).tolist()
        (low, high), chances = self.scores, np.asarray(self.probabilities)
        first, second = np.log(chances / (1 - chances))
        logits = first + (values - low) * (second - first) / (high - low)
        return (1 / (1 + np.exp(-np.clip(logits, -500, 500)))).tolist()

    def as_dict(self) -> dict[str, Any]:
        """The curve as JSON types."""
        return {**asdict(self), "scores": list(self.scores), "probabilities": list(self.probabilities)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Calibration:
        """A curve from what ``as_dict`` gave.

        Raises:
            DataError: If it is none.
        """
        try:
            kind = values["kind"]
            scores, chances = (tuple(map(float, values[name])) for name in ("scores", "probabilities"))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"Not a calibration: {error!r:.100}.") from None
        rises = all(list(one) == sorted(one) for one in (scores, chances))
        inside = all(0 <= one <= 1 for one in chances) and len(scores) == len(chances)
        if kind == "platt":
            fits = len(set(scores)) == 2 == len(scores) and not {0.0, 1.0} & set(chances)
        else:
            fits = kind == "isotonic" and bool(scores)
        if not (rises and inside and fits):
            raise DataError("Not a calibration: its points are no rising curve of probabilities.")
        return cls(kind, scores, chances)


def fit_to_rankings(rankings: Sequence[Ranking], relevant: Sequence[frozenset[str] | None]) -> dict[str, Any] | None:
    """Fit a calibration to judged questions, and see what bounds on it leave out.

    Args:
        rankings: Of each question.
        relevant: The relevant ids of each; None where it cannot be judged.

    Returns:
        The calibration as JSON types, with ``cutoffs``: for each of some bounds how many passages a question keeps
        (``passages``), the part of the relevant ones among them (``recall``), and the part of the questions that keep
        one (``questions``). None where the questions allow no fit.
    """
    judged = [(one, ids) for one, ids in zip(rankings, relevant, strict=True) if ids is not None]
    scores = [float(score) for one, _ in judged for score in one.scores]
    labels = [key in ids for one, ids in judged for key in one.ids]
    if not any(labels) or all(labels):
        return None
    curve = Calibration.fit(scores, labels)
    chances = [curve([float(score) for score in one.scores]) for one, _ in judged]
    cutoffs = []
    for bound in BOUNDS:
        kept = [
            [key in ids for key, chance in zip(one.ids, own, strict=True) if chance >= bound]
            for (one, ids), own in zip(judged, chances, strict=True)
        ]
        cutoffs.append(
            {
                "min_score": bound,
                "passages": sum(map(len, kept)) / len(kept),
                "recall": sum(map(sum, kept)) / sum(labels),
                "questions": sum(map(any, kept)) / len(kept),
            }
        )
    return {**curve.as_dict(), "cutoffs": cutoffs}
