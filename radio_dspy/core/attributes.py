"""Attributes that have another value for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def set_inside(target: Any, name: str, value: Any) -> Iterator[None]:
    """Inside the block an object's attribute has another value; after it, also after an error, that of before.

    Example:
        >>> from types import SimpleNamespace
        >>> signal = SimpleNamespace(lm="small")
        >>> with set_inside(signal, "lm", "large"):
        ...     signal.lm
        'large'
        >>> signal.lm
        'small'
    """
    before = getattr(target, name)
    setattr(target, name, value)
    try:
        yield
    finally:
        setattr(target, name, before)
