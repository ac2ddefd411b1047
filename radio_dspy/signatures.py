"""RADIO's three tasks as DSPy signatures."""

from __future__ import annotations

import dspy


class ExtractRationale(dspy.Signature):
    """Explain why the answer to the question is right.

    State the facts and the reasoning that lead from the question to the answer.
    """

    # Paper, section 3.2: the LM sees question and gold answer, and no passage.
    question: str = dspy.InputField()
    answers: list[str] = dspy.InputField(desc="accepted answers")
    rationale: str = dspy.OutputField(desc="the reasons why the answer holds, in a few sentences")


class RationaleGuidedRerank(dspy.Signature):
    """Order the passages by how much they support the reasoning that leads from the question to the answer."""

    # Paper, section 3.3: with an encoder the similarity to `question. answers. rationale` gives the order.
    question: str = dspy.InputField()
    answers: list[str] = dspy.InputField(desc="accepted answers")
    rationale: str = dspy.InputField(desc="the reasons why the answer holds")
    passages: list[str] = dspy.InputField(desc="candidate passages, numbered from 0")
    order: list[int] = dspy.OutputField(desc="the passages' numbers, most supportive first")


class GenerateAnswer(dspy.Signature):
    """Answer the question from the passages. Give the answer only, in a few words."""

    passages: list[str] = dspy.InputField(desc="passages that may hold the answer, best first")
    question: str = dspy.InputField()
    answer: str = dspy.OutputField(desc="a short answer")
