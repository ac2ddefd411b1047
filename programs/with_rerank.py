"""Put a reranker behind a program's first stage without touching the program's source."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from types import CellType, FunctionType
from typing import Any

import dspy

from radio_dspy.core.copies import Shared
from radio_dspy.core.errors import SettingsError
from radio_dspy.core.modules import _modules, methods_of, read_by

_QUERIES = ("query", "question", "search_query", "input", "text", "q")
_METHODS = ("invoke", "retrieve", "run", "search", "query", "get_relevant_documents")
_LISTS = ("passages", "documents", "docs", "nodes", "contexts", "results")


class Reranked(dspy.Module):
    """A first stage whose passages come in the reranker's order; called as the first stage itself.

    Args:
        search: The first stage: a module, a retriever of any library, or a function. Copies share what is neither a
            module nor a method of one.
        rerank: Orders what it finds.
        method: The method of ``search`` that finds passages, as ``invoke`` of LangChain's retrievers; "" calls it.
    """

    def __init__(self, search: Any, rerank: dspy.Module, method: str = "") -> None:
        super().__init__()
        copied = isinstance(search, dspy.Module) or isinstance(getattr(search, "__self__", None), dspy.Module)
        self.search = search if copied else Shared(search)
        self.rerank = rerank
        self.method = method

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or "search" not in self.__dict__:
            raise AttributeError(name)
        if name == self.method:
            return self
        return getattr(self._first_stage, name)  # its other methods and settings

    @property
    def _first_stage(self) -> Any:
        return self.search.held if isinstance(self.search, Shared) else self.search

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Search and rerank.

        Raises:
            SettingsError: If no argument is a query, or what comes back holds no list of passages.
        """
        found = self._find(*args, **kwargs)
        return (
            self._reranked(found, args, kwargs) if not inspect.isawaitable(found) else self._later(found, args, kwargs)
        )

    async def aforward(self, *args: Any, **kwargs: Any) -> Any:
        """See ``forward``; a first stage that cannot wait is called as it is."""
        stage = self._first_stage
        found = (
            stage.acall(*args, **kwargs) if hasattr(stage, "acall") and not self.method else self._find(*args, **kwargs)
        )
        return self._reranked(await found if inspect.isawaitable(found) else found, args, kwargs)

    def _find(self, *args: Any, **kwargs: Any) -> Any:
        stage = self._first_stage
        return (getattr(stage, self.method) if self.method else stage)(*args, **kwargs)

    async def _later(self, found: Any, args: Sequence[Any], named: Mapping[str, Any]) -> Any:
        return self._reranked(await found, args, named)

    def _reranked(self, found: Any, args: Sequence[Any], named: Mapping[str, Any]) -> Any:
        query = _query_of(args, named)
        if isinstance(found, list | tuple):
            return self.rerank(query, list(found)).passages
        fields: dict[str, Any] = dict(found.items()) if hasattr(found, "items") else {}
        name = next((one for one in _LISTS if isinstance(fields.get(one), list | tuple)), None)
        if name is None:
            held = f" with {sorted(fields)}" if fields else ""
            raise SettingsError(
                f"What was found is {type(found).__name__}{held}; with_rerank needs a list of passages or something "
                f"that holds one as {', '.join(_LISTS)}."
            )
        passages: list[Any] = [*fields[name]]
        scores = fields.get("scores")
        known = list(scores) if isinstance(scores, list | tuple) and len(scores) == len(passages) else None
        ranked = self.rerank(query, passages, **({"scores": known} if known else {}))
        # Whatever stands beside the passages, one for each, moves with them.
        moved = {
            key: [value[row] for row in ranked.indices]
            for key, value in fields.items()
            if isinstance(value, list | tuple) and len(value) == len(passages)
        }
        if isinstance(found, dspy.Prediction):
            return dspy.Prediction(**{**fields, **moved})
        return {**fields, **moved}


