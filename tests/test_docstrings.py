"""The examples in the docstrings are run as they stand."""

import contextlib
import doctest
import functools
import importlib
import pkgutil

import pytest

import radio_dspy
from radio_dspy import optimizers, programs
from radio_dspy.lm import local as lms

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


# These compile, which needs no good encoder.
COMPILING = {"radio_dspy.optimizers.radio.RADIO", "radio_dspy.optimizers.group_finetune.GroupFinetune"}


@pytest.fixture(scope="module", autouse=True)
def _one_server():
    """All that open the local LM reach the same server, which has one thread."""
    serve = lms.serve
    with contextlib.ExitStack() as servers, pytest.MonkeyPatch.context() as patch:

        @functools.cache
        def address(path, context_tokens):
            return servers.enter_context(serve(path, context_tokens=context_tokens, threads=1))

        patch.setattr(
            lms, "serve", lambda path, *, context_tokens, threads: contextlib.nullcontext(address(path, context_tokens))
        )
        yield


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_example(example, request):
    if example.name in COMPILING:
        request.getfixturevalue("small_by_name")
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    runner.run(example)
    assert runner.failures == 0


def test_there_are_examples():
    names = {example.name for example in EXAMPLES}
    assert {"radio_dspy.optimizers.radio.RADIO", "radio_dspy.rerankers.rerank.Rerank"} <= names
    assert len(names) > 20
