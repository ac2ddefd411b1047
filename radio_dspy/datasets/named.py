"""Data sets by their names: ``beir:scifact``, ``ir_datasets:beir/scifact/test``, ``hf:mteb/scifact``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Literal

from radio_dspy.core.errors import DataError, MissingExtraError, SettingsError
from radio_dspy.core.redaction import told

Part = Literal["corpus", "queries"]
_KINDS = ("beir:", "ir_datasets:", "hf:")
_TEXTS = ("text", "body", "abstract", "description", "contents")
_QRELS = ("qrels", "default")  # configurations that hold judgements, in MTEB's and others' layout
_EXTRA = "Data sets by name need a package more: pip install 'radio-dspy[data]'"


def is_named(source: Any) -> bool:
    """Whether a source is the name of a data set: ``beir:``, ``ir_datasets:`` or ``hf:`` and what follows."""
    return isinstance(source, str | PathLike) and str(fspath(source)).startswith(_KINDS)


def open_named(source: Any, part: Part) -> tuple[Any, Any]:
    """The rows of a named data set, and the judgements of its questions; anything else as it is, without judgements.

    Args:
        source: ``beir:NAME``, a folder in BEIR's layout or one of the data sets of https://github.com/beir-cellar/beir;
            ``ir_datasets:ID``; or ``hf:ID``, on the Hugging Face Hub or a folder in the same layout. ``@SPLIT`` at the
            end is a split (``test`` where there are several), ``:CONFIG`` of a Hugging Face set before it one of its
            configurations (``corpus`` or ``queries`` where it has them).
        part: What is wanted.

    Raises:
        DataError: If there is no such data set, or not this part of it.
        MissingExtraError: If the package is missing that knows it.
    """
    if not is_named(source):
        return source, None
    kind, _, rest = str(fspath(source)).partition(":")
    name, at, split = rest.rpartition("@")
    name, split = (name, split) if at else (rest, "")
    if not name:
        raise SettingsError(f"{fspath(source)}: names no data set; give {kind}:NAME.")
    if kind == "beir":
        return _beir(name, split or "test", part)
    if kind == "ir_datasets":
        if split:
            raise SettingsError(f"{fspath(source)}: ir_datasets names a split in the id, as in beir/scifact/test.")
        return _ir_datasets(name, part)
    return _hugging_face(name, split, part)


def _beir(name: str, split: str, part: Part) -> tuple[Any, Any]:
    """BEIR's folder of a data set, where it is on this machine; else BEIR's copy on the Hub."""
    places = (Path(name), Path(os.environ.get("BEIR_DATA", "datasets")) / name)
    folder = next((one for one in places if (one / "corpus.jsonl").is_file()), None)
    if folder is None:
        if len(Path(name).parts) > 1:
            raise DataError(f"beir:{name}: no folder in BEIR's layout (corpus.jsonl, queries.jsonl, qrels/test.tsv).")
        rows = _load(f"BeIR/{name}", part, part)
        return rows, None if part == "corpus" else list(_load(f"BeIR/{name}-qrels", None, split))
    if part == "corpus":
        return folder / "corpus.jsonl", None
    qrels = folder / "qrels" / f"{split}.tsv"
    if not qrels.is_file():
        there = ", ".join(sorted(one.stem for one in qrels.parent.glob("*.tsv"))) or "none"
        raise DataError(f"{qrels}: no such file; the splits that are judged are {there}: give beir:{name}@SPLIT.")
    return folder / "queries.jsonl", qrels


def _ir_datasets(name: str, part: Part) -> tuple[Any, Any]:
    try:
        import ir_datasets
    except ImportError:
        raise MissingExtraError(_EXTRA) from None
    try:
        found = ir_datasets.load(name)
    except KeyError:
        raise DataError(f"ir_datasets:{name}: ir_datasets knows no data set of this id.") from None
    try:
        if part == "corpus":
            return list(map(_document, found.docs_iter())), None
        queries = [{"id": one.query_id, "text": _text_of(one)} for one in found.queries_iter()]
        judged = {} if not found.has_qrels() else _grades(found.qrels_iter())
    except AttributeError:  # ir_datasets' sets have only the methods of the parts that they have
        raise DataError(f"ir_datasets:{name}: has no {'documents' if part == 'corpus' else part}.") from None
    except OSError as error:
        raise DataError(f"ir_datasets:{name}: cannot be read ({told(error)}).") from error
    return queries, judged or None


def _grades(qrels: Any) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for one in qrels:
        found.setdefault(one.query_id, {})[one.doc_id] = one.relevance
    return found


def _document(one: Any) -> dict[str, Any]:
    title = getattr(one, "title", "")
    return {"id": one.doc_id, "title": title if isinstance(title, str) else "", "text": _text_of(one)}


def _text_of(one: Any) -> str:
    texts = (getattr(one, name, None) for name in _TEXTS)
    found = next((text for text in texts if isinstance(text, str) and text.strip()), None)
    return found if found is not None else str(one.default_text())


def _hugging_face(name: str, split: str, part: Part) -> tuple[Any, Any]:
    folder, colon, config = name.rpartition(":")
    name, config = (folder, config) if colon else (name, "")
    configs = _configs(name)
    if not config and part in configs:
        config = part
    rows = _load(name, config or None, "" if config == part else split, part)
    judged = next((one for one in _QRELS if one in configs and one != config), None) if config == "queries" else None
    return rows, list(_load(name, judged, split or "test")) if judged else None


def _configs(name: str) -> list[str]:
    datasets = _datasets()
    try:
        found: list[str] = datasets.get_dataset_config_names(name)
    except Exception as error:  # of the Hub's client, of many kinds
        raise DataError(f"hf:{name}: cannot be opened ({type(error).__name__}: {told(error)}).") from error
    return found


def _load(name: str, part: str | None, split: str, usual: str = "") -> Iterator[Mapping[str, Any]] | Any:
    """A Hugging Face data set with one split: the one named, the only one, or one of a usual name."""
    datasets = _datasets()
    try:
        found = datasets.load_dataset(name, part)
    except Exception as error:
        raise DataError(f"hf:{name}: cannot be opened ({type(error).__name__}: {told(error)}).") from error
    names = list(found)
    wanted = split or next((one for one in (usual, "test") if one in names), names[0] if len(names) == 1 else "")
    if wanted not in names:
        raise DataError(f"hf:{name}: has the splits {', '.join(names)}; give hf:{name}@SPLIT.")
    return found[wanted]


def _datasets() -> Any:
    try:
        import datasets
    except ImportError:
        raise MissingExtraError(_EXTRA) from None
    return datasets
