"""Hold the settings files in a folder of weights against the values that they may have.

Their entries reach transformers and sentence-transformers as keyword arguments, class names and import paths. What is
not known to be data is refused: an address, a path, code, another repository.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from radio_dspy.core.errors import CheckpointError, UnsafeFileError
from radio_dspy.core.files import is_special
from radio_dspy.models.settings_values import MODULES, PLACES, SETTINGS, TOKENIZER, Rule, anything, is_token, is_word

# Kinds of model whose own code became a part of transformers: it is not needed any more, and never run.
_TAKEN_INTO_TRANSFORMERS = {"eurobert", "gte", "jina_embeddings_v3", "nomic_bert"}
LARGEST = 64 << 20  # bytes of a file of settings


def unreadable(path: Path, why: str) -> CheckpointError:
    """The error for a file that is not what it should be."""
    return CheckpointError(f"{path.parent}: cannot be loaded: {path.name} {why}; copy the folder again.")


def read_settings(path: Path, kind: type = dict) -> Any:
    """Read a JSON file that holds a dict, or a list.

    Raises:
        CheckpointError: If it holds something else.
    """
    try:
        if is_special(path):
            raise ValueError("neither a file nor a folder")
        if path.stat().st_size > LARGEST:
            raise ValueError(f"larger than {LARGEST >> 20} MB")
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise unreadable(path, f"is no JSON ({error!r:.200})") from error
    if not isinstance(found, kind):
        raise unreadable(path, f"holds a {type(found).__name__}, not a {kind.__name__}")
    return found


@functools.lru_cache(maxsize=256)
def check_settings(path: Path, state: tuple[int, ...]) -> None:
    """Hold a file against its rules, once for each state of it.

    Raises:
        UnsafeFileError: If an entry is not known to be safe.
        CheckpointError: If it is no JSON.
    """
    rules = SETTINGS[path.name]
    found = read_settings(path, list if path.name == MODULES else dict)
    kept = found if isinstance(found, list) else [found]
    taken = path.name == "config.json" and str(found.get("model_type")) in _TAKEN_INTO_TRANSFORMERS
    try:
        for one in kept:
            _check_entries(path, {**rules, "auto_map": anything} if taken else rules, one, top=True)
    except RecursionError as error:
        raise unreadable(path, "is nested too deep") from error


def _check_entries(path: Path, rules: Mapping[str, Rule], value: Any, *, top: bool = False, key: str = "") -> None:
    """Every key of a value, at whatever depth, has a rule of its own or the one for all others."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if (rule := _rule_for(rules, name)) is not None:
                if not rule(inner):
                    raise refused(path, name, inner)
                continue
            unknown = (top and "" not in rules) or not is_word(name)
            if unknown or (PLACES.search(name) and isinstance(inner, str) and inner):
                raise refused(path, name, inner)
            _check_entries(path, rules, inner, key=name)
    elif isinstance(value, list):
        for inner in value:
            _check_entries(path, rules, inner, key=key)
    elif isinstance(value, str) and not is_word(value):
        raise refused(path, key, value)


def _rule_for(rules: Mapping[str, Rule], name: str) -> Rule | None:
    if rules is TOKENIZER and name.endswith(("_token", "_tokens")):
        return is_token
    return rules.get(name)


def refused(path: Path, key: str, value: Any) -> UnsafeFileError:
    """The error for an entry that is not known to be safe."""
    return UnsafeFileError(
        f"{path.parent}: cannot be loaded: {path.name} sets {key!r:.100} to {value!r:.200}, which is not known to "
        "be safe: a setting may never ask for code, an address, a path or another repository. If you trust the folder "
        "and can do without that entry, remove it."
    )
