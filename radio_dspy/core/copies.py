"""What copies of a program share instead of copying it."""

from __future__ import annotations

from typing import Any

from typing_extensions import Self


class SharedByCopies:
    """A base for objects that copies of a program share: caches, connections, indexes."""

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


class Shared(SharedByCopies):
    """Holds an object of another library, or a function, that copies of a program share."""

    def __init__(self, held: Any) -> None:
        self.held = held
