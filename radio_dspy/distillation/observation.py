"""What reaches each reranker of a program: asked of the retriever, or recorded while the program runs."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import dspy
from dspy.utils.callback import BaseCallback

from radio_dspy.datasets import answer_texts, relevant_of
from radio_dspy.distillation.bulk import call_each
from radio_dspy.distillation.extractor import call_key
from radio_dspy.distillation.preferences import distinct_questions, rank_requests
from radio_dspy.distillation.seats import Seat, retriever_of
from radio_dspy.encoders import TextEncoder
from radio_dspy.errors import RadioError, SettingsError
from radio_dspy.model_files import fingerprint
from radio_dspy.passages import Passage, RankRequest, as_passage
from radio_dspy.redaction import cause_of, lms_of, told
from radio_dspy.rerankers.rerank import Rerank
from radio_dspy.rerankers.weights import RerankerWeights
from radio_dspy.retrievers.base import Retriever
from radio_dspy.runs import Run

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
    run: Run | None = None,
) -> tuple[list[Observed], dict[str, Exception]]:
    """Run the program on examples, each question once, and note what reaches each seat.

    With a run, what a question reached is kept in its ``requests.jsonl`` the moment the program has ended, and the same
    program, with the same LM, is not run on the same question again.

    The first stage's scores do not reach a reranker: a candidate's retrieval score is how many stand at or below it.

    Args:
        program: The student's copy; its LM must be configured if it needs one.
        examples: The questions.
        seats: Of this very program.
        num_threads: Examples run at the same time.
        show_progress: Show a progress bar.
        run: Where to keep it; None keeps nothing.

    Returns:
        For each seat what reached it, and the error of each question that failed (what it had reached is kept).

    Raises:
        DataError: For an example without a question, and for an id that two different questions share.
        SettingsError: If a call came from a reranker that the program does not hold.
    """
    from tqdm.auto import tqdm

    questions, lms = distinct_questions(examples), lms_of(program)
    owner = {id(rerank): i for i, seat in enumerate(seats) for rerank in seat.rerankers}
    keys = dict(zip(questions, run_keys(program, questions.values()), strict=True)) if run is not None else {}
    outcomes = _kept(run, keys) if run is not None else {}
    missing = [name for name in questions if name not in outcomes]
    bar = tqdm(total=len(missing), desc="recording", unit="question", disable=not show_progress)

    def one(name: str) -> None:
        recorder = _Recorder()
        error: Exception | None = None
        with dspy.context(callbacks=[*dspy.settings.callbacks, recorder], trace=None, disable_history=True):
            try:
                program(**questions[name].inputs())
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
    observed = [Observed() for _ in seats]
    for name, example in questions.items():
        counts: Counter[int] = Counter()
        for call in outcomes[name][0]:
            counts[call.seat] += 1
            number = counts[call.seat]
            observed[call.seat].add(name, _request(name if number == 1 else f"{name}/{number}", example, call))
    return observed, {name: error for name in questions if (error := outcomes[name][1]) is not None}


@dataclass(frozen=True, slots=True)
class _Call:
    """A call of a ``Rerank``, as it is kept.

    Attributes:
        seat: Whose, by position.
        query: What it was asked.
        passages: What it was to order, each once.
        named: Whether they brought ids of their own.
    """

    seat: int
    query: str
    passages: tuple[Passage, ...]
    named: bool


_Outcome = tuple[list[_Call], Exception | None]


def _call(seat: int, query: str, passages: Sequence[Any]) -> _Call:
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
    return _Call(seat, query, tuple(found.values()), named)


def run_keys(program: dspy.Module, examples: Iterable[dspy.Example]) -> list[str]:
    """For each question a hash of what decides what the program does with it: program, LM, and the inputs."""
    lm = dspy.settings.lm
    known = [program_key(program), call_key(lm, lm.kwargs, []) if lm is not None else None]
    return [hash_of([*known, _inputs(example)]) for example in examples]


def _inputs(example: dspy.Example) -> dict[str, str]:
    try:
        return {name: str(value) for name, value in example.inputs().items()}
    except ValueError:  # it does not say which fields are inputs, and the program will fail on it
        return {}


def hash_of(value: Any) -> str:
    """A hash of JSON types; anything else is told by its text."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:24]


def program_key(program: dspy.Module) -> str:
    """A hash of what a program does, as far as it can be seen from outside.

    That is its state, the plain attributes and the source of every module in it, and its retriever's corpus and
    encoder. Functions and tools beside the modules are not seen.
    """
    parts: list[Any] = []
    for name, module in program.named_sub_modules():
        plain = {key: value for key, value in vars(module).items() if isinstance(value, bool | int | float | str)}
        if isinstance(module, dspy.Predict):
            plain.pop("stage", None)  # drawn at random for each object
        kind: Any = type(module)
        parts.append([name, kind.__qualname__, plain, source_of(kind)])
    for name, one in program.named_parameters():
        if isinstance(one, RerankerWeights):  # the same weights may lie elsewhere
            sides = [one.fingerprint, fingerprint(one.passage_side)]
            parts.append([name, sides, one.architecture, one.max_length, one.query_prefix, one.passage_prefix])
            continue
        try:
            parts.append([name, one.dump_state(json_mode=True)])
        except TypeError:  # dspy.Retrieve, for example, has none that can be written
            parts.append([name, type(one).__qualname__])
    retriever = retriever_of(program)
    parts.append(retriever_identity(retriever) if retriever is not None else None)
    return hash_of(parts)


