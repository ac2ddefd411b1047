"""Check a folder of weights before any library reads it.

Only small JSON files are read, never the weights.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from radio_dspy.core.errors import CheckpointError, UnsafeFileError
from radio_dspy.core.files import is_special
from radio_dspy.models.settings_rules import check_settings, read_settings, refused, unreadable
from radio_dspy.models.settings_values import (
    MODULES,
    SENTENCE_SETTINGS,
    SENTENCE_TRANSFORMERS,
    SETTINGS,
    is_activation,
)

INDEX = "model.safetensors.index.json"
TRANSFORMER = "Transformer"
# Files that decide what a model computes. Fingerprints of earlier releases cover the first set only, and stay true
# where a folder holds nothing of the second.
_FIRST_FILES = {
    "config.json",
    "config_sentence_transformers.json",
    "merges.txt",
    "modules.json",
    "router_config.json",
    "sentence_bert_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
}
_FILES = {
    *_FIRST_FILES,
    *SENTENCE_SETTINGS,
    INDEX,
    "added_tokens.json",
    "artifact.metadata",
    "bpe.codes",
    "chat_template.jinja",
    "chat_template.json",
    "cnn_config.json",
    "dict.txt",
    "entity_vocab.json",
    "lstm_config.json",
    "phrasetokenizer_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "prophetnet.tokenizer",
    "tekken.json",
    "video_preprocessor_config.json",
    "whitespacetokenizer_config.json",
    "wordembedding_config.json",
}
_SUFFIXES = (".safetensors", ".model", ".spm")
_BY_HASH = re.compile(r"(.*-)?[0-9a-f]{30,}(\..*)?")  # as the caches of the hub, DVC and git-annex name them
_TEMPLATES = "additional_chat_templates"
# What is fetched of a repository, in its folder and those below it.
_PATTERNS = ("model*.safetensors", "*.model", "*.spm", *sorted(_FILES))
DOWNLOADED = [*_PATTERNS, *(f"*/{one}" for one in _PATTERNS), f"*{_TEMPLATES}/*.jinja"]
_MODULE_FOLDER = re.compile(r"((query|document)_)?\d+_")
_MOST_MODULES = 100
_SAMPLES = ("Why did the dough not rise?", "Größe 3,5 m² — 水 ราคา <pad> </s> [SEP]", "")
_PICKLES = (".bin", ".ckpt", ".h5", ".msgpack", ".ot", ".pickle", ".pkl", ".pt", ".pth")
# Modules of sentence-transformers, and whether they have weights of their own.
_MODULES = {
    "Asym": False,
    "BoW": False,
    "CLIPModel": True,
    "CNN": True,
    "Dense": True,
    "Dropout": False,
    "HierarchicalTokenPooling": False,
    "LSTM": True,
    "LayerNorm": True,
    "LogitScore": False,
    "MultiVectorMask": False,
    "Normalize": False,
    "Pooling": False,
    "Router": False,
    "StaticEmbedding": True,
    TRANSFORMER: True,
    "WeightedLayerPooling": True,
    "WordEmbeddings": True,
    "WordWeights": False,
}
_MODULE_TYPE = re.compile(rf"{SENTENCE_TRANSFORMERS}(?:\.[a-z_]+)?\.({'|'.join(_MODULES)})")
_ALIASES = {"pylate.models.Dense.Dense": "Dense"}  # sentence-transformers takes its own class for it


def checked_weights(folder: str | Path) -> tuple[Path, ...]:
    """Check a folder of weights, and return the files that decide what it computes.

    Args:
        folder: A folder on this machine.

    Raises:
        UnsafeFileError: If a file asks for code, an address, a path or another repository, or is a pickle.
        CheckpointError: If its settings cannot be read.
    """
    found = Path(folder)
    for one in _module_folders(found):
        for path in [*filter(is_weight_file, one.iterdir()), *(one / _TEMPLATES).glob("*.jinja")]:
            if path.is_symlink():
                _check_link(path, found)
    for path, kind in _modules(found):
        _check_no_adapter(path)
        if _MODULES[kind]:
            _check_weights(path, sharded=kind == TRANSFORMER)
        if kind == "Dense" and (path / "config.json").is_file():
            activation = read_settings(path / "config.json").get("activation_function")
            if not is_activation(activation):
                raise refused(path / "config.json", "activation_function", activation)
    for one in _module_folders(found):
        for path in (one / name for name in SETTINGS):
            if path.is_file():
                about = path.stat()  # an archive sets the first two as it likes
                check_settings(path, (about.st_mtime_ns, about.st_size, about.st_ctime_ns, about.st_ino))
    return tuple(weight_files(found))


def weight_files(folder: Path) -> list[Path]:
    """The files of a checkpoint that decide its scores, and no others: nothing here can hold code."""
    found: set[Path] = set()
    for one in _module_folders(folder):
        found.update(path for path in one.iterdir() if path.is_file() and is_weight_file(path))
        if (one / _TEMPLATES).is_dir():
            found.update(filter(Path.is_file, (one / _TEMPLATES).glob("*.jinja")))
    return sorted(found)


def check_copy(source: Path, target: Path) -> None:
    """See that a copy holds all that its source is loaded from, and tokenizes alike.

    Raises:
        CheckpointError: If it does not.
    """
    names = [{one.relative_to(folder) for one in checked_weights(folder)} for folder in (source, target)]
    missing = sorted(map(str, names[0] ^ names[1]))
    for folder, kind in _modules(source):
        if kind == TRANSFORMER and (folder / "tokenizer_config.json").is_file():
            own = folder.relative_to(source)
            if _tokenized(folder) != _tokenized(target / own):
                missing.append(f"a file of the tokenizer in {own.as_posix()}")
    if missing:
        raise CheckpointError(
            f"{source}: cannot be saved: the copy lacks {', '.join(missing)}. Write the model anew with "
            "sentence_transformers' save_pretrained, and give that folder."
        )


@contextlib.contextmanager
def panics_as_errors() -> Iterator[None]:
    """Raise as an error what the Rust code of a tokenizer gives up with, which is no ``Exception``."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise ValueError(f"tokenizer.json: {error}") from error


