"""A card from hostile names: no Markdown, YAML or HTML of another's."""

import ast

import pytest
import yaml

from radio_dspy.core.html import code, plain
from radio_dspy.models.weights import RerankerWeights
from radio_dspy.persistence.hub import model_card
from radio_dspy.persistence.model_card import exported_card, hub_names

HOSTILE = (
    "base`\n---\nlicense: mit\n---\n\n# Owned\n\n![x](http://evil.example/x.png) [click](javascript:alert(1)) "
    '<script>alert(1)</script> ```\n1. www.evil.example \x1b[31m \u202e"); import os #'
)
RECORD = {
    "settings": dict.fromkeys(("loss", "sampling", "tower", "epochs", "learning_rate"), HOSTILE),
    "questions": dict.fromkeys(("used", "judged"), HOSTILE),
    "groups": HOSTILE,
    "updates": HOSTILE,
    "teacher": {HOSTILE: 0.5},
    "encoder": HOSTILE,
    "rationale_lm": HOSTILE,
    "decision": HOSTILE,
    "relevance": "labels",
    "metrics": {HOSTILE: {HOSTILE: 0.5}},
}
FACTS = {"max_length": 32, "pooling": HOSTILE, "prompts": {"query": HOSTILE, "document": HOSTILE}, "sides": [""]}


def check(card):
    """The head is ours, headings are ours, and what others wrote stands in code or is escaped."""
    _, head, text = card.split("---\n", 2)
    assert "license" not in yaml.safe_load(head)
    lines = text.splitlines()
    assert not [one for one in lines if one.startswith(("# Owned", "---", "![", "1. ", "license"))]
    assert "\x1b" not in card
    assert "\u202e" not in card
    assert [one for one in lines if one.lstrip().startswith("```")] == ["```python", "```"]
    return text


@pytest.mark.parametrize("kind", ["sentence-transformers", "flagembedding", "onnx"])
@pytest.mark.parametrize("architecture", ["cross-encoder", "bi-encoder"])
def test_a_hostile_base_name_says_nothing_in_an_exports_card(kind, architecture):
    weights = RerankerWeights("folder", architecture)
    vars(weights).update(base=HOSTILE, training=(RECORD,))
    name = HOSTILE.replace("/", "|")
    text = check(exported_card(name, weights, kind, FACTS))
    ast.parse(text.partition("```python\n")[2].partition("\n```\n")[0])  # and its code is one program


def test_nor_in_that_of_the_hub():
    reranker = {"architecture": "bi-encoder", "base": HOSTILE, "fingerprint": HOSTILE, "training": [RECORD]}
    manifest = {
        "program": HOSTILE,
        "versions": {"radio-dspy": HOSTILE},
        "settings": {HOSTILE: HOSTILE},
        "rerankers": {HOSTILE: reranker},
    }
    check(model_card("someone/kitchen", manifest))


def test_texts_in_markdown():
    shown = plain(HOSTILE)
    assert "\n" not in shown
    assert r"\[click\](javascript:alert(1)) \<script\>" in shown
    assert r"http\://evil" in shown
    assert r"www\.evil" in shown
    assert [plain(one) for one in ("---", "- a", "1. a", "= ", "-0.5", "0.5")] == [
        r"\---",
        r"\- a",
        r"1\. a",
        r"\=",
        "-0.5",
        "0.5",
    ]
    assert code("a``b`") == "``` a``b` ```"


def test_good_names_stay_readable():
    assert code("BAAI/bge-m3") == "`BAAI/bge-m3`"
    assert plain("Returned the trained weights.") == "Returned the trained weights."
    assert hub_names(["BAAI/bge-m3", "../../etc", "a/b\n", "x/..", "folder"]) == ["BAAI/bge-m3"]
