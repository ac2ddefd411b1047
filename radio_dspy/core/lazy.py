"""Import the names of a package at their first use, so that importing the package stays light."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_module(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package whose names live in other modules.

    Args:
        package: Its full name.
        homes: For every name the module that defines it.

    Example:
        >>> getattribute, names = lazy_module("here", {"sqrt": "math"})
        >>> getattribute("sqrt")(4), names()
        (2.0, ['sqrt'])
    """

    def getattribute(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(homes[name]), name)

    return getattribute, lambda: sorted(homes)
