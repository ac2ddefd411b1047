"""Begin a compile: a copy of the student, its questions sorted, everything checked that can be checked for nothing."""

from __future__ import annotations

from collections.abc import Sequence

import dspy
from radio_dspy.optimizers.asked import check_asked, check_sent
from radio_dspy.optimizers.job import (
    Job,
    Settings,
    check_corpus,
    check_ids,
    encoder_of,
    listed,
    questions_of,
    searchable,
    split_questions,
    without_lost_labels,
)
from radio_dspy.optimizers.pipeline import Pipeline

from radio_dspy.core.errors import SettingsError
from radio_dspy.core.modules import check_module
from radio_dspy.datasets.examples import with_answers, with_questions
from radio_dspy.distillation.candidates.reranker_slots import slots_of
from radio_dspy.lm.budget import Ledger
from radio_dspy.lm.secrets import check_keys, lms_of
from radio_dspy.retrievers.embeddings import first_stage_of
from radio_dspy.runs.run import Run


def open_job(
    optimizer: Settings,
    student: dspy.Module,
    trainset: Sequence[dspy.Example],
    valset: Sequence[dspy.Example] | None,
    *,
    encodes: bool = True,
) -> Job:
    """Copy the student, sort the questions, and find whatever is wrong before anything is paid for.

    Args:
        optimizer: The settings.
        student: The program.
        trainset: Questions to learn from.
        valset: Questions to judge by.
        encodes: Whether questions may be encoded, to keep near-duplicates on one side of a split.
    """
    trainset, valset = listed(trainset, "trainset"), listed(valset or (), "valset")
    trainset, valset = with_questions(trainset), with_questions(valset)
    if optimizer.answer_field is not None:
        trainset = with_answers(trainset, optimizer.answer_field)
        valset = with_answers(valset, optimizer.answer_field)
    check_module(student)
    check_keys(optimizer.rationale_lm, *lms_of(student))
    program = student.deepcopy()
    slots = slots_of(program, student)
    for slot in slots:
        optimizer.training.check(slot.weights.architecture)
    first_stage = optimizer.retriever or first_stage_of(program)
    check_corpus(first_stage, optimizer.preferences)
    encoder = optimizer.encoder or encoder_of(first_stage, slots)
    if optimizer.engine is not None:
        _check_trainers(optimizer)
        encoder = optimizer.engine.encoder(encoder)
    seed = optimizer.training.seed
    train, held_out = split_questions(trainset, valset, encoder if encodes else None, seed)
    run, ledger = Run(optimizer.run_dir), Ledger(optimizer.budget)
    pipeline = Pipeline(run, optimizer.training, optimizer.gate, ledger, optimizer.engine)
    job = Job(program, slots, train, held_out, first_stage, encoder, pipeline)
    check_ids(job, optimizer.rationales.given)
    check_asked(optimizer.given_lm, optimizer.signals, questions_of(job.train), optimizer.rationales.given)
    check_sent(optimizer.rationale_lm, optimizer.signals or (), batch=optimizer.batch, engine=optimizer.engine)
    job = without_lost_labels(job)
    if optimizer.gate is not None and optimizer.gate.retrieval:  # before anything is paid for
        for slot in slots:
            searchable(job, slot, optimizer.training.tower)
    return job


def _check_trainers(optimizer: Settings) -> None:
    """See that the processes of an engine can train.

    Raises:
        SettingsError: If not.
    """
    if optimizer.engine is None or not optimizer.engine.trainers:
        return
    optimizer.training.check_portable()
    if optimizer.training.launcher:
        raise SettingsError("Both launcher= and the engine's trainers= say where to train; give one of them.")
    if optimizer.run_dir is None:
        raise SettingsError("An engine's trainers= keep checkpoints where all machines see them: give run_dir=.")
