"""Collect the rationales of a run: given ones, kept ones, and new ones from the LM."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import dspy

from radio_dspy.core.redaction import logger_of
from radio_dspy.distillation.rationales.checks import rationale_problem
from radio_dspy.distillation.rationales.extractor import RationaleExtractor, rationale_key
from radio_dspy.lm.budget import StopSpending, UsageOfBlock, usage_of_block
from radio_dspy.lm.calls import Refusals, ask_each
from radio_dspy.models.encoder import TextEncoder
from radio_dspy.rerankers.rationale import fitting_guide
from radio_dspy.runs.records import RationaleLine, reader_of
from radio_dspy.runs.run import Run

logger = logger_of(__name__)
Question = tuple[str, str, Sequence[str]]  # id, question, answers
_EMPTY_TRIES = 2  # starts in which a question is asked whose reply was empty: it may have been the server's fault
_THOUGHTS = 50  # tokens that an empty reply took, from which they are taken for thoughts
_TOO_LITTLE_ROOM = (
    " A reasoning LM may spend its whole limit on thoughts: give it room, as in dspy.LM(..., max_tokens=16000), or "
    "less reasoning_effort."
)


@dataclass(frozen=True, slots=True)
class RationaleRecord:
    """A rationale as it is kept on disk.

    Attributes:
        id: The question's id.
        rationale: The text; empty where nothing usable came back.
        source: ``"lm"``, ``"given"`` by the caller, or ``"refused"`` by the provider (a content filter, too long).
        key: A hash of everything that decided the text: LM, its settings, instruction, question, answers.
        cached: Whether DSPy's response cache answered.
        prompt_tokens: Tokens sent; 0 for a cached answer.
        completion_tokens: Tokens received; 0 for a cached answer.
        problem: Why the text is no use as a guide (see ``rationale_problem``); empty where it is fine.
        retried: Whether a second sample was asked for.
    """

    id: str
    rationale: str
    source: str = "lm"
    key: str = ""
    cached: bool = False
    prompt_tokens: int = 0
    completion_tokens: int = 0
    problem: str = ""
    retried: bool = False

    def as_dict(self) -> dict[str, Any]:
        """The record as JSON types."""
        return asdict(self)


def write_rationales(
    extractor: RationaleExtractor,
    lm: dspy.LM,
    questions: Sequence[Question],
    *,
    on_record: Callable[[RationaleRecord], None],
    problem_of: Callable[[str, str, Sequence[str]], str] | None = None,
    on_first: Callable[[RationaleRecord], None] = lambda record: None,
    first: Mapping[str, str] | None = None,
    num_threads: int = 1,
    show_progress: bool = True,
) -> None:
    """Write a rationale for every question and hand each on the moment it is there.

    Where the first sample is no use, one more is asked for.

    Args:
        extractor: Who asks.
        lm: Who is asked.
        questions: (id, question, answers) of each.
        on_record: Called once for each question, by the thread that asked.
        problem_of: Says of (rationale, question, answers) why it is no use, empty where it is fine; None never asks.
        on_first: Called with a first sample that is no use, before the second is asked for: it is paid for, too.
        first: Such first samples from before, by their key: only the second is asked for.
        num_threads: Calls in flight at the same time.
        show_progress: Show a progress bar.

    Raises:
        LanguageModelError: If the LM fails; everything handed on before that stays.
    """
    refusals = Refusals()
    doubtful: list[RationaleRecord] = []

    def ask(item: Question) -> RationaleRecord:
        key, question, answers = item
        source, text, problem, retried = "lm", "", "", False
        asked = rationale_key(extractor, lm, question, answers)
        with usage_of_block() as used:
            try:
                begun = (first or {}).get(asked)
                text = begun or _sample(extractor, question, answers, 0, refusals, used)
                problem = problem_of(text, question, answers) if problem_of else ""
                if problem:
                    if begun is None and text:
                        half: dict[str, Any] = {"key": asked, "problem": problem, **used.tokens}
                        on_first(RationaleRecord(key, text, **half))
                    retried = True
                    second = _sample(extractor, question, answers, 1, refusals, used)
                    second_problem = problem_of(second, question, answers) if problem_of else ""
                    if not second_problem:
                        text, problem = second, ""
            except dspy.LMInvalidRequestError as error:
                refusals.take(error)
                source = "refused"  # this question; the others may well be answered
            except StopSpending:
                if not text:
                    raise
                retried = False  # the first sample is bought and kept; the next question's call ends the run
        return RationaleRecord(
            id=key,
            rationale=text,
            source=source,
            key=asked,
            cached=source == "lm" and not used.calls,
            problem=problem,
            retried=retried,
            **used.tokens,
        )

    def hand_on(_: Question, record: RationaleRecord) -> None:
        if (record.source == "refused" or not record.rationale) and refusals.in_doubt:
            doubtful.append(record)  # a wrong key or setting refuses every question, and must cost none its rationale
        else:
            on_record(record)

    ask_each(
        lm,
        questions,
        ask,
        hand_on,
        title="rationales",
        unit="question",
        kept="Rationales written before are kept; compile again with the same run_dir to go on from there.",
        num_threads=num_threads,
        show_progress=show_progress,
    )
    for record in doubtful:
        on_record(record)


def _sample(
    extractor: RationaleExtractor,
    question: str,
    answers: Sequence[str],
    sample: int,
    refusals: Refusals,
    used: UsageOfBlock,
) -> str:
    """One sample; empty where nothing came that can be used."""
    written = extractor(question=question, answers=answers, sample=sample)
    text = str(written.rationale or "")
    if text:
        refusals.answered()
    elif sample == 0:
        hint = _TOO_LITTLE_ROOM if used.tokens["completion_tokens"] >= _THOUGHTS else ""
        refusals.unreadable(written.get("unreadable") or "an empty reply", written.get("tries") or 1, hint)
    return text


def _all_empty(counts: RationaleCounts, tokens: int) -> str:
    """What to say where no question has a rationale, although an LM was asked."""
    reasons = [f"{counts.empty} empty or refused"] if counts.empty else []
    reasons += [f"{count}: {reason}" for reason, count in counts.useless.items()]
    return (
        f"None of the {counts.written + counts.reused} rationales can be used ({', '.join(reasons)}): every question "
        f"is guided by its answer alone.{_TOO_LITTLE_ROOM if tokens >= _THOUGHTS else ''}"
    )


@dataclass(frozen=True, slots=True)
class RationaleCounts:
    """Where a run's rationales came from.

    Attributes:
        given: By the caller.
        reused: From the run folder.
        written: Asked of the LM in this run.
        cached: Of the written ones, answered by DSPy's response cache.
        refused: Of the written ones, refused by the provider.
        empty: Nothing came back: the question is guided by its answer alone.
        retried: Of the written ones, asked a second time because the first sample was no use.
        useless: No use as a guide after that, by reason: their question is guided by its answer alone, too.
    """

    given: int = 0
    reused: int = 0
    written: int = 0
    cached: int = 0
    refused: int = 0
    empty: int = 0
    retried: int = 0
    useless: dict[str, int] = field(default_factory=dict)


def fitting_records(
    questions: Sequence[Question], run: Run, *, lm: dspy.LM, extractor: RationaleExtractor
) -> dict[str, dict[str, Any]]:
    """The records of the run folder that this LM, asked in this way, need not write again; by question id.

    An empty one counts only where two starts came to nothing: the first may have met a server's fault.
    """
    asked = {key: (question, answers) for key, question, answers in questions}
    keys: dict[str, str] = {}  # of those that have a record
    kept: dict[str, dict[str, Any]] = {}
    empty: Counter[str] = Counter()
    with dspy.context(lm=lm):
        # The last of each question counts; other keys' texts are not held.
        for one in run.records("rationales", reader_of(RationaleLine)):
            key = one["id"]
            if key in asked:
                wanted = keys.get(key) or keys.setdefault(key, rationale_key(extractor, lm, *asked[key]))
                kept[key] = one if one.get("key") == wanted else {}
                empty[key] += bool(kept[key]) and not one.get("rationale") and one.get("source") == "lm"
    return {
        key: record
        for key, record in kept.items()
        if record and (record.get("rationale") or not 0 < empty[key] < _EMPTY_TRIES)
    }


def explain(
    questions: Sequence[Question],
    run: Run,
    *,
    lm: dspy.LM | None,
    extractor: RationaleExtractor,
    given: Mapping[str, str],
    encoder: TextEncoder | None = None,
    check: bool = True,
    num_threads: int = 1,
    show_progress: bool = True,
) -> tuple[dict[str, str], RationaleCounts]:
    """Give every question its rationale: the caller's, one that the run folder keeps, or a new one from the LM.

    A rationale that is no use as a guide (see ``rationale_problem``) becomes an empty one: such a question is guided by
    ``question. answers``.

    Args:
        questions: (id, question, answers) of each.
        run: Where records are kept; new ones are added the moment they are there, and none is ever taken away.
        lm: Who is asked; None asks nobody.
        extractor: Who asks.
        given: Rationales by question id; blank ones count as missing. Those of other questions are not read.
        encoder: Whose window a guide must fit; None has no limit.
        check: Leave out rationales that are no use; False takes all as they are, as the paper does.
        num_threads: Calls in flight at the same time.
        show_progress: Show a progress bar.

    Returns:
        The rationale of each question, by id; empty where there is none.

    Raises:
        LanguageModelError: If the LM fails; what it had written is kept.
        BudgetError: If a limit is reached; what was written is kept.
    """

    def problem_of(text: str, question: str, answers: Sequence[str]) -> str:
        window = encoder.window if encoder else None
        tokens = encoder.count_tokens(fitting_guide(encoder, question, answers, text)) if encoder and text else 0
        return rationale_problem(text, answers, tokens=tokens, window=window)

    found = {key: given[key].strip() for key, _, _ in questions if given.get(key, "").strip()}
    lines = run.records("rationales", reader_of(RationaleLine)) if found else ()
    kept = {one["id"]: one["rationale"] for one in lines}
    for key, text in found.items():
        if kept.get(key) != text:
            run.append_record("rationales", RationaleRecord(key, text, source="given").as_dict())
    reused: dict[str, str] = {}
    records: list[RationaleRecord] = []
    if lm is not None:
        fitting = fitting_records([one for one in questions if one[0] not in found], run, lm=lm, extractor=extractor)
        # First samples that are no use, by key: where the run ended between the two, only the second is asked for.
        samples = run.records("samples", reader_of(RationaleLine)) if check else ()
        first = {one["key"]: one["rationale"] for one in samples if one["rationale"]}
        halves = [one for one in fitting.values() if check and one.get("problem") and not one.get("retried")]
        first |= {str(one["key"]): str(one["rationale"]) for one in halves}
        reused = {
            key: str(one["rationale"]) for key, one in fitting.items() if one["key"] not in first or one.get("retried")
        }

        def keep(record: RationaleRecord) -> None:
            run.append_record("rationales", record.as_dict())
            records.append(record)

        missing = [one for one in questions if one[0] not in found and one[0] not in reused]
        write_rationales(
            extractor,
            lm,
            missing,
            on_record=keep,
            problem_of=problem_of if check else None,
            on_first=lambda record: run.append_record("samples", record.as_dict()),
            first=first,
            num_threads=num_threads,
            show_progress=show_progress,
        )
    texts = {**found, **reused, **{record.id: record.rationale for record in records}}
    known = {record.id: record.problem for record in records}  # those of this run were looked at when they came
    useless: Counter[str] = Counter()
    for key, question, answers in questions:
        if not check or not texts.get(key):
            continue
        problem = known[key] if key in known else problem_of(texts[key], question, answers)
        if problem:
            useless[problem] += 1
            texts[key] = ""
    counts = RationaleCounts(
        given=len(found),
        reused=len(reused),
        written=len(records),
        cached=sum(record.cached for record in records),
        refused=sum(record.source == "refused" for record in records),
        empty=sum(not text for text in texts.values()) - sum(useless.values()),
        retried=sum(record.retried for record in records),
        useless=dict(useless),
    )
    if lm is not None and counts.written + counts.reused > 0 and not any(texts.values()):
        logger.warning(
            _all_empty(counts, max((one.completion_tokens for one in records if not one.rationale), default=0))
        )
    return {key: texts.get(key, "") for key, _, _ in questions}, counts
