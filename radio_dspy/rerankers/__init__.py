"""Rerankers: trainable, guided by a rationale, by an LM, and none at all."""

from radio_dspy.models.weights import RerankerWeights
from radio_dspy.rerankers.lm import LMRerank
from radio_dspy.rerankers.rationale import RationaleRerank
from radio_dspy.rerankers.remote import RemoteRerank
from radio_dspy.rerankers.rerank import NoRerank, Rerank

__all__ = ["LMRerank", "NoRerank", "RationaleRerank", "RemoteRerank", "Rerank", "RerankerWeights"]
