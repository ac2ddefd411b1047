"""Scoring by another runtime than torch: onnxruntime or OpenVINO run a model's graph, on the CPU."""

from __future__ import annotations

import contextlib
import copy
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

from radio_dspy.core.errors import MissingExtraError, SettingsError
from radio_dspy.core.validation import shown
from radio_dspy.models.computing import Backend, ScoringPrecision

GRAPH = "model.onnx"
_EXPORTS = ("onnx", "onnxscript")
_PACKAGES = {"onnx": (*_EXPORTS, "onnxruntime"), "openvino": (*_EXPORTS, "openvino", "nncf")}
_PRECISIONS = {"onnx": ("fp32", "int8"), "openvino": ("fp32", "bf16", "int8")}
# What a model adds to its features, by sentence-transformers' name for its kind.
_OUTPUTS = {
    "CrossEncoder": ("scores",),
    "SentenceTransformer": ("sentence_embedding",),
    "MultiVectorEncoder": ("token_embeddings",),
}
_TOLERANCE = 1e-3
Arrays = dict[str, Any]
Run = Callable[[Arrays], Sequence[Any]]


def check_backend(backend: Any, precision: str = "fp32") -> None:
    """See that a backend can be used here.

    Raises:
        SettingsError: For one that is not known, or that does not compute in this precision.
        MissingExtraError: If a package is missing.
    """
    if backend not in get_args(Backend):
        raise SettingsError(f"backend must be one of {get_args(Backend)}, got {shown(backend)}.")
    if backend == "torch":
        return
    if precision not in _PRECISIONS[backend]:
        raise SettingsError(
            f"backend={backend!r} scores with precision {' or '.join(map(repr, _PRECISIONS[backend]))}, not with "
            f"{precision!r}; give one of these, or backend='torch'."
        )
    if missing := [name for name in _PACKAGES[backend] if find_spec(name) is None]:
        raise MissingExtraError(
            f"backend={backend!r} needs {' and '.join(missing)}: pip install 'radio-dspy[{backend}]'. "
            "(sentence-transformers' own extra of that name needs an older transformers and does not help.)"
        )


def run_by(model: Any, backend: Backend, precision: ScoringPrecision = "fp32") -> None:
    """Let a model of its own score by a backend, in a precision, from now on."""
    if backend != "torch":
        use_backend(model, backend, precision)
    elif precision != "fp32":
        from radio_dspy.models.precision import lower_precision

        lower_precision(model, precision)


def use_backend(model: Any, backend: Backend, precision: str) -> None:
    """Let a ``CrossEncoder``, ``SentenceTransformer`` or ``MultiVectorEncoder`` run by another runtime from now on.

    Its graph is written when the first batch comes, which takes some seconds. Prompts, tokens and whatever comes after
    the model stay sentence-transformers'. It can only score.

    Args:
        model: One of its own, on the CPU; changed in place.
        backend: Which runtime.
        precision: ``"bf16"`` is OpenVINO's own. ``"int8"`` is onnxruntime's dynamic quantization (weights and inputs),
            or the compression of weights by nncf, with OpenVINO's dynamic quantization of inputs.

    Raises:
        SettingsError: If it holds no transformer.
    """
    from sentence_transformers.base.modules import Transformer

    found = [one for one in model.modules() if isinstance(one, Transformer)]
    if not found:
        raise SettingsError(f"backend={backend!r} runs transformers, and this is a {type(model[0]).__name__}.")
    for one in found:
        one.unpad_inputs = False  # a graph reads padded batches
    model.float().eval().forward = _Graphs(model, backend, precision)


