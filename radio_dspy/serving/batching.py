"""Micro-batching: what arrives within a few milliseconds is scored in one pass of the model."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from radio_dspy.rerankers.rerank import Rerank

Lists: TypeAlias = Sequence[tuple[str, Sequence[str]]]
T = TypeVar("T")
_PASS_TEXTS = 256  # texts of a pass: a further request waits at most for so many
_THREADS = ThreadPoolExecutor(4, "radio-dspy-model")


async def aside(function: Callable[..., T], *arguments: Any) -> T:
    """Run what the model does in a thread; asyncio's own may all be held by a store that does not answer."""
    return await asyncio.get_running_loop().run_in_executor(_THREADS, function, *arguments)


@dataclass(eq=False)
class _Job:
    """A request's texts, and the scores that it waits for."""

    rerank: Rerank
    lists: Lists
    scores: asyncio.Future[list[list[float]]] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    @property
    def size(self) -> int:
        """How many texts it has."""
        return sum(len(texts) for _, texts in self.lists)


class Batcher:
    """Scores texts for many requests at once.

    Args:
        wait: Seconds that a request waits for others when nothing is being scored.
        tell: Called after each pass with the number of requests and of texts in it.

    Example:
        >>> async def both(texts):
        ...     batcher = Batcher(0.001)
        ...     running = asyncio.create_task(batcher.run())
        ...     scores = await asyncio.gather(*(batcher.score(rerank, [("why?", texts)]) for _ in range(2)))
        ...     running.cancel()
        ...     return scores
        >>> rerank = Rerank("all-MiniLM-L6-v2", "bi-encoder")
        >>> [len(scores) for (scores,) in asyncio.run(both(["Ice floats.", "Yeast dies."]))]
        [2, 2]
    """

    def __init__(self, wait: float, tell: Callable[[int, int], None] | None = None) -> None:
        self._wait = wait
        self._tell = tell
        self._jobs: deque[_Job] = deque()
        self._there = asyncio.Event()

    async def score(self, rerank: Rerank, lists: Lists) -> list[list[float]]:
        """The scores of each query's texts, in their order."""
        job = _Job(rerank, lists)
        self._jobs.append(job)
        self._there.set()
        return await job.scores

    async def run(self) -> None:
        """Score what arrives, until this task is cancelled."""
        while True:
            await self._there.wait()
            await asyncio.sleep(self._wait)
            while jobs := self._next():
                await self._pass(jobs)
            self._there.clear()

    def _next(self) -> list[_Job]:
        """The requests of the next pass, in the order in which they came; those whose asker has left are not scored."""
        found: list[_Job] = []
        texts = 0
        while self._jobs and (not found or texts + self._jobs[0].size <= _PASS_TEXTS):
            job = self._jobs.popleft()
            if not job.scores.done():
                found.append(job)
                texts += job.size
        return found

    async def _pass(self, jobs: Sequence[_Job]) -> None:
        """Score requests together; where that fails each by itself, so that one cannot make another fail."""
        for rerank in {id(one.rerank): one.rerank for one in jobs}.values():
            alike = [one for one in jobs if one.rerank is rerank]
            lists = [pair for one in alike for pair in one.lists]
            try:
                found = await aside(rerank.score_lists, lists)
            except Exception as error:
                if len(alike) > 1:
                    for one in alike:
                        await self._pass([one])
                elif not alike[0].scores.done():
                    alike[0].scores.set_exception(error)
                continue
            scores = iter(found)
            for one in alike:
                own = list(itertools.islice(scores, len(one.lists)))
                if not one.scores.done():
                    one.scores.set_result(own)
            if self._tell is not None:
                self._tell(len(alike), sum(one.size for one in alike))
