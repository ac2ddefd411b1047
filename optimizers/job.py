"""The student, the questions and the first stage of one compile of RADIO."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, Protocol

import dspy
from radio_dspy.optimizers.pipeline import Pipeline

from radio_dspy.core.errors import DataError, SettingsError
from radio_dspy.core.passages import NULL_PASSAGE, content_id
from radio_dspy.core.rankings import RankRequest
from radio_dspy.core.redaction import logger_of
from radio_dspy.core.validation import checked_text
from radio_dspy.datasets.examples import answer_texts, relevant_of
from radio_dspy.distillation.candidates.observing import Reached
from radio_dspy.distillation.candidates.recording import Observed
from radio_dspy.distillation.candidates.reranker_slots import Slot
from radio_dspy.distillation.gate.splitting import equal_groups, question_groups, split_by_group
from radio_dspy.distillation.preferences.groups import PreferenceGroup
from radio_dspy.distillation.rationales.asking import Question
from radio_dspy.distillation.training.settings import Tower
from radio_dspy.models.encoder import TextEncoder
from radio_dspy.retrievers.aligned import query_encoder, same_passage_side
from radio_dspy.retrievers.base import Retriever
from radio_dspy.retrievers.embeddings import EmbeddingsRetriever
from radio_dspy.retrievers.requests import distinct_questions, known_labels, question_id
from radio_dspy.retrievers.vector import VectorRetriever, vector_part
from radio_dspy.runs.run import Run

if TYPE_CHECKING:
    from radio_dspy.distillation.gate.decision import Gate
    from radio_dspy.distillation.preferences.settings import PreferenceSettings
    from radio_dspy.distillation.rationales.settings import RationaleSettings
    from radio_dspy.distillation.teacher.signals import Signal
    from radio_dspy.distillation.training.settings import TrainingSettings
    from radio_dspy.lm.limits import Budget
    from radio_dspy.models.bi_encoder import PassageVectors
    from radio_dspy.models.engine import Engine


logger = logger_of(__name__)


class Settings(Protocol):
    """What the parts of ``RADIO`` read of its settings."""

    rationales: RationaleSettings
    signals: dict[Signal, float] | None
    preferences: PreferenceSettings
    training: TrainingSettings
    gate: Gate | None
    metric: Callable[..., Any] | None
    rounds: int
    retriever: Retriever | None
    encoder: TextEncoder | None
    budget: Budget
    answer_field: str | None
    run_dir: str | PathLike[str] | None
    given_lm: dspy.LM | Literal[False] | None
    batch: bool
    engine: Engine | None

    @property
    def rationale_lm(self) -> dspy.LM | None:
        """Who is asked for rationales; None where nobody is."""

    @property
    def num_threads(self) -> int:
        """LM calls in flight at the same time."""

    def judges_by_teacher(self, labels: Iterable[Collection[str]]) -> bool:
        """Whether the gate goes by the teacher."""


@dataclass(frozen=True)
class Job:
    """One compile of RADIO: the copy of the student, its questions, and the pipeline that they go through."""

    program: dspy.Module
    slots: list[Slot]
    train: list[dspy.Example]
    held_out: list[dspy.Example]
    first_stage: Retriever | None
    encoder: TextEncoder
    pipeline: Pipeline

    @property
    def run(self) -> Run:
        """Where records go."""
        return self.pipeline.run

    def stage(self, name: str) -> AbstractContextManager[None]:
        """Time a stage, book its LM calls, and note both in the run's log."""
        return self.pipeline.stage(name)


def encoder_of(first_stage: Retriever | None, slots: Sequence[Slot]) -> TextEncoder:
    """The encoder that compares passages with the guide: the first stage's, else that of a bi-encoder reranker.

    Raises:
        SettingsError: If there is neither.
    """
    store = vector_part(first_stage)
    if isinstance(own := getattr(store or first_stage, "encoder", None), TextEncoder):
        return own
    found = next((one.weights for one in slots if one.weights.architecture == "bi-encoder"), None)
    if found is None:
        raise SettingsError("Give RADIO an encoder=: the retriever has none to share, and no reranker is a bi-encoder.")
    return query_encoder(found)


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


def explained(
    requests: Sequence[RankRequest], seen: Observed, texts: Mapping[str, tuple[str, ...]]
) -> list[RankRequest]:
    """The requests with the rationales of their question."""
    found = [texts.get(seen.question_of[one.id]) or ("",) for one in requests]
    return [
        replace(one, rationale=first, more_rationales=tuple(more))
        for one, (first, *more) in zip(requests, found, strict=True)
    ]


def skipped(job: Job, reached: Reached, reasons: Mapping[str, int]) -> dict[str, int]:
    """How many training questions were not used, by reason."""
    found = dict(reasons)
    if repeated := len(job.train) - len({question_id(one) for one in job.train}):
        found["repeated"] = repeated
    if reached.failed:
        found["failed"] = reached.failed
    return found


def copies(reached: Reached) -> dict[str, int]:
    """How many questions stood in the corpus themselves, left out of their candidates; nothing where none did."""
    requests = [one for seen in (reached.train[0], reached.held_out[0]) for one in seen.requests]
    found = sum(bool(one.copies) for one in requests)
    return {"in_corpus": found} if found else {}


