"""Put a reranker behind a program's first stage without touching the program's source."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import CellType, FunctionType, MethodType
from typing import Any

import dspy

from radio_dspy.core.copies import Shared
from radio_dspy.core.errors import SettingsError
from radio_dspy.core.modules import _modules, check_module, methods_of, read_by
from radio_dspy.core.passages import as_score
from radio_dspy.core.validation import plain_number, shown
from radio_dspy.rerankers.rerank import Rerank

_QUERIES = ("query", "question", "search_query", "input", "text", "q")
_METHODS = ("invoke", "retrieve", "run", "search", "query", "get_relevant_documents")
_NEVER = ("forward", "aforward", "__init__", "__call__")  # what they give is no list of passages
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
        return _reranked(self.rerank, self._find(*args, **kwargs), self._called, args, kwargs)

    async def aforward(self, *args: Any, **kwargs: Any) -> Any:
        """See ``forward``; a first stage that cannot wait is called as it is."""
        stage = self._first_stage
        found = (
            stage.acall(*args, **kwargs) if hasattr(stage, "acall") and not self.method else self._find(*args, **kwargs)
        )
        later = _reranked(self.rerank, found, self._called, args, kwargs)
        return await later if inspect.isawaitable(later) else later

    def _find(self, *args: Any, **kwargs: Any) -> Any:
        stage = self._first_stage
        return (getattr(stage, self.method) if self.method else stage)(*args, **kwargs)

    @property
    def _called(self) -> Any:
        """The function whose arguments a call names."""
        stage = self._first_stage
        if isinstance(stage, Reranked):
            return stage._called
        if self.method:
            return getattr(stage, self.method)
        return stage.forward if isinstance(stage, dspy.Module) else stage


def _reranked(rerank: dspy.Module, found: Any, called: Any, args: Sequence[Any], named: Mapping[str, Any]) -> Any:
    """What was found, in the reranker's order and of the kind that it was; later, where it is awaited."""

    async def later() -> Any:
        return _ordered(rerank, await found, _query_of(called, args, named))

    return later() if inspect.isawaitable(found) else _ordered(rerank, found, _query_of(called, args, named))


def _ordered(rerank: dspy.Module, found: Any, query: str) -> Any:
    if found is None:
        return None
    found = list(found) if isinstance(found, Iterator) else plain_number(found)  # numpy's array of texts is a list
    if isinstance(found, list | tuple):
        if found and all(_is_scored(one) for one in found):  # as LangChain's similarity_search_with_score gives them
            ordered = _rank(rerank, query, [one for one, _ in found], [score for _, score in found])
            return [found[row] for row in ordered.indices]
        return rerank(query, list(found)).passages
    fields: dict[str, Any] = dict(found.items()) if hasattr(found, "items") else {}
    name = next((one for one in _LISTS if isinstance(fields.get(one), list | tuple)), None)
    if name is None:
        held = f" with {sorted(fields)}" if fields else ""
        raise SettingsError(
            f"What was found is {type(found).__name__}{held}; with_rerank needs a list of passages or something that "
            f"holds one as {', '.join(_LISTS)}."
        )
    passages: list[Any] = [*fields[name]]
    scores = fields.get("scores")
    known = list(scores) if isinstance(scores, list | tuple) and len(scores) == len(passages) else None
    ranked = _rank(rerank, query, passages, known)
    # Whatever stands beside the passages, one for each, moves with them.
    moved = {
        key: [value[row] for row in ranked.indices]
        for key, value in fields.items()
        if isinstance(value, list | tuple) and len(value) == len(passages)
    }
    if isinstance(found, dspy.Prediction):
        return dspy.Prediction(**{**fields, **moved})
    return {**fields, **moved}


def _rank(rerank: dspy.Module, query: str, passages: list[Any], scores: list[Any] | None) -> Any:
    """Only a ``Rerank`` has a use for the scores."""
    return rerank(query, passages, **({"scores": scores} if scores and isinstance(rerank, Rerank) else {}))


def _is_scored(item: Any) -> bool:
    return isinstance(item, tuple) and len(item) == 2 and as_score(plain_number(item[1])) is not None


