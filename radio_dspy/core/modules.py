"""Walk the modules of a program, also those behind tools and methods."""

from __future__ import annotations

import contextlib
import dis
import functools
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any

import dspy

from radio_dspy.core.copies import Shared
from radio_dspy.core.errors import SettingsError
from radio_dspy.core.validation import shown

# Where DSPy's optimizers note the programs that they tried: no part of the program that they return.
_TRIED = frozenset({"candidate_programs", "mb_candidate_programs", "trial_logs"})


def check_module(program: Any, name: str = "The student") -> None:
    """See that a program is one of DSPy's.

    Raises:
        SettingsError: If not.
    """
    if not isinstance(program, dspy.Module):
        raise SettingsError(
            f"{name} must be a dspy.Module, got {shown(program)}; dspy.streamify and dspy.asyncify are for what comes "
            "of it."
        )


def _modules(program: dspy.Module, original: dspy.Module) -> Iterator[tuple[str, dspy.Module, Any]]:
    """Every module once, with its path and its counterpart in the original, also behind tools."""
    seen: set[int] = set()
    queue: list[tuple[str, Any, Any]] = [("self", program, original)]
    while queue:
        path, item, source = queue.pop(0)
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, dspy.Module):
            yield path, item, source
            queue += [
                (f"{path}.{name}", value, vars(source)[name])
                for name, value in vars(item).items()
                if name in vars(source) and name not in _TRIED
            ]
        elif isinstance(item, list | tuple):  # of another length where DSPy drops it while copying, as with `history`
            pairs = zip(item, source, strict=False)
            queue += [(f"{path}[{i}]", value, other) for i, (value, other) in enumerate(pairs)]
        elif isinstance(item, dict):
            queue += [(f"{path}[{key!r}]", value, source[key]) for key, value in item.items() if key in source]
        else:
            owner, other = _owner(item), _owner(source)
            if isinstance(owner, dspy.Module):
                queue.append((f"{path}.__self__", owner, other))


def _owner(item: Any) -> Any:
    """The module that a tool, or a method, belongs to."""
    return getattr(item.func if isinstance(item, dspy.Tool) else item, "__self__", None)


def held(program: dspy.Module) -> Iterator[Any]:
    """What the modules of a program hold beside modules: their attributes, and what their methods read by name."""
    for _, module, _ in _modules(program, program):
        yield from (one.held if isinstance(one, Shared) else one for one in vars(module).values())
    for _, module, _ in _modules(program, program):
        for function in methods_of(type(module)):
            for value in read_by(function).values():
                yield value
                if isinstance(value, FunctionType):  # a helper around the retriever
                    yield from read_by(value).values()


def methods_of(kind: type) -> list[FunctionType]:
    """The functions that a class and its bases define, without DSPy's own."""
    bases = [one for one in kind.__mro__ if one is not object and one.__module__.partition(".")[0] != "dspy"]
    return [one for base in bases for one in vars(base).values() if isinstance(one, FunctionType)]


def read_by(function: FunctionType) -> dict[str, Any]:
    """The globals and the variables around a function that it reads, by name."""
    free = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    found = {name: function.__globals__[name] for name in _names(function.__code__) if name in function.__globals__}
    for name, cell in free:
        with contextlib.suppress(ValueError):  # not filled yet
            found[name] = cell.cell_contents
    return found


@functools.lru_cache(maxsize=256)
def _names(code: CodeType) -> frozenset[str]:
    """The globals that a function reads; attributes of the same name are none."""
    own = {one.argval for one in dis.get_instructions(code) if one.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return frozenset(own).union(*(_names(one) for one in code.co_consts if isinstance(one, CodeType)))
