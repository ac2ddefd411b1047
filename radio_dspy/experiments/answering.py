"""What the generator makes of each ranking's first passages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from radio_dspy.core.rankings import Ranking
from radio_dspy.evaluation.relevance import answer_each
from radio_dspy.experiments.baselines import FixedRankings
from radio_dspy.programs.tasks import open_program
from radio_dspy.rerankers.rerank import NoRerank

if TYPE_CHECKING:
    import dspy

    from radio_dspy.experiments.materials import Materials
    from radio_dspy.experiments.settings import RowSettings

LIKELIHOOD = "answer_likelihood"


def answers_from(
    materials: Materials, settings: RowSettings, test: Sequence[dspy.Example], rankings: Mapping[str, Sequence[Ranking]]
) -> tuple[dict[str, list[str]], dict[str, dict[str, list[float]]]]:
    """What the generator answers from each ranking's first passages, and each metric's value for every question.

    DSPy's cache answers what was asked before: rankings that begin with the same passages cost once.
    """
    own = settings.generator
    lm = materials.lm(own.lm, settings.data, max_tokens=own.max_tokens)
    replies: dict[str, list[str]] = {}
    scores: dict[str, dict[str, list[float]]] = {}
    for name, ranked in rankings.items() if lm is not None else ():
        given = FixedRankings({one.query: one for one in ranked})
        candidates = max(own.k, settings.first_stage.candidates)
        program = open_program(own.task, given, NoRerank(), candidates=candidates, k=own.k, hops=1)
        asked = test[: own.questions]
        replies[name], scores[name] = answer_each(program, asked, lm, show_progress=materials.show_progress)
        if own.likelihood:
            judged = test[: own.likelihood]
            scores[name][LIKELIHOOD] = _likelihoods(lm, judged, given, own.k, materials.show_progress)
    return replies, scores


def _likelihoods(
    lm: dspy.LM, test: Sequence[dspy.Example], given: FixedRankings, k: int, show_progress: bool
) -> list[float]:
    """The mean log-probability per token of each question's answer, after the first ``k`` passages together."""
    from radio_dspy.datasets.examples import answer_texts
    from radio_dspy.distillation.teacher.lm_signals import best_logprob
    from radio_dspy.lm.calls import ask_each

    found: dict[int, float] = {}

    def ask(position: int) -> float:
        one = test[position]
        return best_logprob(lm, one.question, given.search([one.question], k)[0].passages, answer_texts(one))

    ask_each(
        lm, range(len(test)), ask, found.__setitem__,
        title="likelihood", unit="question", kept="What was answered is in DSPy's cache.", show_progress=show_progress,
    )  # fmt: skip
    return [found[position] for position in range(len(test))]
