"""The trainable reranker."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import dspy

from radio_dspy.core.errors import SettingsError
from radio_dspy.core.passages import NULL_PASSAGE, as_passages, texts_of
from radio_dspy.core.rankings import Ranking, RankRequest, best_first
from radio_dspy.core.validation import checked_text, is_whole, shown
from radio_dspy.evaluation.calibration import Calibration
from radio_dspy.models.architecture import Architecture
from radio_dspy.models.backends import check_backend
from radio_dspy.models.cache import score_lists
from radio_dspy.models.computing import Backend, ScoringPrecision
from radio_dspy.models.encoder import TextEncoder
from radio_dspy.models.weights import RerankerWeights

Activation = Literal["sigmoid", "probability"]
_NULL = "null"  # of min_score: the score of an empty text


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
        backend: What runs the model when it scores: ``"torch"``, ``"onnx"`` (onnxruntime) or ``"openvino"``, the last
            two on the CPU, with their own ways to score in fewer bits.
        activation: None gives raw scores; ``"sigmoid"`` those of a cross-encoder between 0 and 1; ``"probability"`` how
            likely a passage is relevant, by the curve that ``RADIO`` fitted to its held-out questions. The order stays.
        min_score: Leave out passages that score less, after ``activation``; there may be none left. ``"null"`` leaves
            out those that score less than an empty text, for weights trained with
            ``PreferenceSettings(null_passage=True)``.

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
        backend: Backend = "torch",
        activation: Activation | None = None,
        min_score: float | Literal["null"] | None = None,
    ) -> None:
        super().__init__()
        _check_k(k)
        if precision not in get_args(ScoringPrecision):
            raise SettingsError(f"precision must be one of {get_args(ScoringPrecision)}, got {precision!r}.")
        check_backend(backend, precision)
        if activation is not None and activation not in get_args(Activation):
            raise SettingsError(f"activation must be one of {get_args(Activation)} or None, got {shown(activation)}.")
        if min_score not in (None, _NULL) and (isinstance(min_score, bool) or not isinstance(min_score, int | float)):
            raise SettingsError(
                f"min_score must be a number, {_NULL!r}, or None for all passages; got {shown(min_score)}."
            )
        self.weights = RerankerWeights(
            checkpoint, architecture, max_length=max_length, prompt=prompt, new_head=new_head
        )
        self.k = k
        self.device = device
        self.precision: ScoringPrecision = precision
        self.backend: Backend = backend
        self.activation = activation
        self.min_score = min_score

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
            A prediction with ``passages``, ``scores`` (raw logits, or cosines, or their sum over a query's tokens; see
            ``activation``) and ``indices`` into the given list.

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
        with_null = self.min_score == _NULL
        lists = [(checked_text(query, "The query"), [*texts, NULL_PASSAGE.contents] if with_null else texts)]
        scores = self.score_lists(lists)[0]
        bound = scores.pop() if with_null else self.min_score
        found = ranked(passages, scores, k or self.k)
        raw = found.scores
        if self.activation is not None:
            found.scores = self._activated(found.scores)
        if bound is not None:
            left = sum(score >= bound for score in (raw if with_null else found.scores))  # they fall
            found.passages, found.scores, found.indices = (
                one[:left] for one in (found.passages, found.scores, found.indices)
            )
        return found

    def _activated(self, scores: Sequence[float]) -> list[float]:
        if self.activation == "probability":
            known = next((one["calibration"] for one in self.weights.training[-1:] if one.get("calibration")), None)
            if known is None:
                raise SettingsError(
                    "activation='probability' needs weights that RADIO trained and judged on held-out questions; these "
                    "have no calibration. Give activation='sigmoid' or None."
                )
            return Calibration.from_dict(known)(scores)
        if self.weights.architecture != "cross-encoder":
            raise SettingsError(
                f"activation='sigmoid' is for a cross-encoder's logits, and this is a {self.weights.architecture} "
                "reranker; give activation='probability' or None."
            )
        return [1 / (1 + math.exp(-min(max(one, -500.0), 500.0))) for one in scores]

    def score_lists(self, lists: Sequence[tuple[str, Sequence[str]]]) -> list[list[float]]:
        """The raw scores of each query's texts, in their order, computed together."""
        arrays = score_lists(self.weights, lists, self.device, self.precision, self.backend)
        return [values.tolist() for values in arrays]

    def rank_all(self, requests: Sequence[RankRequest]) -> list[Ranking]:
        """Order the candidates of many questions in one batch, with raw scores."""
        return rank_with(self.weights, requests, self.device, self.precision, self.backend)


def rank_with(
    weights: RerankerWeights,
    requests: Sequence[RankRequest],
    device: str | None = None,
    precision: ScoringPrecision = "fp32",
    backend: Backend = "torch",
) -> list[Ranking]:
    """Order the candidates of many questions in one batch with the given weights."""
    lists = [(one.query, [passage.contents for passage in one.candidates]) for one in requests]
    scores = score_lists(weights, lists, device, precision, backend) if lists else []
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
