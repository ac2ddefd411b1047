"""Hosted rerankers: any rerank endpoint that LiteLLM reaches, by its name."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dspy

from radio_dspy.core.errors import SettingsError
from radio_dspy.core.passages import texts_of
from radio_dspy.core.rankings import Ranking, RankRequest
from radio_dspy.core.validation import checked_text, is_whole
from radio_dspy.lm.parallel import each_in_threads
from radio_dspy.models.endpoint import Endpoint, Recent
from radio_dspy.rerankers.rerank import Rerank, _check_k, ranked

# With one of these as its first part, a reranker's name given as a string is LiteLLM's; see ``as_reranker``.
# By hand: LiteLLM's own table of endpoints lacks more than half of them.
RERANK_PROVIDERS = (
    "azure_ai",
    "bedrock",
    "cohere",
    "dashscope",
    "deepinfra",
    "fireworks_ai",
    "hosted_vllm",
    "huggingface",
    "infinity",
    "jina_ai",
    "litellm_proxy",
    "nvidia_nim",
    "together_ai",
    "vertex_ai",
    "voyage",
    "watsonx",
)
_RECENT_LISTS = 10_000


class RemoteRerank(dspy.Module):
    """Orders passages for a query with a hosted reranker, or one on a server of yours.

    It has no weights here and cannot be trained: it serves as it is, stands beside others in a table, or teaches a
    small reranker (``radio_dspy.distillation.RerankerScore``). The latest 10,000 lists are kept in memory, and copies
    share them. No saved state holds address or key.

    The server is asked for a score of every passage. A reply that leaves one out, or names one twice, is an error:
    there is no honest score to put in its place.

    Args:
        model: LiteLLM's name, such as ``cohere/rerank-v3.5``, ``jina_ai/jina-reranker-v2-base-multilingual``, or
            ``hosted_vllm/BAAI/bge-reranker-v2-m3`` with ``api_base``.
        k: How many passages a call returns when it does not say; None returns all.
        api_base: As for ``Endpoint``.
        api_key: As for ``Endpoint``.
        timeout: As for ``Endpoint``.
        num_retries: As for ``Endpoint``.
        num_threads: Requests in flight at the same time in ``rank_all``.

    Raises:
        SettingsError: For a name without a provider, or numbers out of range.

    Example:
        >>> rerank = RemoteRerank("cohere/rerank-v3.5", k=5)
        >>> rerank.model, rerank.dump_state()
        ('cohere/rerank-v3.5', {})
    """

    def __init__(
        self,
        model: str,
        *,
        k: int | None = None,
        api_base: str | None = None,
        api_key: str | None = None,
        timeout: float = 60.0,
        num_retries: int = 3,
        num_threads: int = 4,
    ) -> None:
        super().__init__()
        _check_k(k)
        if not is_whole(num_threads) or num_threads < 1:
            raise SettingsError(f"num_threads must be at least 1 and whole, got {num_threads!r}.")
        self._endpoint = Endpoint(model, api_base=api_base, api_key=api_key, timeout=timeout, num_retries=num_retries)
        self._recent: Recent[list[float]] = Recent(_RECENT_LISTS)
        self.k = k
        self.num_threads = num_threads

    @property
    def model(self) -> str:
        """LiteLLM's name."""
        return self._endpoint.model

    def forward(self, query: str, passages: Sequence[Any], k: int | None = None) -> dspy.Prediction:
        """Order passages, best first.

        Args:
            query: The question.
            passages: ``Passage`` objects, strings, or mappings with ``text``; they are returned as they came.
            k: How many to return; None takes the module's own ``k``.

        Returns:
            A prediction with ``passages``, ``scores`` (the provider's own) and ``indices`` into the given list.

        Raises:
            DataError: If a passage holds no text.
            LanguageModelError: If the reranker fails.
        """
        return self._rank(query, passages, k)

    async def aforward(self, query: str, passages: Sequence[Any], k: int | None = None) -> dspy.Prediction:
        """Order passages without blocking the event loop; see ``forward``."""
        return await asyncio.to_thread(self._rank, query, passages, k)

    def _rank(self, query: str, passages: Sequence[Any], k: int | None) -> dspy.Prediction:
        _check_k(k)
        return ranked(passages, self._scores(checked_text(query, "The query"), texts_of(passages)), k or self.k)

    def rank_all(self, requests: Sequence[RankRequest]) -> list[Ranking]:
        """Order the candidates of many questions, several requests at a time.

        Raises:
            LanguageModelError: If the reranker fails; lists that were scored before are kept in memory.
        """

        def rank(request: RankRequest) -> Ranking:
            scores = self._scores(request.query, [passage.contents for passage in request.candidates])
            return Ranking.from_scores(request.query, request.candidates, scores)

        return each_in_threads(rank, requests, self.num_threads)

    def _scores(self, query: str, texts: list[str]) -> list[float]:
        """The score of each text."""
        if not texts:
            return []
        key = hashlib.sha256(json.dumps([query, texts]).encode()).digest()
        known = self._recent.read([key])
        if key not in known:
            # The whole list decides: some rerankers read its passages side by side.
            known = {key: self._ask(query, texts)}
            self._recent.write(known)
        return known[key]

    def _ask(self, query: str, texts: list[str]) -> list[float]:
        reply = self._endpoint.call("rerank", query=query, documents=texts, top_n=len(texts), return_documents=False)
        rows = [dict(one) for one in reply.results or ()]
        scores: dict[Any, Any] = {row.get("index"): row.get("relevance_score") for row in rows}
        if len(rows) != len(texts) or set(scores) != set(range(len(texts))):
            got = sorted(str(row.get("index")) for row in rows)
            raise self._endpoint.failure(None, f"of {len(texts)} passages it scored those numbered {', '.join(got)}")
        if not all(isinstance(score, int | float) and math.isfinite(score) for score in scores.values()):
            raise self._endpoint.failure(None, "a score is no finite number")
        return [float(scores[position]) for position in range(len(texts))]


def as_reranker(name: str) -> RemoteRerank | Rerank:
    """Open a reranker by its name.

    A name whose first part is in ``RERANK_PROVIDERS`` is LiteLLM's and gives a ``RemoteRerank``, unless there is a
    folder of that name; every other name is a folder or a hub name and gives a ``Rerank``.

    Example:
        >>> as_reranker("cohere/rerank-v3.5").model
        'cohere/rerank-v3.5'
    """
    if "/" in name and name.partition("/")[0] in RERANK_PROVIDERS and not Path(name).is_dir():
        return RemoteRerank(name)
    return Rerank(name)
