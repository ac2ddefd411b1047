"""Parts of a row that are settings dataclasses: names, types, defaults and checks are declared there alone."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict, fields, is_dataclass, replace
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidatorFunctionWrapHandler, WrapValidator, create_model, model_validator

from radio_dspy.core.errors import SettingsError
from radio_dspy.core.validation import shown

T = TypeVar("T")
_LARGEST = 1 << 32
_GUARDS = "sampling.guards"
_IN_YAML = (bool, int, float, str, NoneType)
# Key in files and records of the first release -> key now. Records keep the old ones, so that none is made again.
MOVED = {
    "first_stage.training_candidates": "preferences.candidates",
    "sampling.groups": "preferences.sampling",
    "sampling.random_negatives": "preferences.random_negatives",
    "sampling.in_batch_negatives": "training.in_batch_negatives",
    _GUARDS: "preferences.false_negatives",
    "sampling.confident_share": "preferences.confident_share",
    "training.epochs": "training.num_train_epochs",
    "training.groups_per_step": "training.per_device_train_batch_size",
    "training.accumulation_steps": "training.gradient_accumulation_steps",
}
_LATER = ("relabel",)  # fields that records did not have from the first, of a settings class within settings
# Keys that every record has; of later ones it has those that are not the default.
_ALWAYS = {"loss", "tower", "learning_rate", "weight_decay", "max_length", "averaged_runs", "precision"}


class Part(BaseModel):
    """Settings that belong together; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _numbers(cls, values: Any) -> Any:
        """YAML's ``yes`` and ``on`` are no numbers, and none here has more than 32 bits."""
        for name, value in values.items() if isinstance(values, Mapping) else ():
            field = cls.model_fields.get(name)
            weights = isinstance(value, Mapping) and field is not None and get_origin(field.annotation) is dict
            for one in value.values() if weights else value if isinstance(value, list) else [value]:
                if isinstance(one, bool) and field is not None and field.annotation is not bool:
                    raise ValueError(f"{name}: needs something other than true or false, got {one}")
                if isinstance(one, int | float) and not abs(one) < _LARGEST:
                    raise ValueError(f"{name}: needs a number below {_LARGEST:,}, got {shown(one)}")
        return values


def declared(base: T, without: tuple[str, ...] = ()) -> Any:
    """The type of a key whose value in YAML is a mapping and in Python a settings dataclass.

    Args:
        base: The dataclass with the defaults.
        without: Fields that no file may set; those that YAML cannot hold (functions) are left out anyway.

    Example:
        >>> from pydantic import TypeAdapter
        >>> from radio_dspy.lm.limits import Budget
        >>> TypeAdapter(declared(Budget(max_cost=1.0))).validate_python({"max_calls": 5})
        Budget(max_calls=5, max_cost=1.0)
    """
    kind = type(base)
    hints = {name: _yaml_type(hint) for name, hint in get_type_hints(kind).items() if name not in without}
    keys: dict[str, Any] = {name: (hint, getattr(base, name)) for name, hint in hints.items() if hint is not NoneType}
    model = create_model(kind.__name__, __base__=Part, **keys)

    def made(value: Any, read: ValidatorFunctionWrapHandler) -> T:
        if isinstance(value, kind):
            return value
        found = read(value)
        return replace(base, **{name: getattr(found, name) for name in found.model_fields_set})  # type: ignore[type-var]

    return Annotated[model, WrapValidator(made)]


def _yaml_type(hint: Any) -> Any:
    """What YAML can hold of a field's type; None's type where that is nothing."""
    if get_origin(hint) in (Union, UnionType):
        kept = [_yaml_type(one) for one in get_args(hint)]
        return Union[tuple(kept)]  # noqa: UP007  # of types that are known only now
    if is_dataclass(hint) and isinstance(hint, type):
        return declared(hint())
    return hint if hint in _IN_YAML or get_origin(hint) in (Literal, tuple) else NoneType


def with_moved_keys(settings: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Settings with the keys of the first release in their places now, each with a deprecation warning.

    Args:
        settings: Of a file's defaults, of a row, or of ``--set``.
        where: For the message.

    Raises:
        SettingsError: If an old key stands beside its new one.
    """
    found = deepcopy(dict(settings))
    for old, new in MOVED.items():
        part, name = old.split(".")
        if not isinstance(found.get(part), dict) or name not in found[part]:
            continue
        value = found[part].pop(name)
        warnings.warn(f"{where}: {old} has moved: give {new}.", DeprecationWarning, stacklevel=3)
        if old == _GUARDS and isinstance(value, bool):
            _put(found, "rationale.check", value, where)
            value = {} if value else None
        _put(found, new, value, where)
    if found.get("sampling") == {}:
        del found["sampling"]
    return found


def _put(settings: dict[str, Any], key: str, value: Any, where: str) -> None:
    part, name = key.split(".")
    if name in (inner := settings.setdefault(part, {})):
        raise SettingsError(f"{where}: {key} is given under its old name, too; give the new one alone.")
    inner[name] = value


def _plain(value: Any) -> Any:
    """A setting in JSON types; a field that records did not have from the first is there only where it is set."""
    if not is_dataclass(value) or isinstance(value, type):
        return value
    return {name: held for name, held in asdict(value).items() if name not in _LATER or held is not None}


def recorded(parts: Mapping[str, Any], now: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """A row's settings under the keys that records have had from the first release on, in JSON types.

    Args:
        parts: The row's other parts, in JSON types.
        now: Part -> settings dataclass.
        defaults: The same with the defaults: what is not in every record is in this one only where it differs.
    """
    found = {name: dict(part) if isinstance(part, dict) else part for name, part in parts.items()}
    old_keys = {new: old for old, new in MOVED.items()}
    for part, settings in now.items():
        for name in (one.name for one in fields(settings)):
            value, default = getattr(settings, name), getattr(defaults[part], name)
            key = old_keys.get(f"{part}.{name}", f"{part}.{name}")
            if key == _GUARDS:
                found["sampling"]["guards"] = value is not None
                if value in (None, default):
                    continue
                key = f"{part}.{name}"
            elif key == f"{part}.{name}" and name not in _ALWAYS and value == default:
                continue
            place, _, kept = key.partition(".")
            found.setdefault(place, {})[kept] = _plain(value)
    if "rationale" in found and found["rationale"]["check"] == found["sampling"]["guards"]:
        del found["rationale"]["check"]  # the first release had one key for both
    return found