def _tokenized(folder: Path) -> Any:
    """A tokenizer's tokens of a few texts, and its templates; the error if it cannot be opened."""
    from transformers import AutoTokenizer

    try:
        with panics_as_errors():
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            return (
                [tokenizer(text)["input_ids"] for text in _SAMPLES],
                tokenizer.chat_template,
                tokenizer.special_tokens_map,
                tokenizer.model_max_length,
            )
    except Exception as error:  # whatever a tokenizer raises; then it cannot be loaded here either
        return type(error).__name__


def is_weight_file(path: Path) -> bool:
    """Whether a file has a name that those of weights have."""
    return path.name in _FILES or path.suffix in _SUFFIXES


def _check_link(path: Path, folder: Path) -> None:
    """A link may lead to the like of it, or into a store by hashes: not to any other file of this machine."""
    target = Path(os.path.realpath(path))
    if not target.is_file():
        raise CheckpointError(f"{path}: is a link to nothing; copy the folder with the files themselves.")
    alike = target.name == path.name or (target.suffix == path.suffix and path.suffix in _SUFFIXES)
    if not (alike or _BY_HASH.fullmatch(target.name) or target.is_relative_to(folder.resolve())):
        raise UnsafeFileError(f"{path}: is a link to {target}; copy the folder with the files themselves.")


def _check_entries(folder: Path) -> None:
    """See that a folder holds files and folders of its own alone, before anything in it is opened."""
    for one in folder.iterdir() if folder.is_dir() else ():
        if one.is_symlink() and one.is_dir():
            raise UnsafeFileError(f"{one}: is a link to a folder; copy the weights with the folders themselves.")
        if is_special(one):
            raise UnsafeFileError(f"{one}: is a pipe, a socket or a device, and no part of weights; remove it.")


def _module_folders(folder: Path) -> list[Path]:
    """The folder itself, those that its settings name, and those that are called like a module's.

    A sentence-transformers checkpoint keeps its further modules in folders named ``1_Pooling``, ``2_Normalize``..., one
    with two routes all of them in ``query_0_Transformer``, ``document_0_Transformer``...
    """
    named = {path for path, _ in _modules(folder)}
    alike = {one for one in folder.iterdir() if one.is_dir() and _MODULE_FOLDER.match(one.name)}
    return sorted({folder, *alike, *(one for one in named if one.is_dir())})


