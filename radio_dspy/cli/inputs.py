"""Inputs of commands: an index or a corpus, and rationales."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radio_dspy.cli.command import say
from radio_dspy.cli.options import (
    DEFAULT_ENCODER,
    CorpusFile,
    EncoderName,
    IndexFolder,
    StoreAddress,
    StoreColumns,
    StoreFilter,
    StoreTable,
)
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


@dataclass(frozen=True)
class FirstStage:
    """The options that say where the passages are, each declared as the command line has it."""

    corpus: CorpusFile = None
    index_folder: IndexFolder = None
    store: StoreAddress = None
    table: StoreTable = None
    column: StoreColumns = None
    filter: StoreFilter = None
    encoder: EncoderName = None

    def check(self) -> None:
        """See that the options go together, before anything is opened.

        Raises:
            SettingsError: If not.
        """
        if self.store is None:
            if self.table or self.column or self.filter:
                raise SettingsError("--table, --column and --filter belong to a store; give its address with --store.")
            _check_index(self.index_folder, self.corpus)
        elif self.index_folder or self.corpus:
            raise SettingsError("Give one of --store, --index and --corpus.")
        elif not self.table or not self.encoder:
            raise SettingsError("--store needs --table and --encoder: the encoder that made the table's vectors.")
        _names(self.column or ()), _filter(self.filter or ())

    def open(self) -> VectorRetriever:
        """A vector store; else a saved index, or a new one of a corpus file."""
        from radio_dspy.retrievers.stores.opening import open_store

        self.check()
        if self.store is None:
            return open_retriever(self.index_folder, self.corpus, self.encoder)
        names: dict[str, Any] = _names(self.column or ())
        wanted = {"filter": _filter(self.filter)} if self.filter else {}
        return open_store(self.store, str(self.table), str(self.encoder), names={**names, **wanted})


def load_program(folder: Path, place: FirstStage, first_stage: Callable[[], VectorRetriever] | None = None) -> Any:
    """A saved program; its first stage is opened, by ``first_stage`` if given, once all else is seen to be right."""
    import radio_dspy as radio
    from radio_dspy.persistence.saving import check_kind

    place.check()
    check_kind(folder)
    return radio.load(folder, retriever=(first_stage or place.open)())


PLACES = tuple(one.name for one in fields(FirstStage))


def _names(columns: Sequence[str]) -> dict[str, str | list[str]]:
    """What a store calls the parts of a passage; metadata may lie in several columns.

    Example:
        >>> _names(["text=body", "metadata=year", "metadata=tenant"])
        {'text': 'body', 'metadata': ['year', 'tenant']}
    """
    found: dict[str, list[str]] = {}
    for part, _, name in (one.partition("=") for one in columns):
        if part not in _COLUMNS or not name:
            raise SettingsError(f"--column {part!r:.40} must be one of {', '.join(_COLUMNS)}, as in text=body.")
        found.setdefault(part, []).append(name)
        if part != "metadata" and len(found[part]) > 1:
            raise SettingsError(f"--column names {part} twice ({' and '.join(found[part])}); give it once.")
    return {part: names if len(names) > 1 else names[0] for part, names in found.items()}


def _filter(given: Sequence[str]) -> dict[str, Any]:
    """Metadata that every passage must have; a field that is named again has one of its values.

    Example:
        >>> _filter(["year=2025", "tenant=acme", "tenant=007"])
        {'year': 2025, 'tenant': ['acme', '007']}
    """
    found: dict[str, list[Any]] = {}
    for name, equals, value in (one.partition("=") for one in given):
        if not name or not equals:
            raise SettingsError(f"--filter {name!r:.40} must be a field and its value, as in year=2025.")
        found.setdefault(name, []).append(_value(value))
    return {name: values if len(values) > 1 else values[0] for name, values in found.items()}


def _value(text: str) -> Any:
    """A number, true, false or a text in quotes, as JSON has them; else the text as it stands."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, str | int | float) else text


def _check_index(index_folder: Path | None, corpus: Path | None) -> None:
    if (index_folder is None) == (corpus is None):
        raise SettingsError(
            "Give either --index (a folder that `radio-dspy index` wrote), --corpus (JSON Lines) or --store (the "
            "address of a vector store)."
        )


def open_retriever(index_folder: Path | None, corpus: Path | None, encoder: str | None) -> FaissRetriever:
    """A saved index, or a new one of a corpus file."""
    import radio_dspy as radio

    _check_index(index_folder, corpus)
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
