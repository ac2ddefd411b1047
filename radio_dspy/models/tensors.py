"""Hold the tensors of weights against the model that they are loaded into: none missing, none unused, all finite."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from radio_dspy.core.errors import CheckpointError
from radio_dspy.core.locks import ThreadLock
from radio_dspy.models.architecture import HEAD, LAST_LAYER
from radio_dspy.models.files import weights
from radio_dspy.models.weights_folder import panics_as_errors, weight_files

_POOLER = re.compile(r"(^|\.)pooler\.")
# What published checkpoints keep in their layers although it is computed: masks and positions.
_COMPUTED = re.compile(r"\.(position_ids|token_type_ids|inv_freq|masked_bias|(attn|attention)\.bias)$")
_LAYER = re.compile(r"(.*?)\.\d+\.")
_FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
_LOAD = "from_pretrained"
_PATCHING = ThreadLock()


@dataclass(frozen=True)
class Report:
    """What transformers said of a model's weights.

    Attributes:
        model: The model.
        missing: Its tensors that are not in the weights, or have another shape there.
        unexpected: Tensors in the weights that it has no place for.
    """

    model: PreTrainedModel
    missing: frozenset[str]
    unexpected: frozenset[str]


@contextlib.contextmanager
def loading_reports() -> Iterator[list[Report]]:
    """Note what each transformers model lacked, and left unused, that this thread loads in the block.

    What is missing is drawn at random otherwise, and sentence-transformers passes transformers' report on to nobody.
    """
    original = PreTrainedModel.__dict__[_LOAD]
    reports: list[Report] = []
    owner = threading.get_ident()

    def from_pretrained(cls: type[PreTrainedModel], *args: Any, **kwargs: Any) -> Any:
        load = original.__get__(None, cls)
        if threading.get_ident() != owner or kwargs.get("output_loading_info"):
            return load(*args, **kwargs)
        model, said = load(*args, **kwargs, output_loading_info=True)
        missing = frozenset([*said["missing_keys"], *(one[0] for one in said["mismatched_keys"])])
        reports.append(Report(model, missing, frozenset(said["unexpected_keys"])))
        return model

    with _PATCHING:
        setattr(PreTrainedModel, _LOAD, classmethod(from_pretrained))
        try:
            with panics_as_errors():
                yield reports
        finally:
            setattr(PreTrainedModel, _LOAD, original)


@contextlib.contextmanager
def loading(name: str, kind: str) -> Iterator[list[Report]]:
    """Load a model in the block: what fails there is one error of ours. Gives what ``loading_reports`` notes.

    Raises:
        CheckpointError: If the model cannot be loaded.
    """
    try:
        with loading_reports() as reports:
            yield reports
    except Exception as error:  # what a damaged folder raises in three libraries has no class in common
        raise CheckpointError(
            f"{name}: cannot be loaded as a {kind} ({error}). Give a folder that holds one, or a hub name while the "
            "hub can be reached."
        ) from error


def check_tensors(name: str, module: torch.nn.Module, reports: list[Report], *, cross_encoder: bool = False) -> bool:
    """See that every tensor that is computed with was in the weights, that no layer was left out, and all are numbers.

    Args:
        name: The weights, for the error.
        module: What was loaded, with all its parts.
        reports: What ``loading_reports`` noted.
        cross_encoder: Whether a scoring head may be new, where the weights are those of an encoder.

    Returns:
        Whether a scoring head is new.

    Raises:
        CheckpointError: If tensors are missing, unused, or hold what is no finite number.
    """
    new_head = False
    for report in reports:
        missing, drawn = _missing(report, cross_encoder=cross_encoder)
        new_head |= drawn
        if missing:
            raise CheckpointError(
                f"{name}: cannot be loaded: {len(missing)} tensors of {type(report.model).__name__} are not in the "
                f"weights ({_named(missing)}), and would be drawn at random. Give the whole weights, and the "
                "config.json that belongs to them."
            )
        if unused := _unused_layers(report):
            raise CheckpointError(
                f"{name}: cannot be loaded: {len(unused)} tensors of the weights belong to layers that "
                f"{type(report.model).__name__} does not have by its config.json ({_named(unused)}). Give the "
                "config.json that belongs to the weights; if you made the model shorter, write it anew with "
                "save_pretrained."
            )
    if odd := _not_floats(Path(weights(name)), module):
        raise CheckpointError(
            f"{name}: cannot be loaded: the tensor {odd} is not stored as the floating-point numbers that the model "
            "computes with: it was quantized, or damaged. Give weights of float32, float16 or bfloat16."
        )
    if odd := not_finite(module.state_dict()):
        raise CheckpointError(
            f"{name}: cannot be loaded: the tensor {odd} holds what is no finite number, as damaged weights do; copy "
            "them again from where they come from."
        )
    return new_head


def _not_floats(folder: Path, module: torch.nn.Module) -> str | None:
    """The name of the first tensor that is stored as something else than it is computed with; None where there is none.

    transformers converts whole numbers without a word.
    """
    from safetensors import safe_open

    computed = [f".{name}" for name, one in module.state_dict().items() if one.is_floating_point()]
    files = weight_files(folder) if folder.is_dir() else []
    for path in (one for one in files if one.suffix == ".safetensors"):
        with safe_open(path, "pt") as stored:
            for name in stored.keys():  # noqa: SIM118
                if stored.get_slice(name).get_dtype() in _FLOATS:
                    continue
                inner = name.partition(".")[2]  # without what a model with a head puts before
                if any(one.endswith((f".{name}", f".{inner}" if "." in inner else f".{name}")) for one in computed):
                    return name
    return None


def not_finite(tensors: Mapping[str, Any]) -> str | None:
    """The name of the first tensor that holds NaN or infinity; None where all are numbers.

    Example:
        >>> not_finite({"a": torch.ones(2), "b": torch.tensor([1.0, float("nan")])})
        'b'
    """
    for name, one in tensors.items():
        if not isinstance(one, torch.Tensor) or not one.is_floating_point():
            continue
        total = one.sum(dtype=torch.float32 if one.element_size() < 4 else None)  # needs no room, as isfinite does
        if not torch.isfinite(total) and not torch.isfinite(one).all():
            return name
    return None


def _missing(report: Report, *, cross_encoder: bool) -> tuple[set[str], bool]:
    """The tensors that the model needs and lacks, and whether a scoring head was drawn."""
    model, missing = report.model, set(report.missing)
    last = set(filter(LAST_LAYER.search, model.state_dict()))
    trained = (
        any(one.endswith(HEAD) for one in model.config.architectures or ())
        or not last <= missing  # then the head is there, or a part of it
        or model.get_output_embeddings() is not None  # of a causal LM, which scores with its own head
    )
    if not cross_encoder:  # what is pooled are the states of tokens
        return {one for one in missing if not _POOLER.search(one)}, False
    if trained:
        return missing, False
    prefix = f"{model.base_model_prefix}."
    body = {one for one in missing if one.startswith(prefix) and not _POOLER.search(one)}
    return body, missing != body


def _unused_layers(report: Report) -> set[str]:
    """Tensors in the weights of the very lists of layers that the model has: heads for another task are no fault."""
    prefix = f"{report.model.base_model_prefix}."
    lists = {name for name, _ in report.model.base_model.named_modules()}
    layers = {one: _LAYER.match(one.removeprefix(prefix)) for one in report.unexpected if not _COMPUTED.search(one)}
    return {one for one, found in layers.items() if found is not None and found[1] in lists}


def _named(names: set[str]) -> str:
    return ", ".join(sorted(names)[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
