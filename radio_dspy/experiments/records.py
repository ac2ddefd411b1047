"""Write and read the result record of a row."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from radio_dspy.core.errors import DataError, SettingsError
from radio_dspy.core.files import replacing
from radio_dspy.core.redaction import learn, redacted, redacted_value
from radio_dspy.experiments.settings import LM_FILE, Experiment, Row
from radio_dspy.lm.parallel import usable_cores

FORMAT_VERSION = 1
_PACKAGES = ("radio-dspy", "dspy", "faiss-cpu", "numpy", "sentence-transformers", "torch", "transformers", "xllamacpp")
_DIGITS = 5  # of a number in a record


def record_path(folder: Path, experiment: Experiment, row: Row, seed: int) -> Path:
    """Where a row's record is."""
    return folder / experiment.name / f"{row.slug}-{seed}.json"


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record in one step, a line for each of its keys: short, and readable as a difference."""
    learn(record.get("settings"))
    lines = [
        f" {json.dumps(key)}: {json.dumps(_rounded(value), ensure_ascii=False, allow_nan=False)}"
        for key, value in _shown(record).items()
    ]
    with replacing(path) as temporary:
        temporary.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def read_record(path: Path) -> dict[str, Any]:
    """Read a record.

    Raises:
        DataError: If it is none that this release knows.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        known = int(record["format"]) <= FORMAT_VERSION and {"experiment", "row", "seed", "metrics"} <= set(record)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{path}: not a result record ({error!r}); delete it to run the row again.") from error
    if not known:
        raise DataError(f"{path}: no result record of format {FORMAT_VERSION}; delete it to run the row again.")
    return dict(record)


def is_done(path: Path, settings: Mapping[str, Any], data: Mapping[str, str] | None = None) -> bool:
    """Whether a row's record is there.

    Args:
        path: The record.
        settings: The row's, which must be those of the record.
        data: Hashes of the files, which must be those of the record; None does not look. An LM's file need not be here.

    Raises:
        SettingsError: If it was made with other settings or data: one table must not mix them.
        DataError: If it is no record.
    """
    if not path.exists():
        return False
    record = read_record(path)
    parts = [("settings", _flat(record.get("settings", {})), _flat(json.loads(json.dumps(_shown(settings)))))]
    if data is not None:
        parts.append(("data", _flat(record.get("data", {})), _flat(data)))
    for name, before, now in parts:
        for key in sorted({*before, *now}):
            if key not in now and key.endswith(LM_FILE):  # only a row that is still to run needs it
                continue
            if before.get(key) != now.get(key):
                raise SettingsError(
                    f"{path}: made with other {name}: {key} was {before.get(key)!r} and is {now.get(key)!r}. Delete "
                    "the record to run the row again, or give another --out (and --records)."
                )
    return True


def _shown(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values without keys, also those of an address that was given by ``--set``."""
    return dict(redacted_value(dict(values), clean=redacted))


def environment() -> dict[str, Any]:
    """Versions and hardware, as far as they may change a result; nothing that tells whose machine it is."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "versions": {"python": platform.python_version(), **versions},
        "hardware": {"cores": usable_cores(), "machine": platform.machine(), "memory_gb": _memory(), "gpu": _gpu()},
    }


def _memory() -> int | None:
    names = ("SC_PAGE_SIZE", "SC_PHYS_PAGES")
    if not all(name in getattr(os, "sysconf_names", {}) for name in names):
        return None
    return round(os.sysconf(names[0]) * os.sysconf(names[1]) / 2**30)


def _gpu() -> str | None:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def _flat(value: Any, key: str = "") -> dict[str, Any]:
    """Nested settings by dotted keys."""
    if not isinstance(value, Mapping) or not value:
        return {key: value}
    found: dict[str, Any] = {}
    for name, inner in value.items():
        found |= _flat(inner, f"{key}.{name}" if key else str(name))
    return found


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, _DIGITS) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _rounded(inner) for key, inner in value.items()}
    return [_rounded(inner) for inner in value] if isinstance(value, list | tuple) else value


def hash_of_settings(settings: Mapping[str, Any]) -> str:
    """Sixteen hex digits that tell settings apart."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
