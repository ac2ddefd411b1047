"""Random numbers of a piece of work, the same ones whatever other threads draw meanwhile."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from radio_dspy.core.locks import ThreadLock

if TYPE_CHECKING:
    import torch

# The generators of torch, numpy and Python belong to the process: one thread at a time draws from states of its own.
_DRAWING = ThreadLock()
_PAUSE = 1e-4  # seconds; a thread that gives the lock back and takes it again at once would leave the others waiting


class RandomState:
    """States of torch, numpy and Python that belong to one piece of work.

    Args:
        seed: Where they begin.

    Example:
        >>> state, drawn = RandomState(1), []
        >>> for _ in range(2):
        ...     with state.drawing():
        ...         drawn.append(random.random())
        >>> drawn == [one.random() for one in [random.Random(1)] for _ in range(2)]
        True
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._state: tuple[dict[str, torch.Tensor], dict[str, Any]] | None = None

    @contextlib.contextmanager
    def drawing(self) -> Iterator[None]:
        """Draw from these states in the block; the process's own come back after it."""
        if threading.active_count() > 1:
            time.sleep(_PAUSE)
        with _DRAWING:
            before = random_tensors(), random_values()
            self._begin()
            try:
                yield
            finally:
                self._state = random_tensors(), random_values()
                set_random_state(*before)

    def _begin(self) -> None:
        import numpy as np
        import torch

        if self._state is not None:
            set_random_state(*self._state)
            return
        random.seed(self._seed)
        np.random.seed(self._seed % 2**32)
        torch.manual_seed(self._seed)


def random_tensors() -> dict[str, torch.Tensor]:
    """The states of torch."""
    import torch

    found = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        found |= {f"cuda-{row}": one for row, one in enumerate(torch.cuda.get_rng_state_all())}
    return found


def random_values() -> dict[str, Any]:
    """The states of Python and numpy, in JSON types."""
    import numpy as np

    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": [version, list(words), gauss],
        "numpy": [str(kind), [int(one) for one in keys], int(position), int(has_gauss), float(cached)],
    }


def set_random_state(tensors: dict[str, torch.Tensor], values: dict[str, Any]) -> None:
    """Set what ``random_tensors`` and ``random_values`` gave."""
    import numpy as np
    import torch

    version, words, gauss = values["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, *rest = values["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(tensors["torch"])
    if torch.cuda.is_available():
        torch.cuda.set_rng_state_all([one for name, one in sorted(tensors.items()) if name.startswith("cuda-")])
