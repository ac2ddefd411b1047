"""Rerankers: trainable, guided by a rationale, and none at all."""

from radio_dspy.rerankers.rationale import RationaleRerank
from radio_dspy.rerankers.rerank import NoRerank, Rerank
from radio_dspy.rerankers.weights import RerankerWeights

__all__ = ["NoRerank", "RationaleRerank", "Rerank", "RerankerWeights"]
