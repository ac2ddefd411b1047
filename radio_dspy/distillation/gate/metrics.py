"""Score a set of weights on the held-out questions, one value a question."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import dspy

from radio_dspy.core.errors import SettingsError
from radio_dspy.core.rankings import Ranking, RankRequest
from radio_dspy.core.redaction import cause_of, told
from radio_dspy.distillation.candidates.reranker_slots import Slot, copy_to_run
from radio_dspy.distillation.gate.decision import Gate, Judge
from radio_dspy.evaluation.measures import shown_measure, whole_gains
from radio_dspy.evaluation.metric_values import metric_value
from radio_dspy.evaluation.metrics import ranking_metrics
from radio_dspy.evaluation.relevance import judge as judge_relevance
from radio_dspy.lm.calls import call_each, call_key, lm_failure
from radio_dspy.lm.secrets import lms_of
from radio_dspy.models.weights import RerankerWeights
from radio_dspy.rerankers.rerank import rank_with
from radio_dspy.retrievers.aligned import query_encoder
from radio_dspy.retrievers.requests import question_id
from radio_dspy.retrievers.vector import VectorRetriever
from radio_dspy.runs.identity import hash_of, run_keys, source_of
from radio_dspy.runs.records import JudgedLine, reader_of
from radio_dspy.runs.run import Run

RECALL = "recall@50"
_BYTES = 4  # of a token, on average
_GAIN_STEPS = 1000  # trec_eval's gains are whole numbers


def judged_by(gate: Gate, against: str) -> str:
    """What the judges of this module measure under a gate's rules, for people.

    Example:
        >>> judged_by(Gate(measures=("ndcg@10", "R@5"), tokens=500), "labels")
        'nDCG@10 (and R@5) in 500 tokens against labels'
    """
    main, *others = map(shown_measure, gate.measures)
    further = f" (and {', '.join(others)})" if others else ""
    return f"{main}{further}{f' in {gate.tokens} tokens' if gate.tokens else ''} against {against}"


def by_labels(requests: Sequence[RankRequest], device: str | None = None, gate: Gate | None = None) -> Judge:
    """The gate's measures, else nDCG@10, against labelled passages; questions without any are left out."""
    judged = [one for one in requests if one.relevant]
    return _by_measures(judged, [whole_gains(one.gains) for one in judged], device, gate or Gate())


def by_teacher(
    requests: Sequence[RankRequest], fused: Sequence[Ranking], device: str | None = None, gate: Gate | None = None
) -> Judge:
    """The same with the teacher's fused scores as gains: how well the teacher is followed where it was not seen."""
    gains = [
        {key: round(_GAIN_STEPS * max(0.0, score)) for key, score in zip(one.ids, one.scores, strict=True)}
        for one in fused
    ]
    return _by_measures(requests, gains, device, gate or Gate())


def _by_measures(
    requests: Sequence[RankRequest], gains: Sequence[Mapping[str, int]], device: str | None, gate: Gate
) -> Judge:
    def values(weights: RerankerWeights) -> dict[str, list[float]]:
        rankings = rank_with(weights, requests, device)
        return ranking_metrics([_read(one, gate.tokens) for one in rankings], gains, gate.measures)

    return values


def _read(ranking: Ranking, tokens: int | None) -> tuple[str, ...]:
    """The ids of the first passages that have so many tokens together; of all for None."""
    if tokens is None:
        return ranking.ids
    sums = accumulate(_tokens(one.contents) for one in ranking.passages)
    return ranking.ids[: sum(one <= tokens for one in sums)]


