"""Collect the rationales of a run: given ones, kept ones, and new ones from the LM."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import dspy

from radio_dspy.core.redaction import logger_of
from radio_dspy.distillation.rationales.asking import (
    THOUGHTS,
    TOO_LITTLE_ROOM,
    Question,
    RationaleRecord,
    write_rationales,
)
from radio_dspy.distillation.rationales.checks import rationale_problem
from radio_dspy.distillation.rationales.extractor import RationaleExtractor, rationale_key
from radio_dspy.models.encoder import TextEncoder
from radio_dspy.rerankers.rationale import fitting_guide
from radio_dspy.runs.records import RationaleLine, reader_of
from radio_dspy.runs.run import Run

logger = logger_of(__name__)
_EMPTY_TRIES = 2  # starts in which a question is asked whose reply was empty: it may have been the server's fault


@dataclass(frozen=True, slots=True)
class RationaleCounts:
    """Counts of a run's rationales by their source.

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

    def plus(self, other: RationaleCounts) -> RationaleCounts:
        """The counts of both."""
        both = {name: value + getattr(other, name) for name, value in asdict(self).items() if name != "useless"}
        return RationaleCounts(**both, useless=dict(Counter(self.useless) + Counter(other.useless)))


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
    problem_of = functools.partial(_problem, encoder)
    found = _given(questions, run, given)
    reused: dict[str, str] = {}
    records: list[RationaleRecord] = []
    if lm is not None:
        asked = [one for one in questions if one[0] not in found]
        reused, first = _kept(asked, run, lm, extractor, check)
        records = write_rationales(
            extractor,
            lm,
            [one for one in asked if one[0] not in reused],
            run,
            problem_of=problem_of if check else None,
            first=first,
            num_threads=num_threads,
            show_progress=show_progress,
        )
    texts = {**found, **reused, **{record.id: record.rationale for record in records}}
    useless = _leave_out_useless(questions, texts, records, problem_of) if check else Counter[str]()
    counts = _counts(found, reused, records, texts, useless)
    if lm is not None and counts.written + counts.reused > 0 and not any(texts.values()):
        tokens = max((one.completion_tokens for one in records if not one.rationale), default=0)
        logger.warning(_all_empty(counts, tokens))
    return {key: texts.get(key, "") for key, _, _ in questions}, counts


def explain_several(
    questions: Sequence[Question], run: Run, *, extractor: RationaleExtractor, given: Mapping[str, str], **options: Any
) -> tuple[dict[str, tuple[str, ...]], RationaleCounts]:
    """As ``explain``, with as many rationales of each question as the extractor asks for; a given one is the only one.

    Returns:
        The rationales of each question that are of use, by id; and the counts of all.
    """
    first, counts = explain(questions, run, extractor=extractor, given=given, **options)
    texts: dict[str, tuple[str, ...]] = {key: (text,) for key, text in first.items()}
    if options["lm"] is not None:
        again = [one for one in questions if not given.get(one[0], "").strip()]
        for number in range(1, extractor.n):
            more, others = explain(again, run, extractor=extractor.nth(number), given={}, **options)
            counts = counts.plus(others)
            for key, text in more.items():
                texts[key] += (text,)
    return {key: tuple(filter(None, found)) for key, found in texts.items()}, counts


def _leave_out_useless(
    questions: Sequence[Question],
    texts: dict[str, str],
    records: Sequence[RationaleRecord],
    problem_of: Callable[[str, str, Sequence[str]], str],
) -> Counter[str]:
    """Empty the texts that are no use as guides; how many there were for each reason."""
    known = {record.id: record.problem for record in records}  # those of this run were looked at when they came
    useless: Counter[str] = Counter()
    for key, question, answers in questions:
        problem = texts.get(key) and (known[key] if key in known else problem_of(texts[key], question, answers))
        if problem:
            useless[problem] += 1
            texts[key] = ""
    return useless


def _problem(encoder: TextEncoder | None, text: str, question: str, answers: Sequence[str]) -> str:
    """Why a text is no use as a guide; empty where it is fine."""
    tokens = encoder.count_tokens(fitting_guide(encoder, question, answers, text)) if encoder and text else 0
    return rationale_problem(text, answers, tokens=tokens, window=encoder.window if encoder else None)


def _given(questions: Sequence[Question], run: Run, given: Mapping[str, str]) -> dict[str, str]:
    """The caller's rationales, which the run folder keeps, too."""
    found = {key: given[key].strip() for key, _, _ in questions if given.get(key, "").strip()}
    lines = run.records("rationales", reader_of(RationaleLine)) if found else ()
    kept = {one["id"]: one["rationale"] for one in lines}
    for key, text in found.items():
        if kept.get(key) != text:
            run.append_record("rationales", RationaleRecord(key, text, source="given").as_dict())
    return found


def _kept(
    questions: Sequence[Question], run: Run, lm: dspy.LM, extractor: RationaleExtractor, check: bool
) -> tuple[dict[str, str], dict[str, str]]:
    """Rationales of the run folder, by question id; and first samples of which the second is still to be asked, by key.

    The run may have ended between the two.
    """
    fitting = fitting_records(questions, run, lm=lm, extractor=extractor)
    samples = run.records("samples", reader_of(RationaleLine)) if check else ()
    first = {one["key"]: one["rationale"] for one in samples if one["rationale"]}
    halves = [one for one in fitting.values() if check and one.get("problem") and not one.get("retried")]
    first |= {str(one["key"]): str(one["rationale"]) for one in halves}
    whole = {key: one for key, one in fitting.items() if one["key"] not in first or one.get("retried")}
    return {key: str(one["rationale"]) for key, one in whole.items()}, first


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
        # The last that fits counts: a question may have several, each with its key. Other keys' texts are not held.
        for one in run.records("rationales", reader_of(RationaleLine)):
            key = one["id"]
            if key in asked:
                wanted = keys.get(key) or keys.setdefault(key, rationale_key(extractor, lm, *asked[key]))
                if one.get("key") != wanted:
                    continue
                kept[key] = one
                empty[key] += not one.get("rationale") and one.get("source") == "lm"
    return {
        key: record for key, record in kept.items() if (record.get("rationale") or not 0 < empty[key] < _EMPTY_TRIES)
    }


def _counts(
    found: Mapping[str, str],
    reused: Mapping[str, str],
    records: Sequence[RationaleRecord],
    texts: Mapping[str, str],
    useless: Counter[str],
) -> RationaleCounts:
    return RationaleCounts(
        given=len(found),
        reused=len(reused),
        written=len(records),
        cached=sum(record.cached for record in records),
        refused=sum(record.source == "refused" for record in records),
        empty=sum(not text for text in texts.values()) - sum(useless.values()),
        retried=sum(record.retried for record in records),
        useless=dict(useless),
    )


def _all_empty(counts: RationaleCounts, tokens: int) -> str:
    """The warning that no question has a rationale, although an LM was asked."""
    reasons = [f"{counts.empty} empty or refused"] if counts.empty else []
    reasons += [f"{count}: {reason}" for reason, count in counts.useless.items()]
    return (
        f"None of the {counts.written + counts.reused} rationales can be used ({', '.join(reasons)}): every question "
        f"is guided by its answer alone.{TOO_LITTLE_ROOM if tokens >= THOUGHTS else ''}"
    )
