"""Estimate the LM calls, tokens and dollars of a compile before the first call."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import dspy
from radio_dspy.optimizers.asked import goes_into_batches
from radio_dspy.optimizers.job import Job, Settings, questions_of
from radio_dspy.programs import MultiHop, MultipleChoice, RetrieveRerankAnswer

from radio_dspy.datasets.examples import answer_texts, relevant_of
from radio_dspy.distillation.candidates.recorder import acts
from radio_dspy.distillation.preferences.sampling import DEPTH, preference_groups
from radio_dspy.distillation.preferences.settings import PreferenceSettings
from radio_dspy.distillation.rationales.asking import Question
from radio_dspy.distillation.rationales.settings import RationaleSettings
from radio_dspy.distillation.rationales.writing import fitting_records
from radio_dspy.distillation.teacher.gains import SetGain
from radio_dspy.distillation.teacher.lm_signal import LMSignal
from radio_dspy.lm.budget import BATCH_SHARE, price_of

TYPICAL_RATIONALE_TOKENS = 120  # a few sentences; where the run folder has rationales, their mean is taken
TYPICAL_ANSWER_TOKENS = 20
_FRAME_TOKENS = 200  # what an adapter puts around a short signature
_SAMPLED = 200  # passages and questions whose length is measured


@dataclass(frozen=True)
class StageEstimate:
    """The LM calls of one stage.

    Attributes:
        stage: As in ``Report.spending``.
        calls: As many as are to be expected.
        calls_at_most: If every rationale is asked for twice and nothing can be asked directly. An adapter's second
            tries and an agent's further steps come on top.
        prompt_tokens: Of the expected calls, counted with OpenAI's tokenizer.
        completion_tokens: Of the expected calls.
        cost: US dollars for the expected calls; None where LiteLLM knows no price.
        cost_at_most: US dollars if there are ``calls_at_most``, and each reply is as long as it may be.
        note: What the numbers rest on.
        batch_cost: US dollars for the expected calls in batches (``RADIO(batch=True)``); None where a stage is not
            asked so, or no price is known.
    """

    stage: str
    calls: int
    calls_at_most: int
    prompt_tokens: int
    completion_tokens: int
    cost: float | None
    cost_at_most: float | None
    note: str = ""
    batch_cost: float | None = None


@dataclass(frozen=True)
class Estimate:
    """The LM calls that ``RADIO.compile`` will make, stage by stage.

    Attributes:
        stages: Only those that call an LM.
    """

    stages: tuple[StageEstimate, ...]

    @property
    def calls(self) -> int:
        """Calls to be expected in all."""
        return sum(one.calls for one in self.stages)

    @property
    def calls_at_most(self) -> int:
        """Calls at most, with the exceptions that ``StageEstimate`` names."""
        return sum(one.calls_at_most for one in self.stages)

    @property
    def cost(self) -> float | None:
        """US dollars to be expected; None where a price is not known."""
        costs = [one.cost for one in self.stages]
        return None if None in costs else sum(cost for cost in costs if cost is not None)

    @property
    def batch_cost(self) -> float | None:
        """US dollars where what can be asked in batches is; None where a price is not known."""
        costs = [one.cost if one.batch_cost is None else one.batch_cost for one in self.stages]
        return None if None in costs else sum(cost for cost in costs if cost is not None)

    def as_dict(self) -> dict[str, Any]:
        """The estimate as JSON types."""
        whole = {name: getattr(self, name) for name in ("calls", "calls_at_most", "cost", "batch_cost")}
        return {**asdict(self), **whole}

    def __str__(self) -> str:
        from rich.table import Table

        from radio_dspy.reporting.report import render

        if not self.stages:
            return "No LM is asked."
        table = Table()
        for column in ("stage", "calls", "at most", "tokens sent", "received", "cost", "at most", "in batches", "note"):
            table.add_column(column)
        for one in self.stages:
            table.add_row(
                one.stage,
                str(one.calls),
                str(one.calls_at_most),
                str(one.prompt_tokens),
                str(one.completion_tokens),
                _dollars(one.cost),
                _dollars(one.cost_at_most),
                "" if one.batch_cost is None else _dollars(one.batch_cost),
                one.note,
            )
        return render(table).rstrip()


def _dollars(cost: float | None) -> str:
    return "unknown" if cost is None else f"${cost:.4f}"


def estimate(optimizer: Settings, job: Job, *, guessed_split: bool = False) -> Estimate:
    """Go through the stages of ``RADIO.compile`` that call an LM; nothing is asked or encoded.

    Args:
        optimizer: The settings.
        job: The program and its questions.
        guessed_split: Whether compile may keep other questions back than this job does, as many of them.
    """
    by_teacher = optimizer.judges_by_teacher(map(relevant_of, job.held_out))
    questions = questions_of([*job.train, *job.held_out] if by_teacher else job.train)
    length = passage_length(job)
    stages: list[StageEstimate | None] = []
    if optimizer.retriever is None:
        direct = isinstance(job.program, RetrieveRerankAnswer | MultipleChoice)
        every = 0 if direct else len(job.train) + len(job.held_out)
        writes = isinstance(job.program, MultiHop) or acts(job.program)
        note = "only replies that lead to a reranker are asked for"
        stages.append(program_stage("retrieval", job.program, every if writes else 0, every, length, note))
    if optimizer.rationale_lm is not None:
        pool = questions_of([*job.train, *job.held_out]) if guessed_split else questions
        asked = [one for one in pool if not optimizer.rationales.given.get(one[0], "").strip()]
        kept_back = len(pool) - len(questions)
        stages.append(rationale_stage(asked, kept_back, job, optimizer.rationale_lm, optimizer.rationales))
    for signal in optimizer.signals or ():
        if isinstance(signal, LMSignal):
            stages.append(signal_stage(signal, questions, length, optimizer.preferences, optimizer.rounds))
    guard = optimizer.preferences.false_negatives
    if guard is not None and guard.relabel is not None:
        stages.append(relabel_stage(guard.relabel, optimizer.preferences, len(questions_of(job.train)), length))
    if optimizer.gate is not None and optimizer.metric is not None:
        runs = len(job.held_out) * (1 + optimizer.rounds * (1 + len(optimizer.gate.mixtures)))
        stages.append(program_stage("training", job.program, runs, runs, length, "the gate's metric"))
        if isinstance(optimizer.metric, SetGain):
            answers = statistics.mean(len(answer_texts(one)) or 1 for one in job.held_out)
            stages.append(metric_stage(optimizer.metric, round(2 * runs * answers), length))
    return Estimate(tuple(one for one in stages if one is not None))


def rationale_stage(
    questions: Sequence[Question], kept_back: int, job: Job, lm: dspy.LM, settings: RationaleSettings
) -> StageEstimate | None:
    """The rationales that are still missing; ``kept_back`` of the questions need none."""
    extractor, check = settings.open_extractor(), settings.check
    missing, lengths = [], []
    for number in range(extractor.n):
        kept = fitting_records(questions, job.run, lm=lm, extractor=extractor.nth(number))
        lengths += [one["completion_tokens"] for one in kept.values() if one.get("completion_tokens")]
        unknown = [one for one in questions if one[0] not in kept]
        missing += unknown[: max(0, len(questions) - kept_back - len(kept))]
    if not missing:
        return None
    with dspy.context(lm=lm):
        limit = {**lm.kwargs, **extractor.settings()}.get("max_tokens")
        adapter = dspy.settings.adapter or dspy.ChatAdapter()
        prompts = [
            adapter.format(extractor.extract.signature, extractor.extract.demos, {"question": text, "answers": answers})
            for _, text, answers in missing
        ]
    sent = sum(_tokens(str(message["content"])) for prompt in prompts for message in prompt)
    typical = round(statistics.mean(lengths)) if lengths else TYPICAL_RATIONALE_TOKENS
    longest = int(limit or TYPICAL_RATIONALE_TOKENS)
    return mean_stage(
        "rationales",
        lm.model,
        len(missing),
        len(missing) * (2 if check else 1),
        prompt=sent / len(missing),
        completion=min(typical, longest),
        longest=longest,
        note="asked twice where the first is no use" if check else "",
        batches=True,
    )


def signal_stage(
    signal: LMSignal,
    questions: Sequence[Question],
    passage_tokens: float,
    preferences: PreferenceSettings,
    rounds: int = 1,
) -> StageEstimate:
    """One LM signal; scores that it keeps are not looked up."""
    sizes = [size for *_, answers in questions for size in signal.call_sizes(preferences.candidates, len(answers))]
    further = (rounds - 1) * len(sizes) if signal.depth is not None else 0
    if preferences.null_passage:
        sizes += [size for *_, answers in questions for size in signal.null_sizes(len(answers))]
    question_tokens = statistics.mean(_tokens(text) for _, text, _ in questions[:_SAMPLED])
    limit = int(signal.lm.kwargs.get("max_tokens") or TYPICAL_ANSWER_TOKENS)
    rounds_note = "; of a further round's passages half, at most all, are new" if further else ""
    return mean_stage(
        "signals",
        signal.lm.model,
        len(sizes) + further // 2,
        len(sizes) + further,
        prompt=_FRAME_TOKENS + question_tokens + passage_tokens * statistics.mean(sizes or [0]),
        completion=min(TYPICAL_ANSWER_TOKENS, limit),
        longest=limit,
        note=f"{signal.name}; kept scores are not subtracted{rounds_note}",
        batches=goes_into_batches(signal),
    )


def relabel_stage(lm: dspy.LM, preferences: PreferenceSettings, questions: int, passage_tokens: float) -> StageEstimate:
    """The judgements of suspicious negatives: how many there are is seen only when the teacher has ranked."""
    ids = [str(one) for one in range(preferences.candidates)]
    groups = preference_groups(ids, preferences.sampling or "shift", preferences.depth or DEPTH)
    return mean_stage(
        "signals",
        lm.model,
        questions,
        questions * len({one for _, negatives in groups for one in negatives}),
        prompt=_FRAME_TOKENS + passage_tokens,
        completion=2,
        longest=int(lm.kwargs.get("max_tokens") or TYPICAL_ANSWER_TOKENS),
        note="suspicious negatives: one a question, at most all of them",
    )


def metric_stage(metric: SetGain, calls: int, passage_tokens: float) -> StageEstimate:
    """The calls of ``SetGain`` as the gate's metric: half of them read the program's passages, half none."""
    return mean_stage(
        "training",
        metric.lm.model,
        calls,
        calls,
        prompt=_FRAME_TOKENS + passage_tokens * (metric.depth or 0) / 2,
        completion=TYPICAL_ANSWER_TOKENS,
        longest=TYPICAL_ANSWER_TOKENS,
        note=f"{metric.name} as the gate's metric",
    )


def program_stage(
    stage: str, program: dspy.Module, runs: int, runs_at_most: int, passage_tokens: float, note: str
) -> StageEstimate | None:
    """Runs of the student itself: each of its predictors once a run."""
    lms = [lm for one in program.predictors() if (lm := one.lm or dspy.settings.lm) is not None]
    if not lms or not runs_at_most:
        return None
    limit = int(lms[0].kwargs.get("max_tokens") or TYPICAL_ANSWER_TOKENS)
    return mean_stage(
        stage,
        lms[0].model,
        runs * len(lms),
        runs_at_most * len(lms),
        prompt=_FRAME_TOKENS + passage_tokens * getattr(program, "k", 5),
        completion=min(TYPICAL_ANSWER_TOKENS, limit),
        longest=limit,
        note=note,
    )


def passage_length(job: Job) -> float:
    """Mean tokens of a passage; 150 where the corpus cannot be looked at."""
    passages = getattr(job.first_stage, "passages", ())[:_SAMPLED]
    return statistics.mean(_tokens(one.contents) for one in passages) if passages else 150.0


def mean_stage(
    stage: str,
    model: str,
    calls: int,
    at_most: int,
    *,
    prompt: float,
    completion: int,
    longest: int,
    note: str,
    batches: bool = False,
) -> StageEstimate:
    """A stage from the mean length of a prompt and of a reply."""
    cost = price_of(model, round(calls * prompt), calls * completion)
    return StageEstimate(
        stage=stage,
        calls=calls,
        calls_at_most=at_most,
        prompt_tokens=round(calls * prompt),
        completion_tokens=calls * completion,
        cost=cost,
        cost_at_most=price_of(model, round(at_most * prompt), at_most * longest),
        note=note,
        batch_cost=cost * BATCH_SHARE if batches and cost is not None else None,
    )


def _tokens(text: str) -> int:
    import litellm

    return len(litellm.encode(model="gpt-4o-mini", text=text))
