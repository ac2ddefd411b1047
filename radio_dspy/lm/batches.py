"""Ask an LM in batches: at half the price, within a day, and without losing one to a kill."""

from __future__ import annotations

import contextvars
import hashlib
import itertools
import json
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import dspy
from dspy import lm15
from dspy.utils.callback import BaseCallback

from radio_dspy.core.errors import BudgetError, LanguageModelError, SettingsError
from radio_dspy.core.redaction import logger_of
from radio_dspy.lm.batch_apis import PROVIDERS, Answered, BatchAPI
from radio_dspy.lm.budget import StopSpending, booked_by, unbooked
from radio_dspy.lm.elsewhere import Elsewhere, answered_by
from radio_dspy.lm.message_batches import MessageBatches
from radio_dspy.lm.parallel import each_in_threads, interrupt_later
from radio_dspy.lm.waiting import bounded_waits, pause

T = TypeVar("T")
Record = Mapping[str, Any]
logger = logger_of(__name__)
_LINES, _BYTES = 50_000, 100_000_000  # of a batch at most, as OpenAI takes them (200 MB)
_TRIES = 2  # of a request in batches; then it is asked alone
_SILENT = 10  # answers in a row that say nothing of a batch, until the run ends
_FIRST_LOOK, _LOOK = 0.5, 60.0  # seconds between two looks, growing
_CHARACTERS = 2  # of a token at least, on average, to stay below a limit of dollars
_LONGEST = 4096  # tokens of a reply that has no limit of its own
_rollout: contextvars.ContextVar[Any] = contextvars.ContextVar("rollout", default=None)


class Deferred(BaseException):
    """Ends a question whose request goes into the next batch; no adapter or program swallows it."""


class BatchLM(Elsewhere):
    """Answers requests from batches: what no batch has answered yet is noted, and sent when all questions were put.

    The questions are then put again and find their replies, until none leads to a new request.

    Args:
        lm: Who is asked.
        keep: Writes a record that is on the disk when it returns.
        kept: Reads the records of earlier starts.
        api: How the provider's batches are spoken.
    """

    def __init__(
        self,
        lm: dspy.LM,
        keep: Callable[[Record], None],
        kept: Callable[[], Iterable[Record]],
        api: BatchAPI | None = None,
    ) -> None:
        super().__init__(lm)
        self._api = api or _api_of(lm)
        self._keep, self._kept = keep, kept
        self._replies: dict[str, lm15.Response] = {}
        self._wanted: dict[str, lm15.Request] = {}
        self._tries: Counter[str] = Counter()
        self._alone: set[str] = set()
        self._taken: set[str] = set()
        self._sent: dict[str, tuple[str, set[str]]] | None = None  # batches under way: tag -> id, keys
        self._book: Any = None
        self._lock = threading.Lock()

    def complete(self, request: lm15.Request) -> lm15.Response:
        """The reply of a batch, or of the LM itself where no batch has one for it."""
        key = self._key(request)
        with self._lock:
            if (reply := self._replies.get(key)) is not None:
                return reply
            if key not in self._alone:
                self._wanted[key] = request
                raise Deferred
        with booked_by(self._book):
            response: lm15.Response = self.lm(request)
        with self._lock:
            self._replies[key] = response
        return response

    def ask_all(self, items: Sequence[T], one: Callable[[T], None], num_threads: int) -> None:
        """Put every question until all are answered; ``one`` asks and keeps.

        Raises:
            BudgetError: If a limit leaves no room for what is missing.
            KeyboardInterrupt: After Ctrl-C; a batch that was sent is fetched by the next start.
        """
        with unbooked() as self._book:
            waiting = list(range(len(items)))
            while waiting:
                self._wanted.clear()
                left: list[int] = []

                def put(position: int, left: list[int] = left) -> None:
                    try:
                        one(items[position])
                    except Deferred:
                        left.append(position)

                with bounded_waits():
                    each_in_threads(put, waiting, num_threads)
                waiting = sorted(left)
                if waiting:
                    with interrupt_later("look at the batch"):
                        self._settle(dict(self._wanted))
        for tag in self._taken:  # every reply is in a record of its own by now
            self._keep({"tag": tag, "done": True})
            self._under_way().pop(tag)
        self._taken, self._replies = set(), {}

    def _settle(self, wanted: dict[str, lm15.Request]) -> None:
        """Fetch what earlier starts have sent, and send the rest."""
        sent = self._under_way()
        for tag, (batch, keys) in list(sent.items()):
            if tag not in self._taken and keys & wanted.keys():
                self._take(tag, batch, keys)
        missing = {key: one for key, one in wanted.items() if key not in self._replies and key not in self._alone}
        again = [key for key in missing if self._tries[key] >= _TRIES]
        self._alone.update(again)
        missing = {key: one for key, one in missing.items() if key not in self._alone}
        for tag, batch, keys in [self._send(part) for part in self._parts(missing)]:
            self._take(tag, batch, keys)

    def _parts(self, missing: dict[str, lm15.Request]) -> Iterator[dict[str, Any]]:
        """The lines of each batch, as many as the limits of budget and provider allow."""
        lines = {key: self._api.line(key, request) for key, request in missing.items()}
        sizes = {key: len(json.dumps(line, ensure_ascii=False).encode()) for key, line in lines.items()}
        if self._book is not None and lines:
            limits = [_tokens(sizes[key], lines[key]) for key in lines]
            room = self._book.room(self.lm.model, limits)
            lines = dict(itertools.islice(lines.items(), room))
        part: dict[str, Any] = {}
        size = 0
        for key, line in lines.items():
            if part and (len(part) == _LINES or size + sizes[key] > _BYTES):
                yield part
                part, size = {}, 0
            part[key] = line
            size += sizes[key]
        if part:
            yield part

    def _send(self, part: dict[str, Any]) -> tuple[str, str, set[str]]:
        """Send a batch: a record says so before, and one with its id after it."""
        tag, keys = uuid.uuid4().hex, set(part)
        self._keep({"tag": tag, "keys": list(part), "model": self.lm.model, "sent": time.time()})
        batch = self._api.submit(list(part.values()), tag)
        self._keep({"tag": tag, "batch": batch})
        self._under_way()[tag] = (batch, keys)
        logger.warning(
            "%s: batch %s with %d requests is under way; it may take a day. Whatever ends this run, the same compile "
            "with this run_dir fetches it.", self.lm.model, batch, len(part),
        )  # fmt: skip
        return tag, batch, keys

    def _take(self, tag: str, batch: str, keys: set[str]) -> None:
        """Wait for a batch, and take in its replies in whatever order they come."""
        try:
            found = self._waited(batch)
        except dspy.LMError:  # refused as a whole: nothing was bought, and the next start may send it again
            self._keep({"tag": tag, "done": True})
            raise
        self._taken.add(tag)
        for key in keys:
            answer = found.get(key)
            response, usage = self._read(answer)
            if self._book is not None:
                self._book.settle(self.lm.model, usage, failed=response is None)
            with self._lock:
                if response is not None:
                    self._replies[key] = response
                elif answer is not None and answer.refused:
                    self._alone.add(key)  # the provider says why
                else:
                    self._tries[key] += 1

    def _read(self, answer: Answered | None) -> tuple[lm15.Response | None, dict[str, Any]]:
        """The reply that a request got, and its tokens; None where it failed, or where what came is none."""
        if answer is None or answer.body is None:
            return None, {}
        try:
            return self._api.read(answer.body)
        except (lm15.LM15Error, ValueError, TypeError, LookupError, AttributeError):
            return None, {}

    def _waited(self, batch: str) -> Mapping[str, Any]:
        silent, seconds = 0, _FIRST_LOOK
        while True:
            try:
                if (found := self._api.results(batch)) is not None:
                    return found
                silent = 0
            except LanguageModelError:
                silent += 1
                if silent == _SILENT:
                    raise
            if not pause(seconds):
                raise KeyboardInterrupt
            seconds = min(2 * seconds, _LOOK)

    def _under_way(self) -> dict[str, tuple[str, set[str]]]:
        """The batches that were sent and whose replies are not all kept, by their tags."""
        if self._sent is None:
            self._sent = {}
            keys: dict[str, set[str]] = {}
            ids: dict[str, str] = {}
            moments: dict[str, float] = {}
            for record in self._kept():
                tag = record["tag"]
                if record.get("done"):
                    keys.pop(tag, None)
                elif "keys" in record:
                    keys[tag], moments[tag] = set(record["keys"]), record.get("sent") or 0.0
                elif "batch" in record:
                    ids[tag] = record["batch"]
            for tag, own in keys.items():
                if batch := ids.get(tag) or self._lost(tag, own, moments[tag]):
                    self._sent[tag] = (batch, own)
        return self._sent

    def _lost(self, tag: str, keys: set[str], since: float) -> str | None:
        """The batch of a start that was killed while it sent it."""
        try:
            for batch in self._api.find(tag, len(keys), since):
                if self._api.marks or not keys.isdisjoint(self._waited(batch)):
                    self._keep({"tag": tag, "batch": batch})
                    return batch
        except LanguageModelError as error:
            logger.warning("A batch may have been sent whose id is not known: %s", error)
        return None

    def _key(self, request: lm15.Request) -> str:
        line = self._api.line("", request)
        text = json.dumps([line, _rollout.get()], sort_keys=True, default=str)
        return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:32]


