"""Have an LM look at suspicious negatives: false ones become positives (RLHN)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import dspy

from radio_dspy.core.rankings import RankRequest
from radio_dspy.core.text import words
from radio_dspy.distillation.preferences.guards import FalseNegatives, Verdicts, suspicious
from radio_dspy.distillation.preferences.sampling import Sampled
from radio_dspy.distillation.teacher.lm_signal import LMSignal, Passages
from radio_dspy.lm.replies import read
from radio_dspy.lm.signatures import JudgePassage
from radio_dspy.runs.run import Run

_VERDICTS = {"yes": 1.0, "no": 0.0}
_UNCLEAR = 0.5


class PassageVerdict(LMSignal):
    """Whether a passage helps to reach the answer, as an LM says that reads both: 1 yes, 0 no, 0.5 neither.

    An LM call for each passage; arguments as for ``LMSignal``. Source: RLHN (Thakur et al. 2025, arXiv 2505.16967).

    Example:
        >>> from dspy.utils import DummyLM
        >>> from radio_dspy import Passage
        >>> request = RankRequest(
        ...     "q", "Why did it cool?", (Passage("a", "Ice floats."), Passage("b", "Vapour takes heat along.")),
        ...     (0.4, 0.3), answers=("evaporation",),
        ... )
        >>> lm = DummyLM({"Ice": {"verdict": "No."}, "Vapour": {"verdict": "Yes"}})
        >>> PassageVerdict(lm).score([request])[0].tolist()
        [0.0, 1.0]
    """

    name = "passage_verdict"
    reads_rationale = False

    def _settings(self, request: RankRequest) -> list[Any]:
        return [JudgePassage.instructions]

    def _ask(self, request: RankRequest, passages: Passages) -> list[float]:
        return [self._verdict(request, one.contents) for one in passages]

    def _verdict(self, request: RankRequest, text: str) -> float:
        asked = {"question": request.query, "answers": list(request.answers), "passage": text}
        said = words(str(read(dspy.Predict(JudgePassage), "verdict", **asked).value or ""))
        return _VERDICTS.get(said[0], _UNCLEAR) if said else _UNCLEAR


def judged(
    requests: Sequence[RankRequest],
    sampled: Sequence[Sequence[Sampled]],
    fused: Sequence[Mapping[str, float]],
    guard: FalseNegatives,
    *,
    run: Run | None = None,
    num_threads: int = 1,
) -> list[Verdicts]:
    """What the guard's LM says of each question's suspicious negatives: by passage id, whether it helps; None: unclear.

    Args:
        requests: The questions.
        sampled: The groups of each.
        fused: The fused scores of each.
        guard: Its ``relabel`` is asked.
        run: Keeps the verdicts, so that none is paid for twice.
        num_threads: Calls in flight at the same time.
    """
    if guard.relabel is None:
        return [{} for _ in requests]
    asked = []
    for request, groups, scores in zip(requests, sampled, fused, strict=True):
        ids = suspicious(request, groups, scores, guard)
        rows = [row for row, one in enumerate(request.candidates) if one.id in ids]
        candidates = tuple(request.candidates[row] for row in rows)
        asked.append(replace(request, candidates=candidates, scores=tuple(request.scores[row] for row in rows)))
    signal = PassageVerdict(guard.relabel, num_threads=num_threads)
    with signal.kept_in(run):
        scores_of = signal.score(asked)
    means = {1.0: True, 0.0: False}
    return [
        {passage.id: means.get(float(score)) for passage, score in zip(one.candidates, scores, strict=True)}
        for one, scores in zip(asked, scores_of, strict=True)
    ]
