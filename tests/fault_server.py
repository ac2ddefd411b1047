"""An OpenAI-compatible server on loopback that misbehaves by rate and seed: what it does to a request can be repeated.

Which fault a request meets is decided by the seed, the prompt and how often that prompt came before. The order in which
threads arrive plays no part, so a run can be repeated although its calls overlap.
"""

from __future__ import annotations

import itertools
import json
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.loopback import Handler, Loopback
from tests.stub_servers import COMPLETION_TOKENS, PROMPT_TOKENS

REFUSED, RESET, SILENT = "refused", "reset", "silent"
BUSY, BUSY_NO_HINT, BROKEN, AWAY = "429 with Retry-After", "429", "500", "503"
EMPTY, NO_JSON, OTHER_SHAPE = "empty body", "no JSON", "other shape"
TRUNCATED, ENDLESS = "truncated", "endless"
TRANSPORT = (REFUSED, RESET, SILENT, BUSY, BUSY_NO_HINT, BROKEN, AWAY)
UNREADABLE = (EMPTY, NO_JSON, OTHER_SHAPE)
USELESS = (TRUNCATED, ENDLESS)
ALL_KINDS = (*TRANSPORT, *UNREADABLE, *USELESS)
_STATUS = {BUSY: 429, BUSY_NO_HINT: 429, BROKEN: 500, AWAY: 503}
_REFUSED_SECONDS = 0.03
JSON = {"content-type": "application/json"}


def mixed(share: float, kinds: tuple[str, ...] = ALL_KINDS) -> dict[str, float]:
    """Equal rates that add up to ``share``."""
    return dict.fromkeys(kinds, share / len(kinds))


class _Handler(Handler):
    stub: FaultServer

    def do_POST(self) -> None:
        body = json.loads(self.body())
        prompt = "\n".join(message["content"] for message in body["messages"])
        kind = self.stub.take(prompt)
        try:
            self._reply(body, prompt, kind)
        finally:
            self.stub.done()

    def _reply(self, body: dict[str, Any], prompt: str, kind: str) -> None:
        if self.stub.always is not None:
            return self._error(self.stub.always, body["model"])
        if kind == REFUSED:
            self.stub.stop_listening()
            return self._hang_up()
        if kind == SILENT:
            self._wait_for_the_caller()
            return self._hang_up()
        if kind == RESET:
            whole = self._completion(body, self.stub.brain(prompt))
            self.send_data(200, whole[: len(whole) // 2], {**JSON, "content-length": str(len(whole))})
            return self._hang_up()
        if kind in _STATUS:
            return self._error(_STATUS[kind], body["model"], "0" if kind != BUSY_NO_HINT else None)
        if kind in UNREADABLE:
            bodies = {EMPTY: b"", NO_JSON: b"<html>Bad gateway</html>", OTHER_SHAPE: b'{"result": "ok"}'}
            return self.send_data(200, bodies[kind], JSON)
        text, reason = self.stub.brain(prompt), "stop"
        if kind == TRUNCATED:
            text, reason = text[: len(text) // 2], "length"
        if kind == ENDLESS:
            text, reason = text.split("\n")[0] + "\nthe dough and" + " the dough and" * 300, "length"
        return self.send_data(200, self._completion(body, text, reason), JSON)

    def _completion(self, body: dict[str, Any], text: str, reason: str = "stop") -> bytes:
        message = {"role": "assistant", "content": text}
        usage = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": COMPLETION_TOKENS}
        return json.dumps(
            {
                "id": "chatcmpl-1",
                "object": "chat.completion",
                "created": 1,
                "model": body["model"],
                "choices": [{"index": 0, "message": message, "finish_reason": reason}],
                "usage": {**usage, "total_tokens": PROMPT_TOKENS + COMPLETION_TOKENS},
            }
        ).encode()

    def _error(self, status: int, model: str, retry_after: str | None = None) -> None:
        told = {
            401: (f"Incorrect API key provided: {self.headers['authorization']}.", "invalid_api_key"),
            403: ("Your project has no access to this model.", "permission_denied"),
            404: (f"The model {model} does not exist.", "model_not_found"),
            429: ("Rate limit reached.", "rate_limit_exceeded"),
        }
        message, code = told.get(status, ("The server had an error.", None))
        error = {"error": {"message": message, "type": "error", "param": None, "code": code}}
        return self.send_json(status, error, {} if retry_after is None else {"retry-after": retry_after})

    def _wait_for_the_caller(self) -> None:
        """Say nothing until the caller hangs up."""
        self.connection.settimeout(0.05)
        while not self.stub.closing.is_set():
            try:
                if not self.connection.recv(1):
                    return
            except TimeoutError:
                continue
            except OSError:
                return

    def _hang_up(self) -> None:
        """Close the connection with a reset in place of a farewell."""
        self.close_connection = True
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()


class FaultServer(Loopback):
    """A server for the length of a ``with`` block.

    Args:
        brain: Gives the reply to a prompt: all messages, one after the other.
        rates: How likely each kind of fault is; the rest is answered.
        seed: Decides which requests meet which.

    Attributes:
        always: A status that every request gets from now on, whatever the rates; None for none.
        outcomes: How many requests met which fault; ``"answered"`` are those that met none.
        answered: How often each prompt was answered.
        most: The most requests that were in hand at one time.
    """

    handler = _Handler

    def __init__(self, brain: Callable[[str], str], rates: Mapping[str, float] | None = None, seed: int = 0) -> None:
        super().__init__()
        self.brain = brain
        self.rates = dict(rates or {})
        self.seed = seed
        self.always: int | None = None
        self.outcomes: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.most = 0
        self._tries: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._in_hand = 0

    def open(self, handler: type[BaseHTTPRequestHandler]) -> ThreadingHTTPServer:
        # A port asked for by its number stays this socket's while it does not listen, one of the system's choice not.
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = probe.getsockname()
        server = ThreadingHTTPServer(address, handler, bind_and_activate=False)
        server.request_queue_size = 128
        server.server_bind()
        server.server_activate()
        server.socket.setblocking(False)  # what waited to be accepted may be gone when it is accepted
        return server

    def __enter__(self) -> FaultServer:
        super().__enter__()
        self.url += "/v1"  # as OpenAI's clients take it
        return self

    @property
    def requests(self) -> int:
        """How many requests arrived; a refused connection is none."""
        return sum(self.outcomes.values())

    def take(self, prompt: str) -> str:
        """What this request meets."""
        with self._lock:
            self._in_hand += 1
            self.most = max(self.most, self._in_hand)
            self._tries[prompt] += 1
            draw = random.Random(f"{self.seed}-{self._tries[prompt]}-{prompt}").random()
            ends = itertools.accumulate(self.rates.values())
            kind = next((kind for kind, end in zip(self.rates, ends, strict=True) if draw < end), "answered")
            if self.always is not None:
                kind = str(self.always)
            self.answered[prompt] += kind == "answered"
            self.outcomes[kind] += 1
            return kind

    def done(self) -> None:
        """A request is out of hand."""
        with self._lock:
            self._in_hand -= 1

    def stop_listening(self) -> None:
        """Refuse connections for a moment; those that wait to be accepted are reset (Linux)."""
        with self._lock:
            listening = self._server.socket
            listening.shutdown(socket.SHUT_RDWR)
            time.sleep(_REFUSED_SECONDS)
            if not self.closing.is_set():
                listening.listen(128)
