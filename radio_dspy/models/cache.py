"""Loaded scorers, shared in the process."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

from radio_dspy.core.errors import CheckpointError
from radio_dspy.core.validation import checked_text
from radio_dspy.models.bi_encoder import BiEncoderScorer, PassageVectors
from radio_dspy.models.computing import Backend, ScoringPrecision
from radio_dspy.models.cross_encoder import CrossEncoderScorer
from radio_dspy.models.encoder import MODEL_LOCK
from radio_dspy.models.late_interaction import LateInteractionScorer
from radio_dspy.models.scorer import Scorer
from radio_dspy.models.shared import shared
from radio_dspy.models.weights import RerankerWeights

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Scores = npt.NDArray[np.float32]

_BY_VECTORS = {"bi-encoder": BiEncoderScorer, "late-interaction": LateInteractionScorer}


def open_scorer(weights: RerankerWeights, device: str | None = None, *, frozen: PassageVectors | None = None) -> Scorer:
    """A fresh scorer of its own, for training: the shared one must never change."""
    if weights.architecture == "cross-encoder":
        return CrossEncoderScorer(weights, device)
    return _BY_VECTORS[weights.architecture](weights, device, private=True, frozen=frozen)


def score_lists(
    weights: RerankerWeights,
    lists: Sequence[tuple[str, Sequence[str]]],
    device: str | None = None,
    precision: ScoringPrecision = "fp32",
    backend: Backend = "torch",
) -> list[Scores]:
    """Score the passages of many queries in one batch.

    Args:
        weights: Which checkpoint, and how it scores.
        lists: (query, passage texts) for each question.
        device: Where to run; None chooses.
        precision: Of the layers.
        backend: What runs the model.

    Returns:
        For each question, float32 scores of shape (number of passages,).
    """
    import numpy as np

    from radio_dspy.models.checks import own_errors

    pairs = [
        (checked_text(query, "The query"), checked_text(text, f"Passage {position} of {query!r:.80}"))
        for query, texts in lists
        for position, text in enumerate(texts)
    ]
    with MODEL_LOCK:
        scorer = _shared_scorer(
            copy.copy(weights), device, precision, backend
        )  # a copy: load_state changes weights in place
        with own_errors(weights.checkpoint, loading=False):
            scores = scorer.score(pairs) if pairs else np.zeros(0, dtype=np.float32)
    if not np.isfinite(scores).all():
        raise CheckpointError(
            f"{weights.checkpoint}: scored {np.asarray(scores)[~np.isfinite(scores)][0]}; its weights are damaged"
            + ("." if precision == "fp32" else f", or too large for precision={precision!r}: try 'fp32'.")
        )
    ends = np.cumsum([len(texts) for _, texts in lists])
    return np.split(np.asarray(scores, dtype=np.float32), ends[:-1])


def count_tokens(
    weights: RerankerWeights,
    texts: Sequence[str],
    device: str | None = None,
    precision: ScoringPrecision = "fp32",
    backend: Backend = "torch",
) -> int:
    """The tokens of texts together, as the reranker's tokenizer counts them before it cuts."""
    from radio_dspy.models.checks import token_count

    with MODEL_LOCK:
        module = _shared_scorer(copy.copy(weights), device, precision, backend).module
        return sum(token_count(module, text) for text in texts)


@shared(maxsize=3)
def _shared_scorer(
    weights: RerankerWeights, device: str | None, precision: ScoringPrecision, backend: Backend
) -> Scorer:
    if weights.architecture == "cross-encoder":
        return CrossEncoderScorer(weights, device, precision, backend)
    return _BY_VECTORS[weights.architecture](weights, device, precision=precision, backend=backend)
