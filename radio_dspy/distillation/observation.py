"""What reaches each reranker of a program: asked of the retriever, or recorded while the program runs."""

from __future__ import annotations

import hashlib
import inspect
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dspy
from dspy.utils.callback import BaseCallback

from radio_dspy.datasets import answer_texts, relevant_of
from radio_dspy.distillation.bulk import call_each
from radio_dspy.distillation.preferences import distinct_questions, rank_requests
from radio_dspy.distillation.seats import Seat, retriever_of
from radio_dspy.errors import SettingsError
from radio_dspy.passages import Passage, RankRequest, as_passage
from radio_dspy.rerankers.rerank import Rerank
from radio_dspy.retrievers.base import Retriever

logger = logging.getLogger(__name__)

ANSWER_CANDIDATES = 20  # paper, section 3.5
PROBED = 3  # questions that tell whether a program reranks the question's own passages


@dataclass
class Observed:
    """What reached one seat.

    Attributes:
        requests: One for each call, with the id of its question, or ``ID/2`` for its second call and so on.
        question_of: The question's id for each request's id.
    """

    requests: list[RankRequest] = field(default_factory=list)
    question_of: dict[str, str] = field(default_factory=dict)

    def add(self, question: str, request: RankRequest) -> None:
        """Take in one more call."""
        self.requests.append(request)
        self.question_of[request.id] = question


class _Recorder(BaseCallback):
    """Notes every call of a ``Rerank`` while a program runs."""

    _signature = inspect.signature(Rerank.forward)

    def __init__(self) -> None:
        self.calls: list[tuple[Rerank, str, list[Any]]] = []

    def on_module_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """Called by DSPy."""
        if isinstance(instance, Rerank):
            bound = self._signature.bind(instance, *inputs.get("args", ()), **inputs.get("kwargs", {})).arguments
            self.calls.append((instance, str(bound["query"]), list(bound["passages"])))


def record(
    program: dspy.Module,
    examples: Sequence[dspy.Example],
    seats: Sequence[Seat],
    *,
    num_threads: int = 1,
    show_progress: bool = False,
) -> tuple[list[Observed], dict[str, Exception]]:
    """Run the program on examples, each question once, and note what reaches each seat.

    The first stage's scores do not reach a reranker: a candidate's retrieval score is how many stand at or below it.

    Args:
        program: The student's copy; its LM must be configured if it needs one.
        examples: The questions.
        seats: Of this very program.
        num_threads: Examples run at the same time.
        show_progress: Show a progress bar.

    Returns:
        For each seat what reached it, and the error of each question that failed (what it had reached is kept).

    Raises:
        DataError: For an example without a question, and for an id that two different questions share.
        SettingsError: If a call came from a reranker that the program does not hold.
    """
    from tqdm.auto import tqdm

    questions = distinct_questions(examples)
    bar = tqdm(total=len(questions), desc="recording", unit="question", disable=not show_progress)

    def one(example: dspy.Example) -> tuple[list[tuple[Rerank, str, list[Any]]], Exception | None]:
        recorder = _Recorder()
        error: Exception | None = None
        with dspy.context(callbacks=[*dspy.settings.callbacks, recorder], trace=None, disable_history=True):
            try:
                program(**example.inputs())
            except Exception as raised:  # the program is the user's: what it reached before still counts
                error = raised
        bar.update()
        return recorder.calls, error

    with bar:
        outcomes = call_each(one, list(questions.values()), num_threads)
    observed = [Observed() for _ in seats]
    owner = {id(rerank): i for i, seat in enumerate(seats) for rerank in seat.rerankers}
    for (key, example), (calls, _) in zip(questions.items(), outcomes, strict=True):
        counts: Counter[int] = Counter()
        for rerank, query, passages in calls:
            if id(rerank) not in owner:
                raise SettingsError(
                    "A Rerank was called that the student does not hold as an attribute: hold it as one, and use a "
                    "method of the module (not a function around it) as the tool."
                )
            seat = owner[id(rerank)]
            counts[seat] += 1
            name = key if counts[seat] == 1 else f"{key}/{counts[seat]}"
            observed[seat].add(key, _request(name, example, query, passages))
    return observed, {key: error for key, (_, error) in zip(questions, outcomes, strict=True) if error is not None}


def same_as_retrieved(observed: Sequence[Observed], direct: Mapping[str, RankRequest]) -> bool:
    """Whether all that reached the seats is each question with the passages that the retriever finds for it."""
    for seat in observed:
        for request in seat.requests:
            found = direct.get(request.id)
            ids = [passage.id for passage in request.candidates]
            if found is None or request.query != found.query:
                return False
            if ids != [passage.id for passage in found.candidates][: len(ids)]:
                return False
    return any(seat.requests for seat in observed)


