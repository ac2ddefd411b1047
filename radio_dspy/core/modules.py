"""Walk the modules of a program, also those behind tools and methods."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dspy

# Where DSPy's optimizers note the programs that they tried: no part of the program that they return.
_TRIED = frozenset({"candidate_programs", "mb_candidate_programs", "trial_logs"})


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