def stored_vectors(job: Job, slot: Slot, groups: Sequence[PreferenceGroup]) -> PassageVectors | None:
    """The store's own vectors, where they were made by the encoder whose query side is trained."""
    import numpy as np

    from radio_dspy.models.bi_encoder import PassageVectors

    store = vector_part(job.first_stage)
    if store is None or not same_passage_side(slot.weights, store.encoder):
        return None
    passages = {text: key for group in groups for key, text in zip(group.passage_ids, group.texts, strict=True)}
    null = passages.pop(NULL_PASSAGE.contents, None)
    vectors = store.vectors_of(passages)
    if null is not None:  # no store holds it
        passages[NULL_PASSAGE.contents] = null
        vectors = {**vectors, NULL_PASSAGE.contents: store.encoder.encode_passages([NULL_PASSAGE.contents])[0]}
    if len(vectors) < len(passages):  # the program changes passages, or adds some: they are encoded
        return None
    return PassageVectors(list(vectors), np.stack(list(vectors.values())))


def searchable(job: Job, slot: Slot, tower: Tower) -> VectorRetriever:
    """The first stage in whose place a trained query encoder is judged.

    Raises:
        SettingsError: If what is trained does not fit its vectors.
    """
    store = vector_part(job.first_stage)
    if tower != "query" or store is None or not same_passage_side(slot.weights, store.encoder):
        raise SettingsError(
            "Gate(retrieval=True) judges the query encoder as a first stage: it needs tower='query', a VectorRetriever "
            "such as FaissRetriever, and a bi-encoder Rerank that starts from the local encoder of its vectors."
        )
    return store


def without_idle_slots(job: Job, reached: Reached) -> tuple[Job, Reached]:
    """Leave rerankers alone that no training question reaches: there is nothing that they could learn from."""
    busy = [number for number, seen in enumerate(reached.train) if seen.requests]
    if not busy or len(busy) == len(job.slots):
        return job, reached
    idle = [slot.name for number, slot in enumerate(job.slots) if number not in busy]
    logger.warning("No training question reaches %s: left as it was.", " and ".join(idle))
    return replace(job, slots=[job.slots[number] for number in busy]), replace(
        reached,
        train=[reached.train[number] for number in busy],
        held_out=[reached.held_out[number] for number in busy],
    )


def check_ids(job: Job, rationales: Mapping[str, str]) -> None:
    """Everything joins by id: what belongs to nothing is an error, not a loss.

    Raises:
        DataError: For a rationale of an unknown question or one that is no text.
    """
    questions = {question_id(one) for one in [*job.train, *job.held_out]}
    for key, text in rationales.items():
        if key not in questions:
            raise DataError(
                f"A rationale was given for {key!r}, which is no question of trainset or valset "
                f"(their ids look like {question_id(job.train[0])!r})."
            )
        checked_text(text, f"The rationale of {key!r}")


def without_lost_labels(job: Job) -> Job:
    """The job without labels whose passage is not in the corpus; see ``check_labels``."""
    found = [*job.train, *job.held_out]
    if isinstance(job.first_stage, EmbeddingsRetriever):
        found = [_with_ids(one, job.first_stage) for one in found]
    found = known_labels(found, job.first_stage)
    return replace(job, train=found[: len(job.train)], held_out=found[len(job.train) :])


def _with_ids(example: dspy.Example, corpus: EmbeddingsRetriever) -> dspy.Example:
    """The example whose labels name passages by the ids made from their texts; other labels name nothing there."""
    labels = relevant_of(example)
    ids = [key for one in sorted(labels) for key in (one, content_id(one)) if key in corpus]
    return example.copy(relevant=ids) if labels else example


def check_corpus(first_stage: Retriever | None, settings: PreferenceSettings) -> None:
    """Refuse what cannot be drawn, before anything is paid for.

    Raises:
        SettingsError: If random negatives are asked for, and the first stage does not hold its corpus in memory.
    """
    if settings.random_negatives and not getattr(first_stage, "passages", ()):
        raise SettingsError(
            "random_negatives needs the whole corpus at hand: a FaissRetriever has it, a store that is only asked does "
            "not. Give RADIO(retriever=...) one that has `passages`, or leave random_negatives at 0."
        )


def split_questions(
    trainset: Sequence[dspy.Example], valset: Sequence[dspy.Example] | None, encoder: TextEncoder | None, seed: int
) -> tuple[list[dspy.Example], list[dspy.Example]]:
    """The questions to learn from and to judge by; without a valset a part of the trainset is kept for it."""
    if not trainset:
        raise DataError("trainset is empty; give questions with their answers.")
    for examples in (trainset, valset or ()):
        distinct_questions(examples)  # raises for what is no question
    if valset:
        shared = {one.get("question") for one in trainset} & {one.get("question") for one in valset}
        if shared:
            logger.warning("%d questions are in trainset and valset: the report will flatter.", len(shared))
        return list(trainset), list(valset)
    if len(trainset) < 2:
        raise DataError("A trainset of one question leaves nothing to judge by; give a valset or more questions.")
    texts = [one.question for one in trainset]
    groups = question_groups(texts, encoder) if encoder else equal_groups(texts)
    return split_by_group(trainset, groups, seed)
