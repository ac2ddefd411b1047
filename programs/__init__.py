"""Programs: DSPy modules composed of the parts."""

from radio_dspy.programs.retrieve_rerank_answer import RetrieveRerankAnswer

__all__ = ["RetrieveRerankAnswer"]
