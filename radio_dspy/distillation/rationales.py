"""The rationales of a run: given, kept from before, or asked of the LM and kept the moment they arrive."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import dspy
from dspy.utils.callback import BaseCallback

from radio_dspy.distillation.extractor import RationaleExtractor, rationale_key
from radio_dspy.errors import DataError, LanguageModelError
from radio_dspy.lms import usage_of
from radio_dspy.passages import RankRequest
from radio_dspy.runs import Run

_HOPELESS_AFTER = 3  # questions refused in a row from the start: then it is not the questions


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
    """

    id: str
    rationale: str
    source: str = "lm"
    key: str = ""
    cached: bool = False
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def as_dict(self) -> dict[str, Any]:
        """The record as JSON types."""
        return asdict(self)


def write_rationales(
    extractor: RationaleExtractor,
    lm: dspy.LM,
    questions: Sequence[tuple[str, str, Sequence[str]]],
    *,
    on_record: Callable[[RationaleRecord], None],
    num_threads: int = 1,
    show_progress: bool = True,
) -> None:
    """Write a rationale for every question and hand each on the moment it is there.

    Args:
        extractor: Who asks.
        lm: Who is asked.
        questions: (id, question, answers) of each.
        on_record: Called once for each question, under a lock.
        num_threads: Calls in flight at the same time.
        show_progress: Show a progress bar.

    Raises:
        LanguageModelError: If the LM fails; everything handed on before that stays.
    """
    from tqdm.auto import tqdm

    lock = threading.Lock()
    failures: list[Exception] = []
    answered = threading.Event()
    refusals: list[Exception] = []
    bar = tqdm(total=len(questions), desc="rationales", unit="question", disable=not show_progress)

    def one(key: str, question: str, answers: Sequence[str]) -> None:
        if failures:  # the first failure ends the run: the calls that are still queued would fail as well
            return
        source, text = "lm", ""
        with dspy.track_usage() as tracker:
            try:
                text = extractor(question=question, answers=answers).rationale
                answered.set()
            except dspy.LMInvalidRequestError as error:
                refusals.append(error)
                if isinstance(error, dspy.LMUnsupportedModelError) or (
                    len(refusals) >= _HOPELESS_AFTER and not answered.is_set()
                ):
                    failures.append(error)
                    return
                source = "refused"  # this question; the others may well be answered
            except Exception as error:
                failures.append(error)
                return
        tokens = usage_of(tracker.get_total_tokens())
        record = RationaleRecord(
            id=key,
            rationale=text,
            source=source,
            key=rationale_key(extractor, lm, question, answers),
            cached=source == "lm" and not any(tokens.values()),
            **tokens,
        )
        with lock:
            try:
                on_record(record)
            except Exception as error:  # a full disk, for example
                failures.append(error)
            bar.update()

    # Rationales are bulk work: they belong neither into a program's trace nor into the LM's history.
    with dspy.context(lm=lm, trace=None, disable_history=True), bar, _without_truncation_warnings():
        if num_threads == 1:
            for item in questions:
                one(*item)
        else:
            run = dspy.Parallel(num_threads=num_threads, max_errors=1, disable_progress_bar=True, timeout=0)
            run([(one, item) for item in questions])
    if failures and not isinstance(failures[0], dspy.LMError):
        raise failures[0]
    if failures:
        raise LanguageModelError(
            f"{lm.model} failed ({type(failures[0]).__name__}: {failures[0]}). Rationales written before are kept; "
            "compile again with the same run_dir to go on from there."
        ) from failures[0]


@contextlib.contextmanager
def _without_truncation_warnings() -> Iterator[None]:
    """A rationale that ends at its limit is meant to: no warning for each of thousands."""

    def keep(record: logging.LogRecord) -> bool:
        return "truncated" not in record.getMessage()

    lm_logger = logging.getLogger("dspy.clients.lm")
    lm_logger.addFilter(keep)
    try:
        yield
    finally:
        lm_logger.removeFilter(keep)


