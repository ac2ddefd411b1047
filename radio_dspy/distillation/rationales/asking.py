"""Ask the LM for rationales, and keep each the moment it is there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import dspy

from radio_dspy.distillation.rationales.extractor import RationaleExtractor, rationale_key
from radio_dspy.lm.budget import StopSpending, UsageOfBlock, usage_of_block
from radio_dspy.lm.calls import Refusals, ask_each
from radio_dspy.runs.run import Run

Question = tuple[str, str, Sequence[str]]  # id, question, answers
ProblemOf = Callable[[str, str, Sequence[str]], str]
THOUGHTS = 50  # tokens that an empty reply took, from which they are taken for thoughts
TOO_LITTLE_ROOM = (
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
    run: Run,
    *,
    problem_of: ProblemOf | None = None,
    first: Mapping[str, str] | None = None,
    num_threads: int = 1,
    show_progress: bool = True,
) -> list[RationaleRecord]:
    """Write a rationale for every question; where the first sample is no use, one more is asked for.

    Args:
        extractor: Who asks.
        lm: Who is asked.
        questions: (id, question, answers) of each.
        run: Keeps each rationale in ``rationales.jsonl``, and in ``samples.jsonl`` each first sample that is no use.
        problem_of: Says of (rationale, question, answers) why it is no use, empty where it is fine; None never asks.
        first: Such first samples from before, by their key: only the second is asked for.
        num_threads: Calls in flight at the same time.
        show_progress: Show a progress bar.

    Raises:
        LanguageModelError: If the LM fails; everything kept before that stays.
    """
    asking = _Asking(extractor, lm, run, problem_of or (lambda text, question, answers: ""), dict(first or {}))
    ask_each(
        lm,
        questions,
        asking.ask,
        asking.take,
        title="rationales",
        unit="question",
        kept="Rationales written before are kept; compile again with the same run_dir to go on from there.",
        num_threads=num_threads,
        show_progress=show_progress,
    )
    for record in asking.doubtful:
        asking.keep(record)
    return asking.records


@dataclass
class _Asking:
    """State shared by the threads that ask for rationales."""

    extractor: RationaleExtractor
    lm: dspy.LM
    run: Run
    problem_of: ProblemOf
    first: dict[str, str]
    refusals: Refusals = field(default_factory=Refusals)
    doubtful: list[RationaleRecord] = field(default_factory=list)
    records: list[RationaleRecord] = field(default_factory=list)

    def ask(self, item: Question) -> RationaleRecord:
        """Ask for the rationale of one question."""
        key, question, answers = item
        source, text, problem, retried = "lm", "", "", False
        asked = rationale_key(self.extractor, self.lm, question, answers)
        with usage_of_block() as used:
            try:
                begun = self.first.get(asked)
                text = begun or self._sample(question, answers, 0, used)
                problem = self.problem_of(text, question, answers)
                if problem:
                    if begun is None and text:  # paid for, whatever becomes of the second
                        half = RationaleRecord(
                            key, text, source, asked, False, problem=problem, retried=False, **used.tokens
                        )
                        self.run.append_record("samples", half.as_dict())
                        self.first[asked] = text  # in batches a question is put again for its second sample
                    retried = True
                    second = self._sample(question, answers, 1, used)
                    if not self.problem_of(second, question, answers):
                        text, problem = second, ""
            except dspy.LMInvalidRequestError as error:
                self.refusals.take(error)
                source = "refused"  # this question; the others may well be answered
            except StopSpending:
                if not text:
                    raise
                retried = False  # the first sample is bought and kept; the next question's call ends the run
        cached = source == "lm" and not used.calls
        return RationaleRecord(key, text, source, asked, cached, problem=problem, retried=retried, **used.tokens)

    def take(self, _: Question, record: RationaleRecord) -> None:
        """Keep a record, unless every question so far was refused: a wrong key must cost none its rationale."""
        if (record.source == "refused" or not record.rationale) and self.refusals.in_doubt:
            self.doubtful.append(record)
        else:
            self.keep(record)

    def keep(self, record: RationaleRecord) -> None:
        """Write a record to the run folder."""
        self.run.append_record("rationales", record.as_dict())
        self.records.append(record)

    def _sample(self, question: str, answers: Sequence[str], sample: int, used: UsageOfBlock) -> str:
        """One sample; empty where nothing came that can be used."""
        written = self.extractor(question=question, answers=answers, sample=sample)
        text = str(written.rationale or "")
        if text:
            self.refusals.answered()
        elif sample == 0:
            hint = TOO_LITTLE_ROOM if used.tokens["completion_tokens"] >= THOUGHTS else ""
            self.refusals.unreadable(written.get("unreadable") or "an empty reply", written.get("tries") or 1, hint)
        return text
