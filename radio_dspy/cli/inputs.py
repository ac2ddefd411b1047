"""Inputs of commands: an index or a corpus, and rationales."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from radio_dspy.cli.command import say
from radio_dspy.cli.options import DEFAULT_ENCODER
from radio_dspy.core.errors import DataError, SettingsError

if TYPE_CHECKING:
    import dspy

    from radio_dspy.engines.ray import RayEngine
    from radio_dspy.retrievers.faiss import FaissRetriever
    from radio_dspy.retrievers.vector import VectorRetriever

_COLUMNS = ("id", "text", "title", "embedding", "metadata")


@contextlib.contextmanager
def open_engine(address: str | None, processes: int = 1) -> Iterator[RayEngine | None]:
    """The Ray cluster of an address, until the block ends; None where there is no address. It trains in processes."""
    import radio_dspy as radio

    if address is None:
        yield None
        return
    with radio.RayEngine(address, trainers=processes if processes > 1 else 0) as engine:
        yield engine


def open_first_stage(
    index_folder: Path | None,
    corpus: Path | None,
    encoder: str | None,
    store: str | None,
    table: str | None,
    columns: Sequence[str] | None,
) -> VectorRetriever:
    """A vector store; else a saved index, or a new one of a corpus file."""
    from radio_dspy.retrievers.stores.opening import open_store

    if store is None:
        if table or columns:
            raise SettingsError("--table and --column belong to a store; give its address with --store.")
        return open_retriever(index_folder, corpus, encoder)
    if index_folder or corpus:
        raise SettingsError("Give one of --store, --index and --corpus.")
    if not table or not encoder:
        raise SettingsError("--store needs --table and --encoder: the encoder that made the table's vectors.")
    pairs = [one.partition("=") for one in columns or ()]
    if wrong := [part for part, _, name in pairs if part not in _COLUMNS or not name]:
        raise SettingsError(f"--column {wrong[0]!r:.40} must be one of {', '.join(_COLUMNS)}, as in text=body.")
    return open_store(store, table, encoder, names={part: name for part, _, name in pairs})


def open_retriever(index_folder: Path | None, corpus: Path | None, encoder: str | None) -> FaissRetriever:
    """A saved index, or a new one of a corpus file."""
    import radio_dspy as radio

    if (index_folder is None) == (corpus is None):
        raise SettingsError("Give either --index (a folder that `radio-dspy index` wrote) or --corpus (JSON Lines).")
    if index_folder is not None:
        return radio.FaissRetriever.load(index_folder, encoder=encoder)
    passages = radio.load_corpus(Path(str(corpus)))
    return radio.FaissRetriever.build(passages, encoder=encoder or DEFAULT_ENCODER, show_progress=True)


def read_rationales(path: Path, questions: Sequence[dspy.Example], used: Sequence[dspy.Example]) -> dict[str, str]:
    """The rationales of the questions that are used; one of a question that the files do not hold is an error."""
    from radio_dspy.core.validation import checked_text, plain_text
    from radio_dspy.datasets.loading import read_jsonl

    known = {str(example.id) for example in questions}
    found: dict[str, str] = {}
    for where, row in read_jsonl(path):
        if not isinstance(row.get("rationale"), str) or "id" not in row:
            raise DataError(f"{where}: needs 'id' and a string 'rationale', got {sorted(row)!r}.")
        key, text = plain_text(row["id"], f"{where}: 'id'"), checked_text(row["rationale"], f"{where}: 'rationale'")
        if key not in known:
            raise DataError(f"{where}: holds a rationale of {key!r}, which is no question of --train or --dev.")
        if found.setdefault(key, text) != text:
            say(f"{where}: question {key!r} has a rationale already, the first one is used.", err=True)
    wanted = {str(example.id) for example in used}
    return {key: text for key, text in found.items() if key in wanted}
