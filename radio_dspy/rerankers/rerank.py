"""The trainable reranker."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, get_args

import dspy

from radio_dspy.core.errors import SettingsError
from radio_dspy.core.passages import Ranking, RankRequest, as_passages, best_first, texts_of
from radio_dspy.core.validation import checked_text, is_whole, shown
from radio_dspy.models.architecture import Architecture
from radio_dspy.models.cache import score_lists
from radio_dspy.models.encoder import TextEncoder
from radio_dspy.models.weights import RerankerWeights, ScoringPrecision


class Rerank(dspy.Module):
    """Orders passages for a query with a local model that ``RADIO`` can train.

    Args:
        checkpoint: A folder or hub name, for example ``"BAAI/bge-reranker-base"``, or an ``Encoder``; always weights
            on this machine (for hosted ones there is ``RemoteRerank``).
        architecture: ``"cross-encoder"`` reads query and passage together; ``"bi-encoder"`` compares their vectors;
            ``"late-interaction"`` (ColBERT) finds for each token of the query the closest one of the passage. None
            takes what the checkpoint says that it is. One that cannot be used so is an error: here where it is on this
            machine, else when it is first used.
        k: How many passages a call returns when it does not say; None returns all.
        max_length: Longest input in tokens; None keeps the checkpoint's own.
        prompt: What a cross-encoder is told to look for: a system message where the model has a chat template
            (Qwen3-Reranker), else put before the query. None takes the model's own prompt, ``""`` none. Training,
            scoring, saved programs and exports use the same one.
        new_head: Let an encoder that was not trained to score so get a head that is drawn anew, for ``RADIO`` to train:
            before that it ranks by chance.
        device: Where to run; None chooses.
        precision: Of the layers when they score; training and the weights are not touched by it. ``"bf16"`` is several
            times as fast where the processor computes it (AMX, most GPUs), ``"int8"`` on a CPU with 8-bit dot products
            (VNNI, AMX); both round scores, so that passages that lie close may change places.

    Example:
        >>> rerank = Rerank("all-MiniLM-L6-v2", architecture="bi-encoder")
        >>> rerank("why did the dough not rise?", ["Ice floats.", "Yeast dies in hot water."]).passages[0]
        'Yeast dies in hot water.'
    """

    def __init__(
        self,
        checkpoint: str | TextEncoder,
        architecture: Architecture | None = None,
        *,
        k: int | None = None,
        max_length: int | None = None,
        prompt: str | None = None,
        new_head: bool = False,
        device: str | None = None,
        precision: ScoringPrecision = "fp32",
    ) -> None:
        super().__init__()
        _check_k(k)
        if precision not in get_args(ScoringPrecision):
            raise SettingsError(f"precision must be one of {get_args(ScoringPrecision)}, got {precision!r}.")
        self.weights = RerankerWeights(
            checkpoint, architecture, max_length=max_length, prompt=prompt, new_head=new_head
        )
        self.k = k
        self.device = device
        self.precision: ScoringPrecision = precision

    def forward(
        self, query: str, passages: Sequence[Any], k: int | None = None, scores: Sequence[float] | None = None
    ) -> dspy.Prediction:
        """Order passages, best first.

        Args:
            query: The question.
            passages: ``Passage`` objects, strings, mappings with ``text``, documents of LangChain or Haystack, nodes of
                LlamaIndex; they are returned as they came.
            k: How many to return; None takes the module's own ``k``.
            scores: The first stage's, one for each passage. The order does not depend on them; ``RADIO`` learns from
                them where they are given.

        Returns:
            A prediction with ``passages``, ``scores`` (raw logits, or cosines, or their sum over a query's tokens) and
            ``indices`` into the given list.

        Raises:
            DataError: If a passage holds no text.
        """
        return self._rank(query, passages, k)

    async def aforward(
        self, query: str, passages: Sequence[Any], k: int | None = None, scores: Sequence[float] | None = None
    ) -> dspy.Prediction:
        """Order passages without blocking the event loop; see ``forward``."""
        return await asyncio.to_thread(self._rank, query, passages, k)

    def _rank(self, query: str, passages: Sequence[Any], k: int | None) -> dspy.Prediction:
        _check_k(k)
        texts = texts_of(passages)
        lists = [(checked_text(query, "The query"), texts)]
        scores = score_lists(self.weights, lists, self.device, self.precision)[0].tolist()
        return ranked(passages, scores, k or self.k)

    def rank_all(self, requests: Sequence[RankRequest]) -> list[Ranking]:
        """Order the candidates of many questions in one batch."""
        return rank_with(self.weights, requests, self.device, self.precision)


def rank_with(
    weights: RerankerWeights,
    requests: Sequence[RankRequest],
    device: str | None = None,
    precision: ScoringPrecision = "fp32",
) -> list[Ranking]:
    """Order the candidates of many questions in one batch with the given weights."""
    lists = [(one.query, [passage.contents for passage in one.candidates]) for one in requests]
    scores = score_lists(weights, lists, device, precision) if lists else []
    return [
        Ranking.from_scores(one.query, one.candidates, values.tolist())
        for one, values in zip(requests, scores, strict=True)
    ]


def ranked(passages: Sequence[Any], scores: Sequence[float], k: int | None) -> dspy.Prediction:
    """A reranker's prediction: the ``k`` best ``passages`` as they came, their ``scores`` and their ``indices``."""
    order = best_first(scores)[:k]
    return dspy.Prediction(
        passages=[passages[position] for position in order],
        scores=[scores[position] for position in order],
        indices=order,
    )


class NoRerank(dspy.Module):
    """The baseline: keeps the first stage's order.

    Example:
        >>> NoRerank()("any", ["a", "b"], k=1).passages
        ['a']
    """

    def __init__(self, k: int | None = None) -> None:
        super().__init__()
        _check_k(k)
        self.k = k

    def forward(self, query: str, passages: Sequence[Any], k: int | None = None) -> dspy.Prediction:
        """Return the passages in the order in which they came, scored by minus their position."""
        return self._rank(passages, k)

    async def aforward(self, query: str, passages: Sequence[Any], k: int | None = None) -> dspy.Prediction:
        """See ``forward``."""
        return self._rank(passages, k)

    def _rank(self, passages: Sequence[Any], k: int | None) -> dspy.Prediction:
        _check_k(k)
        as_passages(passages)
        kept = list(passages)[: k or self.k]
        return dspy.Prediction(
            passages=kept, scores=[-float(i) for i in range(len(kept))], indices=list(range(len(kept)))
        )


def _check_k(k: Any) -> None:
    if k is not None and (not is_whole(k) or k < 1):
        raise SettingsError(f"k must be at least 1 and whole, or None for all passages; got {shown(k)}.")
