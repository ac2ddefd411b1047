"""Record the candidates of each reranker while the program runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dspy

from radio_dspy.core.errors import DataError, RadioError, SettingsError, StoreError
from radio_dspy.core.passages import Passage, as_score, content_id, has_id, is_content_id, score_of
from radio_dspy.core.rankings import RankRequest
from radio_dspy.core.redaction import told
from radio_dspy.datasets.examples import answer_texts, grades_of, relevant_of
from radio_dspy.distillation.candidates.recorder import Recorder, RerankCall, RunEndedError, StandIn, acts
from radio_dspy.distillation.candidates.reranker_slots import Slot, mark, marked
from radio_dspy.lm.calls import call_each
from radio_dspy.lm.secrets import lms_of
from radio_dspy.retrievers.requests import distinct_questions, question_id, without_question
from radio_dspy.runs.identity import run_keys
from radio_dspy.runs.records import RequestLine, reader_of
from radio_dspy.runs.run import Run


@dataclass
class Observed:
    """What reached one slot.

    Attributes:
        requests: One for each call, with the id of its question, or ``ID/2`` for its second call and so on.
        question_of: The question's id for each request's id.
        filtered: Whether the program asked its retriever for a part of the passages only.
    """

    requests: list[RankRequest] = field(default_factory=list)
    question_of: dict[str, str] = field(default_factory=dict)
    filtered: bool = False

    def add(self, question: str, request: RankRequest) -> None:
        """Take in one more call."""
        self.requests.append(request)
        self.question_of[request.id] = question


def record(
    program: dspy.Module,
    examples: Sequence[dspy.Example],
    slots: Sequence[Slot],
    *,
    num_threads: int = 1,
    show_progress: bool = False,
    run: Run | None = None,
    needed: Collection[str] | None = None,
) -> tuple[list[Observed], dict[str, Exception]]:
    """Run the program on examples, each question once, and note what reaches each slot.

    With a run, what a question reached is kept in its ``requests.jsonl`` the moment the program has ended, and the same
    program, with the same LM, is not run on the same question again.

    A candidate's retrieval score is the one that came with it; where none came, how many stand at or below it.

    Args:
        program: The student's copy; its LM must be configured if it needs one.
        examples: The questions.
        slots: Of this very program.
        num_threads: Examples run at the same time.
        show_progress: Show a progress bar.
        run: Where to keep it; None keeps nothing.
        needed: Predictors whose replies lead to a reranker, as ``look`` finds them: once a reranker was reached, the
            run ends before any other LM call. None runs the program to its end.

    Returns:
        For each slot what reached it, and the error of each question that failed (what it had reached is kept).

    Raises:
        DataError: For an example without a question, and for an id that two different questions share.
        SettingsError: If a call came from a reranker that the program does not hold.
        StoreError: If the passages' store is down; what was recorded is kept.
    """
    outcomes = _outcomes(
        program, examples, slots, num_threads=num_threads, show_progress=show_progress, run=run, needed=needed
    )
    return seen_in(outcomes, examples, slots)


def look(
    program: dspy.Module, examples: Sequence[dspy.Example], slots: Sequence[Slot], *, run: Run | None = None
) -> tuple[list[Observed], dict[str, Exception], frozenset[str] | None]:
    """As ``record``, on a few questions; and which predictors' replies lead to a reranker.

    First the program runs with made-up replies, which costs nothing. If then every reranker is reached before a
    predictor, no LM will be asked at all. A program with tools, and one that cannot go on with such replies, runs to
    its end with its own LM.
    """
    if not lms_of(program):
        return (*record(program, examples, slots, run=run, needed=()), frozenset())
    rehearsed = None if acts(program) else _rehearse(program, examples, slots)
    if rehearsed is not None and not any(one.before for one in rehearsed.values()):
        outcomes = _outcomes(program, examples, slots, run=run, needed=(), given=rehearsed)
    else:
        outcomes = _outcomes(program, examples, slots, run=run, needed=_before(rehearsed))
        rehearsed = outcomes if rehearsed is None and all(one.whole for one in outcomes.values()) else rehearsed
    return (*seen_in(outcomes, examples, slots), _before(rehearsed))


def _before(outcomes: Mapping[str, Outcome] | None) -> frozenset[str] | None:
    """The predictors that were asked before a reranker; None where no run has shown it."""
    return None if outcomes is None else frozenset().union(*(one.before for one in outcomes.values()))


def seen_in(
    outcomes: Mapping[str, Outcome], examples: Sequence[dspy.Example], slots: Sequence[Slot]
) -> tuple[list[Observed], dict[str, Exception]]:
    """What reached each slot, and the error of each question that failed."""
    questions = distinct_questions(examples)
    filtered = any(one.filtered for one in outcomes.values())
    observed = [Observed(filtered=filtered) for _ in slots]
    for name, example in questions.items():
        counts: Counter[int] = Counter()
        for call in outcomes[name].calls:
            counts[call.slot] += 1
            number = counts[call.slot]
            observed[call.slot].add(name, _request(name if number == 1 else f"{name}/{number}", example, call))
    return observed, {name: error for name in questions if (error := outcomes[name].error) is not None}


def _outcomes(
    program: dspy.Module,
    examples: Sequence[dspy.Example],
    slots: Sequence[Slot],
    *,
    num_threads: int = 1,
    show_progress: bool = False,
    run: Run | None = None,
    needed: Collection[str] | None = None,
    given: Mapping[str, Outcome] | None = None,
) -> dict[str, Outcome]:
    """What each question came to: as the run kept it, as it was given, or else by running the program."""
    from tqdm.auto import tqdm

    questions, lms = distinct_questions(examples), lms_of(program)
    keys = dict(zip(questions, run_keys(program, questions.values()), strict=True)) if run is not None else {}
    outcomes = _kept(run, keys, len(slots)) if run is not None else {}
    missing = [name for name in questions if name not in outcomes]
    bar = tqdm(total=len(missing), desc="recording", unit="question", disable=None if show_progress else True)

    def one(name: str) -> None:
        outcome = given[name] if given else run_once(program, questions[name], slots, Recorder(needed))
        outcomes[name] = outcome
        if run is not None and not isinstance(outcome.error, dspy.LMError):  # the LM may be there next time
            said = told(outcome.error, *lms) if outcome.error else ""
            run.append_record("requests", _as_record(name, keys[name], outcome, said))
        bar.update()

    with bar:
        call_each(one, missing, num_threads)
    return outcomes


def run_once(
    program: dspy.Module, example: dspy.Example, slots: Sequence[Slot], recorder: Recorder, **settings: Any
) -> Outcome:
    """Run the program on a question until it ends or the recorder ends it."""
    mark(slots)
    error: Exception | None = None
    callbacks = [*dspy.settings.callbacks, recorder]
    try:
        inputs = example.inputs()
    except ValueError:
        raise DataError(
            f"Question {question_id(example)!r}: its example does not say what the program takes; give "
            "example.with_inputs('question')."
        ) from None
    with dspy.context(callbacks=callbacks, trace=[], disable_history=True, **settings):
        try:
            program(**inputs)
        except RunEndedError:
            pass
        except StoreError:  # it may be back when the compile goes on
            raise
        except Exception as raised:  # the program is the user's: what it reached before still counts
            error = None if recorder.stops else raised
    owners = [marked(call.rerank) for call in recorder.calls]
    if None in owners:
        raise SettingsError(
            "A Rerank was called that the student does not hold as an attribute: hold it as one, and use a "
            "method of the module (not a function around it) as the tool."
        )
    calls = [_call(owner or 0, one) for owner, one in zip(owners, recorder.calls, strict=True)]
    return Outcome(calls, error, frozenset(recorder.before), whole=not recorder.stops, filtered=recorder.filtered)


def _rehearse(
    program: dspy.Module, examples: Sequence[dspy.Example], slots: Sequence[Slot]
) -> dict[str, Outcome] | None:
    """Run the program with made-up replies; None where that does not show which rerankers it reaches."""
    found: dict[str, Outcome] = {}
    for turn, (name, example) in enumerate(distinct_questions(examples).items()):
        recorder = Recorder(unasked=True)
        found[name] = run_once(program, example, slots, recorder, adapter=StandIn(turn))
        if recorder.met_lm or not found[name].calls or (found[name].error and recorder.before):
            return None
    reached = {call.slot for one in found.values() for call in one.calls}
    return found if len(reached) == len(slots) else None


@dataclass(frozen=True, slots=True)
class _Call:
    """A call of a ``Rerank``, as it is kept.

    Attributes:
        slot: Whose, by position.
        query: What it was asked.
        passages: What it was to order, each once.
        named: Whether they brought ids of their own.
        scores: The first stage's, one for each passage; empty where none came.
    """

    slot: int
    query: str
    passages: tuple[Passage, ...]
    named: bool
    scores: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a question came to.

    Attributes:
        calls: Of rerankers.
        error: How the program failed.
        before: Predictors that it asked before a reranker.
        whole: Whether it ran to its end.
        filtered: Whether it asked its retriever for a part of the passages only.
    """

    calls: list[_Call]
    error: Exception | None = None
    before: frozenset[str] = frozenset()
    whole: bool = False
    filtered: bool = False


