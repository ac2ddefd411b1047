"""How a model may compute: by which runtime, and in how many bits."""

from __future__ import annotations

from typing import Literal

Backend = Literal["torch", "onnx", "openvino"]
ScoringPrecision = Literal["fp32", "bf16", "fp16", "int8"]
