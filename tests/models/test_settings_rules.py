"""Every rule answers yes or no for every kind of JSON value: a rule that raises would end a load with its error."""

import pytest

from radio_dspy.models.settings_values import SETTINGS

PLAIN = [None, True, False, 0, -1, 2**40, 1.5, float("nan"), "", "word", "http://127.0.0.1:9/x", "\ud800", "ø" * 400]
NESTED = [[], {}, *([one] for one in PLAIN), *({"key": one} for one in PLAIN), [[[]]], [{"a": []}], {"a": {"b": [{}]}}]


@pytest.mark.parametrize("file", sorted(SETTINGS))
def test_rules_answer_for_any_value(file):
    assert SETTINGS[file]
    for key, rule in SETTINGS[file].items():
        answers = [rule(value) for value in (*PLAIN, *NESTED)]
        assert set(map(type, answers)) <= {bool}, (key, answers)