class _Graphs:
    """In the place of a model's ``forward``: one graph for each task.

    The choice of the tokens that count, in late interaction, and what follows it are no part of the graph.
    """

    def __init__(self, model: Any, backend: Backend, precision: str) -> None:
        from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

        names = list(model._modules)
        end = next((place for place, one in enumerate(model) if isinstance(one, MultiVectorMask)), len(names))
        self._model, self._rest = (_part(model, chosen) for chosen in (names[:end], names[end:]))
        self._backend, self._precision = backend, precision
        self._runs: dict[tuple[Any, ...], Run] = {}

    def __call__(self, features: dict[str, Any], **settings: Any) -> dict[str, Any]:
        import torch

        tensors = {name: one for name, one in features.items() if isinstance(one, torch.Tensor)}
        others = {name: one for name, one in features.items() if name not in tensors}
        key = (settings.get("task"), *sorted((name, str(one)) for name, one in others.items()), *tensors)
        if key not in self._runs:
            with torch.inference_mode(False), torch.no_grad():  # the exporter wants plain tensors
                self._runs[key] = self._opened({name: one.clone() for name, one in tensors.items()}, others, settings)
        found = self._runs[key]({name: one.numpy() for name, one in tensors.items()})
        outputs = dict(zip(_OUTPUTS[self._model.model_type], map(torch.from_numpy, found), strict=True))
        return type(self._rest).forward(self._rest, {**features, **outputs}, **settings)

    def _opened(self, tensors: dict[str, Any], others: dict[str, Any], settings: dict[str, Any]) -> Run:
        import numpy as np
        import torch

        names = _OUTPUTS[self._model.model_type]

        def forward(given: dict[str, Any]) -> tuple[Any, ...]:
            found = type(self._model).forward(self._model, {**given, **others}, **settings)
            return tuple(found[name] for name in names)

        # A batch of one would count as fixed.
        sample = {name: torch.cat([one, one]) for name, one in tensors.items()}
        with tempfile.TemporaryDirectory() as folder:
            # A graph's names of inputs and outputs differ.
            write_graph(self._model, forward, sample, [f"{name}_out" for name in names], Path(folder) / GRAPH)
            run = _RUNTIMES[self._backend](Path(folder) / GRAPH, self._precision)
        expected = forward(dict(tensors))
        found = run({name: one.numpy() for name, one in tensors.items()})
        apart = max(
            float(np.abs(np.asarray(one, dtype=np.float32) - two.float().numpy()).max())
            for one, two in zip(found, expected, strict=True)
        )
        if self._precision == "fp32" and not apart < _TOLERANCE * max(1.0, float(expected[0].abs().max())):
            raise SettingsError(f"backend={self._backend!r} gives numbers {apart:.2g} apart; score with 'torch'.")
        return run


def _part(model: Any, names: Sequence[str]) -> Any:
    """The same model with these of its modules alone."""
    part = copy.copy(model)
    part._modules = {name: model._modules[name] for name in names}
    return part


def write_graph(
    model: Any,
    forward: Callable[[dict[str, Any]], tuple[Any, ...]],
    features: dict[str, Any],
    outputs: Sequence[str],
    path: Path,
) -> None:
    """Write what a model computes as an ONNX graph, by torch's own exporter: optimum's needs an older transformers.

    Args:
        model: Holds the weights.
        forward: What is computed of the features.
        features: Two texts or more, each a tensor of shape (texts, tokens).
        outputs: Names of what ``forward`` returns.
        path: The file to write.
    """
    import torch

    class Graph(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *tensors: Any) -> tuple[Any, ...]:
            return forward(dict(zip(features, tensors, strict=True)))

    sizes = {0: torch.export.Dim("texts"), 1: torch.export.Dim("tokens")}
    with torch.no_grad(), warnings.catch_warnings(), _silent():
        warnings.simplefilter("ignore")  # of torch's exporter, about itself
        torch.onnx.export(
            Graph().eval(),
            tuple(features.values()),
            path,
            input_names=list(features),
            output_names=list(outputs),
            dynamic_shapes=(tuple(sizes for _ in features),),
            dynamo=True,
            verbose=False,
        )


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Without the exporter's log of which operators it lacks."""
    import logging

    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _by_onnxruntime(path: Path, precision: str) -> Run:
    import onnxruntime
    import torch

    if precision == "int8":
        from onnxruntime.quantization import QuantType, quantize_dynamic

        whole, path = path, path.with_name("int8.onnx")
        with _silent():
            quantize_dynamic(whole, path, weight_type=QuantType.QInt8, per_channel=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    wanted = {one.name for one in session.get_inputs()}  # the exporter leaves out what nothing reads
    return lambda arrays: session.run(None, {name: one for name, one in arrays.items() if name in wanted})


def _by_openvino(path: Path, precision: str) -> Run:
    import openvino
    import torch

    core = openvino.Core()
    graph = core.read_model(path)
    settings: dict[str, Any] = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
    }
    if precision == "int8":
        import nncf

        with _silent():
            graph = nncf.compress_weights(graph, mode=nncf.CompressWeightsMode.INT8_SYM)
    compiled = core.compile_model(graph, "CPU", settings)
    wanted = {one.get_any_name() for one in compiled.inputs}

    def run(arrays: Arrays) -> list[Any]:
        found = compiled({name: one for name, one in arrays.items() if name in wanted})
        return [found[place].copy() for place in range(len(compiled.outputs))]

    return run


_RUNTIMES: dict[Backend, Callable[[Path, str], Run]] = {"onnx": _by_onnxruntime, "openvino": _by_openvino}
