"""Rationale extraction: why is the answer right? (paper, section 3.2)."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import dspy
from dspy.utils.exceptions import AdapterParseError

from radio_dspy.errors import LanguageModelError
from radio_dspy.lms import usage_of
from radio_dspy.passages import RankRequest
from radio_dspy.runs import Run
from radio_dspy.signatures import ExtractRationale

PAPER_TEMPERATURE = 0.2  # paper, section 4.1 (gpt-4o-mini)
PAPER_MAX_TOKENS = 1000


class RationaleExtractor(dspy.Module):
    """Asks an LM why the gold answer holds. It sees the question and the answers, and no passage.

    Args:
        temperature: Sampling temperature; None keeps the LM's own.
        max_tokens: Longest rationale; None keeps the LM's own where it has one, else the paper's 1,000.

    Example:
        >>> from dspy.utils import DummyLM
        >>> with dspy.context(lm=DummyLM([{"rationale": "Vapour takes heat along."}])):
        ...     RationaleExtractor()(question="Why is the jug cold?", answers=["evaporation"]).rationale
        'Vapour takes heat along.'
    """

    def __init__(self, *, temperature: float | None = PAPER_TEMPERATURE, max_tokens: int | None = None) -> None:
        super().__init__()
        self.temperature = temperature
        self.max_tokens = max_tokens
        self.extract = dspy.Predict(ExtractRationale)

    def _config(self) -> dict[str, Any]:
        config: dict[str, Any] = {} if self.temperature is None else {"temperature": self.temperature}
        lm = self.extract.lm or dspy.settings.lm
        own_limit = lm is not None and (lm.kwargs.get("max_tokens") or lm.kwargs.get("max_completion_tokens"))
        if self.max_tokens is not None or not own_limit:
            config["max_tokens"] = self.max_tokens or PAPER_MAX_TOKENS
        return config

    def forward(self, question: str, answers: Sequence[str]) -> dspy.Prediction:
        """Write one rationale.

        Returns:
            A prediction with ``rationale``, stripped; empty where the LM gave nothing that can be used.

        Raises:
            dspy.LMError: If the LM cannot be reached or refuses.
        """
        try:
            written = self.extract(question=question, answers=list(answers), config=self._config())
        except AdapterParseError:
            return dspy.Prediction(rationale="")
        return dspy.Prediction(rationale=str(written.rationale or "").strip())

    async def aforward(self, question: str, answers: Sequence[str]) -> dspy.Prediction:
        """Write one rationale asynchronously; see ``forward``."""
        try:
            written = await self.extract.acall(question=question, answers=list(answers), config=self._config())
        except AdapterParseError:
            return dspy.Prediction(rationale="")
        return dspy.Prediction(rationale=str(written.rationale or "").strip())


@dataclass(frozen=True, slots=True)
class RationaleRecord:
    """A rationale as it is kept on disk.

    Attributes:
        id: The question's id.
        rationale: The text; empty where nothing usable came back.
        key: A hash of everything that decided the text: LM, its settings, instruction, question, answers.
        cached: Whether DSPy's response cache answered.
        prompt_tokens: Tokens sent; 0 for a cached answer.
        completion_tokens: Tokens received; 0 for a cached answer.
    """

    id: str
    rationale: str
    key: str = ""
    cached: bool = False
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def as_dict(self) -> dict[str, Any]:
        """The record as JSON types."""
        return asdict(self)


def rationale_key(extractor: RationaleExtractor, lm: dspy.LM, question: str, answers: Sequence[str]) -> str:
    """What a kept rationale must match to be used again."""
    signature = extractor.extract.signature
    settings = {
        name: value for name, value in lm.kwargs.items() if isinstance(value, bool | int | float | str | type(None))
    }
    for secret in ("api_key", "api_base", "base_url"):
        settings.pop(secret, None)
    parts = [
        lm.model,
        settings,
        extractor.temperature,
        extractor.max_tokens,
        signature.instructions,
        [[name, str(field.json_schema_extra)] for name, field in signature.fields.items()],
        [dict(demo) for demo in extractor.extract.demos],
        question,
        list(answers),
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:24]


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
    failures: list[dspy.LMError] = []
    bar = tqdm(total=len(questions), desc="rationales", unit="question", disable=not show_progress)

    def one(key: str, question: str, answers: Sequence[str]) -> None:
        if failures:  # the first failure ends the run: the calls that are still queued would fail as well
            return
        with dspy.track_usage() as tracker:
            try:
                written = extractor(question=question, answers=answers)
            except dspy.LMError as error:
                failures.append(error)
                return
        tokens = usage_of(tracker.get_total_tokens())
        record = RationaleRecord(
            id=key,
            rationale=written.rationale,
            key=rationale_key(extractor, lm, question, answers),
            cached=not any(tokens.values()),
            **tokens,
        )
        with lock:
            on_record(record)
            bar.update()

    # Rationales are bulk work: they belong neither into a program's trace nor into the LM's history.
    with dspy.context(lm=lm, trace=None, disable_history=True), bar, _without_truncation_warnings():
        if num_threads == 1:
            for item in questions:
                one(*item)
        else:
            run = dspy.Parallel(num_threads=num_threads, max_errors=1, disable_progress_bar=True, timeout=0)
            run([(one, item) for item in questions])
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
        written: By the LM, in this run.
        cached: Of the written ones, answered by DSPy's response cache.
        empty: Nothing usable came back: the question is guided by its answer alone.
        prompt_tokens: Sent in this run.
        completion_tokens: Received in this run.
    """

    given: int = 0
    reused: int = 0
    written: int = 0
    cached: int = 0
    empty: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


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
        run: Where records are kept; new ones are added the moment they are there.
        lm: Who is asked; None asks nobody.
        extractor: Who asks.
        given: Rationales by question id; they are taken as they are.
        num_threads: Calls in flight at the same time.
        show_progress: Show a progress bar.

    Raises:
        LanguageModelError: If the LM fails; what it had written is kept.
    """
    found = {one.id: given[one.id].strip() for one in requests if one.id in given}
    kept: dict[str, str] = {}
    records: list[RationaleRecord] = []
    if lm is not None:
        with dspy.context(lm=lm):
            keys = {one.id: rationale_key(extractor, lm, one.query, one.answers) for one in requests}
        for record in run.read_records("rationales"):
            if keys.get(record["id"]) == record.get("key") and record["id"] not in found:
                kept[record["id"]] = record["rationale"]

        def keep(record: RationaleRecord) -> None:
            run.append_record("rationales", record.as_dict())
            records.append(record)

        missing = [(one.id, one.query, one.answers) for one in requests if one.id not in found and one.id not in kept]
        write_rationales(extractor, lm, missing, on_record=keep, num_threads=num_threads, show_progress=show_progress)
    else:
        run.write_records("rationales", [{"id": key, "rationale": text} for key, text in found.items()])
    texts = {**found, **kept, **{record.id: record.rationale for record in records}}
    counts = RationaleCounts(
        given=len(found),
        reused=len(kept),
        written=len(records),
        cached=sum(record.cached for record in records),
        empty=sum(not text for text in texts.values()),
        prompt_tokens=sum(record.prompt_tokens for record in records),
        completion_tokens=sum(record.completion_tokens for record in records),
    )
    return [replace(one, rationale=texts.get(one.id, "")) for one in requests], counts
