"""Find the candidates of each reranker: ask the retriever, or record the program while it runs."""

from __future__ import annotations

import hashlib
import inspect
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dspy
from dspy.utils.callback import BaseCallback

from radio_dspy.core.errors import RadioError, SettingsError, StoreError
from radio_dspy.core.passages import Passage, RankRequest, as_passage
from radio_dspy.core.redaction import cause_of, logger_of, told
from radio_dspy.datasets.examples import answer_texts, relevant_of
from radio_dspy.distillation.candidates.reranker_slots import Slot
from radio_dspy.lm.calls import call_each
from radio_dspy.lm.secrets import lms_of
from radio_dspy.rerankers.rerank import Rerank
from radio_dspy.retrievers.base import Retriever, retriever_of
from radio_dspy.retrievers.requests import distinct_questions, question_id, rank_requests, without_question
from radio_dspy.runs.identity import run_keys
from radio_dspy.runs.records import RequestLine, reader_of
from radio_dspy.runs.run import Run

logger = logger_of(__name__)
ANSWER_CANDIDATES = 20  # paper, section 3.5
PROBED = 3  # questions that tell whether a program reranks the question's own passages


@dataclass
class Observed:
    """What reached one slot.

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
    slots: Sequence[Slot],
    *,
    num_threads: int = 1,
    show_progress: bool = False,
    run: Run | None = None,
) -> tuple[list[Observed], dict[str, Exception]]:
    """Run the program on examples, each question once, and note what reaches each slot.

    With a run, what a question reached is kept in its ``requests.jsonl`` the moment the program has ended, and the same
    program, with the same LM, is not run on the same question again.

    The first stage's scores do not reach a reranker: a candidate's retrieval score is how many stand at or below it.

    Args:
        program: The student's copy; its LM must be configured if it needs one.
        examples: The questions.
        slots: Of this very program.
        num_threads: Examples run at the same time.
        show_progress: Show a progress bar.
        run: Where to keep it; None keeps nothing.

    Returns:
        For each slot what reached it, and the error of each question that failed (what it had reached is kept).

    Raises:
        DataError: For an example without a question, and for an id that two different questions share.
        SettingsError: If a call came from a reranker that the program does not hold.
        StoreError: If the passages' store is down; what was recorded is kept.
    """
    from tqdm.auto import tqdm

    questions, lms = distinct_questions(examples), lms_of(program)
    owner = {id(rerank): i for i, slot in enumerate(slots) for rerank in slot.rerankers}
    keys = dict(zip(questions, run_keys(program, questions.values()), strict=True)) if run is not None else {}
    outcomes = _kept(run, keys, len(slots)) if run is not None else {}
    missing = [name for name in questions if name not in outcomes]
    bar = tqdm(total=len(missing), desc="recording", unit="question", disable=not show_progress)

    def one(name: str) -> None:
        recorder = _Recorder()
        error: Exception | None = None
        with dspy.context(callbacks=[*dspy.settings.callbacks, recorder], trace=None, disable_history=True):
            try:
                program(**questions[name].inputs())
            except StoreError:  # it may be back when the compile goes on
                raise
            except Exception as raised:  # the program is the user's: what it reached before still counts
                error = raised
        if any(id(rerank) not in owner for rerank, _, _ in recorder.calls):
            raise SettingsError(
                "A Rerank was called that the student does not hold as an attribute: hold it as one, and use a "
                "method of the module (not a function around it) as the tool."
            )
        calls = [_call(owner[id(rerank)], query, passages) for rerank, query, passages in recorder.calls]
        outcomes[name] = calls, error
        if run is not None and not isinstance(error, dspy.LMError):  # an LM that is away may be there next time
            said = told(error, *lms) if error else ""
            run.append_record("requests", _as_record(name, keys[name], calls, said))
        bar.update()

    with bar:
        call_each(one, missing, num_threads)
    observed = [Observed() for _ in slots]
    for name, example in questions.items():
        counts: Counter[int] = Counter()
        for call in outcomes[name][0]:
            counts[call.slot] += 1
            number = counts[call.slot]
            observed[call.slot].add(name, _request(name if number == 1 else f"{name}/{number}", example, call))
    return observed, {name: error for name in questions if (error := outcomes[name][1]) is not None}


@dataclass(frozen=True, slots=True)
class _Call:
    """A call of a ``Rerank``, as it is kept.

    Attributes:
        slot: Whose, by position.
        query: What it was asked.
        passages: What it was to order, each once.
        named: Whether they brought ids of their own.
    """

    slot: int
    query: str
    passages: tuple[Passage, ...]
    named: bool


_Outcome = tuple[list[_Call], Exception | None]


def _call(slot: int, query: str, passages: Sequence[Any]) -> _Call:
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
    return _Call(slot, query, tuple(found.values()), named)


def _as_record(name: str, key: str, calls: Sequence[_Call], error: str) -> dict[str, Any]:
    rows = [
        {
            "seat": one.slot,
            "query": one.query,
            "named": one.named,
            "passages": [_row(passage) for passage in one.passages],
        }
        for one in calls
    ]
    return {"id": name, "key": key, "calls": rows, "error": error}


def _row(passage: Passage) -> list[Any]:
    row = [passage.id, passage.text, passage.title]
    return [*row, dict(passage.metadata)] if passage.metadata else row


def _kept(run: Run, keys: Mapping[str, str], slots: int) -> dict[str, _Outcome]:
    """What the run knows of these questions and slots; a passage that comes again is the same object."""
    known: dict[Passage, Passage] = {}
    found: dict[str, _Outcome] = {}
    for record in run.records("requests", reader_of(RequestLine)):
        if keys.get(record["id"]) == record["key"] and all(row["seat"] < slots for row in record["calls"]):
            calls = []
            for row in record["calls"]:
                passages = [Passage(*fields) for fields in row["passages"]]
                passages = [known.setdefault(one, one) for one in passages]
                calls.append(_Call(row["seat"], row["query"], tuple(passages), row["named"]))
            found[record["id"]] = calls, RadioError(record["error"]) if record["error"] else None
    return found


def same_as_retrieved(observed: Sequence[Observed], direct: Mapping[str, RankRequest]) -> bool:
    """Whether all that reached the slots is each question with the passages that the retriever finds for it."""
    for slot in observed:
        for request in slot.requests:
            found = direct.get(request.id)
            ids = [passage.id for passage in request.candidates]
            if found is None or request.query != found.query:
                return False
            if ids != [passage.id for passage in found.candidates][: len(ids)]:
                return False
    return any(slot.requests for slot in observed)


def _request(name: str, example: dspy.Example, call: _Call) -> RankRequest:
    request = RankRequest(
        id=name,
        query=call.query,
        candidates=call.passages,
        scores=tuple(float(len(call.passages) - position) for position in range(len(call.passages))),
        answers=answer_texts(example),
        # Labels name passages by id: where no passage brings one, nothing can be judged by them.
        relevant=relevant_of(example) if call.named else frozenset(),
    )
    return without_question(request, question_id(example), [example.question, call.query])


def _has_id(item: Any) -> bool:
    return "id" in item if isinstance(item, Mapping) else hasattr(item, "id")


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
    so, the retriever is asked directly: no LM is needed, and training sees ``candidates`` passages. Else the program
    runs on all questions, and each slot learns from the queries and passages that reach it.

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
        SettingsError: If no question reaches a reranker.
    """
    if retriever is not None:
        served = getattr(program, "candidates", ANSWER_CANDIDATES)
        return _ask(slots, train, held_out, retriever, candidates, served)
    own = retriever_of(program)
    probe, failures = record(program, train[:PROBED], slots, run=run)
    errors, lms = list(failures.values()), lms_of(program)
    if not any(slot.requests for slot in probe):
        raise SettingsError(
            "None of the first training questions reached a Rerank"
            + (f" (the program failed: {told(errors[0], *lms):.200}). " if errors else ". ")
            + "Configure the LM that the program needs, or give RADIO(retriever=...)."
        ) from (cause_of(errors[0], *lms) if errors else None)
    if errors and lms:  # without an LM a program is expected to fail after its reranker
        logger.warning("The program failed after its reranker (%s).", told(errors[0], *lms))
    if own is not None:
        served = max(len(one.candidates) + len(one.copies) for slot in probe for one in slot.requests)
        direct = {one.id: one for one in rank_requests(train[:PROBED], own, max(candidates, served), tell=False)}
        if same_as_retrieved(probe, direct):
            return _ask(slots, train, held_out, own, candidates, served)
    seen, failures = record(program, train, slots, num_threads=num_threads, show_progress=show_progress, run=run)
    judged, more = record(program, held_out, slots, num_threads=num_threads, show_progress=show_progress, run=run)
    reached = {key for slot in (*seen, *judged) for key in slot.question_of.values()}
    lost = sum(key not in reached for key in failures)
    failed = failures | more
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
