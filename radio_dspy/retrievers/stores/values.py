"""Ids and the values of filters, as engines of different types take them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

_WHOLE = re.compile(r"0|-?[1-9][0-9]*")
_DIGITS = 20  # of a number of 64 bits, with its sign
_BOUND = 1 << 63
_PATH = re.compile(r"[\w.\[\]-]+")


def whole_numbers(ids: Sequence[str]) -> list[int]:
    """The ids that can be keys of a column of whole numbers, as such; no other can be there."""
    found = [int(one) for one in ids if len(one) <= _DIGITS and _WHOLE.fullmatch(one)]
    return [one for one in found if -_BOUND <= one < _BOUND]


def comparable(values: Iterable[Any], kind: Any) -> list[Any]:
    """The values that a column of this type can have: 1.0 as 1 among whole numbers, no text among numbers."""
    from pyarrow import types

    if types.is_boolean(kind):
        return [one for one in values if isinstance(one, bool)]
    if types.is_integer(kind):
        whole = [int(one) for one in values if not isinstance(one, bool | str) and one == int(one)]
        return [one for one in whole if abs(one) < _BOUND]
    if types.is_floating(kind):
        return [one for one in values if not isinstance(one, bool | str)]
    texts = types.is_string(kind) or types.is_large_string(kind)
    return [one for one in values if isinstance(one, str) or not texts]


def one_of(name: str, values: Sequence[Any]) -> dict[str, Any]:
    """That a field has one of the values; Chroma takes those of one type at a time."""
    by_type: dict[type, list[Any]] = {}
    for one in values:
        by_type.setdefault(type(one), []).append(one)
    found = [{name: {"$in": some}} for some in by_type.values()]
    return found[0] if len(found) == 1 else {"$or": found}


def payload_path(name: str) -> str:
    """A field of Qdrant's payload; a name with other characters stands in quotes."""
    return name if _PATH.fullmatch(name) else f'"{name}"'
