"""An encoder around a function that makes vectors, such as a ``dspy.Embedder``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import dspy

from radio_dspy.core.credentials import learn
from radio_dspy.models.encoder import TextEncoder

if TYPE_CHECKING:
    from radio_dspy.models.encoder import Vectors


class CallableEncoder(TextEncoder):
    """Encodes texts by a function of the user's: queries and passages alike.

    Args:
        function: Takes a list of strings and gives one vector for each; a ``dspy.Embedder`` is one.

    Example:
        >>> encoder = CallableEncoder(lambda texts: [[3.0, 4.0] for _ in texts])
        >>> encoder.encode_queries(["why?"])[0].astype(float).round(6)
        array([0.6, 0.8])
    """

    def __init__(self, function: Callable[[list[str]], Any]) -> None:
        self._function = function
        self.query_prefix = self.passage_prefix = None
        self.max_length = None
        model = getattr(function, "model", function)
        self.name = model if isinstance(model, str) else getattr(model, "__qualname__", type(model).__qualname__)
        learn(getattr(function, "default_kwargs", None))

    @property
    def identity(self) -> dict[str, Any]:
        """See ``TextEncoder``: the name alone, since a function says nothing more of itself."""
        return {"backend": "callable", "model": self.name, "passage_prefix": None, "max_length": None}

    @property
    def window(self) -> int | None:
        """Not known."""
        return None

    def count_tokens(self, text: str) -> int:
        """An estimate: four characters a token."""
        return len(text) // 4

    def _encode(self, texts: list[str], *, query: bool, show_progress: bool) -> Vectors:
        import numpy as np

        if not texts:
            return np.empty((0, 0), dtype=np.float32)
        # DSPy caches a function's vectors by its source, which two models of one class share.
        own = isinstance(self._function, dspy.Embedder) and not isinstance(self._function.model, str)
        found = self._function(texts, caching=False) if own else self._function(texts)  # type: ignore[call-arg]
        return unit_rows(np.asarray(found, dtype=np.float32))


def unit_rows(vectors: Vectors) -> Vectors:
    """The same vectors with length 1."""
    import numpy as np

    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.ascontiguousarray(vectors / np.maximum(lengths, 1e-10), dtype=np.float32)
