"""Confidence intervals and paired comparisons by the bootstrap over questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from radio_dspy.core.errors import DataError, SettingsError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SAMPLES = 10_000
_PERCENTILES = (0.025, 0.975)
_DRAWN_AT_ONCE = 1_000_000  # keeps the memory at some 16 MB however many questions there are
_ROUNDING = 1e-9  # relative: a tie must not become a gain by the order of an addition


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """A difference between two programs on the same questions.

    Attributes:
        mean: After minus before.
        low: Lower end of the 95 % interval.
        high: Upper end of the 95 % interval.
        p: One-sided: the share of resampled means that are no gain.
    """

    mean: float
    low: float
    high: float
    p: float


def paired_bootstrap(
    before: Sequence[float], after: Sequence[float], *, samples: int = SAMPLES, seed: int = 0
) -> PairedDifference:
    """Resample the questions to see how sure a gain is.

    Args:
        before: One value a question.
        after: One value a question, in the same order.
        samples: How often the questions are drawn, with replacement.
        seed: The same seed gives the same numbers.

    Raises:
        DataError: For lists of different length, empty lists and values that are not finite numbers.
        SettingsError: If ``samples`` is below 1.

    Example:
        >>> gain = paired_bootstrap([0.0, 0.0, 1.0, 0.0], [1.0, 1.0, 1.0, 0.0])
        >>> gain.mean, gain.low, gain.high, gain.p < 0.1
        (0.5, 0.0, 1.0, True)
    """
    if len(before) != len(after):
        raise DataError(f"{len(before)} values before but {len(after)} after; give both for the same questions.")
    import numpy as np

    differences = _checked(after, "after") - _checked(before, "before")
    means = _resampled_means(differences, samples, seed)
    low, high = np.quantile(means, _PERCENTILES)
    no_gain = means <= _ROUNDING * np.abs(differences).max()
    return PairedDifference(float(differences.mean()), float(low), float(high), float(no_gain.mean()))


def interval(values: Sequence[float], *, samples: int = SAMPLES, seed: int = 0) -> tuple[float, float, float]:
    """The mean of one list with its 95 % interval: ``(mean, low, high)``; arguments as for ``paired_bootstrap``.

    Example:
        >>> mean, low, high = interval([1.0] * 50 + [0.0] * 50)
        >>> mean, low < 0.45, high > 0.55
        (0.5, True, True)
    """
    import numpy as np

    numbers = _checked(values, "values")
    low, high = np.quantile(_resampled_means(numbers, samples, seed), _PERCENTILES)
    return float(numbers.mean()), float(low), float(high)


def _checked(values: Sequence[float], name: str) -> NDArray[np.float64]:
    import numpy as np

    if not len(values):
        raise DataError(f"{name!r} is empty; give one value for each question.")
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or not np.isfinite(numbers).all():
        wrong = numbers.shape if numbers.ndim != 1 else numbers[~np.isfinite(numbers)][0]
        raise DataError(f"{name!r} must be one finite number for each question, got {wrong}.")
    return numbers


def _resampled_means(values: NDArray[np.float64], samples: int, seed: int) -> NDArray[np.float64]:
    import numpy as np

    if samples < 1:
        raise SettingsError(f"samples must be at least 1, got {samples}.")
    random = np.random.default_rng(seed)
    rows = max(1, _DRAWN_AT_ONCE // len(values))
    chunks = [
        values[random.integers(len(values), size=(min(rows, samples - start), len(values)))].mean(axis=1)
        for start in range(0, samples, rows)
    ]
    return np.concatenate(chunks)
