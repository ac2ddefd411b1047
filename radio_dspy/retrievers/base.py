"""The interface of a first-stage retriever."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import dspy

from radio_dspy.core.errors import SettingsError
from radio_dspy.core.modules import _modules
from radio_dspy.core.rankings import Ranking
from radio_dspy.core.validation import checked_text, is_whole, json_fields, plain_number, shown

# A metadata field and the value that it must have, or a list of values of which it must have one; all must hold.
Filter: TypeAlias = Mapping[str, Any]


def checked_filter(given: Any) -> dict[str, Any]:
    """A filter whose values every store can compare.

    Raises:
        SettingsError: For what is no mapping of names, and for a value that is no text, number, true or false, nor a
            list of such.

    Example:
        >>> checked_filter({"tenant": "acme", "year": [2025, 2026]})
        {'tenant': 'acme', 'year': [2025, 2026]}
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping) or not all(isinstance(name, str) and name for name in given):
        raise SettingsError(f"filter must map metadata fields to values, got {shown(given)}.")
    found: dict[str, Any] = {}
    for name, value in given.items():
        plain = plain_number(value)
        many = isinstance(plain, list | tuple | set | frozenset)
        some = [plain_number(one) for one in plain] if many else [plain]
        fields = json_fields({name: some})  # neither NaN nor half a character
        if name not in fields or not all(isinstance(one, str | int | float) for one in some):
            raise SettingsError(
                f"filter[{name!r}] must be a text, a number, true or false, or a list of such, got {shown(value)}."
            )
        found[name] = fields[name] if many else fields[name][0]
    return found


def filter_key(value: Any) -> tuple[bool, Any]:
    """By which values are equal in a filter: 1 is 1.0, and it is not true, as it is in Python."""
    return isinstance(value, bool), value


def checked_k(k: Any) -> int:
    """How many passages to find.

    Raises:
        SettingsError: If it is no whole number of at least 1.
    """
    if not is_whole(k) or k < 1:
        raise SettingsError(f"k must be at least 1, got {shown(k)}; give a whole number.")
    return int(k)


class Retriever(dspy.Module):
    """A first stage: finds the passages that a reranker then orders.

    Subclasses write ``search``; one that can filter by metadata takes ``filter`` as a third argument.
    """

    def __init__(self, k: int = 20) -> None:
        super().__init__()
        self.k = k

    def search(self, queries: Sequence[str], k: int) -> list[Ranking]:
        """Find the ``k`` best passages for each query."""
        # No abstract method: DSPy's modules have a metaclass of their own, which does not go with ABC's.
        raise NotImplementedError(f"{type(self).__name__} must define search(queries, k).")

    def forward(self, query: str, k: int | None = None, filter: Filter | None = None) -> dspy.Prediction:
        """Retrieve for one query.

        Args:
            query: What to look for.
            k: How many passages, at least 1; None takes the retriever's own ``k``.
            filter: Metadata that every passage must have: for each field a value, or a list of values of which it must
                have one.

        Returns:
            A prediction with ``passages`` (best first, each with ``id``, ``title``, ``text``) and ``scores``.
        """
        return self._retrieve(query, k, filter)

    async def aforward(self, query: str, k: int | None = None, filter: Filter | None = None) -> dspy.Prediction:
        """Retrieve for one query without blocking the event loop; see ``forward``."""
        return await asyncio.to_thread(self._retrieve, query, k, filter)

    def _retrieve(self, query: str, k: int | None, filter: Filter | None) -> dspy.Prediction:
        depth = checked_k(self.k if k is None else k)
        checked_text(query, "The query")
        given = {"filter": filter} if filter else {}  # a retriever of the user's own may not know it
        ranking = self.search([query], depth, **given)[0]
        return dspy.Prediction(passages=list(ranking.passages), scores=list(ranking.scores))


def retriever_of(program: dspy.Module) -> Retriever | None:
    """The first of our retrievers inside a program."""
    return next((module for _, module, _ in _modules(program, program) if isinstance(module, Retriever)), None)
