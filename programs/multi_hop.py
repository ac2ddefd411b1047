"""Multi-hop questions: search, read, search again for what is missing, answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import dspy
from radio_dspy.programs.parts import answered, check_counts, check_parts

from radio_dspy.core.errors import SettingsError
from radio_dspy.core.passages import as_passage, texts_of
from radio_dspy.core.text import same_words
from radio_dspy.evaluation.metrics import normalize_answer
from radio_dspy.lm.predictors import Predict
from radio_dspy.lm.replies import Reply, aread, read
from radio_dspy.lm.signatures import GenerateAnswer, NextQuery


class MultiHop(dspy.Module):
    """Answers a question whose facts lie in several passages (paper, section 4.1: multi-hop questions).

    The first hop searches the question itself. After each hop but the last the LM reads what was kept and writes the
    next query, until it writes DONE, nothing that can be read, or a query that was asked already. Every hop retrieves
    ``candidates`` passages, and reranks for its own query those that no earlier hop kept; the best ``k`` are kept.

    The LM so reads at most ``hops * k`` passages: hop after hop, and within a hop best first.

    Args:
        retriever: The first stage: ``retriever(query, k=)`` gives a prediction with ``passages``.
        rerank: The reranker: ``rerank(query, passages, k=)`` gives a prediction with ``passages`` and ``scores``.
        hops: How many searches at most.
        candidates: How many passages a hop retrieves; the paper's 20.
        k: How many of them a hop keeps; the paper's 5.

    Example:
        >>> from dspy.utils import DummyLM
        >>> from radio_dspy import FaissRetriever, Passage, Rerank
        >>> passages = [Passage("a", "Ann Lund wrote The Salt Road."), Passage("b", "Lund's birthplace is Kiel.")]
        >>> retriever = FaissRetriever.build(passages, encoder="all-MiniLM-L6-v2")
        >>> program = MultiHop(retriever, Rerank("all-MiniLM-L6-v2", architecture="bi-encoder"), k=1)
        >>> with dspy.context(lm=DummyLM([{"query": "birthplace of Ann Lund"}, {"answer": "Kiel"}])):
        ...     result = program(question="Who wrote The Salt Road, and born where?")
        >>> result.answer, [passage.id for passage in result.passages], result.queries[1:]
        ('Kiel', ['a', 'b'], ['birthplace of Ann Lund'])
    """

    def __init__(
        self, retriever: dspy.Module, rerank: dspy.Module, *, hops: int = 2, candidates: int = 20, k: int = 5
    ) -> None:
        super().__init__()
        if hops < 1:
            raise SettingsError(f"hops must be at least 1, got {hops}.")
        check_parts(retriever, rerank)
        check_counts(candidates, k)
        self.retriever = retriever
        self.rerank = rerank
        self.next_query = Predict(NextQuery)
        self.answer = Predict(GenerateAnswer)
        self.hops = hops
        self.candidates = candidates
        self.k = k

    def forward(self, question: str) -> dspy.Prediction:
        """Answer one question.

        Returns:
            A prediction with ``answer``; the ``passages`` the LM read, with their ``scores`` for the query of their hop
            (so that scores of different hops do not compare); and ``queries``, the question first.
        """
        search = _Search(question, self.hops)
        while (query := search.query) is not None:
            found = self.retriever(query, k=self.candidates)
            if new := search.new_among(found.passages):
                search.keep(self.rerank(query, new, k=self.k))
            reply = ""
            if search.hops_left:  # a reply that cannot be read ends the search
                reply = read(self.next_query, "query", question=question, passages=search.texts).value
            search.go_on_with(reply)
        return search.result(read(self.answer, "answer", question=question, passages=search.texts))

    async def aforward(self, question: str) -> dspy.Prediction:
        """Answer one question asynchronously; see ``forward``."""
        search = _Search(question, self.hops)
        while (query := search.query) is not None:
            found = await self.retriever.acall(query, k=self.candidates)
            if new := search.new_among(found.passages):
                search.keep(await self.rerank.acall(query, new, k=self.k))
            reply = ""
            if search.hops_left:
                reply = (await aread(self.next_query, "query", question=question, passages=search.texts)).value
            search.go_on_with(reply)
        return search.result(await aread(self.answer, "answer", question=question, passages=search.texts))


class _Search:
    """What one question has led to so far: the queries asked and the passages kept."""

    def __init__(self, question: str, hops: int) -> None:
        self.hops = hops
        self.query: str | None = question  # this hop's; None when the search has ended
        self.queries = [question]
        self.passages: list[Any] = []
        self.scores: list[float] = []
        self._kept: set[str] = set()

    @property
    def hops_left(self) -> int:
        """How many searches may follow this one."""
        return self.hops - len(self.queries)

    @property
    def texts(self) -> list[str]:
        """What the LM reads."""
        return texts_of(self.passages)

    def new_among(self, found: Sequence[Any]) -> list[Any]:
        """The retrieved passages that no earlier hop kept, each once."""
        new: dict[str, Any] = {}
        for item in found:
            if (key := as_passage(item).id) not in self._kept:
                new.setdefault(key, item)
        return list(new.values())

    def keep(self, ranked: dspy.Prediction) -> None:
        """Add this hop's best."""
        self.passages += ranked.passages
        self.scores += ranked.scores
        self._kept.update(as_passage(one).id for one in ranked.passages)

    def go_on_with(self, reply: str | None) -> None:
        """Take the LM's next query; the search ends if there is none, if it says DONE or repeats an earlier one."""
        query = " ".join(str(reply or "").split())
        asked = any(same_words(query, one) for one in self.queries)
        if asked or normalize_answer(query) in ("", "done") or re.match(r"\W*DONE\b", query):
            self.query = None
        else:
            self.query = query
            self.queries.append(query)

    def result(self, written: Reply) -> dspy.Prediction:
        """What the program returns."""
        return answered(written, self, queries=self.queries)