@functools.lru_cache(maxsize=64)
def source_of(kind: Any) -> str:
    """The source of a class or function; empty where it cannot be seen."""
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):  # typed into an interpreter
        return ""


def retriever_identity(retriever: Retriever) -> dict[str, Any]:
    """What decides what a retriever finds, in JSON types; the corpus as a hash of its ids and texts."""
    encoders = [getattr(retriever, name, None) for name in ("encoder", "query_encoder")]
    told = [{**one.identity, **one.query_settings} for one in encoders if isinstance(one, TextEncoder)]
    return {"retriever": type(retriever).__name__, "encoders": told, "corpus": _corpus_hash(retriever)}


_CORPUS_HASHES: WeakKeyDictionary[Retriever, str] = WeakKeyDictionary()  # a corpus does not change


def _corpus_hash(retriever: Retriever) -> str:
    if retriever not in _CORPUS_HASHES:
        digest = hashlib.sha256()
        for passage in getattr(retriever, "passages", ()):
            digest.update(f"{passage.id}\0{passage.contents}\0".encode("utf-8", "replace"))
        _CORPUS_HASHES[retriever] = digest.hexdigest()[:16]
    return _CORPUS_HASHES[retriever]


def _as_record(name: str, key: str, calls: Sequence[_Call], error: str) -> dict[str, Any]:
    rows = [
        {
            "seat": one.seat,
            "query": one.query,
            "named": one.named,
            "passages": [[passage.id, passage.text, passage.title] for passage in one.passages],
        }
        for one in calls
    ]
    return {"id": name, "key": key, "calls": rows, "error": error}


def _kept(run: Run, keys: Mapping[str, str]) -> dict[str, _Outcome]:
    """What the run knows of these questions; a passage that comes again is the same object."""
    known: dict[Passage, Passage] = {}
    found: dict[str, _Outcome] = {}
    for record in run.records("requests"):
        if keys.get(record["id"]) == record["key"]:
            calls = []
            for row in record["calls"]:
                passages = [Passage(*fields) for fields in row["passages"]]
                passages = [known.setdefault(one, one) for one in passages]
                calls.append(_Call(int(row["seat"]), str(row["query"]), tuple(passages), bool(row["named"])))
            found[record["id"]] = calls, RadioError(record["error"]) if record["error"] else None
    return found


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


def _request(name: str, example: dspy.Example, call: _Call) -> RankRequest:
    return RankRequest(
        id=name,
        query=call.query,
        candidates=call.passages,
        scores=tuple(float(len(call.passages) - position) for position in range(len(call.passages))),
        answers=answer_texts(example),
        # Labels name passages by id: where no passage brings one, nothing can be judged by them.
        relevant=relevant_of(example) if call.named else frozenset(),
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
    run: Run | None = None,
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
        run: Where what was recorded is kept; see ``record``.

    Raises:
        SettingsError: If no question reaches a reranker.
    """
    if retriever is not None:
        served = getattr(program, "candidates", ANSWER_CANDIDATES)
        return _ask(seats, train, held_out, retriever, candidates, served)
    own = retriever_of(program)
    probe, failures = record(program, train[:PROBED], seats, run=run)
    errors, lms = list(failures.values()), lms_of(program)
    if not any(seat.requests for seat in probe):
        raise SettingsError(
            "None of the first training questions reached a Rerank"
            + (f" (the program failed: {told(errors[0], *lms):.200}). " if errors else ". ")
            + "Configure the LM that the program needs, or give RADIO(retriever=...)."
        ) from (cause_of(errors[0], *lms) if errors else None)
    if errors and lms:  # without an LM a program is expected to fail after its reranker
        logger.warning("The program failed after its reranker (%s).", told(errors[0], *lms))
    if own is not None:
        served = max(len(one.candidates) for seat in probe for one in seat.requests)
        direct = {one.id: one for one in rank_requests(train[:PROBED], own, max(candidates, served))}
        if same_as_retrieved(probe, direct):
            return _ask(seats, train, held_out, own, candidates, served)
    seen, failures = record(program, train, seats, num_threads=num_threads, show_progress=show_progress, run=run)
    judged, more = record(program, held_out, seats, num_threads=num_threads, show_progress=show_progress, run=run)
    reached = {key for seat in (*seen, *judged) for key in seat.question_of.values()}
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
