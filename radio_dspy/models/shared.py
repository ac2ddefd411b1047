"""Caches of models, vectors and hashes that the process shares and clears together."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
_shared: list[functools._lru_cache_wrapper[object]] = []


def shared(maxsize: int) -> Callable[[Callable[..., T]], functools._lru_cache_wrapper[T]]:
    """Keep the last results of a function for the life of the process, or until ``forget_models``.

    Example:
        >>> @shared(maxsize=2)
        ... def length(name):
        ...     return len(name)
        >>> length("model"), length("model"), length.cache_info().misses
        (5, 5, 1)
    """

    def keep(function: Callable[..., T]) -> functools._lru_cache_wrapper[T]:
        kept = functools.lru_cache(maxsize)(function)
        _shared.append(kept)
        return kept

    return keep


def forget_models() -> None:
    """Let go of every model, vector and hash of weights: a folder holds other files than it did."""
    for one in _shared:
        one.cache_clear()


forget_scorers = forget_models  # its name in the first release
