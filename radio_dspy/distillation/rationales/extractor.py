"""Ask an LM why an answer is right (paper, section 3.2)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import dspy

from radio_dspy.core.errors import SettingsError
from radio_dspy.core.validation import is_whole, shown
from radio_dspy.lm.calls import call_key
from radio_dspy.lm.predictors import Predict
from radio_dspy.lm.reasoning import is_reasoning
from radio_dspy.lm.replies import Reply, aread, read
from radio_dspy.lm.signatures import ExtractRationale

PAPER_TEMPERATURE = 0.2  # paper, section 4.1 (gpt-4o-mini)
PAPER_MAX_TOKENS = 1000
RESAMPLE_TEMPERATURE = 0.7  # at the paper's 0.2 a second sample is nearly the first


class RationaleExtractor(dspy.Module):
    """Asks an LM why the gold answer holds. It sees the question and the answers, and no passage.

    Args:
        temperature: Sampling temperature; None keeps the LM's own where it has one, else the paper's 0.2.
        max_tokens: Longest rationale; None keeps the LM's own where it has one, else the paper's 1,000.
        n: How many rationales ``RADIO`` asks for each question; the paper's 1. ``RationaleSimilarity`` compares
            passages with each. Those after the first are sampled at a temperature of at least 0.7.

    Example:
        >>> from dspy.utils import DummyLM
        >>> with dspy.context(lm=DummyLM([{"rationale": "Vapour takes heat along."}])):
        ...     RationaleExtractor()(question="Why is the jug cold?", answers=["evaporation"]).rationale
        'Vapour takes heat along.'
    """

    def __init__(self, *, temperature: float | None = None, max_tokens: int | None = None, n: int = 1) -> None:
        super().__init__()
        if not is_whole(n) or n < 1:
            raise SettingsError(f"n must be at least 1 and whole, got {shown(n)}.")
        self.temperature = temperature
        self.max_tokens = max_tokens
        self.n = n
        self._first_sample = 0
        self.extract = Predict(ExtractRationale)

    def nth(self, number: int) -> RationaleExtractor:
        """This extractor as it asks for the rationale with this number, counted from 0; each may be asked for twice."""
        other = copy.copy(self)
        other._first_sample = 2 * number
        return other

    def settings(self, sample: int = 0, *, seen: bool = True) -> dict[str, Any]:
        """Settings sent beside the prompt: those that the LM has no value for, or that a second sample needs.

        A reasoning LM is sent nothing that was not asked for; see ``is_reasoning`` for ``seen``.
        """
        lm = self.extract.lm or dspy.settings.lm
        own = set() if lm is None else {name for name, value in lm.kwargs.items() if value is not None}
        thinks = lm is not None and is_reasoning(
            lm, seen=seen
        )  # it takes no temperature, and its limit must hold its thoughts
        config: dict[str, Any] = {}
        if self.temperature is not None:
            config["temperature"] = self.temperature
        elif not thinks and not own & {"temperature", "max_completion_tokens"}:  # the latter marks a reasoning model
            config["temperature"] = PAPER_TEMPERATURE
        if self.max_tokens is not None:
            config["max_tokens"] = self.max_tokens
        elif not thinks and not own & {"max_tokens", "max_completion_tokens"}:
            config["max_tokens"] = PAPER_MAX_TOKENS
        sample += self._first_sample
        if sample:
            config["rollout_id"] = sample  # passes by DSPy's response cache
            seed = None if lm is None else lm.kwargs.get("seed")
            if isinstance(seed, int) and not thinks:
                config["seed"] = seed + sample
            if not thinks and "max_completion_tokens" not in own:
                first = config.get("temperature", 0.0 if lm is None else lm.kwargs.get("temperature"))
                config["temperature"] = max(RESAMPLE_TEMPERATURE, first or 0.0)
        return config

    def forward(self, question: str, answers: Sequence[str], sample: int = 0) -> dspy.Prediction:
        """Write one rationale.

        Args:
            question: The question.
            answers: Its gold answers.
            sample: 0 for the first try; another number asks for another sample of the same LM.

        Returns:
            A prediction with ``rationale``, stripped and without the LM's thoughts; empty where the LM gave nothing
            that can be used: then ``unreadable`` says what came back, and ``tries`` how often the LM was asked for it.

        Raises:
            dspy.LMError: If the LM cannot be reached or refuses.
        """
        config = self.settings(sample)
        return _written(read(self.extract, "rationale", question=question, answers=list(answers), config=config))

    async def aforward(self, question: str, answers: Sequence[str], sample: int = 0) -> dspy.Prediction:
        """Write one rationale asynchronously; see ``forward``."""
        config = self.settings(sample)
        return _written(await aread(self.extract, "rationale", question=question, answers=list(answers), config=config))


def _written(reply: Reply) -> dspy.Prediction:
    """A reply as text; a lone surrogate in it, which no file takes, becomes a question mark."""
    text = str(reply.value or "").strip().encode("utf-8", "replace").decode("utf-8")
    return dspy.Prediction(rationale=text, unreadable=reply.unreadable, tries=reply.tries)


def rationale_key(extractor: RationaleExtractor, lm: dspy.LM, question: str, answers: Sequence[str]) -> str:
    """The key that a kept rationale must have to be used again."""
    signature = extractor.extract.signature
    asked = [
        signature.instructions,
        [[name, str(field.json_schema_extra)] for name, field in signature.fields.items()],
        [dict(demo) for demo in extractor.extract.demos],
        question,
        list(answers),
    ]
    if extractor._first_sample:
        asked.append(extractor._first_sample)
    return call_key(lm, {**lm.kwargs, **extractor.settings(seen=False)}, asked)
