"""Open the program for a task by its name."""

from __future__ import annotations

from typing import Literal

import dspy
from radio_dspy.programs.multi_hop import MultiHop
from radio_dspy.programs.multiple_choice import MultipleChoice
from radio_dspy.programs.retrieve_rerank_answer import RetrieveRerankAnswer

Task = Literal["qa", "choice", "multihop"]


def open_program(
    task: Task, retriever: dspy.Module, rerank: dspy.Module, *, candidates: int, k: int, hops: int
) -> dspy.Module:
    """The program for a task, over a first stage and a reranker."""
    if task == "choice":
        return MultipleChoice(retriever, rerank, candidates=candidates, k=k)
    if task == "multihop":
        return MultiHop(retriever, rerank, hops=hops, candidates=candidates, k=k)
    return RetrieveRerankAnswer(retriever, rerank, candidates=candidates, k=k)
