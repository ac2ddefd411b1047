"""An encoder around a function that makes vectors, such as a ``dspy.Embedder``."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import dspy

from radio_dspy.core.credentials import learn
from radio_dspy.core.secret_names import is_secret_name
from radio_dspy.models.encoder import TextEncoder

if TYPE_CHECKING:
    from radio_dspy.models.encoder import Vectors

# Two functions are held to be the same if their source is, and if they give these texts the same vectors.
_PROBES = ["Why does a wet jug stay cool?", "PASSAGE 17: Evaporation carries heat away (2,257 kJ/kg)."]
_DIRECTIONS = 16
_STEP = 0.25  # in which a vector is measured: what another thread count or machine changes is a millionth of it
_PLACES = frozenset({"api_base", "base_url", "api_version"})


class CallableEncoder(TextEncoder):
    """Encodes texts by a function of the user's: queries and passages alike.

    Vectors and indexes are shared by encoders of one ``identity``. With ``name`` that is the name: give another one
    when the function changes. Without, it is what can be seen of the function: the model and settings of a hosted
    ``dspy.Embedder``, the identity of an ``Encoder`` whose method it is, else its source together with its vectors
    of two fixed texts.

    Args:
        function: Takes a list of strings and gives one vector for each; a ``dspy.Embedder`` is one.
        name: What the vectors are called; None looks at the function.

    Example:
        >>> encoder = CallableEncoder(lambda texts: [[3.0, 4.0] for _ in texts], name="three and four")
        >>> encoder.encode_queries(["why?"])[0].astype(float).round(6)
        array([0.6, 0.8])
        >>> encoder.identity["model"]
        'three and four'
    """

    def __init__(self, function: Callable[[list[str]], Any], name: str | None = None) -> None:
        self._function = function
        self._named = name
        self.query_prefix = self.passage_prefix = None
        self.max_length = None
        model = getattr(function, "model", function)
        shown = model if isinstance(model, str) else getattr(model, "__qualname__", type(model).__qualname__)
        self.name = name or shown
        inside = (getattr(function, name, None) for name in ("func", "keywords", "__self__"))  # of a partial, a method
        learn(function, *inside)

    @property
    def identity(self) -> dict[str, Any]:
        """See ``TextEncoder`` and above."""
        return {
            "backend": "callable",
            "model": self.name,
            "passage_prefix": None,
            "max_length": None,
            **({} if self._named else self._seen),
        }

    @functools.cached_property
    def _seen(self) -> dict[str, str]:
        model = getattr(self._function, "model", self._function)
        if isinstance(model, str):
            settings = getattr(self._function, "default_kwargs", None) or {}
            kept = {key: one for key, one in settings.items() if not is_secret_name(key) and key not in _PLACES}
            return {"settings": _hash(kept)}
        owner = getattr(model, "__self__", None)
        if isinstance(owner, TextEncoder):
            return {"method": model.__name__, "owner": _hash([owner.identity, owner.query_settings])}
        return {"source": _source(model), "vectors": _measured(self.encode_queries(_PROBES))}

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


def _hash(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


def _source(function: Any) -> str:
    """A hash of a function's source; of its name where that cannot be seen."""
    called: Any = getattr(function, "func", function)  # of a partial
    called = called if inspect.isroutine(called) else type(called).__call__
    try:
        return _hash(inspect.getsource(called))
    except (OSError, TypeError, SyntaxError):
        return _hash([getattr(called, "__module__", ""), getattr(called, "__qualname__", "")])


def _measured(vectors: Vectors) -> str:
    """A hash of unit vectors that stays the same where their last digits differ."""
    import numpy as np

    rows = np.arange(1, vectors.shape[1] + 1)
    directions = np.sqrt(2) * np.cos(np.outer(rows, np.arange(1, _DIRECTIONS + 1)) * 1.6180339887)
    return _hash([vectors.shape[1], np.rint(vectors @ directions / _STEP).astype(int).tolist()])


def unit_rows(vectors: Vectors) -> Vectors:
    """The same vectors with length 1."""
    import numpy as np

    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.ascontiguousarray(vectors / np.maximum(lengths, 1e-10), dtype=np.float32)
