"""Programs: DSPy modules composed of the parts."""

from radio_dspy.programs.multi_hop import MultiHop
from radio_dspy.programs.multiple_choice import MultipleChoice
from radio_dspy.programs.retrieve_rerank_answer import RetrieveRerankAnswer

__all__ = ["MultiHop", "MultipleChoice", "RetrieveRerankAnswer"]