def _request(name: str, example: dspy.Example, query: str, passages: Sequence[Any]) -> RankRequest:
    found: dict[str, Passage] = {}
    named = False
    for item in passages:
        passage = as_passage(item)
        if isinstance(item, Passage) or _has_id(item):
            named = True
        else:
            digest = hashlib.sha256(passage.contents.encode("utf-8", "replace")).hexdigest()
            passage = Passage(f"p-{digest[:12]}", passage.text, passage.title)
        found.setdefault(passage.id, passage)
    return RankRequest(
        id=name,
        query=query,
        candidates=tuple(found.values()),
        scores=tuple(float(len(found) - position) for position in range(len(found))),
        answers=answer_texts(example),
        # Labels name passages by id: where no passage brings one, nothing can be judged by them.
        relevant=relevant_of(example) if named else frozenset(),
    )


def _has_id(item: Any) -> bool:
    return "id" in item if isinstance(item, Mapping) else hasattr(item, "id")


@dataclass
class Reached:
    """What reached the seats of a program, on the training and on the held-out questions.

    Attributes:
        train: For each seat.
        held_out: For each seat.
        recorded: Whether it was recorded; else it was asked of the retriever.
        failed: Questions on which the program failed before it reached a reranker.
    """

    train: list[Observed]
    held_out: list[Observed]
    recorded: bool
    failed: int = 0


def observe(
    program: dspy.Module,
    seats: Sequence[Seat],
    train: Sequence[dspy.Example],
    held_out: Sequence[dspy.Example],
    *,
    retriever: Retriever | None,
    candidates: int,
    num_threads: int = 1,
    show_progress: bool = True,
) -> Reached:
    """Find the candidates of every question for every seat.

    A first look at three questions tells whether the program reranks what its own retriever finds for the question. If
    so, the retriever is asked directly: no LM is needed, and training sees ``candidates`` passages. Else the program
    runs on all questions, and each seat learns from the queries and passages that reach it.

    Args:
        program: The student's copy.
        seats: Its seats.
        train: Questions to learn from.
        held_out: Questions to judge by.
        retriever: A first stage given by the caller, which is then used for every seat; None looks at the program.
        candidates: Passages for a training question, where the retriever is asked.
        num_threads: Examples run at the same time while recording.
        show_progress: Show progress bars.

    Raises:
        SettingsError: If no question reaches a reranker.
    """
    if retriever is not None:
        served = getattr(program, "candidates", ANSWER_CANDIDATES)
        return _ask(seats, train, held_out, retriever, candidates, served)
    own = retriever_of(program)
    probe, failures = record(program, train[:PROBED], seats)
    errors = list(failures.values())
    if not any(seat.requests for seat in probe):
        raise SettingsError(
            "None of the first training questions reached a Rerank"
            + (f" (the program failed: {type(errors[0]).__name__}: {errors[0]!s:.200}). " if errors else ". ")
            + "Configure the LM that the program needs, or give RADIO(retriever=...)."
        ) from (errors[0] if errors else None)
    if errors and dspy.settings.lm is not None:
        logger.warning("The program failed after its reranker (%s: %s).", type(errors[0]).__name__, errors[0])
    if own is not None:
        served = max(len(one.candidates) for seat in probe for one in seat.requests)
        direct = {one.id: one for one in rank_requests(train[:PROBED], own, max(candidates, served))}
        if same_as_retrieved(probe, direct):
            return _ask(seats, train, held_out, own, candidates, served)
    seen, failures = record(program, train, seats, num_threads=num_threads, show_progress=show_progress)
    judged, more = record(program, held_out, seats, num_threads=num_threads, show_progress=show_progress)
    reached = {key for seat in (*seen, *judged) for key in seat.question_of.values()}
    lost = sum(key not in reached for key in failures)
    failed = failures | more
    if failed and (dspy.settings.lm is not None or failed.keys() - reached):
        logger.warning(
            "The program failed on %d questions, on %d of them before it reached a reranker; at first with: %s",
            len(failed),
            len(failed.keys() - reached),
            next(iter(failed.values())),
        )
    return Reached(seen, judged, recorded=True, failed=lost)


def _ask(
    seats: Sequence[Seat],
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
    return Reached([seen] * len(seats), [judged] * len(seats), recorded=False)
