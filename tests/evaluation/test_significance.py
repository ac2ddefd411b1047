import itertools
import math
import tracemalloc

import numpy as np
import pytest

from radio_dspy.core.errors import DataError, SettingsError
from radio_dspy.evaluation import significance
from radio_dspy.evaluation.significance import PairedDifference, interval, paired_bootstrap


def test_it_agrees_with_every_possible_resample():
    """Four questions have 4**4 equally likely resamples, which give the exact p and percentiles."""
    before, after = [0.0, 0.5, 1.0, 0.2], [1.0, 0.4, 0.9, 0.6]
    gains = [new - old for old, new in zip(before, after, strict=True)]
    means = [sum(drawn) / 4 for drawn in itertools.product(gains, repeat=4)]
    found = paired_bootstrap(before, after, samples=200_000)
    assert found.mean == pytest.approx(sum(gains) / 4)
    assert found.p == pytest.approx(sum(one <= 1e-9 for one in means) / len(means), abs=0.005)
    assert found.low == pytest.approx(np.quantile(means, 0.025), abs=0.01)
    assert found.high == pytest.approx(np.quantile(means, 0.975), abs=0.01)


def test_it_is_paired():
    """A small gain on every question is sure, however much the questions differ among themselves."""
    before = [index % 10 / 10 for index in range(100)]
    gain = paired_bootstrap(before, [one + 0.01 for one in before])
    assert gain.p == 0.0
    assert gain.low == pytest.approx(0.01) == gain.high
    shuffled = paired_bootstrap(before, [one + 0.01 for one in reversed(before)])
    assert shuffled.mean == pytest.approx(0.01)
    assert shuffled.p > 0.2


def test_a_loss_is_the_gain_turned_round():
    before, after = [0.0, 0.0, 1.0, 0.0, 0.3], [1.0, 0.0, 1.0, 0.6, 0.1]
    gain, loss = paired_bootstrap(before, after), paired_bootstrap(after, before)
    assert (loss.mean, loss.low, loss.high) == pytest.approx((-gain.mean, -gain.high, -gain.low))
    assert gain.p < 0.2 < 0.8 < loss.p


def test_no_difference_is_no_gain():
    assert paired_bootstrap([0.1, 0.7], [0.1, 0.7]) == PairedDifference(0.0, 0.0, 0.0, 1.0)


def test_rounding_makes_no_gain_of_a_tie():
    """0.1 + 0.2 - 0.3 is 5.6e-17: a resample that draws all three alike is a tie, and ties are no gain."""
    gains = [0.1, 0.2, -0.3] * 2
    exact = [sum(drawn) for drawn in itertools.product([1, 2, -3] * 2, repeat=6)]
    p = sum(one <= 0 for one in exact) / len(exact)
    strict = sum(one < 0 for one in exact) / len(exact)
    found = paired_bootstrap([0.0] * 6, gains, samples=100_000)
    assert found.p == pytest.approx(p, abs=0.006)
    assert p - strict > 0.05


def test_the_same_seed_gives_the_same_numbers_and_chunks_make_no_difference_in_kind(monkeypatch):
    before, after = [0.0] * 30, [math.sin(number) + 0.3 for number in range(30)]
    first = paired_bootstrap(before, after, seed=3)
    assert paired_bootstrap(before, after, seed=3) == first
    assert paired_bootstrap(before, after, seed=4) != first
    monkeypatch.setattr(significance, "_DRAWN_AT_ONCE", 7)  # less than one row
    small = paired_bootstrap(before, after, seed=3, samples=2_000)
    assert (small.low, small.high) == pytest.approx((first.low, first.high), abs=0.05)


@pytest.mark.parametrize("samples", [1, 999, 1000, 1001])
def test_exactly_as_many_samples_as_asked_for_are_drawn(monkeypatch, samples):
    monkeypatch.setattr(significance, "_DRAWN_AT_ONCE", 3000)
    assert len(significance._resampled_means(np.ones(3), samples, 0)) == samples


def test_memory_is_bounded():
    values = [0.0, 1.0] * 5_000  # 10,000 samples of 10,000 questions would take 800 MB at once
    tracemalloc.start()
    try:
        mean, low, high = interval(values, samples=1_000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40e6
    assert (mean, low, high) == pytest.approx((0.5, 0.49, 0.51), abs=0.002)


def test_the_interval_of_a_mean_is_about_two_standard_errors():
    values = [1.0] * 300 + [0.0] * 700
    mean, low, high = interval(values)
    error = 1.96 * math.sqrt(0.3 * 0.7 / 1000)
    assert (mean, low, high) == pytest.approx((0.3, 0.3 - error, 0.3 + error), abs=0.002)
    gain = paired_bootstrap([0.0] * 1000, values)
    assert (gain.mean, gain.low, gain.high) == (mean, low, high)
    assert interval([0.25]) == (0.25, 0.25, 0.25)


def test_results_are_plain_floats():
    gain = paired_bootstrap([0, 1], [1, 1], samples=10)
    assert {type(one) for one in (gain.mean, gain.low, gain.high, gain.p, *interval([1, 0], samples=10))} == {float}


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: paired_bootstrap([1.0], [1.0, 2.0]), DataError, "1 values before but 2 after"),
        (lambda: paired_bootstrap([], []), DataError, "is empty; give one value for each question"),
        (lambda: interval([]), DataError, "'values' is empty"),
        (lambda: paired_bootstrap([0.0, math.nan], [0.0, 1.0]), DataError, "'before' must be one finite number.*nan"),
        (lambda: paired_bootstrap([0.0, 1.0], [math.inf, 1.0]), DataError, "'after' must be one finite number.*inf"),
        (lambda: interval([[1.0], [2.0]]), DataError, r"'values' must be one finite number.*\(2, 1\)"),
        (lambda: interval([1.0], samples=0), SettingsError, "samples must be at least 1, got 0"),
    ],
)
def test_errors_say_what_was_got(call, error, message):
    with pytest.raises(error, match=message):
        call()
