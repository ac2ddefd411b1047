"""The program that is served, its orders of passages, and how another one takes its place."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dspy

from radio_dspy.core.errors import SettingsError
from radio_dspy.core.rankings import best_first
from radio_dspy.core.redaction import logger_of
from radio_dspy.lm.adapters import DispatchingAdapter, PlainAdapter
from radio_dspy.lm.streaming import PlainStreamListener
from radio_dspy.models.cache import count_tokens
from radio_dspy.persistence.saving import load
from radio_dspy.programs.multiple_choice import MultipleChoice
from radio_dspy.rerankers.rerank import NoRerank, Rerank
from radio_dspy.serving.batching import Batcher, Lists, aside
from radio_dspy.serving.metrics import Metrics
from radio_dspy.serving.settings import LimitError, ServerSettings
from radio_dspy.serving.shapes import Order

logger = logger_of(__name__)


@dataclass(frozen=True)
class Source:
    """Where a served program comes from. Workers get a copy by pickle: the callables are functions of a module.

    Attributes:
        program: The folder that ``save`` wrote.
        open_retriever: Opens the first stage.
        open_lm: Opens the LM, or gives None, for the length of a ``with`` block.
    """

    program: Path
    open_retriever: Callable[[], Any]
    open_lm: Callable[[], AbstractContextManager[dspy.LM | None]]


class Loaded:
    """One loaded program, with copies of it that read the passages in another order."""

    def __init__(self, folder: Path, retriever: Any) -> None:
        self.program: Any = load(folder, retriever=retriever)
        self.rerank: Rerank = self.program.rerank
        self.fingerprint = self.rerank.weights.fingerprint  # now: the folder may be replaced at any time
        self.programs: dict[Order, Any] = {"aligned": self.program}
        base = self.rerank.deepcopy()
        base.weights = base.weights.untrained()
        if Path(base.weights.checkpoint).is_dir():  # a model is never downloaded only to be compared with
            self.programs["base"] = self._with(base)
        self.programs["first_stage"] = self._with(NoRerank())
        for name in ("aligned", "base"):  # the first request finds the models in memory
            if name in self.programs:
                self.programs[name].rerank.score_lists([("?", ["!"])])

    def _with(self, rerank: dspy.Module) -> Any:
        other = self.program.deepcopy()
        other.rerank = rerank
        return other

    def program_of(self, order: Order) -> Any:
        """The program that reads the passages in this order.

        Raises:
            SettingsError: If the base's weights are not on this machine.
        """
        if order not in self.programs:
            base = self.rerank.weights.base
            raise SettingsError(f"order {order!r} is not there: the base {base!r} is not on this machine.")
        return self.programs[order]


@dataclass(frozen=True)
class Found:
    """Passages with their scores in several orders, and the seconds that each step took."""

    passages: list[Any]
    scores: dict[Order, list[float]]
    seconds: dict[str, float]


class Service:
    """What the routes ask: scores, passages, answers.

    Attributes:
        under_way: Requests that the guard has let in and that have not ended.

    Args:
        source: Where the program comes from.
        retriever: Its first stage.
        lm: Answers questions; None answers none.
        settings: The limits.
    """

    def __init__(self, source: Source, retriever: Any, lm: dspy.LM | None, settings: ServerSettings) -> None:
        self._source = source
        self.retriever = retriever
        self.lm = lm
        self.settings = settings
        self.metrics = Metrics()
        self.batcher = Batcher(settings.batch_wait / 1000, self.metrics.scored)
        self.loaded = Loaded(source.program, retriever)
        self._loading = asyncio.Lock()
        self.under_way = 0

    @property
    def is_full(self) -> bool:
        """Whether as many requests are under way as may be."""
        return self.under_way >= self.settings.max_waiting

    async def reload(self) -> None:
        """Load the program's folder again and take it over; what is under way ends with the program it began with.

        Raises:
            RadioError: If it cannot be loaded; the program in hand stays.
        """
        async with self._loading:
            self.loaded = await aside(Loaded, self._source.program, self.retriever)
            self.metrics.reloads.inc()
            logger.info("%s: loaded again.", self._source.program)

    async def scores(self, lists: Lists) -> list[list[float]]:
        """The aligned reranker's scores of a request's texts, query by query.

        Raises:
            LimitError: As for ``check``.
        """
        rerank = self.loaded.rerank
        await self.check([query for query, _ in lists], [text for _, texts in lists for text in texts])
        return await self.batcher.score(rerank, lists)

    async def check(self, queries: Sequence[str], texts: Sequence[str] = ()) -> None:
        """Hold all that a request says against the limits, before anything is done or paid for.

        Args:
            queries: What it asks; limited by their tokens alone.
            texts: Its documents, options or passages.

        Raises:
            LimitError: If there are too many texts or tokens; the message has the limit's name.
        """
        if len(texts) > self.settings.max_texts:
            raise LimitError(self.settings.exceeded("max_texts", len(texts)))
        said = [*texts, *queries]
        limit = self.settings.max_tokens
        if sum(len(text.encode()) for text in said) <= limit:  # no tokenizer makes more tokens than there are bytes
            return
        rerank = self.loaded.rerank
        found = await aside(count_tokens, rerank.weights, said, rerank.device, rerank.precision, rerank.backend)
        if found > limit:
            raise LimitError(self.settings.exceeded("max_tokens", found))

    async def retrieve(self, query: str, orders: Sequence[Order]) -> Found:
        """The first stage's passages for a query, with the scores of each order."""
        loaded = self.loaded
        programs = {order: loaded.program_of(order) for order in orders}
        await self.check([query])
        started = time.perf_counter()
        found = await self.retriever.acall(query, k=loaded.program.candidates)
        seconds = {"retrieve": time.perf_counter() - started}
        texts = [one.contents for one in found.passages]
        scores: dict[Order, list[float]] = {}
        for order, program in programs.items():
            if order == "first_stage":
                scores[order] = [float(one) for one in found.scores]
                continue
            started = time.perf_counter()
            (scores[order],) = await self.batcher.score(program.rerank, [(query, texts)])
            seconds[order] = time.perf_counter() - started
        return Found(list(found.passages), scores, seconds)

    def answering(self, order: Order, choices: Sequence[str] | None) -> Any:
        """The program that answers a question.

        Raises:
            SettingsError: If there is no LM, or options are missing or out of place.
        """
        if self.lm is None:
            raise SettingsError("answers need an LM: start the server with --lm.")
        program = self.loaded.program_of(order)
        if isinstance(program, MultipleChoice) != bool(choices):
            raise SettingsError(f"choices are for multiple choice, which needs them; this is {type(program).__name__}.")
        return program

    async def ask(self, program: Any, inputs: dict[str, Any]) -> dspy.Prediction:
        """The program's answer."""
        with dspy.context(lm=self.lm, disable_history=True):
            return await program.acall(**inputs)

    async def stream(self, program: Any, inputs: dict[str, Any]) -> AsyncIterator[Any]:
        """Pieces of the answer as they are written, and at last the program's prediction.

        A task of its own asks: DSPy's settings and task groups must be left where they were entered, and a generator
        that nobody reads to its end is closed somewhere else.
        """
        pieces: asyncio.Queue[Any] = asyncio.Queue()

        async def ask() -> None:
            with dspy.context(lm=self.lm, disable_history=True):
                listeners = [_listener(self.lm, program.answer)] if hasattr(program, "answer") else []
                streamed = dspy.streamify(program, stream_listeners=listeners, is_async_program=True)
                async for one in streamed(**inputs):
                    pieces.put_nowait(one)

        asking = asyncio.create_task(ask())
        asking.add_done_callback(lambda _: pieces.put_nowait(None))
        try:
            while (one := await pieces.get()) is not None:
                yield one
            await asking  # raises what it failed with
        finally:
            asking.cancel()


def _listener(lm: Any, predict: Any) -> Any:
    """What reads the answer out of the LM's pieces, as it is asked."""
    adapter = dspy.settings.adapter
    if isinstance(adapter, DispatchingAdapter):
        adapter = adapter.pick(lm)
    kind = PlainStreamListener if isinstance(adapter, PlainAdapter) else dspy.streaming.StreamListener
    return kind("answer", predict=predict, predict_name="answer")


@contextlib.contextmanager
def open_service(source: Source, settings: ServerSettings) -> Iterator[Service]:
    """Open the first stage, the LM and the program.

    Raises:
        RadioError: If one of them cannot be opened.
    """
    retriever = source.open_retriever()
    with source.open_lm() as lm:
        yield Service(source, retriever, lm, settings)


def in_order(scores: Sequence[float]) -> dict[int, int]:
    """Position -> place, from 1 on; the best score is first."""
    return {position: place for place, position in enumerate(best_first(scores), start=1)}
