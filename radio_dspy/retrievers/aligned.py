"""Search the existing index with the trained query encoder."""

from __future__ import annotations

import dspy

from radio_dspy.core.errors import SettingsError
from radio_dspy.models.encoder import Encoder, TextEncoder
from radio_dspy.models.files import fingerprint
from radio_dspy.models.weights import RerankerWeights
from radio_dspy.retrievers.faiss import FaissRetriever


def aligned_retriever(program: dspy.Module, retriever: FaissRetriever | None = None) -> FaissRetriever:
    """A first stage that searches the old index with the query encoder that ``RADIO(tower="query")`` trained.

    No passage is encoded again: training left the passage side as it was.

    Args:
        program: An aligned program.
        retriever: Whose index is searched; None takes the one inside the program.

    Raises:
        SettingsError: If the program holds no query encoder of its own, or the index was not built by its passage side.

    Example:
        >>> from radio_dspy import Passage, Rerank, RetrieveRerankAnswer
        >>> index = FaissRetriever.build([Passage("a", "Ice floats.")], encoder="all-MiniLM-L6-v2")
        >>> aligned_retriever(RetrieveRerankAnswer(index, Rerank("all-MiniLM-L6-v2", architecture="bi-encoder")))
        Traceback (most recent call last):
        ...
        radio_dspy.core.errors.SettingsError: The program holds no query encoder of its own; use RADIO(tower='query').
    """
    found = [one for one in program.parameters() if isinstance(one, RerankerWeights) and one.passage_checkpoint]
    if not found:
        raise SettingsError("The program holds no query encoder of its own; use RADIO(tower='query').")
    if retriever is None:
        retriever = next((one for _, one in program.named_sub_modules(FaissRetriever)), None)
    if retriever is None:
        raise SettingsError("The program holds no FaissRetriever; give aligned_retriever(program, retriever=...).")
    weights = found[0]
    if not same_passage_side(weights, retriever.encoder):
        raise SettingsError(
            "The index was not built by the encoder that the reranker's passage side is: its vectors do not fit the "
            "aligned query encoder. Build the index and the Rerank from the same local encoder, then compile."
        )
    return retriever.with_query_encoder(query_encoder(weights))


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
