"""What kind of reranker a folder of weights holds, by what its settings files say."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from radio_dspy.core.errors import CheckpointError, SettingsError
from radio_dspy.models.settings_rules import read_settings
from radio_dspy.models.settings_values import MODULES

Architecture = Literal["cross-encoder", "bi-encoder"]
HEAD = "ForSequenceClassification"
CAUSAL = "ForCausalLM"
_KINDS: dict[str, Architecture] = {"CrossEncoder": "cross-encoder", "SentenceTransformer": "bi-encoder"}


def declared_architecture(folder: Path) -> Architecture | None:
    """What the weights were made for; None where they say nothing, as those of a plain encoder.

    Raises:
        CheckpointError: If it is neither, or its settings cannot be read.
    """
    if (folder / MODULES).is_file():
        path = folder / "config_sentence_transformers.json"
        kind = read_settings(path).get("model_type") if path.is_file() else None
        if kind is None:  # releases of sentence-transformers that did not say so
            kind = "CrossEncoder" if _scores_by_logits(folder / MODULES) else "SentenceTransformer"
        if not isinstance(kind, str) or kind not in _KINDS:
            raise CheckpointError(
                f"{folder}: is a {kind!s:.100}; give the weights of a CrossEncoder, or of a SentenceTransformer, one "
                "vector a text."
            )
        return _KINDS[kind]
    path = folder / "config.json"
    named = read_settings(path).get("architectures") if path.is_file() else None
    first = str(named[0]) if isinstance(named, list) and named else ""
    return "cross-encoder" if first.endswith((HEAD, CAUSAL)) else None


def chosen_architecture(folder: Path) -> Architecture:
    """The architecture of a folder of weights whose settings say which.

    Raises:
        CheckpointError: As for ``declared_architecture``.
        SettingsError: If they do not.
    """
    if (found := declared_architecture(folder)) is not None:
        return found
    raise SettingsError(
        f"{folder}: does not say what it was made for: it has neither modules.json nor a head that scores. Give "
        "architecture='bi-encoder' (the mean over a text's tokens) or 'cross-encoder' (with a new head, to be trained)."
    )


def check_architecture(folder: Path, wanted: Architecture) -> None:
    """See that weights can be used so.

    An encoder may become a cross-encoder, whose new head must be trained first. A causal LM may give vectors, where
    it is not said that it scores.

    Raises:
        CheckpointError: If they are a cross-encoder's and vectors are wanted, or of a kind that is neither.
    """
    found = declared_architecture(folder)
    if wanted == "cross-encoder" or found != "cross-encoder":
        return
    if (folder / MODULES).is_file() or not _is_causal(folder):
        raise CheckpointError(
            f"{folder}: is a cross-encoder, which reads question and passage together and gives no vectors; give "
            "Rerank(..., architecture='cross-encoder'), or the weights of an encoder."
        )


def _is_causal(folder: Path) -> bool:
    return str(read_settings(folder / "config.json")["architectures"][0]).endswith(CAUSAL)


def _scores_by_logits(modules: Path) -> bool:
    return any(str(one.get("type")).endswith("LogitScore") for one in read_settings(modules, list) if one)