def _call(slot: int, call: RerankCall) -> _Call:
    found: dict[str, Passage] = {}
    scores: dict[str, float | None] = {}
    named = False
    given = list(call.scores) if call.scores is not None else [score_of(item) for item in call.given]
    if len(given) != len(call.passages):
        given = [None] * len(call.passages)
    for item, passage, score in zip(call.given, call.passages, given, strict=True):
        named = named or has_id(item)
        if found.setdefault(passage.id, passage).contents != passage.contents:
            raise DataError(
                f"{call.query!r:.80}: two passages of the id {passage.id!r} reached a Rerank, and their texts differ; "
                "give each its own id, or none."
            )
        scores.setdefault(passage.id, as_score(score))
    known = tuple(one for one in scores.values() if one is not None)
    return _Call(slot, call.query, tuple(found.values()), named, known if len(known) == len(found) else ())


def _as_record(name: str, key: str, outcome: Outcome, error: str) -> dict[str, Any]:
    rows = [
        {
            "seat": one.slot,
            "query": one.query,
            "named": one.named,
            "passages": [_row(passage) for passage in one.passages],
            **({"scores": list(one.scores)} if one.scores else {}),
        }
        for one in outcome.calls
    ]
    what: dict[str, Any] = {"filtered": True} if outcome.filtered else {}
    if outcome.whole:  # only a whole run shows what leads to what
        what["before"] = sorted(outcome.before)
    return {"id": name, "key": key, "calls": rows, "error": error, **what}