class _Rollout(BaseCallback):
    """Notes a call's ``rollout_id``, which is no part of its request: another sample is another line of a batch."""

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        _rollout.set((inputs.get("kwargs") or {}).get("rollout_id"))


def batched(lm: dspy.LM, keep: Callable[[Record], None], kept: Callable[[], Iterable[Record]]) -> dspy.LM:
    """A copy of an LM that ``ask_each`` asks in batches; see ``BatchLM``.

    Raises:
        SettingsError: If its provider has no batches that are known here.
    """
    copied = answered_by(BatchLM(lm, keep, kept))
    copied.callbacks = [*copied.callbacks, _Rollout()]
    copied.num_retries = 0  # batches have tries of their own
    return copied


def ask_in_batches(lm: Any, items: Sequence[T], one: Callable[[T], None], num_threads: int) -> bool:
    """Ask about every item in batches, where the LM is one for it; whether it was.

    Raises:
        BudgetError: If a limit leaves no room for what is missing.
    """
    engine = getattr(lm, "engine", None)
    if not isinstance(engine, BatchLM):
        return False
    try:
        engine.ask_all(items, one, num_threads)
    except StopSpending as stop:
        raise BudgetError(str(stop)) from None
    return True


def _api_of(lm: dspy.LM) -> BatchAPI:
    """How the batches of an LM's provider are spoken.

    Raises:
        SettingsError: If it is not known to have any.
    """
    api = MessageBatches(lm) if lm.model.startswith("anthropic/") else BatchAPI(lm)
    if api.provider not in ("anthropic", *PROVIDERS):
        raise SettingsError(
            f"batch=True: {lm.model} has no batches that are known here; they are spoken with anthropic, "
            f"{', '.join(PROVIDERS)}. Leave batch= out."
        )
    return api


def _tokens(size: int, line: dict[str, Any]) -> tuple[int, int]:
    """Tokens sent and received at most."""
    asked = line.get("body") or line["params"]
    return size // _CHARACTERS, asked.get("max_tokens") or asked.get("max_completion_tokens") or _LONGEST
