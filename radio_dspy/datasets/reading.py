"""Rows of data: from JSON Lines, a JSON array or Parquet, from tables, and from the documents of other libraries."""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import IO, Any

from radio_dspy.core.errors import DataError, MissingExtraError
from radio_dspy.core.redaction import logger_of

logger = logger_of(__name__)
_GZIP = "\x1f\udc8b"
_PACKED = (_GZIP, "(\udcb5/\udcfd", "BZh", "\udcfd7zXZ", "PK\x03\x04")  # gzip, zstd, bzip2, xz, zip; bytes read as text
_UTF16 = ("\udcff\udcfe", "\udcfe\udcff")  # the mark at its start; UTF-32 has it, too
_TABLES = (".csv", ".tsv", ".arrow", ".feather", ".xlsx")
# What LangChain's, Haystack's and LlamaIndex's documents are made of.
_DOCUMENT = ("id", "id_", "title", "page_content", "content", "text", "metadata", "meta")
_PARTS = (".jsonl", ".parquet")  # of a folder
_DOCUMENT_TEXTS = ("page_content", "content", "text")
_FIELDS = {"_id", "title", "contents", "question", "query", "anchor", "answer", *_DOCUMENT}  # of one row
Source = str | PathLike[str] | Iterable[Mapping[str, Any]]


class BlankRowError(DataError):
    """A row that holds nothing to use: it is left out and counted, and an error only where no other row is left."""


class LeftOut:
    """Rows of one source that are left out; one warning tells their number and the first of them.

    Args:
        source: Where they come from.
        what: What a row is, in the plural.
    """

    def __init__(self, source: Source, what: str) -> None:
        self._name, self._what = name_of(source), what
        self._count, self._first = 0, ""
        self._error: BlankRowError | None = None

    def add(self, key: str, error: BlankRowError) -> None:
        """Count a row."""
        self._count += 1
        if self._error is None:
            self._first, self._error = key, error

    def tell(self, kept: int) -> None:
        """Warn of the rows that were left out.

        Raises:
            DataError: If nothing is left: what is wrong with the first row, or that there was none.
        """
        if not kept:
            raise self._error or DataError(f"{self._name}: holds no {self._what}.")
        if self._error:
            logger.warning(
                "%s: left out %d of %d %s, the first of them %s (%s)",
                self._name, self._count, self._count + kept, self._what, self._first, self._error,
            )  # fmt: skip


def name_of(source: Source) -> str:
    """A source's name for messages."""
    return str(fspath(source)) if isinstance(source, str | PathLike) else "the rows"


def rows_of(source: Source) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each row with a name for error messages: ``FILE:LINE`` or ``row N``.

    Raises:
        DataError: If the source is neither a file name nor rows, or a row is no mapping.
    """
    if isinstance(source, str | PathLike):
        for path in parts_of(source):
            read = _read_parquet if is_parquet(path) else read_jsonl
            yield from ((where, _whole(row)) for where, row in read(path))
        return
    rows = _rows(source)
    if rows is None:
        hint = "; choose one of its splits, such as ['train']" if type(source).__name__.endswith("DatasetDict") else ""
        raise DataError(f"Expected a file name or a list of rows, got {type(source).__name__}{hint}.")
    classes = _classes(source)
    for number, row in enumerate(rows, start=1):
        found = _row(row)
        if found is None:
            raise DataError(f"row {number}: expected a mapping, got {type(row).__name__}.")
        try:
            whole = _whole(plain(found))
        except RecursionError:
            raise DataError(f"row {number}: is nested too deeply; give fewer levels.") from None
        yield f"row {number}", whole | {name: _class(names, whole.get(name)) for name, names in classes.items()}


def _whole(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row; a hit of Elasticsearch with what it was found in."""
    inner = row.get("_source")
    return {**(inner if isinstance(inner, Mapping) else {}), **row}