@dataclass(frozen=True, slots=True)
class RationaleCounts:
    """Where a run's rationales came from.

    Attributes:
        given: By the caller.
        reused: From the run folder.
        written: Asked of the LM in this run.
        cached: Of the written ones, answered by DSPy's response cache (or by a server that reports no usage).
        refused: Of the written ones, refused by the provider.
        empty: Nothing usable came back: the question is guided by its answer alone.
        lm_calls: Calls of the LM in this run, an adapter's second tries among them.
        prompt_tokens: Sent in this run.
        completion_tokens: Received in this run.
    """

    given: int = 0
    reused: int = 0
    written: int = 0
    cached: int = 0
    refused: int = 0
    empty: int = 0
    lm_calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _CallCounter(BaseCallback):
    """Counts calls of any LM."""

    def __init__(self) -> None:
        self.calls = 0
        self._lock = threading.Lock()

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        with self._lock:
            self.calls += 1


def explain(
    requests: Sequence[RankRequest],
    run: Run,
    *,
    lm: dspy.LM | None,
    extractor: RationaleExtractor,
    given: Mapping[str, str],
    num_threads: int = 1,
    show_progress: bool = True,
) -> tuple[list[RankRequest], RationaleCounts]:
    """Give every question its rationale: the caller's, one that the run folder keeps, or a new one from the LM.

    Args:
        requests: The questions.
        run: Where records are kept; new ones are added the moment they are there, and none is ever taken away.
        lm: Who is asked; None asks nobody.
        extractor: Who asks.
        given: Rationales by question id; they are taken as they are, blank ones count as missing.
        num_threads: Calls in flight at the same time.
        show_progress: Show a progress bar.

    Raises:
        DataError: If none of the given rationales belongs to one of the questions.
        LanguageModelError: If the LM fails; what it had written is kept.
    """
    found = {one.id: given[one.id].strip() for one in requests if given.get(one.id, "").strip()}
    if given and not found:
        raise DataError(
            f"None of the {len(given)} given rationales belongs to a training question: "
            f"ids such as {next(iter(given))!r} against {requests[0].id!r}."
        )
    kept = {str(one.get("id")): one for one in run.read_records("rationales")}
    for key, text in found.items():
        if kept.get(key, {}).get("rationale") != text:
            run.append_record("rationales", RationaleRecord(key, text, source="given").as_dict())
    reused: dict[str, str] = {}
    records: list[RationaleRecord] = []
    counter = _CallCounter()
    if lm is not None:
        with dspy.context(lm=lm):
            keys = {one.id: rationale_key(extractor, lm, one.query, one.answers) for one in requests}
        for one in requests:
            if one.id not in found and kept.get(one.id, {}).get("key") == keys[one.id]:
                reused[one.id] = str(kept[one.id]["rationale"])

        def keep(record: RationaleRecord) -> None:
            run.append_record("rationales", record.as_dict())
            records.append(record)

        missing = [(one.id, one.query, one.answers) for one in requests if one.id not in found and one.id not in reused]
        with dspy.context(callbacks=[*dspy.settings.callbacks, counter]):
            write_rationales(
                extractor, lm, missing, on_record=keep, num_threads=num_threads, show_progress=show_progress
            )
    texts = {**found, **reused, **{record.id: record.rationale for record in records}}
    counts = RationaleCounts(
        given=len(found),
        reused=len(reused),
        written=len(records),
        cached=sum(record.cached for record in records),
        refused=sum(record.source == "refused" for record in records),
        empty=sum(not text for text in texts.values()),
        lm_calls=counter.calls,
        prompt_tokens=sum(record.prompt_tokens for record in records),
        completion_tokens=sum(record.completion_tokens for record in records),
    )
    return [replace(one, rationale=texts.get(one.id, "")) for one in requests], counts
