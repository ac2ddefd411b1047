"""Rerankers as ONNX graphs, which run without torch (``pip install 'radio-dspy[onnx]'``)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from radio_dspy.core.errors import MissingExtraError, RadioError, SettingsError
from radio_dspy.models import backends
from radio_dspy.models.backends import GRAPH

_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_SAMPLES = ["why did the dough not rise?", "Yeast dies in water that is too hot, so nothing lifts the dough."]
_TOLERANCE = 1e-4


def require_onnx() -> None:
    """Make sure that a graph can be written and checked.

    Raises:
        MissingExtraError: If a package is missing.
    """
    if missing := [name for name in _PACKAGES if find_spec(name) is None]:
        raise MissingExtraError(
            f"format='onnx' needs {' and '.join(missing)}: pip install 'radio-dspy[onnx]'. (sentence-transformers' own "
            "extra of that name needs an older transformers and does not help.)"
        )


def write_graph(module: Any, folder: Path, *, pairs: bool) -> None:
    """Write a sentence-transformers model as ``model.onnx``, and run it once to see that it scores the same.

    The graph takes the tokenizer's arrays, of shape (texts, tokens), and gives float32 ``scores`` of shape (texts,) for
    a cross-encoder, unit vectors ``vectors`` of shape (texts, dimension) for a bi-encoder.

    Args:
        module: A ``CrossEncoder`` or ``SentenceTransformer`` on the CPU.
        folder: Where to write.
        pairs: Whether it reads (query, passage) pairs; else single texts.

    Raises:
        SettingsError: If the model cannot be written as a graph.
        RadioError: If the graph gives other numbers than the model.
    """
    import numpy as np
    import onnxruntime
    import torch

    module[0].unpad_inputs = False  # the graph takes padded batches, as every tokenizer gives them
    queries: list[Any] = [[one, two] for one in _SAMPLES for two in _SAMPLES] if pairs else _SAMPLES
    features = {name: one for name, one in module.preprocess(queries).items() if isinstance(one, torch.Tensor)}

    def forward(given: dict[str, Any]) -> tuple[Any, ...]:
        found = module(given)
        if pairs:
            return (found["scores"].view(-1).float(),)
        vectors = found["sentence_embedding"][..., : module.truncate_dim]
        return (torch.nn.functional.normalize(vectors.float(), dim=-1),)

    module.float().eval()  # onnxruntime does not compute in every type that weights are stored in
    with torch.no_grad(), _own_errors(module):
        backends.write_graph(module, forward, features, ["scores" if pairs else "vectors"], folder / GRAPH)
        # Another number of texts, of another length: shapes that the exporter has not seen.
        features = {name: one[:1, :-1] for name, one in features.items()}
        expected = forward(dict(features))[0].numpy()  # which adds to what it is given
        session = onnxruntime.InferenceSession(folder / GRAPH, providers=["CPUExecutionProvider"])
        (got,) = session.run(None, {name: one.numpy() for name, one in features.items()})
    if not np.allclose(got, expected, atol=_TOLERANCE):
        raise RadioError(f"The ONNX graph gives {got.ravel()[:3]} where the model gives {expected.ravel()[:3]}.")


@contextlib.contextmanager
def _own_errors(module: Any) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # torch's exporter and onnxruntime have many kinds
        raise SettingsError(
            f"format='onnx' cannot hold a {type(module.transformers_model).__name__} ({error!r:.300}); use "
            "format='sentence-transformers'."
        ) from error
