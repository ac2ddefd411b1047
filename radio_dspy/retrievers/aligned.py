"""Search the existing index with the trained query encoder."""

from __future__ import annotations

import dspy

from radio_dspy.core.errors import SettingsError
from radio_dspy.models.encoder import Encoder, TextEncoder
from radio_dspy.models.files import fingerprint
from radio_dspy.models.weights import RerankerWeights
from radio_dspy.retrievers.base import retriever_of
from radio_dspy.retrievers.vector import VectorRetriever, vector_part


def aligned_retriever(program: dspy.Module, retriever: VectorRetriever | None = None) -> VectorRetriever:
    """A first stage that searches the same store with the query encoder that ``RADIO(tower="query")`` trained.

    No passage is encoded again, and nothing is written to the store: training left the passage side as it was.

    Args:
        program: An aligned program.
        retriever: Whose store is searched; None takes the one inside the program.

    Raises:
        SettingsError: If the program holds no query encoder of its own, or the vectors are not its passage side's.

    Example:
        >>> from radio_dspy import FaissRetriever, Passage, Rerank, RetrieveRerankAnswer
        >>> index = FaissRetriever.build([Passage("a", "Ice floats.")], encoder="all-MiniLM-L6-v2")
        >>> aligned_retriever(RetrieveRerankAnswer(index, Rerank("all-MiniLM-L6-v2", architecture="bi-encoder")))
        Traceback (most recent call last):
        ...
        radio_dspy.core.errors.SettingsError: The program holds no query encoder of its own; use RADIO(tower='query').
    """
    found = [one for one in program.parameters() if isinstance(one, RerankerWeights) and one.passage_checkpoint]
    if not found:
        raise SettingsError("The program holds no query encoder of its own; use RADIO(tower='query').")
    searched = vector_part(retriever if retriever is not None else retriever_of(program))
    if searched is None:
        raise SettingsError("The program holds no VectorRetriever; give aligned_retriever(program, retriever=...).")
    weights = found[0]
    if not same_passage_side(weights, searched.encoder):
        raise SettingsError(
            "The passage vectors are not those of the reranker's passage side, so they do not fit the aligned query "
            "encoder. Build the vectors and the Rerank from the same local encoder, then compile."
        )
    return searched.with_query_encoder(query_encoder(weights))


def query_encoder(weights: RerankerWeights) -> Encoder:
    """The query side of a bi-encoder as an ``Encoder``."""
    return Encoder(
        weights.checkpoint,
        query_prefix=weights.query_prefix,
        passage_prefix=weights.passage_prefix,
        max_length=weights.max_length,
    )


def same_passage_side(weights: RerankerWeights, encoder: TextEncoder) -> bool:
    """Whether a bi-encoder's passage vectors are the encoder's; a hosted encoder's never are."""
    return (
        weights.architecture == "bi-encoder"
        and isinstance(encoder, Encoder)
        and fingerprint(weights.passage_side) == fingerprint(encoder.name)
        and (weights.passage_prefix, weights.max_length) == (encoder.passage_prefix, encoder.max_length)
    )
