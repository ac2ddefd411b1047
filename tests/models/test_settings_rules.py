"""Every rule answers yes or no for every kind of JSON value: a rule that raises would end a load with its error."""

import itertools

import pytest

from radio_dspy.models.settings_values import SETTINGS

PLAIN = [None, True, False, 0, -1, 2**40, 1.5, float("nan"), "", "word", "http://127.0.0.1:9/x", "\ud800", "ø" * 400]
NESTED = [[], {}, *([one] for one in PLAIN), *({"key": one} for one in PLAIN), [[[]]], [{"a": []}], {"a": {"b": [{}]}}]
RULES = {(file, key): rule for file, rules in SETTINGS.items() for key, rule in rules.items()}
assert len(RULES) > 200, "the table was not found"


@pytest.mark.parametrize(("file", "key"), RULES, ids=lambda part: part or "any")
def test_a_rule_answers_for_any_value(file, key):
    rule = RULES[file, key]
    answers = [rule(value) for value in itertools.chain(PLAIN, NESTED)]
    assert set(map(type, answers)) <= {bool}, answers
