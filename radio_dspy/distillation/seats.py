"""The rerankers of a program: which share their weights, and where they stand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import dspy

from radio_dspy.errors import SettingsError
from radio_dspy.rerankers.remote import RemoteRerank
from radio_dspy.rerankers.rerank import Rerank
from radio_dspy.rerankers.weights import RerankerWeights
from radio_dspy.retrievers.base import Retriever

# Where DSPy's optimizers note the programs that they tried: no part of the program that they return.
_TRIED = frozenset({"candidate_programs", "mb_candidate_programs", "trial_logs"})


@dataclass
class Seat:
    """One trained parameter of a program and the rerankers that share it.

    Attributes:
        name: Where it was found first, for example ``self.rerank``.
        rerankers: All that hold it.
    """

    name: str
    rerankers: list[Rerank] = field(default_factory=list)

    @property
    def weights(self) -> RerankerWeights:
        """The parameter."""
        return self.rerankers[0].weights

    def assign(self, weights: RerankerWeights) -> None:
        """Give every reranker the same new parameter."""
        for rerank in self.rerankers:
            rerank.weights = weights


def seats_of(program: dspy.Module, original: dspy.Module | None = None) -> list[Seat]:
    """The distinct reranker weights of a program, however deep they are nested.

    Modules behind a ``dspy.Tool`` are found too, where the tool is a bound method.

    Args:
        program: The program, often a copy.
        original: What it was copied from: rerankers that share their weights there share them here, even where copying
            has parted them.

    Raises:
        SettingsError: If there is none, or one was not copied.
    """
    seats: dict[int, Seat] = {}
    for path, module, source in _modules(program, original or program):
        if isinstance(module, Rerank):
            if original is not None and module is source:
                raise SettingsError(
                    f"{path} cannot be copied, so aligning it would change the student: an attribute of the program "
                    "keeps it from being copied (a lock, a connection, an open file). Make that attribute copyable."
                )
            seat = seats.setdefault(id(source.weights), Seat(path))
            seat.rerankers.append(module)
    if not seats:
        if remote := next((path for path, one, _ in _modules(program, program) if isinstance(one, RemoteRerank)), None):
            raise SettingsError(
                f"{remote} is a RemoteRerank, and a hosted reranker cannot be trained. Give the student a local "
                "radio_dspy.Rerank in its place and keep the hosted one as a teacher, "
                "RADIO(signals={RerankerScore(remote): 0.5, RetrievalScore(): 0.5}), or as a row to compare with."
            )
        raise SettingsError(
            "The program holds no trainable reranker. Add one as an attribute, for example "
            "`self.rerank = radio_dspy.Rerank('BAAI/bge-reranker-base')`, and call it on the retrieved passages. "
            "One that only lives inside a function cannot be copied: use a method of the module as the tool."
        )
    for seat in seats.values():
        seat.assign(seat.weights)
    return list(seats.values())


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


def retriever_of(program: dspy.Module) -> Retriever | None:
    """The first of our retrievers inside a program."""
    return next((module for _, module, _ in _modules(program, program) if isinstance(module, Retriever)), None)
