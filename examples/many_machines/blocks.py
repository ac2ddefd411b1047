"""Work cut into blocks: which block holds what is fixed, and only who does it depends on the number of processes.

Which texts an encoder reads in one batch decides the last bits of their vectors. So a block is always encoded alone:
its bytes are the same with one process and with a hundred. A block that has its file is done.
"""

from collections.abc import Iterator
from pathlib import Path

from accelerate import PartialState


def own_blocks(folder: Path, rows: int, size: int, suffix: str, state: PartialState) -> Iterator[tuple[Path, range]]:
    """The blocks of this process that are not done: the file to write, and its rows."""
    for number, start in enumerate(range(0, rows, size)):
        path = folder / f"{number:06}{suffix}"
        if number % state.num_processes == state.process_index and not path.exists():
            yield path, range(start, min(start + size, rows))


def all_blocks(folder: Path, rows: int, size: int, suffix: str) -> list[Path]:
    """The files of all blocks, in order; every process must have ended its own."""
    return [folder / f"{number:06}{suffix}" for number in range(-(-rows // size))]
