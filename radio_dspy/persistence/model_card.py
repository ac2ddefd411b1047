"""Write the model card of a saved or exported reranker."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from radio_dspy._version import __version__
from radio_dspy.core.html import code, markdown_table, plain
from radio_dspy.models.weights import RerankerWeights
from radio_dspy.reporting.report import CHOSEN_ON, NO_GATE, ROW_TITLES

_LIBRARIES = {"sentence-transformers": "sentence-transformers", "flagembedding": "transformers", "onnx": "onnx"}


def training_text(record: Mapping[str, Any]) -> str:
    """One training in words and figures; ``record`` is one of ``RerankerWeights.training``, whose texts are escaped."""
    settings, questions = record["settings"], record["questions"]
    used, groups, updates = map(plain, (questions["used"], record["groups"], record["updates"]))
    counts = f"on {used} questions, {groups} preference groups, {updates} updates."
    if record["teacher"]:
        teacher = ", ".join(f"{plain(name)} ({_figure(weight)})" for name, weight in record["teacher"].items())
        text = (
            f"Trained by RADIO (arXiv 2412.08519) {counts} What makes a passage preferred, with weights: {teacher}; "
            f"compared by {code(record['encoder'])}, rationales by {code(record['rationale_lm'] or '') or 'no LM'}."
        )
    else:
        text = f"Trained by radio-dspy {counts} The groups were given: no LM was asked."
    text += (
        f" Loss {plain(settings['loss'])}, sampling {plain(settings['sampling'])}, tower {plain(settings['tower'])}, "
        f"{plain(settings['epochs'])} epochs, learning rate {_figure(settings['learning_rate'])}."
        f"\n\n> {plain(record['decision'])}"
    )
    if not record["metrics"]:
        return text
    relevant = "labelled passages" if record["relevance"] == "labels" else "passages that contain an answer"
    gated = record.get("gated", record["decision"] != NO_GATE)  # older records do not note it
    chosen = f" {CHOSEN_ON}" if gated else ""
    return (
        f"{text}\n\n{_table(record['metrics'])}\n\nMeans over {plain(questions['judged'])} held-out questions, "
        f"relevant: {relevant}.{chosen}"
    )


def hub_names(bases: Iterable[str]) -> list[str]:
    """The names that a card may give as base models: the hub takes only its own, ``owner/name``."""
    return sorted({base for base in bases if re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", base, re.ASCII)})


def exported_card(name: str, weights: RerankerWeights, format: str, facts: Mapping[str, Any]) -> str:  # noqa: A002
    """The text of ``README.md``.

    Args:
        name: The folder's.
        weights: What was exported.
        format: As for ``export``.
        facts: What the lines that load it must say: ``max_length``, ``pooling``, ``prompts``, ``sides``.
    """
    from huggingface_hub import ModelCardData

    pairs = weights.architecture == "cross-encoder"
    head = ModelCardData(
        library_name=_LIBRARIES[format],
        pipeline_tag="text-ranking" if pairs else "sentence-similarity",
        tags=["radio-dspy", "reranker", weights.architecture],
        base_model=next(iter(hub_names([weights.base])), None),
    )
    use = _multi_vector_encoder if weights.architecture == "late-interaction" else _USE[format, pairs]
    sections = [
        f"# {plain(name)}",
        f"A {plain(weights.architecture)} reranker from {code(weights.base)}, exported by radio-dspy {__version__}.",
        "## Use",
        f"```python\n{use(name, facts).strip()}\n```",
        "## Training",
        "\n\n".join(map(training_text, weights.training)) or "No training is on record for these weights.",
        "## Licence",
        "Not stated here. The licences of the base model and of the training data decide: add yours above.",
    ]
    return f"---\n{head.to_yaml()}\n---\n\n" + "\n\n".join(sections) + "\n"


def _cross_encoder(name: str, facts: Mapping[str, Any]) -> str:
    return f"""
from sentence_transformers import CrossEncoder

reranker = CrossEncoder({_quoted(name)})
scores = reranker.predict([("a query", "a passage"), ("a query", "another passage")])  # raw logits
"""


def _sentence_transformer(name: str, facts: Mapping[str, Any]) -> str:
    return f"""