def with_rerank(program: dspy.Module, rerank: dspy.Module, *, after: str) -> dspy.Module:
    """A copy of a program in which what its first stage finds is reranked before the program goes on.

    The copy is an ordinary module of the program's class: it saves, loads and copies like any other, and optimizers
    see its predictors and the reranker. Retrieve more than the LM is to read, and give the reranker a ``k``.

    Args:
        program: A program of your own; it stays as it is.
        rerank: A ``Rerank``, which ``RADIO`` can then train.
        after: The first stage: an attribute (``"search"``, ``"inner.search"``) or a method of the program's own, a
            method of an attribute (``"search.invoke"``), the name of a tool of a ``dspy.ReAct`` that returns a list of
            passages, or the global or local name of a function or retriever that the methods read.

    Raises:
        SettingsError: If the program is none, or has nothing of that name.

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
    check_module(program, "with_rerank's program")
    if not isinstance(rerank, dspy.Module):
        raise SettingsError(
            f"with_rerank needs a reranker such as Rerank('BAAI/bge-reranker-base'), got {shown(rerank)}."
        )
    if not isinstance(after, str) or not after:
        raise SettingsError(f"with_rerank(after=) must name what finds the passages, got {shown(after)}.")
    copied = program.deepcopy()
    *path, name = after.split(".")
    owner = _attribute(copied, path)
    if isinstance(owner, dspy.Module) and name in vars(owner):
        setattr(owner, name, Reranked(_searched(vars(owner)[name], after), rerank))
        return copied
    if isinstance(owner, dspy.Module) and (own := _own_member(type(owner), name)) is not None:
        if isinstance(own, FunctionType | property):
            _override(owner, name, own, rerank)
            _rebind(copied)
        else:
            setattr(owner, name, Reranked(getattr(owner, name), rerank))
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
            _rebind(copied)
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


def _own_member(kind: type, name: str) -> Any:
    """What a class of the user's, or a base of it, has under a name; None for DSPy's and ours."""
    bases = [one for one in kind.__mro__ if one.__module__.partition(".")[0] not in ("dspy", "radio_dspy", "builtins")]
    found = next((vars(one)[name] for one in bases if name in vars(one)), None)
    return None if name in _NEVER else found


def _override(owner: dspy.Module, name: str, own: FunctionType | property, rerank: dspy.Module) -> None:
    """Give a module a class of the same name in which a method or property reranks what it finds."""
    held = f"{name}_rerank"
    while held in vars(owner):
        held += "_again"

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        found = own(self, *args, **kwargs)  # type: ignore[operator]
        return _reranked(vars(self)[held], found, own, (self, *args), kwargs)

    def stage(self: Any) -> Any:
        return Reranked(own.__get__(self), vars(self)[held])

    kind: Any = type(owner)
    member = functools.wraps(own)(method) if isinstance(own, FunctionType) else property(stage)
    owner.__class__ = type(kind)(kind.__name__, (kind,), {**_about(kind), name: member})
    setattr(owner, held, rerank)


def _rebind(program: dspy.Module) -> None:
    """Bound methods that modules hold, themselves or as tools, become those of their module's new class."""
    for _, module, _ in _modules(program, program):
        for name, value in list(vars(module).items()):
            if isinstance(value, dict | list | dspy.Tool | MethodType):
                vars(module)[name] = _rebound(value)


def _rebound(item: Any) -> Any:
    if isinstance(item, MethodType) and isinstance(item.__self__, dspy.Module):
        return getattr(item.__self__, item.__name__, item)
    if isinstance(item, dspy.Tool):
        item.func = _rebound(item.func)
    elif isinstance(item, dict | list):
        for key in item if isinstance(item, dict) else range(len(item)):
            item[key] = _rebound(item[key])
    return item


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
    found = {name: value for function in methods_of(kind) for name, value in read_by(function).items()}
    return {name: value for name, value in found.items() if name != "__class__"}  # what super() reads


def _reading(kind: type, name: str) -> type:
    """A subclass of the same name whose methods read ``self.NAME`` where they read the global or local of that name."""
    base, names = vars(kind).get("_reads_reranked", (kind, ()))
    names = (*names, name)
    methods = {
        one.__name__: _bound_to(one, names)
        for one in reversed(methods_of(base))
        if not read_by(one).keys().isdisjoint(names)
    }
    return type(base)(base.__name__, (base,), {**_about(base), "_reads_reranked": (base, names), **methods})


def _about(kind: type) -> dict[str, Any]:
    return {key: vars(kind)[key] for key in ("__module__", "__qualname__", "__doc__") if key in vars(kind)}


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


def _query_of(called: Any, args: Sequence[Any], named: Mapping[str, Any]) -> str:
    """The text among the arguments of a first stage that is called as queries are; else the first text."""
    given: dict[str, Any] = dict(named)
    with contextlib.suppress(TypeError, ValueError):  # a builtin, or one that takes what it gets
        given = {**inspect.signature(called).bind_partial(*args, **named).arguments, **named}
    known = [given[one] for one in _QUERIES if one in given]
    query = next((one for one in (*known, *args, *named.values()) if isinstance(one, str)), None)
    if query is None:
        raise SettingsError(f"The first stage was called without a query that is a text: {args!r:.80} {named!r:.80}.")
    return query
