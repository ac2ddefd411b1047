"""Do an LM's rationales help it to the answer? A check that needs no labels, before anything is trained."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import dspy

from radio_dspy.core.passages import NULL_PASSAGE, Passage
from radio_dspy.core.rankings import RankRequest
from radio_dspy.distillation.rationales.asking import Question
from radio_dspy.distillation.teacher.lm_signals import AnswerCorrectness
from radio_dspy.evaluation.significance import paired_bootstrap
from radio_dspy.runs.run import Run

_GAP = "____"


@dataclass(frozen=True, slots=True)
class RationaleQuality:
    """What an LM answers with a rationale and without: means of token F1 with the gold answer.

    Attributes:
        questions: How many had a rationale.
        with_rationale: Given the question and its rationale, in which the answer itself is blanked.
        without: Given the question alone.
        gain: Mean difference.
        low: Lower end of its 95 % interval (paired bootstrap).
        high: Its upper end.
    """

    questions: int
    with_rationale: float
    without: float
    gain: float
    low: float
    high: float

    @property
    def useful(self) -> bool:
        """Whether the rationales help beyond noise."""
        return self.low > 0

    def __str__(self) -> str:
        return (
            f"token F1 {self.without:.3f} without and {self.with_rationale:.3f} with the rationale "
            f"({self.gain:+.3f}, 95 % interval {self.low:+.3f} to {self.high:+.3f}, {self.questions} questions)"
        )


def rationale_quality(
    questions: Sequence[Question],
    rationales: Mapping[str, str],
    lm: dspy.LM,
    *,
    run: Run | None = None,
    num_threads: int = 1,
) -> RationaleQuality | None:
    """Ask the LM each question with its rationale alone, and with nothing: two calls a question.

    The gold answer is blanked in the rationale, which else would only have to be copied. Whatever leads the LM to the
    answer then is what a passage could do as well.

    Args:
        questions: (id, question, answers) of each.
        rationales: By question id; questions without one are left out.
        lm: Who answers: best the LM that the program asks.
        run: Keeps the answers' values, so that none is paid for twice.
        num_threads: Calls in flight at the same time.

    Returns:
        The quality; None where no question has a rationale.

    Raises:
        LanguageModelError: If the LM fails.

    Example:
        >>> from dspy.utils import DummyLM
        >>> lm = DummyLM({"takes heat": {"answer": "evaporation"}, "": {"answer": "ice"}})
        >>> found = rationale_quality(
        ...     [("q", "Why is it cold?", ["evaporation"])], {"q": "Evaporation takes heat along."}, lm
        ... )
        >>> found.without, found.with_rationale
        (0.0, 1.0)
    """
    requests = [
        RankRequest(
            key, text, (Passage("rationale", blanked(found, answers)), NULL_PASSAGE), (0.0, 0.0), tuple(answers)
        )
        for key, text, answers in questions
        if (found := rationales.get(key, "").strip())
    ]
    if not requests:
        return None
    signal = AnswerCorrectness(lm, num_threads=num_threads)
    with signal.kept_in(run):
        pairs = [scores.tolist() for scores in signal.score(requests)]
    reached, known = ([pair[place] for pair in pairs] for place in (0, 1))
    difference = paired_bootstrap(known, reached)
    return RationaleQuality(
        len(pairs), sum(reached) / len(pairs), sum(known) / len(pairs), difference.mean, difference.low, difference.high
    )


def blanked(rationale: str, answers: Sequence[str]) -> str:
    """A rationale with a gap wherever it names an answer.

    Example:
        >>> blanked("By evaporation: EVAPORATION cools, an evaporation.", ["Evaporation"])
        'By ____: ____ cools, an ____.'
    """
    named = sorted({one.strip() for one in answers if one.strip()}, key=len, reverse=True)
    if not named:
        return rationale
    return re.sub(rf"(?<!\w)({'|'.join(map(re.escape, named))})(?!\w)", _GAP, rationale, flags=re.IGNORECASE)
