"""Arguments of the optimizers: shortcuts into settings, and names of the first release."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from radio_dspy.core.renamed import warn_of_name
from radio_dspy.distillation.preferences.guards import FalseNegatives

T = TypeVar("T")

# Old argument -> where it is given now.
_MOVED: dict[str, tuple[str, str]] = {
    "candidates": ("preferences", "candidates"),
    "sampling": ("preferences", "sampling"),
    "depth": ("preferences", "depth"),
    "random_negatives": ("preferences", "random_negatives"),
    "confident_share": ("preferences", "confident_share"),
    "hard_negatives": ("preferences", "negative_range"),
    **{
        name: ("training", name)
        for name in (
            "weight_decay", "temperature", "target_temperature", "tower", "in_batch_negatives", "lora", "precision",
            "averaged_runs", "device",
        )
    },
    "groups_per_step": ("training", "per_device_train_batch_size"),
    "accumulation_steps": ("training", "gradient_accumulation_steps"),
    "checkpoint_updates": ("training", "save_steps"),
    "show_progress": ("training", "disable_tqdm"),
    "rationale_weight": ("rationales", "weight"),
    "extractor": ("rationales", "extractor"),
    "guards": ("preferences", "false_negatives"),
    "max_calls": ("budget", "max_calls"),
    "max_cost": ("budget", "max_cost"),
}  # fmt: skip


def with_shortcuts(settings: T, **given: Any) -> T:
    """Settings with the arguments that are not None in place of theirs, so that ``{**preset, "epochs": 1}`` works."""
    given = {name: value for name, value in given.items() if value is not None}
    return replace(settings, **given)  # type: ignore[type-var]  # a dataclass


def with_moved(owner: str, given: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with arguments of the first release in their places, each with a deprecation warning.

    Args:
        owner: The class, for messages.
        given: Keyword arguments that it does not have.
        settings: Argument -> settings object, of those that may be filled.

    Raises:
        TypeError: For an argument that never was one.
    """
    changes: dict[str, dict[str, Any]] = {name: {} for name in settings}
    for name, value in given.items():
        place, new = _MOVED.get(name, ("", ""))
        if place not in settings:
            raise TypeError(f"{owner} got an unexpected keyword argument {name!r}")
        warn_of_name(owner, name, f"{place}={type(settings[place]).__name__}({new}=)")
        if name == "guards":
            if "rationales" in changes:
                changes["rationales"]["check"] = bool(value)
            value = value if isinstance(value, FalseNegatives) else FalseNegatives() if value else None
        elif value is None and name in ("extractor", "rationale_weight"):
            continue
        changes[place][new] = not value if name == "show_progress" else value
    return {name: replace(one, **changes[name]) for name, one in settings.items()}