from sentence_transformers import SentenceTransformer

encoder = SentenceTransformer({_quoted(name)})
queries, passages = encoder.encode_query(["a query"]), encoder.encode_document(["a passage", "another passage"])
scores = encoder.similarity(queries, passages)  # cosines
"""


def _multi_vector_encoder(name: str, facts: Mapping[str, Any]) -> str:
    return f"""
from sentence_transformers import MultiVectorEncoder

encoder = MultiVectorEncoder({_quoted(name)})
queries, passages = encoder.encode_query(["a query"]), encoder.encode_document(["a passage", "another passage"])
scores = encoder.similarity(queries, passages)  # for each token of the query its closest token's cosine, added up
"""


def _flag_reranker(name: str, facts: Mapping[str, Any]) -> str:
    return f"""
from FlagEmbedding import FlagReranker

reranker = FlagReranker({_quoted(name)}, max_length={facts["max_length"]!r}, use_fp16=False)
scores = reranker.compute_score([("a query", "a passage"), ("a query", "another passage")])  # raw logits
"""


def _flag_model(name: str, facts: Mapping[str, Any]) -> str:
    query, passage = facts["prompts"]["query"] + "a query", facts["prompts"]["document"] + "a passage"
    settings = f"pooling_method={_quoted(facts['pooling'])}, use_fp16=False"
    names = [side.replace("-", "_") or "encoder" for side in facts["sides"]]
    opened = zip(names, _folders(name, facts), strict=True)
    return f"""
from FlagEmbedding import FlagModel

{chr(10).join(f"{variable} = FlagModel({_quoted(folder)}, {settings})" for variable, folder in opened)}
queries = {names[0]}.encode([{query!r}], max_length={facts["max_length"]!r})
passages = {names[-1]}.encode([{passage!r}], max_length={facts["max_length"]!r})
scores = queries @ passages.T  # cosines
"""


def _onnx_pairs(name: str, facts: Mapping[str, Any]) -> str:
    return f"""
import onnxruntime
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({_quoted(name)})
session = onnxruntime.InferenceSession({_quoted(f"{name}/model.onnx")})
queries, passages = ["a query", "a query"], ["a passage", "another passage"]
inputs = tokenizer(queries, passages, padding=True, truncation=True, return_tensors="np")
scores = session.run(["scores"], dict(inputs))[0]  # raw logits
"""


def _onnx_texts(name: str, facts: Mapping[str, Any]) -> str:
    query, passage = facts["prompts"]["query"] + "a query", facts["prompts"]["document"] + "a passage"
    folders = _folders(name, facts)
    return f"""
import onnxruntime
from transformers import AutoTokenizer


def encode(folder, texts):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(texts, padding=True, truncation=True, return_tensors="np")
    return onnxruntime.InferenceSession(f"{{folder}}/model.onnx").run(["vectors"], dict(inputs))[0]


queries = encode({_quoted(folders[0])}, [{query!r}])
passages = encode({_quoted(folders[-1])}, [{passage!r}])
scores = queries @ passages.T  # cosines
"""


def _folders(name: str, facts: Mapping[str, Any]) -> list[str]:
    return [f"{name}/{side}" if side else name for side in facts["sides"]]


_USE = {
    ("sentence-transformers", True): _cross_encoder,
    ("sentence-transformers", False): _sentence_transformer,
    ("flagembedding", True): _flag_reranker,
    ("flagembedding", False): _flag_model,
    ("onnx", True): _onnx_pairs,
    ("onnx", False): _onnx_texts,
}


def _table(metrics: Mapping[str, Mapping[str, float]]) -> str:
    names = list(next(iter(metrics.values())))
    rows = [[ROW_TITLES.get(row, row), *(f"{values[name]:.3f}" for name in names)] for row, values in metrics.items()]
    return markdown_table(["ranking", *names], rows)


def _quoted(text: str) -> str:
    """A text as Python code, on one line whatever it holds."""
    return json.dumps(text, ensure_ascii=False) if text.isprintable() else repr(text)


def _figure(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else plain(value)
