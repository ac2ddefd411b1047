"""Run a program on every question up to its first reranker, at the price of no search and no LM."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dspy

from radio_dspy.core.rankings import Ranking
from radio_dspy.distillation.candidates.recorder import Recorder
from radio_dspy.distillation.candidates.recording import Observed, Outcome, run_once, seen_in
from radio_dspy.distillation.candidates.reranker_slots import Slot
from radio_dspy.lm.calls import call_each
from radio_dspy.retrievers.base import Retriever
from radio_dspy.retrievers.requests import distinct_questions


def first_look(
    program: dspy.Module, examples: Sequence[dspy.Example], slots: Sequence[Slot], *, num_threads: int = 1
) -> tuple[list[Observed], bool]:
    """What the first reranker of each question is given, and whether an LM would have been asked before.

    The run of a question ends before the reranker ranks, or before an LM is asked.
    """
    questions = distinct_questions(examples)
    outcomes: dict[str, Outcome] = {}
    recorders = {name: Recorder(unasked=True, first=True) for name in questions}

    def one(name: str) -> None:
        outcomes[name] = run_once(program, questions[name], slots, recorders[name])

    call_each(one, list(questions), num_threads)
    return seen_in(outcomes, examples, slots)[0], any(one.met_lm for one in recorders.values())


@contextlib.contextmanager
def answering(retriever: Retriever, known: Mapping[str, Ranking], depth: int) -> Iterator[None]:
    """Let a retriever answer from what it has found already, as deep as it was asked then; all else is searched."""
    of_class: Any = retriever.search
    bound = getattr(retriever, "filter", None)

    def search(queries: Sequence[str], k: int, filter: Any = None) -> list[Ranking]:
        if not filter and k <= depth and getattr(retriever, "filter", None) == bound and known.keys() >= set(queries):
            return [known[query].top(k) for query in queries]
        given = {"filter": filter} if filter else {}
        found: list[Ranking] = of_class(queries, k, **given)
        return found

    retriever.__dict__["search"] = search
    try:
        yield
    finally:
        del retriever.__dict__["search"]
