"""Signals from an LM: how much passages change what it answers, one by one and together."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

import dspy

from radio_dspy.core.errors import DataError
from radio_dspy.core.passages import NULL_PASSAGE, as_passages
from radio_dspy.core.rankings import RankRequest
from radio_dspy.datasets.examples import answer_texts
from radio_dspy.distillation.teacher.lm_signal import LMSignal, Passages, asked_answers
from radio_dspy.distillation.teacher.lm_signals import AnswerLikelihood, best_logprob
from radio_dspy.distillation.teacher.null_passage import with_null, without_null
from radio_dspy.lm.signatures import GenerateAnswer

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Scores = npt.NDArray[np.float32]


class AnswerGain(AnswerLikelihood):
    """How much a passage raises the likelihood of the gold answer over no passage at all: above 0 it helps.

    ``AnswerLikelihood`` of the passage minus that of an empty context, which is asked about once a question. Within a
    question the order is that of ``AnswerLikelihood``, whose kept scores it uses; what it adds is the zero:
    ``PreferenceSettings(null_passage=True)`` teaches it to the reranker. Source: GainRAG (Jiang et al. 2025),
    InfoGain-RAG (2025). Arguments as for ``LMSignal``.

    Example:
        >>> from radio_dspy import Passage, local_lm
        >>> request = RankRequest(
        ...     "q", "Why did the jug stay cold?",
        ...     (Passage("a", "Evaporation from the clay keeps a jug cold."),), (0.4,), answers=("evaporation",),
        ... )
        >>> with local_lm() as lm:
        ...     bool(AnswerGain(lm).score([request])[0][0] > 0)
        True
    """

    name = "answer_gain"
    _kept_as = AnswerLikelihood.name

    def score(self, requests: Sequence[RankRequest]) -> list[Scores]:
        """See ``LMSignal``."""
        found = super().score([with_null(one) for one in requests])
        return [(one - one[-1])[: len(request.candidates)] for one, request in zip(found, requests, strict=True)]

    def call_sizes(self, candidates: int, answers: int) -> list[int]:
        """See ``LMSignal``: a call for each passage and answer, and one without a passage for each answer."""
        return super().call_sizes(candidates, answers) + super().null_sizes(answers)

    def null_sizes(self, answers: int) -> list[int]:
        """See ``LMSignal``: none, since the null passage always is one."""
        return []


class SetGain(LMSignal):
    """How much likelihood the answer loses when a passage is taken out of the first ``k`` together.

    ``L(all k) - L(all k but this one)``, with ``L`` as in ``AnswerLikelihood``: a passage that repeats another gains
    nothing, and two that only help together both do. Passages after the ``k``-th get the lowest of the gains. ``k + 1``
    calls for each question and answer. Source: leave-one-out as in data valuation; sets of passages as in SetR (2025).

    It can also judge: ``RADIO(metric=SetGain(lm))`` has the gate go by how much the passages that the program's LM read
    raise the likelihood of the answer together. That takes two calls a question and answer beside the program's own.

    Args:
        lm: Who is asked: ``local_lm`` or a vLLM server, as for ``AnswerLikelihood``.
        k: How many passages are read together; give the program's own ``k``.
        num_threads: Calls in flight at the same time.
        show_progress: Show a progress bar.
        keep: As for ``LMSignal``.

    Example:
        >>> from radio_dspy import Passage, local_lm
        >>> request = RankRequest(
        ...     "q", "Why did the jug stay cold?",
        ...     (Passage("a", "Evaporation from the clay keeps a jug cold."), Passage("b", "Ice floats on water.")),
        ...     (0.4, 0.3), answers=("evaporation",),
        ... )
        >>> with local_lm() as lm:
        ...     scores = SetGain(lm, k=2).score([request])[0]
        >>> bool(scores[0] > scores[1])
        True
    """

    name = "set_gain"
    reads_rationale = False
    reads_null = True

    def __init__(
        self,
        lm: dspy.LM,
        *,
        k: int = 5,
        num_threads: int = 1,
        show_progress: bool = False,
        keep: str | PathLike[str] | None = None,
    ) -> None:
        super().__init__(lm, depth=k, num_threads=num_threads, show_progress=show_progress, keep=keep)

    def __call__(self, example: dspy.Example, prediction: dspy.Prediction, trace: Any = None) -> float:
        """As a metric: how much the prediction's ``passages`` together raise the likelihood of the answer.

        Raises:
            DataError: If the example has no answer or no question, or the prediction no passages.
        """
        answers = [one for one in answer_texts(example) if one.strip()]
        if not answers or "question" not in example or "passages" not in prediction:
            raise DataError(
                "SetGain as a metric needs an example with question and answers, and a program that returns the "
                f"passages its LM read as `passages`; got {sorted(example.keys())} and {sorted(prediction.keys())}."
            )
        with dspy.context(trace=None, disable_history=True):
            read, nothing = (
                best_logprob(self.lm, example.question, one, answers)
                for one in (as_passages(prediction.passages), [NULL_PASSAGE])
            )
        return read - nothing

    def score(self, requests: Sequence[RankRequest]) -> list[Scores]:
        """See ``LMSignal``; the null passage is in no set, and gains nothing."""
        import numpy as np

        bare = [without_null(one) for one in requests]
        return [
            np.append(scores, np.float32(0)) if one is not request else scores
            for scores, one, request in zip(super().score(bare), bare, requests, strict=True)
        ]

    def call_sizes(self, candidates: int, answers: int) -> list[int]:
        """See ``LMSignal``: the set, and the set without each of its passages."""
        size = self._asked(candidates)
        return [size, *[size - 1] * size] * answers

    def null_sizes(self, answers: int) -> list[int]:
        """See ``LMSignal``: none."""
        return []

    def _chosen(self, request: RankRequest) -> Passages:
        """The set: the first candidates, or those of the last ranking of ``also_about``, in its order."""
        ids = self._firsts[-1].get(request.id) if self._firsts else None
        if ids is None:
            return super()._chosen(request)
        there = {one.id: one for one in request.candidates}
        return tuple(there[one] for one in ids[: self.depth] if one in there)

    def _split(self, passages: Passages) -> list[Passages]:
        return [passages] if passages else []

    def _settings(self, request: RankRequest) -> list[Any]:
        return [GenerateAnswer.instructions]

    def _ask(self, request: RankRequest, passages: Passages) -> list[float]:
        answers = asked_answers(request)
        whole = best_logprob(self.lm, request.query, passages, answers)
        others = [passages[:place] + passages[place + 1 :] for place in range(len(passages))]
        return [whole - best_logprob(self.lm, request.query, one or [NULL_PASSAGE], answers) for one in others]
