"""Scores become probabilities that rise with them, and bounds on these leave passages out."""

import json

import numpy as np
import pytest
from scipy.special import expit

from radio_dspy.core.errors import DataError
from radio_dspy.core.passages import Passage
from radio_dspy.core.rankings import Ranking
from radio_dspy.evaluation.calibration import Calibration, fit_to_rankings

RANDOM = np.random.default_rng(0)
SCORES = RANDOM.normal(size=3000)
LABELS = RANDOM.random(3000) < expit(2 * SCORES - 1)


@pytest.mark.parametrize(("count", "kind"), [(300, "platt"), (3000, "isotonic")])
def test_the_curve_is_that_which_the_labels_were_drawn_from(count, kind):
    curve = Calibration.fit(SCORES[:count], LABELS[:count])
    assert curve.kind == kind
    at = np.linspace(-2, 2, 9)
    np.testing.assert_allclose(curve(at), expit(2 * at - 1), atol=0.09)
    assert curve(at) == sorted(curve(at))
    assert Calibration.from_dict(json.loads(json.dumps(curve.as_dict()))) == curve


def test_scores_that_mislead_give_a_curve_that_does_not_fall():
    curve = Calibration.fit(SCORES[:300], ~LABELS[:300])
    assert curve([-1.0, 1.0]) == sorted(curve([-1.0, 1.0]))


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"kind": "platt", "scores": [0.0, 1.0], "probabilities": [0.5, 0.2]},
        {"kind": "platt", "scores": [0.0, 0.0], "probabilities": [0.2, 0.5]},
        {"kind": "platt", "scores": [0.0, 1.0], "probabilities": [0.0, 0.5]},
        {"kind": "isotonic", "scores": [], "probabilities": []},
        {"kind": "isotonic", "scores": [1.0, 0.0], "probabilities": [0.1, 0.2]},
        {"kind": "other", "scores": [0.0], "probabilities": [0.1]},
    ],
)
def test_what_is_no_curve(values):
    with pytest.raises(DataError, match="Not a calibration"):
        Calibration.from_dict(values)


def test_bounds_leave_out_what_is_not_relevant():
    passages = [Passage(str(number), "text") for number in range(10)]
    rankings = [Ranking.from_scores("q", passages, [5.0 + RANDOM.random(), *RANDOM.random(9)]) for _ in range(20)]
    relevant = [frozenset("0")] * 19 + [None]
    found = fit_to_rankings(rankings, relevant)
    first, *_, last = found["cutoffs"]
    assert first == {"min_score": 0.0, "passages": 10.0, "recall": 1.0, "questions": 1.0}
    assert last["passages"] == 1.0
    assert last["recall"] == 1.0
    assert fit_to_rankings(rankings, [None] * 20) is None
