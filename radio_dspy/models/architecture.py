"""What kind of reranker a folder of weights holds, by what its settings files say."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any, Literal

from radio_dspy.core.errors import CheckpointError, SettingsError
from radio_dspy.models.settings_rules import read_settings
from radio_dspy.models.settings_values import MODULES

Architecture = Literal["cross-encoder", "bi-encoder", "late-interaction"]
HEAD = "ForSequenceClassification"
CAUSAL = "ForCausalLM"
COLBERT = "HF_ColBERT"  # Stanford's own class
_LAST = r"(^|\.)(classifier|score|logits_proj|(classifier|classification_head)\.out_proj)"
HEAD_TENSORS, LAST_LAYER = re.compile(rf"{_LAST}\.weight$"), re.compile(rf"{_LAST}\.(weight|bias)$")
_SENTENCE_CONFIG = "config_sentence_transformers.json"
_KINDS: dict[str, Architecture] = {
    "CrossEncoder": "cross-encoder",
    "SentenceTransformer": "bi-encoder",
    "MultiVectorEncoder": "late-interaction",
    "ColBERT": "late-interaction",  # PyLate's name for it
}
_MEANING: dict[Architecture, str] = {
    "cross-encoder": "a cross-encoder, which reads question and passage together and gives no vectors",
    "bi-encoder": "an encoder, which gives one vector a text",
    "late-interaction": "a late-interaction model, which gives one vector a token",
}
_HEADS: dict[Architecture, str] = {
    "cross-encoder": "head that scores pairs",
    "late-interaction": "projection of tokens that was trained to compare them",
}


def declared_architecture(folder: Path) -> Architecture | None:
    """What the weights were made for; None where they say nothing, as those of a plain encoder.

    Raises:
        CheckpointError: If it is of another kind, or its settings cannot be read.
    """
    if (folder / MODULES).is_file():
        path = folder / _SENTENCE_CONFIG
        settings = read_settings(path) if path.is_file() else {}
        # Releases of sentence-transformers and PyLate that did not name the kind.
        kind = settings.get("model_type") or _kind_of_modules(folder, settings)
        if not isinstance(kind, str) or kind not in _KINDS:
            raise CheckpointError(
                f"{folder}: is a {kind!s:.100}; give the weights of a CrossEncoder, of a SentenceTransformer (one "
                "vector a text) or of a MultiVectorEncoder (one vector a token)."
            )
        return _KINDS[kind]
    path = folder / "config.json"
    named = read_settings(path).get("architectures") if path.is_file() else None
    first = str(named[0]) if isinstance(named, list) and named else ""
    if first == COLBERT:
        return "late-interaction"
    scores = first.endswith((HEAD, CAUSAL)) or (not first and _holds_a_head(folder))
    return "cross-encoder" if scores else None


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
        "architecture='bi-encoder' (the mean over a text's tokens), or architecture='cross-encoder' with new_head=True "
        "to train a head from nothing."
    )


def check_architecture(folder: Path, wanted: Architecture, *, new_head: bool = False) -> None:
    """See that weights can be used so, by their settings alone.

    A causal LM may give vectors, where it is not said that it scores.

    Args:
        folder: The weights, on this machine.
        wanted: What they are to be used as.
        new_head: Whether an encoder may get a head that is drawn anew, and ranks by chance before it is trained.

    Raises:
        CheckpointError: If they cannot.
    """
    found = declared_architecture(folder)
    if found == wanted or (wanted == "bi-encoder" and found is None):
        return
    if found in ("bi-encoder", None):
        if new_head:
            return
        raise CheckpointError(
            f"{folder}: is an encoder and holds no {_HEADS[wanted]}: a new one would rank by chance. Give weights that "
            f"were trained as a {wanted}, or architecture='bi-encoder'; new_head=True draws one for RADIO to train."
        )
    if wanted == "bi-encoder" and not (folder / MODULES).is_file() and _is_causal(folder):
        return
    raise CheckpointError(
        f"{folder}: is {_MEANING[found]}, and cannot be used as a {wanted}; give Rerank(..., architecture={found!r}), "
        "or other weights."
    )


def _is_causal(folder: Path) -> bool:
    return str((read_settings(folder / "config.json").get("architectures") or [""])[0]).endswith(CAUSAL)


def _kind_of_modules(folder: Path, settings: dict[str, Any]) -> str:
    types = [str(one.get("type")) for one in read_settings(folder / MODULES, list) if one]
    if any(one.endswith("LogitScore") for one in types):
        return "CrossEncoder"
    by_tokens = "query_prefix" in settings or any(
        one.endswith((".MultiVectorMask", "pylate.models.Dense.Dense")) for one in types
    )
    return "MultiVectorEncoder" if by_tokens else "SentenceTransformer"


def _holds_a_head(folder: Path) -> bool:
    """Whether the tensors have the names of a head's; their values are not read."""
    from safetensors import SafetensorError, safe_open

    for path in sorted(folder.glob("*.safetensors")):
        with contextlib.suppress(SafetensorError, OSError), safe_open(path, "numpy") as tensors:
            if any(map(LAST_LAYER.search, tensors.keys())):
                return True
    return False
