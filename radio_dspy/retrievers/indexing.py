"""From a corpus to its passages and vectors on the disk, a part at a time: no process holds them all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from os import PathLike
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from radio_dspy.core.errors import DataError
from radio_dspy.core.files import write_lines
from radio_dspy.datasets.loading import passages_of
from radio_dspy.datasets.reading import BlankRowError, LeftOut, name_of
from radio_dspy.models.encoder import TextEncoder
from radio_dspy.retrievers.passage_file import PassageFile, as_row, write_places

if TYPE_CHECKING:
    from radio_dspy.models.encoder import Vectors


def check_source(source: str | PathLike[str]) -> None:
    """See that a corpus can be read, before a folder is made for it.

    Raises:
        DataError: As for ``write_corpus``, of its first row.
    """
    left_out = LeftOut(source, "passages")
    if next(passages_of(source, left_out), None) is None:
        left_out.tell(0)


def write_corpus(source: str | PathLike[str], passages: Path, places: Path) -> int:
    """Write the passages of a corpus as an index keeps them; their number.

    Rows that hold nothing, and further copies of a row, are left out with one warning.

    Raises:
        DataError: For a row that cannot be used, an id that two different rows have, or no rows.
    """
    left_out = LeftOut(source, "passages")
    count = _written(passages, _rows(source, left_out))
    if count:
        write_places(passages, places)
        with closing(PassageFile(passages, places)) as file:
            try:
                copies = {row: file[row].id for row in file.copies()}
            except DataError as error:
                raise DataError(f"{name_of(source)}: {error}") from None
        if copies:
            left_out = LeftOut(source, "passages")
            rows = enumerate(_rows(source, left_out))
            count = _written(passages, (one for row, one in rows if row not in copies))
            for key in copies.values():
                left_out.add(repr(key), BlankRowError("the same as an earlier row"))
            write_places(passages, places)
    left_out.tell(count)
    return count


def _rows(source: str | PathLike[str], left_out: LeftOut) -> Iterator[dict[str, Any]]:
    return (as_row(passage) for _, passage in passages_of(source, left_out))


def _written(path: Path, rows: Iterator[dict[str, Any]]) -> int:
    count = 0

    def counted() -> Iterator[dict[str, Any]]:
        nonlocal count
        for count, row in enumerate(rows, start=1):  # noqa: B007
            yield row

    write_lines(path, counted())
    return count


def encode_to_disk(
    encoder: TextEncoder, passages: PassageFile, file: IO[bytes], *, show_progress: bool = False
) -> Vectors:
    """Encode passages into a file; an array over it, of shape (passages, dimension).

    Raises:
        OSError: If the disk has no room for them.
    """
    import numpy as np
    from tqdm.auto import tqdm

    vectors: Vectors | None = None
    with tqdm(total=len(passages), desc="encoding", unit="text", disable=not show_progress) as bar:
        for start, found in encoder.passage_blocks(passages):
            if vectors is None:
                shape = (len(passages), found.shape[1])
                if hasattr(os, "posix_fallocate"):  # else a full disk would end the process where it writes
                    os.posix_fallocate(file.fileno(), 0, 4 * shape[0] * shape[1])
                vectors = np.memmap(file, dtype=np.float32, mode="w+", shape=shape)
            vectors[start : start + len(found)] = found
            bar.update(len(found))
    return vectors  # type: ignore[return-value]  # there is a passage
