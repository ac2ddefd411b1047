"""Old keyword arguments: giving one warns and sets the argument that replaced it."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T", bound=type)


def warn_of_name(owner: str, old: str, new: str) -> None:
    """Warn that an argument has another name or place now."""
    warnings.warn(f"{owner}({old}=) has moved: give {new}.", DeprecationWarning, stacklevel=4)


def old_names(**names: str) -> Callable[[T], T]:
    """A class decorator: also take keyword arguments by their old names, with a deprecation warning.

    Example:
        >>> from dataclasses import dataclass
        >>> @old_names(rounds="epochs")
        ... @dataclass
        ... class Settings:
        ...     epochs: int = 2
        >>> with warnings.catch_warnings(record=True) as found:
        ...     warnings.simplefilter("always")
        ...     settings = Settings(rounds=3)
        >>> settings, str(found[0].message)
        (Settings(epochs=3), 'Settings(rounds=) has moved: give epochs.')
    """

    def wrapped(kind: T) -> T:
        own = kind.__init__  # type: ignore[misc]  # of a class, not of an instance

        @functools.wraps(own)
        def init(self: Any, *args: Any, **given: Any) -> None:
            for old in [one for one in given if one in names]:
                warn_of_name(kind.__name__, old, names[old])
                if names[old] in given:
                    raise TypeError(f"{kind.__name__} got both {old} and {names[old]}; give {names[old]} alone.")
                given[names[old]] = given.pop(old)
            own(self, *args, **given)

        kind.__init__ = init  # type: ignore[misc]
        return kind

    return wrapped
