"""Passages that stay on the disk: one is read when it is shown, so that a large index opens at once."""

from __future__ import annotations

import hashlib
import json
import mmap
from array import array
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from radio_dspy.core.errors import CheckpointError, DataError
from radio_dspy.core.passages import Passage, check_passage

if TYPE_CHECKING:
    from numpy.typing import NDArray

_START, _KEY, _ROW = range(3)  # columns of the places: where a row's line starts; hashes of ids, ascending; their rows


def as_row(passage: Passage) -> dict[str, Any]:
    """A passage as ``load_corpus`` reads it."""
    row: dict[str, Any] = {"id": passage.id, "title": passage.title, "text": passage.text}
    return {**row, "metadata": dict(passage.metadata)} if passage.metadata else row


def write_places(passages: Path, places: Path) -> None:
    """Write down where each line of ``passages.jsonl`` starts and where each id stands: 24 bytes a passage.

    Args:
        passages: The file, a JSON object with an ``id`` on each line.
        places: The ``.npy`` file to write, int64 of shape (passages, 3).
    """
    import numpy as np

    starts, keys, position = array("q"), array("q"), 0
    with passages.open("rb") as file:
        for line in file:
            starts.append(position)
            keys.append(_key(json.loads(line)["id"]))
            position += len(line)
    hashes = np.array(keys, dtype=np.int64)
    rows = np.argsort(hashes, kind="stable")
    np.save(places, np.column_stack([np.array(starts, dtype=np.int64), hashes[rows], rows]), allow_pickle=False)


class PassageFile(Sequence[Passage]):
    """The passages of a saved index as a list that reads a line of the file when an item is asked for.

    Args:
        passages: What ``FaissRetriever.save`` wrote as ``passages.jsonl``. It must stay as it is.
        places: What ``write_places`` wrote about it.

    Raises:
        CheckpointError: If the two do not belong together; from an item, if its line holds no passage.
    """

    def __init__(self, passages: Path, places: Path) -> None:
        import numpy as np

        self.path = passages
        try:
            given = np.load(places, mmap_mode="r", allow_pickle=False)
            with passages.open("rb") as file:
                self._text = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except Exception as error:  # a header that is none ends in errors of Python's own tokenizer
            raise CheckpointError(f"{places}: cannot be read ({error!s:.200}); build the index again.") from None
        is_table = isinstance(given, np.ndarray) and given.ndim == 2 and given.shape[1:] == (3,)
        if not is_table or given.dtype != np.int64 or not len(given):
            raise CheckpointError(f"{places}: holds no places of passages; build the index again.")
        self._places: NDArray[Any] = given
        self.rows = RowsById(self)
        starts, keys, rows = given[:, _START], given[:, _KEY], given[:, _ROW]
        in_order = starts[0] == 0 and (np.diff(starts) > 0).all() and starts[-1] < len(self._text)
        sorted_keys = (keys[1:] >= keys[:-1]).all()  # two may lie further apart than their type holds
        if not in_order or not sorted_keys or rows.min() < 0 or rows.max() >= len(given):
            raise CheckpointError(f"{places}: does not fit {passages.name}; build the index again.")

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, at: int) -> Passage: ...

    @overload
    def __getitem__(self, at: slice) -> tuple[Passage, ...]: ...

    def __getitem__(self, at: int | slice) -> Passage | tuple[Passage, ...]:
        if isinstance(at, slice):
            return tuple(self[row] for row in range(*at.indices(len(self))))
        row = range(len(self))[at]  # an IndexError of the usual kind
        return self._read(row, int(self._places[row, _START]), self._end(row))

    def __iter__(self) -> Iterator[Passage]:
        starts = (*self._places[:, _START].tolist(), len(self._text))
        return (self._read(row, *ends) for row, ends in enumerate(pairwise(starts)))

    def copies(self) -> list[int]:
        """The rows that say again what an earlier row says.

        Raises:
            DataError: If two rows have one id and different texts.
        """
        import numpy as np

        keys = self._places[:, _KEY]
        again = np.flatnonzero(keys[1:] == keys[:-1])
        rows = np.unique(self._places[np.concatenate([again, again + 1]), _ROW])
        first: dict[str, tuple[int, Passage]] = {}
        found = []
        for row in rows.tolist():
            one = self[row]
            number, before = first.setdefault(one.id, (row, one))
            if before != one:
                raise DataError(
                    f"id {one.id!r} was used for passage {number + 1} and for another one, passage {row + 1}; give "
                    "every passage its own id."
                )
            if number != row:
                found.append(row)
        return found

    def close(self) -> None:
        """Let go of the files, after which nothing can be read."""
        self._text.close()
        self._places = self._places[:0].copy()

    def found(self, passage_id: str) -> int | None:
        """The row of an id, None where there is none."""
        key = _key(passage_id)
        at = int(self._places[:, _KEY].searchsorted(key))
        while at < len(self) and self._places[at, _KEY] == key:  # two ids may share a hash
            row = int(self._places[at, _ROW])
            if self[row].id == passage_id:
                return row
            at += 1
        return None

    def _end(self, row: int) -> int:
        return int(self._places[row + 1, _START]) if row + 1 < len(self) else len(self._text)

    def _read(self, row: int, start: int, end: int) -> Passage:
        try:
            line = json.loads(self._text[start:end])
            found = Passage(line["id"], line["text"], line["title"], line.get("metadata"))
            check_passage(found, f"line {row + 1}")
            return found
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, DataError) as error:
            raise CheckpointError(
                f"{self.path}: line {row + 1} holds no passage ({error!s:.200}); build the index again."
            ) from None


class RowsById(Mapping[str, int]):
    """The row of each passage by its id."""

    def __init__(self, passages: PassageFile) -> None:
        self._passages = passages

    def __getitem__(self, passage_id: str) -> int:
        row = self._passages.found(passage_id) if isinstance(passage_id, str) else None
        if row is None:
            raise KeyError(passage_id)
        return row

    def __iter__(self) -> Iterator[str]:
        return (one.id for one in self._passages)

    def __len__(self) -> int:
        return len(self._passages)


def _key(passage_id: str) -> int:
    """A number that stands for an id, the same on every machine."""
    digest = hashlib.blake2b(passage_id.encode("utf-8", "backslashreplace"), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
