"""The examples in the docstrings are run as they stand."""

import doctest
import importlib
import pkgutil

import pytest

import radio_dspy
from radio_dspy import optimizers, programs

PACKAGES = [radio_dspy, programs, optimizers]
MODULES = sorted(
    {
        found.name
        for package in PACKAGES
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        if not found.ispkg
    }
)
EXAMPLES = [
    example
    for name in MODULES
    for example in doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(name), name)
    if example.examples
]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_example(example):
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    runner.run(example)
    assert runner.failures == 0


def test_there_are_examples():
    names = {example.name for example in EXAMPLES}
    assert {"radio_dspy.optimizers.radio.RADIO", "radio_dspy.rerankers.rerank.Rerank"} <= names
    assert len(names) > 20
