"""Scoring in fewer bits: a reranker's layers in half precision or in 8-bit integers."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from sentence_transformers.base.modules import Transformer

from radio_dspy.core.errors import SettingsError
from radio_dspy.models.computing import ScoringPrecision

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_ENGINES = ("onednn", "x86", "qnnpack")  # best first
_SMALLEST = torch.finfo(torch.float32).tiny


def lower_precision(model: Any, precision: ScoringPrecision) -> None:
    """Let the layers of a model run in fewer bits; what stands before and after them stays in fp32.

    With ``"bf16"`` and ``"fp16"`` the layers hold and compute half precision. With ``"int8"`` their linear maps hold
    8-bit integers and round each token's inputs to 8 bits. The scoring head is left alone: bf16 scores of 100 passages
    would hold ties.

    Args:
        model: A ``SentenceTransformer`` or ``CrossEncoder`` of its own, changed in place: from now on it only scores.
        precision: Which.

    Raises:
        SettingsError: For ``"int8"`` on another device than a CPU, or on a processor without 8-bit dot products; for a
            model whose layers are not found.
    """
    if precision == "fp32":
        return
    if precision == "int8":
        _check_int8(model.device)
    model.float()  # weights may be stored in half precision
    found = [one.model for one in model.modules() if isinstance(one, Transformer)]
    for transformer in found or [getattr(model[0], "model", model[0])]:
        layers = _layers(transformer)
        if not layers:
            raise SettingsError(
                f"precision={precision!r} is known for encoders like BERT and for decoders, and "
                f"{type(transformer).__name__} is built in another way; score it with precision='fp32'."
            )
        for layer in layers:
            if precision == "int8":
                _quantize(layer)
            else:
                _lower(layer, _DTYPES[precision])
        if precision != "int8":
            layers[-1].register_forward_hook(lambda _, inputs, output: _cast(output, torch.float32))


def _layers(transformer: torch.nn.Module) -> list[torch.nn.Module]:
    """BERT's encoder as a whole; ModernBERT and decoders call their layers one by one."""
    body = getattr(transformer, "base_model", transformer)
    encoder, layers = getattr(body, "encoder", None), getattr(body, "layers", None)
    if isinstance(encoder, torch.nn.Module):
        return [encoder]
    return list(layers) if isinstance(layers, torch.nn.ModuleList) else []


def _lower(layer: torch.nn.Module, dtype: torch.dtype) -> None:
    layer.to(dtype)
    layer.register_forward_pre_hook(
        lambda _, inputs, named: (_cast(inputs, dtype), _cast(named, dtype)), with_kwargs=True
    )


def _check_int8(device: torch.device) -> None:
    if device.type != "cpu":
        raise SettingsError(
            f"precision='int8' runs on a CPU, and this model is on {device}; take 'bf16' or 'fp16' there."
        )
    able = torch.cpu.get_capabilities()
    if able.get("architecture") == "x86_64" and not (able.get("avx512_vnni") or able.get("avx_vnni")):
        raise SettingsError(
            "precision='int8' needs a processor with 8-bit dot products (VNNI): without them sums overflow; take "
            "'fp32'."
        )


class Int8Linear(torch.nn.Module):
    """A linear map in 8-bit integers: one scale for each output's weights and one for each token's inputs.

    torch's own module of this kind has one scale for the inputs of a whole batch, which a single large value ruins.
    """

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        matrix = linear.weight.detach().float()
        scales = (matrix.abs().amax(1) / 127).clamp_min(_SMALLEST).double()
        zeros = torch.zeros(len(matrix), dtype=torch.int64)
        self.bias = 0 if linear.bias is None else linear.bias.detach().float()
        with _best_engine(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch means to replace the type, not the operator
            rounded = torch.quantize_per_channel(matrix, scales, zeros, 0, torch.qint8)
            self.packed = torch.ops.quantized.linear_prepack(rounded, None)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Float32 of shape (..., features) to (..., outputs)."""
        # Many times as fast as the maximum norm or aminmax, which torch does not vectorize over the last axis.
        high, low = inputs.amax(-1, keepdim=True), inputs.amin(-1, keepdim=True)
        largest = torch.maximum(high, low.neg_()).clamp_min_(_SMALLEST)
        product = torch.ops.quantized.linear_dynamic(inputs / largest, self.packed, False)
        return product.mul_(largest).add_(self.bias)


@contextlib.contextmanager
def _best_engine() -> Iterator[None]:
    """Choose who multiplies; a packed weight keeps to it."""
    engines = torch.backends.quantized
    before = engines.engine
    engines.engine = next(one for one in _ENGINES if one in engines.supported_engines)
    try:
        yield
    finally:
        engines.engine = before


def _quantize(layers: torch.nn.Module) -> None:
    for module in list(layers.modules()):
        for name, child in module.named_children():
            if isinstance(child, torch.nn.Linear):
                setattr(module, name, Int8Linear(child))


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """Floating-point tensors in another type, however they are nested."""
    if isinstance(value, torch.Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, dict):  # a model's output is one as well, of a class of its own
        return type(value)(**{name: _cast(one, dtype) for name, one in value.items()})
    return tuple(_cast(one, dtype) for one in value) if isinstance(value, tuple) else value
