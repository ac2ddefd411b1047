"""Check vectors where they come in: number, dimension, finite, length."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from radio_dspy.core.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Vectors = npt.NDArray[np.float32]

_TOLERANCE = 1e-3  # of a length: what half precision leaves of 1


def checked_vectors(
    vectors: Any, count: int, source: str, *, of: str = "texts", dimension: int | None = None
) -> Vectors:
    """Normalize vectors to float32 rows of length 1; rows of that form stay bit for bit.

    Args:
        vectors: One row for each text.
        count: How many there are.
        source: Who gave them, for the error.
        of: What the rows stand for.
        dimension: Their length, where it is known.

    Raises:
        DataError: If they are of another number or dimension, or a row is zero or holds what is no finite number.

    Example:
        >>> checked_vectors([[3.0, 4.0]], 1, "mine")
        array([[0.6, 0.8]], dtype=float32)
    """
    import numpy as np

    try:
        found = np.asarray(vectors)
    except (ValueError, TypeError, RuntimeError) as error:  # ragged lists, a tensor on a GPU
        raise DataError(f"{source}: gave no array of numbers ({error!s:.200}).") from None
    if found.dtype.kind not in "fiu":
        raise DataError(f"{source}: gave vectors of type {found.dtype}; give float32.")
    if found.ndim != 2 or len(found) != count:
        raise DataError(f"{source}: {count} {of}, but vectors of shape {found.shape}; give one row for each.")
    if not count:
        return np.ascontiguousarray(found, dtype=np.float32)
    if not found.shape[1] or dimension not in (None, found.shape[1]):
        raise DataError(f"{source}: vectors of {found.shape[1]} dimensions, but {dimension or 'some'} are needed.")
    lengths = _lengths(found)
    if len(wrong := np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))):
        raise DataError(f"{source}: the vector of number {wrong[0]} {length_problem(found[wrong[:1]])}.")
    away = np.abs(lengths - 1) > _TOLERANCE
    if not away.any():
        return np.ascontiguousarray(found, dtype=np.float32)
    rows = np.empty(found.shape, dtype=np.float32)  # no copy in float64: it may be larger than the machine
    np.divide(found, np.where(away, lengths, 1.0)[:, None], out=rows, casting="unsafe")
    return rows


def length_problem(vectors: Any, tolerance: float = _TOLERANCE) -> str | None:
    """Why one of several rows is no unit vector; None where all are."""
    import numpy as np

    lengths = _lengths(vectors)
    if not np.isfinite(lengths).all():
        return "holds what is no finite number"
    if (lengths == 0).any():
        return "is zero"
    away = np.abs(lengths - 1)
    return f"is of length {lengths[away.argmax()]:.3g}, not 1" if away.max(initial=0) > tolerance else None


def _lengths(vectors: Any) -> Any:
    import numpy as np

    return np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64, casting="unsafe"))
