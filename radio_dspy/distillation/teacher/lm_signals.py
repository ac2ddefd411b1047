"""Signals from an LM: which passages let it give the right answer, and which it ranks first."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

import dspy

from radio_dspy.core.errors import DataError
from radio_dspy.core.passages import Passage
from radio_dspy.core.rankings import RankRequest
from radio_dspy.distillation.teacher.lm_signal import LMSignal, Passages, asked_answers
from radio_dspy.evaluation.metric_values import value_of
from radio_dspy.evaluation.metrics import AnswerMetric, token_f1
from radio_dspy.lm.adapters import PlainAdapter
from radio_dspy.lm.logprobs import continuation_logprobs
from radio_dspy.lm.replies import read
from radio_dspy.lm.signatures import GenerateAnswer
from radio_dspy.rerankers.lm import LMRerank, windows_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Scores = npt.NDArray[np.float32]


class AnswerLikelihood(LMSignal):
    """The mean log-probability per token of the gold answer, given question and passage; of several answers the best.

    ``max_a 1/|a| sum_t log p(a_t | passage, question, a_<t)``: how much a passage helps this LM to the answer. Source:
    REPLUG (Shi et al. 2023, section 4.2) and GainRAG (Jiang et al. 2025). The prompt is the one that ``PlainAdapter``
    writes for ``GenerateAnswer``; for what counts as the answer's tokens, and which LMs can do it, see
    ``continuation_logprobs``. An LM call for each passage and answer; arguments as for ``LMSignal``.

    Example:
        >>> from radio_dspy import local_lm
        >>> request = RankRequest(
        ...     "q", "Why did the jug stay cold?",
        ...     (Passage("a", "Ice floats on water."), Passage("b", "Evaporation from the clay keeps a jug cold.")),
        ...     (0.4, 0.3), answers=("evaporation",),
        ... )
        >>> with local_lm() as lm:
        ...     scores = AnswerLikelihood(lm).score([request])[0]
        >>> bool(scores[1] > scores[0])
        True
    """

    name = "answer_likelihood"
    reads_rationale = False
    reads_null = True

    def call_sizes(self, candidates: int, answers: int) -> list[int]:
        """See ``LMSignal``: a call for each passage and answer."""
        return [1] * (self._asked(candidates) * answers)

    def null_sizes(self, answers: int) -> list[int]:
        """See ``LMSignal``: a call for each answer."""
        return [0] * answers

    def _settings(self, request: RankRequest) -> list[Any]:
        return [GenerateAnswer.instructions]

    def _ask(self, request: RankRequest, passages: Passages) -> list[float]:
        answers = asked_answers(request)
        return [best_logprob(self.lm, request.query, [passage], answers) for passage in passages]


class AnswerCorrectness(LMSignal):
    """Whether the LM, given this passage alone, answers rightly: token F1 with the gold answers, in [0, 1].

    Source: GainRAG (Jiang et al. 2025) and RRPO, which reward passages by the generator's own answer. A reply that
    cannot be read scores 0. An LM call for each passage; other arguments as for ``LMSignal``.

    Args:
        metric: Compares the LM's answer with the gold ones; None is ``radio_dspy.evaluation.metrics.token_f1``.
        answer: Who answers, from ``question`` and ``passages``: give a program's own ``answer``, whose prompt was
            optimized, to reward the passages that this prompt makes use of. None is a plain ``GenerateAnswer``.

    Example:
        >>> from dspy.utils import DummyLM
        >>> request = RankRequest(
        ...     "q", "Why did it cool?", (Passage("a", "Ice floats."), Passage("b", "Vapour takes heat along.")),
        ...     (0.4, 0.3), answers=("evaporation",),
        ... )
        >>> lm = DummyLM({"Ice": {"answer": "because of ice"}, "Vapour": {"answer": "evaporation"}})
        >>> AnswerCorrectness(lm).score([request])[0].tolist()
        [0.0, 1.0]
    """

    name = "answer_correctness"
    reads_rationale = False
    reads_null = True

    def __init__(
        self,
        lm: dspy.LM,
        *,
        depth: int | None = None,
        metric: AnswerMetric | None = None,
        answer: dspy.Module | None = None,
        num_threads: int = 1,
        show_progress: bool = False,
        keep: str | PathLike[str] | None = None,
    ) -> None:
        super().__init__(lm, depth=depth, num_threads=num_threads, show_progress=show_progress, keep=keep)
        self.metric = metric or token_f1
        self.answer = answer or dspy.Predict(GenerateAnswer)

    def _settings(self, request: RankRequest) -> list[Any]:
        name = getattr(self.metric, "__qualname__", type(self.metric).__qualname__)
        module = self.metric.__module__
        if module.startswith("radio_dspy."):  # wherever it stands: what was paid for must be found again
            module = f"radio_dspy.{module.rpartition('.')[2]}"
        return [_prompts_of(self.answer), f"{module}.{name}"]

    def _ask(self, request: RankRequest, passages: Passages) -> list[float]:
        answers = asked_answers(request)
        scores = []
        for passage in passages:
            written = read(self.answer, "answer", question=request.query, passages=[passage.contents]).value
            scores.append(self._value(str(written), answers, request) if written else 0.0)
        return scores

    def _value(self, written: str, answers: list[str], request: RankRequest) -> float:
        return value_of(lambda: self.metric(written, answers), self.metric, request.id)[0]


class LMRanking(LMSignal):
    """The LM's own order of the candidates, with the answer and the rationale before its eyes: ``n - rank``, best n.

    Source: RankGPT (Sun et al. 2023, section 4), which distils an LM's permutations into a small reranker. One question
    is asked about as a whole. Other arguments as for ``LMSignal``.

    Args:
        reranker: Asks for the order.
        lm: Who is asked.

    Example:
        >>> from dspy.utils import DummyLM
        >>> request = RankRequest(
        ...     "q", "Why did it cool?", (Passage("a", "Ice floats."), Passage("b", "Vapour takes heat along.")),
        ...     (0.4, 0.3), answers=("evaporation",),
        ... )
        >>> LMRanking(LMRerank(), DummyLM([{"order": "[1, 0]"}])).score([request])[0].tolist()
        [1.0, 2.0]
    """

    name = "lm_ranking"
    _needs_answers = False

    def __init__(
        self,
        reranker: LMRerank,
        lm: dspy.LM,
        *,
        depth: int | None = None,
        num_threads: int = 1,
        show_progress: bool = False,
        keep: str | PathLike[str] | None = None,
    ) -> None:
        super().__init__(lm, depth=depth, num_threads=num_threads, show_progress=show_progress, keep=keep)
        self.reranker = reranker

    def call_sizes(self, candidates: int, answers: int) -> list[int]:
        """See ``LMSignal``: a call for each window."""
        return [
            end - start for start, end in windows_of(self._asked(candidates), self.reranker.window, self.reranker.step)
        ]

    def _split(self, passages: Passages) -> list[Passages]:
        return [passages] if passages else []

    def _settings(self, request: RankRequest) -> list[Any]:
        asked = _prompts_of(self.reranker)
        return [self.reranker.window, self.reranker.step, self.reranker.max_words, asked, request.rationale]

    def _ask(self, request: RankRequest, passages: Passages) -> list[float]:
        ranked = self.reranker(
            request.query, passages, k=len(passages), answers=request.answers, rationale=request.rationale
        )
        if ranked.unreadable and ranked.unreadable == ranked.windows:
            raise DataError(
                f"{self.lm.model} gave no order that can be read for question {request.id!r}; take a larger LM, "
                "a smaller window, or max_words."
            )
        scores = [0.0] * len(passages)
        for rank, position in enumerate(ranked.indices):
            scores[position] = float(len(passages) - rank)
        return scores


def _prompts_of(module: dspy.Module) -> list[Any]:
    """Instructions and demonstrations of a module's predictors."""
    return [[one.signature.instructions, [dict(demo) for demo in one.demos]] for one in module.predictors()]


def best_logprob(lm: dspy.LM, question: str, passages: Sequence[Passage], answers: Sequence[str]) -> float:
    """The mean log-probability per token of the answer that is likeliest, of those that can be scored.

    Raises:
        DataError: If none can.
    """
    fields = {"question": question, "passages": [passage.contents for passage in passages]}
    prompt = PlainAdapter().format(GenerateAnswer, [], fields)[0]["content"]
    means: list[float] = []
    for number, answer in enumerate(answers, start=1):
        try:
            values = continuation_logprobs(lm, prompt, answer)
        except DataError:  # a script that this LM's vocabulary does not cover: another answer may do
            if number == len(answers) and not means:
                raise
            continue
        means.append(sum(values) / len(values))
    return max(means)
