"""One compile of RADIO: what it works on, and what is looked up on the way."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import dspy

from radio_dspy.datasets import answer_texts, check_labels
from radio_dspy.distillation.observation import Observed, Reached
from radio_dspy.distillation.preferences import QuestionGroup, question_id
from radio_dspy.distillation.rationales import Question
from radio_dspy.distillation.seats import Seat
from radio_dspy.distillation.settings import Tower
from radio_dspy.encoders import TextEncoder
from radio_dspy.errors import DataError, SettingsError
from radio_dspy.passages import RankRequest, checked_text
from radio_dspy.retrievers.aligned import same_passage_side
from radio_dspy.retrievers.base import Retriever
from radio_dspy.retrievers.faiss import FaissRetriever
from radio_dspy.runs import Run
from radio_dspy.spending import Ledger

if TYPE_CHECKING:
    from radio_dspy.distillation.alignment import Alignment
    from radio_dspy.rerankers.scorers import PassageVectors


class Clock:
    """Adds up wall-clock seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Add the block's seconds to a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = round(self.seconds.get(stage, 0.0) + time.perf_counter() - started, 3)


logger = logging.getLogger(__name__)

_CURVE_POINTS = 500  # of a training in the report


@dataclass(frozen=True)
class Job:
    """One compile: the copy of the student, its questions, and where records go."""

    program: dspy.Module
    seats: list[Seat]
    train: list[dspy.Example]
    held_out: list[dspy.Example]
    first_stage: Retriever | None
    encoder: TextEncoder
    run: Run
    clock: Clock
    ledger: Ledger

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage, book its LM calls, and note both in the run's log."""
        started = time.perf_counter()
        with self.clock(name), self.ledger.stage(name) as spent:
            calls = spent.calls
            try:
                yield
            finally:
                with contextlib.suppress(OSError):  # a full disk must not hide what went wrong in the stage
                    seconds = round(time.perf_counter() - started, 3)
                    self.run.log("stage", stage=name, seconds=seconds, calls=spent.calls - calls)


def listed(examples: Any, name: str) -> list[Any]:
    """A ``trainset`` or ``valset`` as a list, for what can be gone through only once.

    Raises:
        DataError: If it is nothing of the kind.
    """
    if isinstance(examples, str | bytes | Mapping) or not isinstance(examples, Iterable):
        raise DataError(f"{name} must be a list of dspy.Example, got {type(examples).__name__}.")
    return list(examples)


def questions_of(examples: Sequence[dspy.Example]) -> list[Question]:
    """Each distinct question that has an answer."""
    found = {question_id(one): (question_id(one), one.question, answer_texts(one)) for one in examples}
    return [one for one in found.values() if one[2]]


def explained(requests: Sequence[RankRequest], seen: Observed, texts: Mapping[str, str]) -> list[RankRequest]:
    """The requests with the rationale of their question."""
    return [replace(one, rationale=texts.get(seen.question_of[one.id], "")) for one in requests]


def skipped(job: Job, reached: Reached, reasons: Mapping[str, int]) -> dict[str, int]:
    """How many training questions were not used, by reason."""
    found = dict(reasons)
    if repeated := len(job.train) - len({question_id(one) for one in job.train}):
        found["repeated"] = repeated
    if reached.failed:
        found["failed"] = reached.failed
    return found


def told(seat: Seat, groups: int, left_out: Mapping[str, int], done: Alignment) -> dict[str, Any]:
    """What the report says of one seat."""
    losses = [loss for loss in done.training.losses if math.isfinite(loss)]  # others have no place in JSON
    return {
        "reranker": seat.name,
        "groups": groups,
        "left_out": dict(left_out),
        "training": {
            "architecture": seat.weights.architecture,
            "base": seat.weights.base,
            "base_fingerprint": seat.weights.fingerprint,
            "updates": done.training.updates,
            "first_loss": losses[0] if losses else None,
            "last_loss": losses[-1] if losses else None,
            "losses": _curve(done.training.losses, done.training.runs),
            "runs": done.training.runs,
            "stopped": done.training.stopped,
        },
        "gate": done.decision.as_dict() if done.decision else None,
    }


def _curve(losses: Sequence[float], runs: int) -> list[float | None]:
    """The losses, of long trainings the means of as many updates each; None where one is not a number."""
    every = -(-len(losses) // (_CURVE_POINTS * runs)) or 1
    length = -(-len(losses) // runs) or 1
    means = [sum(part) / len(part) for one in _parts(losses, length) for part in _parts(one, every)]
    return [mean if math.isfinite(mean) else None for mean in means]


def _parts(values: Sequence[float], size: int) -> list[Sequence[float]]:
    return [values[start : start + size] for start in range(0, len(values), size)]


def index_vectors(job: Job, seat: Seat, groups: Sequence[QuestionGroup]) -> PassageVectors | None:
    """The index's own vectors, where it was built by the encoder whose query side is trained."""
    from radio_dspy.rerankers.scorers import PassageVectors

    index = job.first_stage
    if not isinstance(index, FaissRetriever) or not same_passage_side(seat.weights, index.encoder):
        return None
    known = {passage.id: passage.contents for group in groups for passage in (*group.request.candidates, *group.random)}
    if any(key not in index for key in known):
        return None
    return PassageVectors(list(known.values()), index.vectors(list(known)))


def searchable(job: Job, seat: Seat, tower: Tower) -> FaissRetriever:
    """The index on which a trained query encoder is judged as a first stage.

    Raises:
        SettingsError: If what is trained does not fit an index.
    """
    index = job.first_stage
    if tower != "query" or not isinstance(index, FaissRetriever) or not same_passage_side(seat.weights, index.encoder):
        raise SettingsError(
            "Gate(retrieval=True) judges the query encoder on the index: it needs tower='query', a FaissRetriever, and "
            "a bi-encoder Rerank that starts from the index's own local encoder."
        )
    return index


def without_idle_seats(job: Job, reached: Reached) -> tuple[Job, Reached]:
    """Leave rerankers alone that no training question reaches: there is nothing that they could learn from."""
    busy = [number for number, seen in enumerate(reached.train) if seen.requests]
    if not busy or len(busy) == len(job.seats):
        return job, reached
    idle = [seat.name for number, seat in enumerate(job.seats) if number not in busy]
    logger.warning("No training question reaches %s: left as it was.", " and ".join(idle))
    return replace(job, seats=[job.seats[number] for number in busy]), replace(
        reached,
        train=[reached.train[number] for number in busy],
        held_out=[reached.held_out[number] for number in busy],
    )


def check_ids(job: Job, rationales: Mapping[str, str]) -> None:
    """Everything joins by id: what belongs to nothing is an error, not a loss.

    Raises:
        DataError: For a rationale of an unknown question or one that is no text, and for a label that is not in the
            corpus.
    """
    questions = {question_id(one) for one in [*job.train, *job.held_out]}
    for key, text in rationales.items():
        if key not in questions:
            raise DataError(
                f"A rationale was given for {key!r}, which is no question of trainset or valset "
                f"(their ids look like {question_id(job.train[0])!r})."
            )
        checked_text(text, f"The rationale of {key!r}")
    check_labels([*job.train, *job.held_out], getattr(job.first_stage, "passages", ()))
