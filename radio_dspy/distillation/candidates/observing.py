"""Find the candidates of each reranker: ask the retriever, or record the program while it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dspy

from radio_dspy.core.errors import SettingsError
from radio_dspy.core.rankings import RankRequest
from radio_dspy.core.redaction import cause_of, logger_of, told
from radio_dspy.distillation.candidates.first_look import answering, first_look
from radio_dspy.distillation.candidates.recording import Observed, look, record
from radio_dspy.distillation.candidates.reranker_slots import Slot
from radio_dspy.lm.secrets import lms_of
from radio_dspy.retrievers.base import Retriever, retriever_of
from radio_dspy.retrievers.embeddings import first_stage_of
from radio_dspy.retrievers.requests import rank_requests
from radio_dspy.runs.run import Run

logger = logger_of(__name__)
ANSWER_CANDIDATES = 20  # paper, section 3.5
PROBED = 3  # questions that tell whether a program reranks the question's own passages


@dataclass
class Reached:
    """What reached the slots of a program, on the training and on the held-out questions.

    Attributes:
        train: For each slot.
        held_out: For each slot.
        recorded: Whether it was recorded; else it was asked of the retriever.
        failed: Questions on which the program failed before it reached a reranker.
    """

    train: list[Observed]
    held_out: list[Observed]
    recorded: bool
    failed: int = 0


def observe(
    program: dspy.Module,
    slots: Sequence[Slot],
    train: Sequence[dspy.Example],
    held_out: Sequence[dspy.Example],
    *,
    retriever: Retriever | None,
    candidates: int,
    num_threads: int = 1,
    show_progress: bool = True,
    run: Run | None = None,
) -> Reached:
    """Find the candidates of every question for every slot.

    A first look at three questions tells whether the program reranks what its own retriever finds for the question. If
    so, the retriever is asked directly, and training sees ``candidates`` passages; a program of the user's then runs on
    every question up to its reranker, with these passages at hand, which shows a filter that only some questions have,
    and asks no LM. Else the program runs on all questions, each until its last reranker was reached, and each slot
    learns from the queries and passages that reach it: LMs are asked only where their replies lead to a reranker.

    Args:
        program: The student's copy.
        slots: Its slots.
        train: Questions to learn from.
        held_out: Questions to judge by.
        retriever: A first stage given by the caller, which is then used for every slot; None looks at the program.
        candidates: Passages for a training question, where the retriever is asked.
        num_threads: Examples run at the same time while recording.
        show_progress: Show progress bars.
        run: Where what was recorded is kept; see ``record``.

    Raises:
        SettingsError: If no question reaches a reranker, or the program has no ``forward``.
    """
    if retriever is not None:
        served = getattr(program, "candidates", ANSWER_CANDIDATES)
        return _ask(slots, train, held_out, retriever, candidates, served)
    if not hasattr(program, "forward") and hasattr(program, "aforward"):
        raise SettingsError(
            f"{type(program).__name__} has aforward alone; give dspy.syncify(program), as dspy.Evaluate and DSPy's "
            "optimizers need it."
        )
    own = first_stage_of(program)
    probe, failures, needed = look(program, train[:PROBED], slots, run=run)
    errors, lms = list(failures.values()), lms_of(program)
    if not any(slot.requests for slot in probe):
        seen = (
            f" (the program failed: {told(errors[0], *lms):.200}). Configure the LM that the program needs"
            if errors
            else ". Call it as self.rerank(...), in the program's own thread or in dspy.Parallel's: a call of "
            "rerank.forward, in another thread or under dspy.context(callbacks=...) is not seen"
        )
        raise SettingsError(
            f"None of the first training questions reached a Rerank{seen}, or give RADIO(retriever=...)."
        ) from (cause_of(errors[0], *lms) if errors else None)
    if errors and lms:  # without an LM a program is expected to fail after its reranker
        logger.warning("The program failed after its reranker (%s).", told(errors[0], *lms))
    if own is not None:
        served = max(len(one.candidates) + len(one.copies) for slot in probe for one in slot.requests)
        direct = {one.id: one for one in rank_requests(train[:PROBED], own, max(candidates, served), tell=False)}
        if same_as_retrieved(probe, direct):
            asked = _ask(slots, train, held_out, own, candidates, served)
            parts = [(train, asked.train[0], candidates), (held_out, asked.held_out[0], served)]
            if all(_alike(program, slots, own, *part, num_threads) for part in parts):
                return asked
            logger.info("The program does not rerank what its retriever finds on every question: all are recorded.")
    return _record(
        program, slots, train, held_out, num_threads=num_threads, show_progress=show_progress, run=run, needed=needed
    )


def _record(
    program: dspy.Module,
    slots: Sequence[Slot],
    train: Sequence[dspy.Example],
    held_out: Sequence[dspy.Example],
    **options: Any,
) -> Reached:
    """Run the program on all questions; see ``record`` for the options."""
    seen, failures = record(program, train, slots, **options)
    judged, more = record(program, held_out, slots, **options)
    reached = {key for slot in (*seen, *judged) for key in slot.question_of.values()}
    lost = sum(key not in reached for key in failures)
    failed = failures | more
    lms = lms_of(program)
    if failed and (lms or failed.keys() - reached):
        logger.warning(
            "The program failed on %d questions, on %d of them before it reached a reranker; at first with: %s",
            len(failed),
            len(failed.keys() - reached),
            told(next(iter(failed.values())), *lms),
        )
    return Reached(seen, judged, recorded=True, failed=lost)


def _ask(
    slots: Sequence[Slot],
    train: Sequence[dspy.Example],
    held_out: Sequence[dspy.Example],
    retriever: Retriever,
    candidates: int,
    served: int,
) -> Reached:
    def observed(examples: Sequence[dspy.Example], depth: int) -> Observed:
        requests = rank_requests(examples, retriever, depth)
        return Observed(requests, {one.id: one.id for one in requests})

    seen, judged = observed(train, candidates), observed(held_out, served)
    return Reached([seen] * len(slots), [judged] * len(slots), recorded=False)


def _alike(
    program: dspy.Module,
    slots: Sequence[Slot],
    retriever: Retriever,
    examples: Sequence[dspy.Example],
    asked: Observed,
    depth: int,
    num_threads: int,
) -> bool:
    """Whether on every question the first reranker is given what the retriever finds for it; no LM is asked."""
    if type(program).__module__.startswith("radio_dspy.") or not isinstance(retriever_of(program), Retriever):
        return True  # our programs filter nothing, and what DSPy's retrievers search has no metadata
    direct = {one.id: one for one in asked.requests}
    known = {one.query: one.ranking() for one in asked.requests}
    with answering(retriever, known, depth):
        seen, met_lm = first_look(program, examples, slots, num_threads=num_threads)
    return not met_lm and same_as_retrieved(seen, direct, depth)


def same_as_retrieved(
    observed: Sequence[Observed], direct: Mapping[str, RankRequest], depth: int | None = None
) -> bool:
    """Whether all that reached the slots is each question with the passages that the retriever finds for it.

    Args:
        observed: What reached each slot.
        direct: What the retriever finds for each question.
        depth: How many passages it was asked for; None is at least as many as reached a slot.
    """
    if any(slot.filtered for slot in observed):  # by what, only the program knows
        return False
    for slot in observed:
        for request in slot.requests:
            found = direct.get(request.id)
            ids = [passage.id for passage in request.candidates][:depth]
            if found is None or request.query != found.query:
                return False
            if ids != [passage.id for passage in found.candidates][: len(ids)]:
                return False
    return any(slot.requests for slot in observed)
