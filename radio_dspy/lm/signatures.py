"""The DSPy signatures: RADIO's three, the programs' three, and those that make questions of documents."""

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


class JudgePassage(dspy.Signature):
    """Does the passage help to reach the answer to the question? Write yes or no."""

    # RLHN (Thakur et al. 2025): an LM looks at negatives that may be false ones.
    question: str = dspy.InputField()
    answers: list[str] = dspy.InputField(desc="accepted answers")
    passage: str = dspy.InputField(desc="a candidate passage")
    verdict: str = dspy.OutputField(desc="yes or no")


class RankPassages(dspy.Signature):
    """Order the passages by how much they help to answer the question."""

    # RankGPT (Sun et al. 2023), section 3: the LM reads numbered passages and writes their numbers in order.
    question: str = dspy.InputField()
    passages: list[str] = dspy.InputField(desc="candidate passages, numbered from 0")
    order: list[int] = dspy.OutputField(desc="the passages' numbers, most helpful first")


class GenerateAnswer(dspy.Signature):
    """Answer the question from the passages. Give the answer only, in a few words."""

    passages: list[str] = dspy.InputField(desc="passages that may hold the answer, best first")
    question: str = dspy.InputField()
    answer: str = dspy.OutputField(desc="a short answer")


class ChooseOption(dspy.Signature):
    """Choose the option that answers the question. The passages may help. Give the letter of the option only."""

    passages: list[str] = dspy.InputField(desc="passages that may hold the answer, best first")
    question: str = dspy.InputField()
    options: list[str] = dspy.InputField(desc="the options, each with its letter")
    letter: str = dspy.OutputField(desc="the letter of the right option")


class NextQuery(dspy.Signature):
    """Write the next search query, for a fact that the answer to the question needs and the passages do not hold.

    Write the word DONE when the passages suffice.
    """

    question: str = dspy.InputField()
    passages: list[str] = dspy.InputField(desc="the passages found so far")
    query: str = dspy.OutputField(desc="the next search query, or the word DONE")


class WriteQuestion(dspy.Signature):
    """Write one question of the given kind that the passage answers, and its answer.

    The reader has not seen the passage: name what is asked about, and do not mention the passage. The answer is a few
    words, copied from the passage.
    """

    passage: str = dspy.InputField(desc="what the question is about")
    kind: str = dspy.InputField(desc="what kind of question")
    question: str = dspy.OutputField()
    answer: str = dspy.OutputField(desc="a few words, copied from the passage")


class WriteQuestionAcross(dspy.Signature):
    """Write one question of the given kind that only somebody who knows both passages can answer, and its answer.

    The reader has not seen the passages: do not mention them. The answer is a few words, copied from one of them.
    """

    first_passage: str = dspy.InputField(desc="what is to be known first")
    second_passage: str = dspy.InputField(desc="what is to be known beside it")
    kind: str = dspy.InputField(desc="what kind of question")
    question: str = dspy.OutputField()
    answer: str = dspy.OutputField(desc="a few words, copied from one of the passages")


class AnswerFromMemory(dspy.Signature):
    """Answer the question from what you know, in a few words. Answer "unknown" if you do not know."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField(desc="a short answer")
