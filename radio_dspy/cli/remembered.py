"""Commands that a run folder keeps, for ``radio-dspy runs resume``."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from inspect import signature
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from radio_dspy.core.errors import CheckpointError, SettingsError

_MODELS = ("lm", "encoder", "reranker")  # arguments that may name a hosted one
_LARGEST = 2**62  # of a whole number; DSPy and torch take none of more than 64 bits


def remember_command(run_dir: Path | None, command: str, arguments: Mapping[str, Any]) -> None:
    """Keep a command in its run folder, for ``radio-dspy runs resume``."""
    from radio_dspy.models.endpoint import shown_name
    from radio_dspy.retrievers.stores.opening import shown_store
    from radio_dspy.runs.run import Run

    if run_dir is not None:
        told = {name: str(value) if isinstance(value, Path) else value for name, value in arguments.items()}
        shown = {"store": shown_store}  # the password comes from PGPASSWORD or ~/.pgpass when the run goes on
        told = {
            name: shown.get(name, shown_name)(value) if isinstance(value, str) else value
            for name, value in told.items()
        }
        Run(run_dir).remember_command({"command": command, "folder": str(Path.cwd()), "arguments": told})


def restored_arguments(command: Callable[..., None], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that ``remember_command`` kept, with paths as paths again."""
    hints = get_type_hints(command)
    paths = {name for name, hint in hints.items() if Path in (hint, *get_args(hint))}
    return {name: Path(value) if name in paths and value is not None else value for name, value in arguments.items()}


def check_arguments(
    run_dir: Path, command: Callable[..., None], arguments: Mapping[str, Any], *, folder: Path, yes: bool
) -> None:
    """Hold what ``remember_command`` kept against the command: whoever made the folder may have written it.

    Args:
        run_dir: For messages.
        command: What will be run.
        arguments: What for.
        folder: Where paths are meant from.
        yes: Whether the user has said that hosted models may be asked, which get questions and the user's key.

    Raises:
        SettingsError: For a value that the option does not take or that is missing, an address, or, without ``yes``, a
            hosted model or a file that would be replaced.
    """
    from radio_dspy.core.states import ADDRESS
    from radio_dspy.core.validation import is_plain_name
    from radio_dspy.models.open_encoder import EMBEDDING_PROVIDERS

    hints = get_type_hints(command, include_extras=True)
    for name, value in arguments.items():
        if not _fits(value, hints[name]):
            raise SettingsError(f"{run_dir}: its command.json sets {name} to {value!r:.80}; run the command yourself.")
        if not isinstance(value, str) or not ADDRESS.search(value):
            continue
        if name in _MODELS:
            raise SettingsError(f"{run_dir}: its command.json names an address ({name}); run the command yourself.")
        if not yes:  # looking at it would already ask another machine
            raise SettingsError(
                f"{run_dir}: its command.json sets {name} to {value!r:.80}, an address ({name}); if you trust it, add "
                "--yes."
            )
    needed = {one.name for one in signature(command).parameters.values() if one.default is one.empty}
    if missing := needed - {name for name, value in arguments.items() if value is not None}:
        raise SettingsError(f"{run_dir}: its command.json has no {sorted(missing)}; run the command yourself.")
    written = arguments.get("json_file")
    if written and os.path.lexists(folder / written) and not yes:
        raise SettingsError(f"{run_dir}: would replace {folder / written}. If the run is one of your own, add --yes.")
    for name, value in _models(arguments, folder).items():
        if not is_plain_name(value if "/" in value else f"openai/{value}"):
            raise SettingsError(f"{run_dir}: its command.json names an address ({name}); run the command yourself.")
        hosted = name == "lm" or (name != "reranker" and value.partition("/")[0] in EMBEDDING_PROVIDERS)
        if hosted and not yes:
            raise SettingsError(
                f"{run_dir}: goes on with the {name} {value}, which is sent your questions and your key. If the run is "
                "one of your own, add --yes."
            )


def _models(arguments: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """The models that are no files here, by option: the openers decide, and a folder of an LM's name is no LM."""
    from radio_dspy.retrievers.index_folder import read_manifest

    found = {}
    if (lm := arguments.get("lm")) not in (None, "none", "local") and not str(lm).endswith(".gguf"):
        found["lm"] = str(lm)
    for name in _MODELS[1:]:
        value = arguments.get(name)
        if value is not None and not os.path.isdir(folder / value):  # noqa: PTH112 - a name that is too long is none
            found[name] = str(value)
    if arguments.get("encoder") is None and arguments.get("index_folder"):
        with contextlib.suppress(CheckpointError):  # one that cannot be opened is an error of the command's
            said = read_manifest(folder / arguments["index_folder"]).encoder
            if said.get("backend") is not None:
                found["index's encoder"] = str(said.get("model"))
    return found


def _fits(value: Any, hint: Any) -> bool:
    """Whether a JSON value is one that an option of this type takes."""
    if get_origin(hint) is Annotated:
        least = next((one.min for one in hint.__metadata__ if getattr(one, "min", None) is not None), value)
        return _fits(value, hint.__origin__) and (value is None or value >= least)
    if get_origin(hint) in (Union, UnionType):
        return any(_fits(value, one) for one in get_args(hint))
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) is list:
        return isinstance(value, list) and all(_fits(one, *get_args(hint)) for one in value)
    if (isinstance(value, str) and not _is_name(value)) or (isinstance(value, int) and abs(value) > _LARGEST):
        return False
    kinds = {Path: (str,), float: (int, float), type(None): (type(None),)}.get(hint, (hint,))
    return isinstance(value, kinds) and (hint is bool or not isinstance(value, bool))


def _is_name(text: str) -> bool:
    """Whether the system could take a text as a name."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False
