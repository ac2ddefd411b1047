"""How much memory the rows of an experiment take."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from radio_dspy.core.errors import SettingsError
from radio_dspy.datasets.loading import demo
from radio_dspy.experiments.materials import located
from radio_dspy.experiments.settings import DEMO, DataSettings, RowSettings

# Of the models that the paper names: parameters, and numbers of a vector (0: none). Others are read where they lie.
_KNOWN = {
    "BAAI/bge-m3": (568e6, 1024),
    "BAAI/bge-reranker-base": (278e6, 0),
    "intfloat/e5-base-v2": (109e6, 768),
    "meta-llama/Llama-3.1-8B-Instruct": (8.03e9, 0),
}
_FLOAT, _HALF = 4, 2  # bytes of a number
_TRAINED = 16  # bytes a trained parameter: weight, gradient and AdamW's two moments as 32-bit numbers
_PASSAGE = 1_000  # bytes of a passage of 100 words in Python: its text, title, id and the objects around them
_HOSTS = ("hosted_vllm/",)  # weights that one serves oneself


def memory_of(rows: Sequence[RowSettings]) -> dict[str, float | None]:
    """The largest need of any row: rows run one after the other."""
    found: dict[str, float | None] = {}

    def need(name: str, value: float | None) -> None:
        before = found.setdefault(name, value)
        found[name] = None if before is None or value is None else max(before, value)

    for own in rows:
        passages = _passages(own.data)
        parameters, dimension = model_size(own.first_stage.encoder)
        need("passages", None if passages is None else passages * _PASSAGE)
        need("index", None if passages is None or dimension is None else passages * dimension * _FLOAT)
        need("first stage's encoder", None if parameters is None else parameters * _FLOAT)
        base, _ = model_size(own.reranker.checkpoint)
        trained = own.method in ("radio", "answer-passages")
        each = _TRAINED if trained else _FLOAT
        need(
            "reranker in training, without activations" if trained else "reranker",
            None if base is None else base * each,
        )
        if own.teacher.encoder:
            teacher, _ = model_size(own.teacher.encoder)
            need("teacher's encoder", None if teacher is None else teacher * _FLOAT)
        if own.generator.lm.startswith(_HOSTS):
            served, _ = model_size(own.generator.lm.partition("/")[2])
            need("generator, where it is served (16 bits)", None if served is None else served * _HALF)
    return found


def _passages(data: DataSettings) -> int | None:
    names = {data.corpus, data.test_corpus or data.corpus}
    total = 0
    for name in names:
        count = len(demo().passages) if name == DEMO else lines_in(data, name)
        if not count and data.expected is None:
            return None
        total += count or (data.expected.passages if data.expected else 0)
    return total


def model_size(name: str) -> tuple[float | None, int | None]:
    """Parameters and the length of a vector: of the models that the paper names, and of weights on this machine."""
    if name in _KNOWN:
        parameters, dimension = _KNOWN[name]
        return parameters, dimension or None
    from radio_dspy.models.files import weights

    folder = Path(weights(name))
    files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    if not files:
        return None, None
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return sum(file.stat().st_size for file in files) / _FLOAT, config.get("hidden_size")


def lines_in(data: DataSettings, name: str) -> int:
    """Lines of a JSON Lines file; 0 where it is not here or packed."""
    try:
        path = located(data, name)
    except SettingsError:
        return 0
    if path.suffix == ".gz":
        return 0
    with path.open("rb") as file:
        return sum(1 for line in file if line.strip())
