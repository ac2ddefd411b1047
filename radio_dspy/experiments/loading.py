"""Read an experiment's file, with settings replaced from the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from radio_dspy.core.errors import SettingsError
from radio_dspy.core.validation import shown
from radio_dspy.experiments.declared import with_moved_keys
from radio_dspy.experiments.settings import Experiment, RowSettings
from radio_dspy.experiments.yaml_files import check_names, parse_yaml, read_yaml


def load_experiment(path: Path, sets: Sequence[str] = (), data: Path | None = None) -> Experiment:
    """Read an experiment's file.

    Args:
        path: YAML with ``name``, ``title``, ``question``, ``seeds``, ``defaults`` and ``rows``; a row is its name and
            ``with``, what differs from the defaults.
        sets: ``key=value`` each: ``name``, ``seeds``, ``title`` and ``question`` replace the file's, any other key
            (``training.learning_rate``) holds for every row, over what its own settings say.
        data: Folder of the data; the same as ``data.root=...``.

    Raises:
        SettingsError: If it cannot be read; file, key and the allowed values are named.
    """
    content = _mapping(read_yaml(path), path, "the file")
    top, over = _assigned(sets)
    over = with_moved_keys(over, "--set")
    content.update(top)
    if data is not None:
        over = merged(over, {"data": {"root": str(data)}})
    rows = []
    defaults = _mapping(content.pop("defaults", {}), path, "defaults")
    check_names(defaults, f"{path}: defaults")
    defaults = with_moved_keys(defaults, f"{path}: defaults")
    _checked(path, "defaults", defaults)
    given = content.pop("rows", None)
    if not isinstance(given, list) or not given:
        raise SettingsError(f"{path}: rows: needs a list of rows, each with 'name' and 'with', got {shown(given)}.")
    for number, row in enumerate(given):
        row = _mapping(row, path, f"rows[{number}]")
        if not isinstance(row.get("name"), str) or set(row) - {"name", "with"}:
            raise SettingsError(f"{path}: rows[{number}]: needs 'name' and may have 'with', got {shown(sorted(row))}.")
        own, where = _mapping(row.get("with") or {}, path, f"rows[{number}].with"), f"row {shown(row['name'])}"
        check_names(own, f"{path}: {where}")
        own = with_moved_keys(own, f"{path}: {where}")
        settings = _checked(path, where, merged(merged(defaults, own), over))
        rows.append({"name": row["name"], "settings": settings})
    try:
        return Experiment.model_validate({**content, "rows": rows})
    except ValidationError as error:
        raise SettingsError(f"{path}: {_told(error, Experiment, 'defaults')}") from error


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Two levels of settings as one; ``signals`` are replaced as a whole, since weights belong together.

    Example:
        >>> merged({"teacher": {"signals": {"labels": 1}, "depth": 5}}, {"teacher": {"signals": {"answer": 1}}})
        {'teacher': {'signals': {'answer': 1}, 'depth': 5}}
    """
    found = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(found.get(key), Mapping) and key != "signals"
        found[key] = merged(found[key], value) if both else value
    return found


def _assigned(sets: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """``--set`` as keys of the whole experiment, and settings of every row."""
    top: dict[str, Any] = {}
    rows: dict[str, Any] = {}
    for one in sets:
        key, sign, text = one.partition("=")
        if not sign or not key.strip():
            raise SettingsError(f"--set needs key=value, such as training.num_train_epochs=1; got {one!r}.")
        value = parse_yaml(text, f"--set {one:.80}: the value is ")
        if key in ("name", "title", "question", "seeds"):
            top[key] = value
            continue
        for part in reversed(key.strip().split(".")):
            value = {part: value}
        rows = merged(rows, value)
    return top, rows


def _mapping(value: Any, path: Path, what: str) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise SettingsError(f"{path}: {what}: needs keys with values, got {shown(value)}.")
    return dict(value)


def _checked(path: Path, where: str, settings: Mapping[str, Any]) -> RowSettings:
    try:
        return RowSettings.model_validate(dict(settings))
    except ValidationError as error:
        raise SettingsError(f"{path}: {where}: {_told(error, RowSettings)}") from error


def _told(error: ValidationError, model: type[BaseModel], *further: str) -> str:
    """The first problem: its key, what is wrong, and what may stand there."""
    problem = error.errors(include_url=False)[0]
    place = problem["loc"]
    key = ".".join(str(part) for part in place if part != "[key]")
    text = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        known = sorted({*_fields_at(model, place[:-1]), *(further if len(place) == 1 else ())})
        near = get_close_matches(str(place[-1]), known, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        return f"{key:.200}: no such key; there are {', '.join(known)}.{hint}"
    got = "" if problem["type"] in ("value_error", "missing") else f", got {shown(problem['input'])}"
    return f"{f'{key}: ' if key else ''}{text}{got}."


def _fields_at(model: type[BaseModel], place: Sequence[int | str]) -> list[str]:
    for part in place:
        field = model.model_fields.get(str(part))
        kinds = (field.annotation, *get_args(field.annotation)) if field else ()
        model = next((one for one in kinds if isinstance(one, type) and issubclass(one, BaseModel)), model)
    return list(model.model_fields)