def _rows(source: Any) -> Iterable[Any] | None:
    """The rows of a table, of a mapping by id as BEIR's loader gives it, or of any iterable; None for what has none."""
    for method, arguments in (("to_pylist", ()), ("to_dicts", ()), ("to_dict", ("records",))):  # Arrow, polars, pandas
        if hasattr(source, "columns") and hasattr(source, method):
            rows: Iterable[Any] = getattr(source, method)(*arguments)
            return rows
    if isinstance(source, Mapping):
        by_id = all(isinstance(one, Mapping | str) for one in source.values()) and not _FIELDS.intersection(source)
        if not by_id or type(source).__name__.endswith("DatasetDict"):
            return None
        return [{**({"text": one} if isinstance(one, str) else one), "id": key} for key, one in source.items()]
    return source if isinstance(source, Iterable) and not isinstance(source, bytes) else None


def _classes(source: Any) -> dict[str, list[str]]:
    """The names of a Hugging Face dataset's classes, by column: its rows have their numbers."""
    features = getattr(source, "features", None)
    found = {key: getattr(one, "names", None) for key, one in features.items()} if isinstance(features, Mapping) else {}
    return {key: names for key, names in found.items() if isinstance(names, list)}


def _class(names: list[str], value: Any) -> Any:
    """A class by its name; one whose names are digits stays a number, and -1 stands for none."""
    if value == -1:
        return None
    named = isinstance(value, int) and value < len(names) and not any(one.isdecimal() for one in names)
    return names[value] if named else value


def is_missing(value: Any) -> bool:
    """Whether a cell is empty: None, NaN, or pandas' NA and NaT."""
    return value is None or (isinstance(value, float) and math.isnan(value)) or type(value).__name__ in _NO_VALUES


_NO_VALUES = ("NAType", "NaTType")


def is_empty(value: Any) -> bool:
    """Whether a field holds nothing: no value, no text, or a collection of nothing (numpy's arrays too)."""
    value = plain(value)
    return value is None or (isinstance(value, str | Collection) and not isinstance(value, type) and not len(value))


def plain(value: Any) -> Any:
    """A cell in Python's own types, at every depth, as tables and tensors have others; None for a missing value."""
    if is_missing(value):
        return None
    if isinstance(value, Mapping):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return value if {*map(type, value)} <= _PLAIN else [plain(one) for one in value]
    unwrap = next((getattr(value, name) for name in _UNWRAPPED if hasattr(value, name)), None)
    return value if unwrap is None or isinstance(value, type) else plain(unwrap())


_PLAIN = {str, int, float, bool}
_UNWRAPPED = ("tolist", "to_list", "as_py")  # numpy, torch, pandas; polars; Arrow


def _row(item: Any) -> Mapping[str, Any] | None:
    """A mapping, a DSPy example, a row of a database, a named tuple, or a document of another library; else None."""
    if isinstance(item, Mapping):
        return item
    if isinstance(item, type):
        return None
    if hasattr(item, "keys") and hasattr(item, "__getitem__"):
        return {name: item[name] for name in item.keys()}  # noqa: SIM118
    if hasattr(item, "_asdict"):
        return {**item._asdict()}
    held = any(hasattr(item, name) for name in ("metadata", "meta"))  # one of an image has no text
    if not any(isinstance(getattr(item, name, ""), str) or held for name in _DOCUMENT_TEXTS if hasattr(item, name)):
        return None
    return {name: getattr(item, name) for name in _DOCUMENT if hasattr(item, name)}


def is_parquet(source: str | PathLike[str]) -> bool:
    """Whether a file is Parquet, by its name."""
    return str(fspath(source)).lower().endswith(".parquet")


