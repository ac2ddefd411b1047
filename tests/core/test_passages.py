import datetime
import json
import uuid
from types import MappingProxyType

import dspy
import numpy as np
import pytest
from dspy.utils import DummyLM

from radio_dspy.core.errors import DataError
from radio_dspy.core.passages import Passage, as_passage, as_passages


def test_values_are_frozen():
    with pytest.raises(AttributeError):
        Passage("a", "text").text = "other"


@pytest.mark.parametrize(
    "item",
    [
        Passage("7", "Ice floats."),
        {"text": "Ice floats.", "id": 7},
        {"long_text": "Ice floats.", "node_id": "7"},
        type("Found", (), {"text": "Ice floats.", "id": "7"})(),
    ],
)
def test_as_passage_reads_what_retrievers_return(item):
    assert as_passage(item, 7) == Passage("7", "Ice floats.")


def test_as_passage_splits_flashrag_contents():
    assert as_passage({"id": "a", "contents": "Ice\nIt floats."}) == Passage("a", "It floats.", "Ice")


@pytest.mark.parametrize(
    ("given", "held"),
    [
        (None, {}),
        ({"n": np.int64(3), "x": np.float32(0.5), "yes": np.bool_(True)}, {"n": 3, "x": 0.5, "yes": True}),
        ({"tags": ("a", np.str_("b")), "at": {"row": np.array([1, 2])}}, {"tags": ["a", "b"], "at": {"row": [1, 2]}}),
        ({"day": datetime.date(2026, 1, 2), "é": "ü"}, {"day": "2026-01-02", "é": "ü"}),
        (MappingProxyType({"a": None, "b": 10**30}), {"a": None, "b": 10**30}),
    ],
)
def test_metadata_is_of_json_types(given, held):
    found = Passage("a", "Ice floats.", metadata=given)
    assert (type(found.metadata), found.metadata) == (dict, held)
    assert json.loads(json.dumps(found.metadata, allow_nan=False)) == held
    assert {type(one) for one in found.metadata.values()} <= {int, float, bool, str, list, dict, type(None)}
    assert as_passage({"id": "a", "text": "Ice floats.", "metadata": given}).metadata == held


@pytest.mark.parametrize(
    "wrong", [{"x": object()}, {"x": float("nan")}, {"x": np.float64("inf")}, {1: "x"}, {"x": "\ud800"}, "text", ["x"]]
)
def test_metadata_that_is_no_json(wrong):
    with pytest.raises(DataError, match="'a': metadata must be an object of JSON types"):
        Passage("a", "Ice floats.", metadata=wrong)


def test_metadata_that_has_no_end():
    deep = circular = {}
    for _ in range(5000):
        deep = {"x": deep}
    circular["x"] = circular
    for wrong in (deep, circular):
        with pytest.raises(DataError, match="'a': metadata must be an object of JSON types"):
            Passage("a", "Ice floats.", metadata=wrong)


@pytest.mark.parametrize("signature", ["context, question -> answer", "context: list[str], question -> answer"])
def test_a_predictor_reads_passages_as_they_are(signature):
    found = [Passage("a", "Ice floats."), Passage("b", "It rises.", title="Heat")]
    lm = DummyLM({"": {"answer": "x"}})
    with dspy.context(lm=lm):
        dspy.Predict(signature)(context=found, question="why?")
    read = lm.history[-1]["messages"][-1]["content"]
    assert "Ice floats." in read
    assert ("Heat\n    It rises." in read) is ("list" not in signature)  # as a text with its heading, else by fields
    assert str(found[1]) == found[1].contents


def test_a_uuid_is_an_id():
    key = uuid.UUID(int=7)
    assert as_passage({"id": key, "text": "Ice floats."}).id == str(key)


@pytest.mark.parametrize(("item", "kind"), [(None, "NoneType"), (7, "int"), (("Ice.", 0.5), "tuple")])
def test_what_is_no_passage_is_named(item, kind):
    with pytest.raises(DataError, match=f"Passage 1 holds no text \\(got {kind} "):
        as_passages(["Ice floats.", item])
