"""A sentence-transformer's folder under the names that sentence-transformers wrote before its release 6.

Other tools look for these: vLLM, llama.cpp's converter, and infinity, which loads by sentence-transformers 3. Under the
new names they refuse the folder, or pool otherwise without a word. Release 6 reads both.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_POOLING = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "max": "pooling_mode_max_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
# What release 6 says of a model that reads text and gives a vector a token: the only kind that there was before.
_TEXT = {
    "transformer_task": "feature-extraction",
    "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
    "module_output_name": "token_embeddings",
}


def write_classic_form(folder: Path, max_length: int | None) -> None:
    """Rename what a saved model consists of; one that the old names cannot tell stays as it is.

    Args:
        folder: Where the model was saved.
        max_length: The most tokens that it reads.
    """
    modules = _read(folder / "modules.json")
    kinds = [one["type"].rpartition(".")[2] for one in modules]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        return
    pooling_file = folder / modules[1]["path"] / "config.json"
    pooling = _read(pooling_file)
    mode = str(pooling["pooling_mode"])
    if mode not in _POOLING or _read(folder / "sentence_bert_config.json") != _TEXT:
        return
    for one, kind in zip(modules, kinds, strict=True):
        one["type"] = f"sentence_transformers.models.{kind}"
    _write(folder / "modules.json", modules)
    _write(folder / "sentence_bert_config.json", {"max_seq_length": max_length, "do_lower_case": False})
    named = {name: mode == one for one, name in _POOLING.items()}
    size, prompt = pooling["embedding_dimension"], pooling["include_prompt"]
    _write(pooling_file, {"word_embedding_dimension": size, **named, "include_prompt": prompt})


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