def _modules(folder: Path) -> Iterator[tuple[Path, str]]:
    """Each module's folder and class, those of a router among them."""
    _check_entries(folder)
    path = folder / MODULES
    listed = [(one["path"], one["type"]) for one in _listed_modules(path)] if path.is_file() else [("", None)]
    waiting = [(folder, name, kind) for name, kind in listed]
    for parent, name, kind in waiting:  # which grows
        _check_inside(parent, name)
        own = parent / name
        _check_entries(own)
        _check_entries(own / _TEMPLATES)
        label = TRANSFORMER if kind is None else _class_of(own, kind)
        yield own, label
        if label in ("Router", "Asym"):
            routes = next((own / one for one in ("router_config.json", "config.json") if (own / one).is_file()), None)
            types = read_settings(routes).get("types") if routes else None
            if not isinstance(types, dict) or not all(isinstance(one, str) for one in types.values()):
                raise unreadable(own / "router_config.json", "names no routes")
            if len(waiting) + len(types) > _MOST_MODULES:
                raise unreadable(own / "router_config.json", "names too many modules")
            waiting += [(own, str(one), type_) for one, type_ in types.items()]


def _listed_modules(path: Path) -> list[dict[str, Any]]:
    found = read_settings(path, list)
    for one in found:
        if not isinstance(one, dict) or not all(isinstance(one.get(key), str) for key in ("path", "type")):
            raise unreadable(path, "is no list of modules")
    return found


def _class_of(folder: Path, kind: str) -> str:
    if kind in _ALIASES:
        return _ALIASES[kind]
    match = _MODULE_TYPE.fullmatch(kind)
    if match is None:
        raise UnsafeFileError(
            f"{folder}: cannot be loaded: {kind!r:.200} is no module of sentence-transformers that is known here "
            f"({', '.join(_MODULES)}); code that comes with weights is never run."
        )
    return match[1]


def _check_inside(folder: Path, name: str) -> None:
    if not name.isprintable() or len(name) > 200:
        raise UnsafeFileError(f"{folder}: cannot be loaded: the module {name!r:.200} has no name of a folder.")
    if re.search(r"[\\:]", name) or name.startswith("/") or ".." in Path(name).parts:
        raise UnsafeFileError(f"{folder}: cannot be loaded: the module {name!r:.200} lies outside the folder.")
    for part in (folder / name, *(folder / one for one in Path(name).parents)):
        if part != folder and part.is_symlink():
            raise UnsafeFileError(f"{part}: is a link; copy the weights with the folders themselves.")


def _check_no_adapter(folder: Path) -> None:
    if (path := folder / "adapter_config.json").exists():
        base = str(read_settings(path).get("base_model_name_or_path"))
        raise UnsafeFileError(
            f"{folder}: cannot be loaded: adapter_config.json makes it an adapter of other weights ({base!r:.200}). "
            "Merge it first: peft.AutoPeftModel.from_pretrained(folder).merge_and_unload().save_pretrained(new_folder)."
        )


def _check_weights(folder: Path, *, sharded: bool) -> None:
    """Weights are safetensors under the names that are looked for: a pickle must not be taken instead."""
    if sharded and (path := folder / INDEX).is_file():
        shards = read_settings(path).get("weight_map")
        if not isinstance(shards, dict):
            raise unreadable(path, "has no weight_map")
        for shard in sorted(set(map(str, shards.values()))):
            if not re.fullmatch(r"[^/\\:]{1,200}\.safetensors", shard):
                raise UnsafeFileError(f"{path}: cannot be loaded: {shard!r:.200} is no safetensors file beside it.")
            if not (folder / shard).is_file():
                raise CheckpointError(f"{folder}: cannot be loaded: {shard} is missing; copy the whole folder again.")
        if shards:
            return
    if folder.is_dir() and not (folder / "model.safetensors").is_file():
        pickled = next((one.name for one in sorted(folder.iterdir()) if one.suffix in _PICKLES), None)
        if pickled:
            raise UnsafeFileError(
                f"{folder}: cannot be loaded: its weights are {pickled}, which may hold code; only safetensors are "
                "read. If you trust it, convert it: SentenceTransformer(folder), or CrossEncoder(folder), and "
                "save_pretrained(new_folder) write safetensors."
            )
