"""Note what reaches the rerankers of a running program, and end its run before an LM is asked for nothing."""

from __future__ import annotations

import enum
import inspect
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import dspy
from dspy.utils.callback import ACTIVE_CALL_ID, BaseCallback

from radio_dspy.core.errors import DataError
from radio_dspy.core.passages import Passage, as_passages
from radio_dspy.core.validation import checked_text
from radio_dspy.rerankers.rerank import Rerank
from radio_dspy.retrievers.base import Retriever

_STOPS = 20  # times that a program is stopped which swallows it; then it goes on as if nobody watched
_NO_PREDICTOR = ""  # an LM that the program calls itself
_SIGNATURE = inspect.signature(Rerank.forward)
_ASKED = inspect.signature(Retriever.forward)


class RunEndedError(BaseException):
    """Ends the run of a program whose last reranker was reached: no ``except Exception`` of the user's takes it."""


@dataclass(frozen=True)
class RerankCall:
    """One call of a ``Rerank``, with what it was given, and its passages as they are read."""

    rerank: Rerank
    query: str
    given: list[Any]
    passages: list[Passage]
    scores: Any = None


class Recorder(BaseCallback):
    """Notes the calls of rerankers and which predictors the program asks before them; may end the run after the last.

    Args:
        needed: Predictors, by their fields, that may write the query of a later reranker. Once a reranker was reached,
            any other ends the run before its LM is asked. None lets the program run to its end.
        unasked: End the run also at every call of an LM that no predictor makes.
        first: End the run when the first reranker is called, before it ranks.
    """

    def __init__(self, needed: Collection[str] | None = None, *, unasked: bool = False, first: bool = False) -> None:
        self.needed = needed
        self.unasked = unasked
        self.first = first
        self.calls: list[RerankCall] = []
        self.before: set[str] = set()  # predictors that were asked before a reranker
        self.filtered = False  # a retriever was asked for a part of its passages
        self.stops = 0
        self.met_lm = False  # although it was to be unasked
        self._asked: set[str] = set()
        self._predictors: set[str] = set()  # ids of their calls

    def on_module_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """Called by DSPy."""
        if isinstance(instance, Rerank):
            if not self.stops:  # what a program does that swallowed its end is not its own doing
                self._note(instance, inputs)
                if self.first:
                    self.stops += 1
                    raise RunEndedError
        elif isinstance(instance, Retriever):
            bound = _ASKED.bind(instance, *inputs.get("args", ()), **inputs.get("kwargs", {})).arguments
            self.filtered = self.filtered or bool(bound.get("filter"))
        elif isinstance(instance, dspy.Predict):
            self._predictors.add(call_id)
            self._ask(str(getattr(instance.signature, "signature", _NO_PREDICTOR)))

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """Called by DSPy."""
        if self.unasked:
            self.met_lm = True
            raise RunEndedError
        if ACTIVE_CALL_ID.get() not in self._predictors:
            self._ask(_NO_PREDICTOR)

    def _note(self, rerank: Rerank, inputs: Mapping[str, Any]) -> None:
        bound = _SIGNATURE.bind(rerank, *inputs.get("args", ()), **inputs.get("kwargs", {})).arguments
        try:
            query, passages = checked_text(bound["query"], "The query"), as_passages(bound["passages"])
        except DataError:  # the reranker raises the same: such a call ranks nothing
            return
        self.calls.append(RerankCall(rerank, query, list(bound["passages"]), passages, bound.get("scores")))
        self.before |= self._asked

    def _ask(self, predictor: str) -> None:
        ends = self.needed is not None and bool(self.calls) and predictor not in self.needed
        if ends and self.stops < _STOPS:
            self.stops += 1
            raise RunEndedError
        self._asked.add(predictor)


class CannotAnswerError(Exception):
    """A field whose type has no made-up value."""


class StandIn(dspy.ChatAdapter):
    """Answers for every LM, without one, so that a program shows what it does next.

    Args:
        turn: Decides between true and false and between the values of a ``Literal``.
    """

    def __init__(self, turn: int) -> None:
        super().__init__()
        self.turn = turn
        self.answers = 0

    def __call__(self, lm: Any, lm_kwargs: Any, signature: Any, demos: Any, inputs: Any) -> list[dict[str, Any]]:
        """Give one made-up value for each output field."""
        self.answers += 1
        asked = next((value for value in inputs.values() if isinstance(value, str)), "nothing")
        text = f"stand-in {self.answers} for {asked:.200}"
        return [{name: _made_up(one.annotation, text, self.turn) for name, one in signature.output_fields.items()}]

    async def acall(self, lm: Any, lm_kwargs: Any, signature: Any, demos: Any, inputs: Any) -> list[dict[str, Any]]:
        """See ``__call__``."""
        return self(lm, lm_kwargs, signature, demos, inputs)


def _made_up(kind: Any, text: str, turn: int) -> Any:
    simple: dict[Any, Any] = {str: text, bool: turn % 2 == 0, int: turn, float: float(turn), Any: text}
    if kind in simple:
        return simple[kind]
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Literal:
        return parts[turn % len(parts)]
    if origin in (list, set, tuple, Sequence) and parts:
        return [_made_up(parts[0], text, turn)]
    if origin in (Union, UnionType):
        return _made_up(next(one for one in parts if one is not type(None)), text, turn)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return list(kind)[turn % len(kind)]
    raise CannotAnswerError(f"No value is made up for {kind}.")


def acts(program: dspy.Module) -> bool:
    """Whether a program uses tools or runs code: what it does with a made-up reply could do harm."""
    return any(
        any(hasattr(module, name) for name in ("tools", "interpreter")) for _, module in program.named_sub_modules()
    )