def _tokens(text: str) -> int:
    """About as many as an LM counts, whichever it is: one for each word, and for four bytes of long ones."""
    return max(len(text.split()), -(-len(text.encode("utf-8", "replace")) // _BYTES))


@dataclass(frozen=True)
class MetricJudge:
    """The user's own ``metric(example, prediction)`` on what the program gives with some weights.

    A question on which the program fails scores 0, as in ``dspy.Evaluate``.

    Attributes:
        program: Who answers.
        slot: Where the weights go.
        examples: The held-out questions.
        metric: The user's metric.
        num_threads: Questions at the same time.
        run: Keeps each value in its ``judged.jsonl`` the moment it is there; the same program with the same weights is
            not asked again.
        trial: Only the metric is looked at: the program may fail on every question.
    """

    program: dspy.Module
    slot: Slot
    examples: Sequence[dspy.Example]
    metric: Callable[..., Any]
    num_threads: int = 1
    run: Run | None = None
    trial: bool = False

    def __call__(self, weights: RerankerWeights) -> list[float]:
        """The value of each question.

        Raises:
            LanguageModelError: If the program's LM fails.
            SettingsError: If the program fails on every question, which says nothing of the weights; or if the metric
                raises, or gives no finite number.
        """
        program, slots = copy_to_run(self.program)  # what a program remembers was found with other weights
        slot = next(one for one in slots if one.name == self.slot.name)
        slot.assign(weights)
        with dspy.context(disable_history=True):
            found = replace(self, program=program, slot=slot)._outcomes()
        if found and not self.trial and all(failure for _, failure in found):
            raise SettingsError(
                "The metric cannot judge: the program failed on every held-out question, at first with "
                f"{found[0][1]}. Configure the LM that it needs."
            )
        return [value for value, _ in found]

    def _outcomes(self) -> list[tuple[float, str]]:
        """The value of each question and why the program failed on it, from the run folder where it is kept."""
        run = self.run
        if run is None:
            return call_each(self._outcome, self.examples, self.num_threads)
        about = [getattr(self.metric, "__qualname__", type(self.metric).__qualname__), source_of(self.metric)]
        if isinstance(lm := getattr(self.metric, "lm", None), dspy.LM):  # a metric that asks an LM of its own
            about.append(call_key(lm, lm.kwargs, []))
        keys = [
            hash_of([about, key, example.toDict()])
            for key, example in zip(run_keys(self.program, self.examples), self.examples, strict=True)
        ]
        lines = run.records("judged", reader_of(JudgedLine))
        known = {one["key"]: (one["value"], one["failure"]) for one in lines}

        def one(item: tuple[str, dspy.Example]) -> tuple[float, str]:
            key, example = item
            if key in known:
                return known[key]
            value, failure = self._outcome(example)
            run.append_record("judged", {"id": question_id(example), "value": value, "failure": failure, "key": key})
            return value, failure

        return call_each(one, list(zip(keys, self.examples, strict=True)), self.num_threads)

    def _outcome(self, example: dspy.Example) -> tuple[float, str]:
        try:
            with dspy.context(trace=[]):  # of this question alone; dspy.BestOfN needs one
                prediction = self.program(**example.inputs())
        except dspy.LMError as error:  # the LM is away: that is not the reranker's fault
            lms = lms_of(self.program)
            raise lm_failure(
                f"The program's LM failed ({told(error, *lms)}). What was judged before is kept in run_dir; mend it "
                "and start again.",
                error,
                lms[0] if len(lms) == 1 else None,
            ) from cause_of(error, *lms)
        except Exception as error:
            return 0.0, told(error, *lms_of(self.program))[:200]
        run = self.run
        kept = f" What was done before is kept in {run.path}." if run is not None and run.keeps() else ""
        return metric_value(self.metric, example, prediction, question_id(example), kept)


def by_recall(retriever: VectorRetriever, requests: Sequence[RankRequest]) -> Judge:
    """Recall@50 of the query encoder as a first stage over the same passage vectors.

    What is relevant is found as in ``radio_dspy.evaluation.relevance.judge``.
    """
    verdict = judge_relevance(requests)
    judged = [(one, ids) for one, ids in zip(requests, verdict.relevant, strict=True) if ids]

    def values(weights: RerankerWeights) -> list[float]:
        rankings = retriever.with_query_encoder(query_encoder(weights)).search([one.query for one, _ in judged], 50)
        found = [
            [key for key in ranking.ids if key not in one.copies]
            for ranking, (one, _) in zip(rankings, judged, strict=True)
        ]
        return ranking_metrics(found, [ids for _, ids in judged], (RECALL,))[RECALL]

    return values