def _read_parquet(source: str | PathLike[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the rows of a Parquet file, a part at a time, each with its place for messages."""
    path = file_of(source)
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingExtraError("Parquet needs a package more: pip install 'radio-dspy[data]'") from None
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for part in file.iter_batches():
                for row in part.to_pylist():
                    number += 1
                    yield f"{path}: row {number}", _checked(f"{path}: row {number}", plain(row))
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: no Parquet file that can be read ({error!s:.120}).") from error


def parts_of(source: str | PathLike[str]) -> list[Path]:
    """The files of a folder of JSON Lines or Parquet, by name, as clusters write them; else the file itself.

    Raises:
        DataError: If a folder holds none.
    """
    path = Path(fspath(source))
    try:
        if not path.is_dir():
            return [path]
        found = sorted(one for one in path.iterdir() if one.name.removesuffix(".gz").endswith(_PARTS))
    except (OSError, ValueError):  # told when it is opened
        return [path]
    if not found:
        raise DataError(f"{path}: is a folder without a {' or '.join(_PARTS)} file.")
    return found


def read_jsonl(source: str | PathLike[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the objects of a JSON Lines file or of one JSON array (``.gz`` too), each with its place for messages.

    Raises:
        DataError: If the file is not there, or a line is not a JSON object.
    """
    path = file_of(source)
    begun = False
    try:
        with opened(path) as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                where = f"{path}:{number}"
                if not begun and line.lstrip().startswith("["):
                    rows = _array(where, as_utf8(where, line + lines.read()), number)
                    for place, row in enumerate(rows, start=1):
                        yield f"{path}: row {place}", _checked(f"{path}: row {place}", row)
                    return
                begun = True
                yield where, _parse(where, as_utf8(where, line))
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: not a whole gzip file ({error}).") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error


def file_of(source: str | PathLike[str]) -> Path:
    """A file that is there.

    Raises:
        DataError: If it is not.
    """
    path = Path(fspath(source))
    try:
        found, folder = path.is_file(), path.is_dir()
    except (OSError, ValueError) as error:  # a name that is too long, a folder that may not be read, a NUL
        raise DataError(f"{path!s:.200}: cannot be read ({getattr(error, 'strerror', error)}).") from error
    if not found:
        raise DataError(f"{path}: {'is a folder, not a JSON Lines file' if folder else 'no such file'}.")
    return path


def opened(path: Path) -> IO[str]:
    """Open a text file, packed or not."""
    # A strict decoder fails on the whole block that it reads ahead, many lines before the one to blame.
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", errors="surrogateescape")
    return path.open(encoding="utf-8-sig", errors="surrogateescape")


def as_utf8(where: str, line: str) -> str:
    """A line in which no byte was anything but UTF-8."""
    if _is_wide(line):
        raise DataError(f"{where}: not UTF-8 text (it has zero bytes){_advice(where, line)}.")
    if not line.isascii():
        data = line.encode("utf-8", "surrogateescape")
        try:
            data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{where}: not UTF-8 text ({error.reason}){_advice(where, line)}.") from error
    return line


def _is_wide(line: str) -> bool:
    """Whether a line's characters stand between zero bytes, as in UTF-16 and UTF-32."""
    return "\0" in line and bool(line.strip("\0\r\n "))


def _array(where: str, text: str, first: int) -> list[Any]:
    """The rows of a file that is one JSON array, which begins at line ``first``."""
    try:
        return list(json.loads(text))
    except json.JSONDecodeError as error:
        place = f"{where.rpartition(':')[0]}:{first + error.lineno - 1}"
        raise DataError(f"{place}: not JSON ({error.msg}).") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON ({error}).") from error


def _parse(where: str, line: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON ({error}){_advice(where, line)}.") from error
    return _checked(where, row)


def _checked(where: str, row: Any) -> Mapping[str, Any]:
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected a JSON object, got {type(row).__name__}.")
    return {name: None if is_missing(value) else value for name, value in row.items()}


def _advice(where: str, line: str) -> str:
    """Advice for a file of another kind."""
    if line.startswith(_PACKED):
        ending = "a packed file's name must end in .gz" if line.startswith(_GZIP) else "unpack it, or pack it with gzip"
        return f"; {ending}"
    if line.startswith(_UTF16) or _is_wide(line):
        return "; it is UTF-16 or UTF-32: save it as UTF-8"
    if line.rstrip().endswith(("{", "[", ",")):
        return "; an object must stand on one line (jq -c), or in one JSON array"
    name = where.rpartition(":")[0].lower().removesuffix(".gz")
    return "; read a table with pandas and give the DataFrame" if name.endswith(_TABLES) else ""