def with_rerank(program: dspy.Module, rerank: dspy.Module, *, after: str) -> dspy.Module:
    """A copy of a program in which what its first stage finds is reranked before the program goes on.

    The copy is an ordinary module of the program's class: it saves, loads and copies like any other, and optimizers
    see its predictors and the reranker. Retrieve more than the LM is to read, and give the reranker a ``k``.

    Args:
        program: A program of your own; it stays as it is.
        rerank: A ``Rerank``, which ``RADIO`` can then train.
        after: The first stage: an attribute (``"search"``, ``"inner.search"``), a method of one
            (``"search.invoke"``), the name of a tool of a ``dspy.ReAct`` that returns a list of passages, or the global
            or local name of a function or retriever that the methods read.

    Raises:
        SettingsError: If the program has nothing of that name.

    Example:
        >>> from radio_dspy import Rerank
        >>> class RAG(dspy.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.search = lambda question: ["Ice floats.", "Yeast dies in hot water."]
        ...     def forward(self, question):
        ...         return dspy.Prediction(context=self.search(question))
        >>> rag = with_rerank(RAG(), Rerank("all-MiniLM-L6-v2", architecture="bi-encoder"), after="search")
        >>> rag(question="why did the dough not rise?").context[0]
        'Yeast dies in hot water.'
    """
    copied = program.deepcopy()
    *path, name = after.split(".")
    owner = _attribute(copied, path)
    if isinstance(owner, dspy.Module) and name in vars(owner):
        setattr(owner, name, Reranked(_searched(vars(owner)[name], after), rerank))
        return copied
    if path and owner is not None and callable(getattr(owner, name, None)):
        holder = _attribute(copied, path[:-1])
        if isinstance(holder, dspy.Module) and path[-1] in vars(holder):
            setattr(holder, path[-1], Reranked(owner, rerank, name))
            return copied
    if not path and _tool_reranked(copied, name, rerank):
        return copied
    if not path or len(path) == 1:
        named, method = (after, "") if not path else (path[0], name)
        if _read_reranked(copied, named, rerank, method):
            return copied
    raise SettingsError(
        f"{type(program).__name__} has no attribute and no tool {after!r}, and no method of it reads a global of that "
        "name; give with_rerank(after=) the name of what finds the passages."
    )


def _attribute(item: Any, path: Sequence[str]) -> Any:
    for name in path:
        item = getattr(item, name, None)
    return item


def _tool_reranked(program: dspy.Module, name: str, rerank: dspy.Module) -> bool:
    """Have every agent that has a tool of this name call a reranked one; whether there is any."""
    agents = [module for _, module, _ in _modules(program, program) if isinstance(_tools(module).get(name), dspy.Tool)]
    for agent in agents:
        tools = _tools(agent)
        # An attribute, too: only what is one is saved and loaded with the program.
        agent.__dict__[f"reranked_{name}"] = stage = Reranked(tools[name].func, rerank)
        tools[name] = tools[name].model_copy(update={"func": stage.__call__})
    return bool(agents)


def _tools(module: dspy.Module) -> dict[str, Any]:
    tools = vars(module).get("tools")
    return tools if isinstance(tools, dict) else {}


def _read_reranked(program: dspy.Module, name: str, rerank: dspy.Module, method: str) -> bool:
    """Have every module whose methods read ``name`` read a reranked one; whether there is any."""
    readers = [module for _, module, _ in _modules(program, program) if name in _names_read(type(module))]
    for module in readers:
        stage = _names_read(type(module))[name]
        _searched(stage, name, method)
        module.__class__ = _reading(type(module), name)
        setattr(module, name, Reranked(stage, rerank, method))
    return bool(readers)


def _searched(stage: Any, name: str, method: str = "") -> Any:
    """The first stage, of which something can be called.

    Raises:
        SettingsError: If not; the message names its methods that may be meant.
    """
    if callable(getattr(stage, method, None) if method else stage):
        return stage
    meant = [repr(f"{name}.{one}") for one in _METHODS if callable(getattr(stage, one, None))]
    advice = f"give its method, after={' or '.join(meant)}" if meant else "it finds no passages"
    how = method or "it is"
    raise SettingsError(f"{name!r} is a {type(stage).__name__}, which cannot be called as {how}; {advice}.")


def _names_read(kind: type) -> dict[str, Any]:
    return {name: value for function in methods_of(kind) for name, value in read_by(function).items()}


def _reading(kind: type, name: str) -> type:
    """A subclass of the same name whose methods read ``self.NAME`` where they read the global or local of that name."""
    base, names = getattr(kind, "_reads_reranked", (kind, ()))
    names = (*names, name)
    methods = {
        one.__name__: _bound_to(one, names)
        for one in reversed(methods_of(base))
        if not read_by(one).keys().isdisjoint(names)
    }
    about = {key: vars(base)[key] for key in ("__module__", "__qualname__", "__doc__") if key in vars(base)}
    return type(base)(base.__name__, (base,), {**about, "_reads_reranked": (base, names), **methods})


def _bound_to(function: FunctionType, names: Sequence[str]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        code, own = function.__code__, {name: vars(self)[name] for name in names if name in vars(self)}
        cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
        closure = tuple(CellType(own[free]) if free in own else cell for free, cell in cells)
        made = FunctionType(code, {**function.__globals__, **own}, function.__name__, function.__defaults__, closure)
        made.__kwdefaults__ = function.__kwdefaults__
        return made(self, *args, **kwargs)

    return call


def _query_of(args: Sequence[Any], named: Mapping[str, Any]) -> str:
    known = [named[one] for one in _QUERIES if one in named]
    query = next((one for one in (*args, *known, *named.values()) if isinstance(one, str)), None)
    if query is None:
        raise SettingsError(f"The first stage was called without a query that is a text: {args!r:.80} {named!r:.80}.")
    return query
