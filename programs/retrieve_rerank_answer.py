"""Retrieve, rerank, answer."""

from __future__ import annotations

import dspy
from radio_dspy.programs.parts import answered, check_counts, check_parts

from radio_dspy.core.passages import texts_of
from radio_dspy.lm.predictors import Predict
from radio_dspy.lm.replies import aread, read
from radio_dspy.lm.signatures import GenerateAnswer


class RetrieveRerankAnswer(dspy.Module):
    """Answers a question from retrieved and reranked passages (paper, section 3.5).

    Args:
        retriever: The first stage: ``retriever(query, k=)`` gives a prediction with ``passages``.
        rerank: The reranker: ``rerank(query, passages, k=)`` gives a prediction with ``passages`` and ``scores``.
        candidates: How many passages are retrieved; the paper's 20.
        k: How many of them the LM reads; the paper's 5.

    Example:
        >>> from dspy.utils import DummyLM
        >>> from radio_dspy import FaissRetriever, Passage, Rerank
        >>> passages = [Passage("a", "Yeast dies above sixty degrees."), Passage("b", "Ice floats on water.")]
        >>> retriever = FaissRetriever.build(passages, encoder="all-MiniLM-L6-v2")
        >>> program = RetrieveRerankAnswer(retriever, Rerank("all-MiniLM-L6-v2", architecture="bi-encoder"), k=1)
        >>> with dspy.context(lm=DummyLM([{"answer": "the heat killed the yeast"}])):
        ...     result = program(question="Why did the dough not rise?")
        >>> result.answer, [passage.id for passage in result.passages]
        ('the heat killed the yeast', ['a'])
    """

    def __init__(self, retriever: dspy.Module, rerank: dspy.Module, *, candidates: int = 20, k: int = 5) -> None:
        super().__init__()
        check_parts(retriever, rerank)
        check_counts(candidates, k)
        self.retriever = retriever
        self.rerank = rerank
        self.answer = Predict(GenerateAnswer)
        self.candidates = candidates
        self.k = k

    def forward(self, question: str) -> dspy.Prediction:
        """Answer one question.

        Returns:
            A prediction with ``answer``, and the ``passages`` the LM read with their ``scores``, best first. Where the
            reply cannot be read, ``answer`` is empty and ``unreadable`` says what came back.
        """
        found = self.retriever(question, k=self.candidates)
        ranked = self.rerank(question, found.passages, k=self.k)
        return answered(read(self.answer, "answer", question=question, passages=texts_of(ranked.passages)), ranked)

    async def aforward(self, question: str) -> dspy.Prediction:
        """Answer one question asynchronously; see ``forward``."""
        found = await self.retriever.acall(question, k=self.candidates)
        ranked = await self.rerank.acall(question, found.passages, k=self.k)
        written = await aread(self.answer, "answer", question=question, passages=texts_of(ranked.passages))
        return answered(written, ranked)