def _row(passage: Passage) -> list[Any]:
    row = [passage.id, passage.text, passage.title]
    return [*row, dict(passage.metadata)] if passage.metadata else row


def _kept(run: Run, keys: Mapping[str, str], slots: int) -> dict[str, Outcome]:
    """What the run knows of these questions and slots; a passage that comes again is the same object."""
    known: dict[Passage, Passage] = {}
    found: dict[str, Outcome] = {}
    for record in run.records("requests", reader_of(RequestLine)):
        if keys.get(record["id"]) == record["key"] and all(row["seat"] < slots for row in record["calls"]):
            calls = []
            for row in record["calls"]:
                passages = [Passage(*fields) for fields in row["passages"]]
                passages = [known.setdefault(one, one) for one in passages]
                scores = tuple(row.get("scores", ()))
                scores = scores if len(scores) == len(passages) else ()
                calls.append(_Call(row["seat"], row["query"], tuple(passages), row["named"], scores))
            error = RadioError(record["error"]) if record["error"] else None
            before = record.get("before")
            found[record["id"]] = Outcome(
                calls,
                error,
                frozenset(before or ()),
                whole=before is not None,
                filtered=record.get("filtered", False),
            )
    return found


def _ids_of_texts(labels: Iterable[str]) -> frozenset[str]:
    """The ids of passages that bring none, by labels that are such ids or texts; a single word is an id of theirs."""
    made = {one for one in labels if is_content_id(one)}
    return frozenset(made | {content_id(one) for one in labels if len(one.split()) > 1})


def _request(name: str, example: dspy.Example, call: _Call) -> RankRequest:
    request = RankRequest(
        id=name,
        query=call.query,
        candidates=call.passages,
        scores=call.scores or tuple(float(len(call.passages) - position) for position in range(len(call.passages))),
        answers=answer_texts(example),
        relevant=relevant_of(example) if call.named else _ids_of_texts(relevant_of(example)),
        grades=grades_of(example) if call.named else {},
    )
    return without_question(request, question_id(example), [example.question, call.query])
