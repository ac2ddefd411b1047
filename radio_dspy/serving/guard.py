"""What a request must be before the application sees it: from whom, how large, how fast."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from radio_dspy.serving.errors import answer_to
from radio_dspy.serving.settings import is_loopback
from radio_dspy.serving.shapes import EVENTS, event

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from radio_dspy.serving.service import Service

# What anyone may see: the page's own files, and whether the server is well.
OPEN = frozenset({"/", "/page.js", "/page.css", "/health", "/ready", "/docs", "/openapi.json"})

_HEADERS = {401: (b"www-authenticate", b"Bearer"), 429: (b"retry-after", b"1")}


class _RefusedError(Exception):
    """A request that the application does not see."""

    def __init__(self, status: int, reason: str, *, unread: bool = False) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.unread = unread  # whether more of its body may come


class _LateError(Exception):
    """A request that is not answered within its time; a store's or an LM's TimeoutError is something else."""


class Guard:
    """Refuses requests without a key, for another host, too many, too large or too slow.

    The others reach the application with their whole body.

    Args:
        app: What answers.
        service: The limits, and how many requests are under way.
        keys: One of which a request needs; none where no key is needed.
    """

    def __init__(self, app: ASGIApp, service: Service, keys: Sequence[str]) -> None:
        self._app = app
        self._service = service
        self._settings = settings = service.settings
        self._keys = [_digest(key) for key in keys]
        # Else a page of anyone could ask a server of this machine under a name of its own (DNS rebinding).
        self._only_loopback = not keys and is_loopback(settings.host)
        self._origins = {urlsplit(one).hostname for one in settings.origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request on, or answer with the reason why not."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] == "HEAD":  # answered as GET; uvicorn leaves out the body
            scope = {**scope, "method": "GET"}
        began = streams = ended = False

        async def guarded(message: Message) -> None:
            nonlocal began, streams, ended
            if message["type"] == "http.response.start":
                began = True
                streams = dict(message["headers"]).get(b"content-type", b"").startswith(EVENTS.encode())
                message["headers"] = [*message["headers"], (b"x-content-type-options", b"nosniff")]
            else:
                ended = not message.get("more_body", False)
            await send(message)

        ends = time.monotonic() + self._settings.time_limit
        try:
            self._check(scope)
            with self._place(scope):
                body = await self._body(scope, receive, ends)
                answering = self._app(scope, _replay(body, receive), guarded)
                await _answered(answering, receive, ends, lambda: ended)
        except _RefusedError as error:
            if error.unread:
                await _discard(receive, ends)
            await _refuse(guarded, error)
        except _LateError:
            limit = self._settings.time_limit
            reason = f"time_limit: not done within {limit:g} seconds; ask again, or send less at a time."
            if not began:
                await _refuse(guarded, _RefusedError(503, reason))
            elif streams:
                await send({"type": "http.response.body", "body": event("error", {"detail": reason}).encode()})
        except Exception as error:
            if began:
                raise
            answer = answer_to(error)  # which logs it; raised on, it would be logged again and lose its headers
            await _refuse(guarded, _RefusedError(answer.status, answer.reason))

    def _check(self, scope: Scope) -> None:
        headers = dict(scope["headers"])
        if self._only_loopback:
            host = _hostname(headers.get(b"host", b"").decode("latin-1"))
            if not is_loopback(host) and host not in self._origins:
                reason = "this server is asked as 127.0.0.1 or localhost alone; see --host and --origin."
                raise _RefusedError(421, reason, unread=True)
        if self._keys and scope["path"] not in OPEN and scope["method"] != "OPTIONS":
            scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
            given = _digest(key.strip() if scheme.lower() == b"bearer" else b"")
            if not any([hmac.compare_digest(given, one) for one in self._keys]):  # each is compared  # noqa: C419
                reason = "needs a key of this server: send the header Authorization: Bearer KEY."
                raise _RefusedError(401, reason, unread=True)
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length[:20]) > self._settings.max_body:
            raise _RefusedError(413, self._settings.exceeded("max_body", f"{int(length[:20])} bytes"), unread=True)

    @contextlib.contextmanager
    def _place(self, scope: Scope) -> Iterator[None]:
        """One of the places that there are for requests; to see how the server is takes none."""
        if scope["method"] != "POST":
            yield
            return
        if self._service.is_full:
            reason = f"max_waiting: {self._settings.max_waiting} requests are under way; ask again in a second."
            raise _RefusedError(429, reason, unread=True)
        self._service.under_way += 1
        try:
            yield
        finally:
            self._service.under_way -= 1

    async def _body(self, scope: Scope, receive: Receive, ends: float) -> bytes:
        """The whole body, within the limits of size and time."""
        found = bytearray()
        more = True
        while more:
            try:
                message = await asyncio.wait_for(receive(), max(ends - time.monotonic(), 0.001))
            except asyncio.TimeoutError:
                reason = f"time_limit: the request took more than {self._settings.time_limit:g} seconds to arrive."
                raise _RefusedError(408, reason) from None
            if message["type"] == "http.disconnect":
                raise _RefusedError(400, "the request broke off.")
            found += message.get("body", b"")
            more = message.get("more_body", False)
            if len(found) > self._settings.max_body:
                raise _RefusedError(413, self._settings.exceeded("max_body", "more bytes"), unread=more)
        return bytes(found)


async def _answered(answering: Awaitable[None], receive: Receive, ends: float, is_sent: Callable[[], bool]) -> None:
    """Await an answer while there is time, and somebody who waits for it.

    Raises:
        _LateError: If there is no time left.
    """
    answer, left = asyncio.ensure_future(answering), asyncio.ensure_future(_client_left(receive))
    try:
        seconds = max(ends - time.monotonic(), 0.001)
        done, _ = await asyncio.wait({answer, left}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            raise _LateError
        if answer in done or is_sent():  # the connection says that it ended also where all was sent
            await answer
    finally:
        answer.cancel()
        left.cancel()
        await asyncio.gather(answer, left, return_exceptions=True)


async def _client_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _digest(key: str | bytes) -> bytes:
    """Keys of one length, so that the time of comparing them tells nothing."""
    return hashlib.sha256(key.encode() if isinstance(key, str) else key).digest()


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _replay(body: bytes, receive: Receive) -> Receive:
    """The body as one message, and then what the connection says."""
    given = False

    async def replayed() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


async def _discard(receive: Receive, ends: float) -> None:
    """Read the rest of a refused body: who is still sending would see a broken connection in place of the reason."""
    try:
        while (left := ends - time.monotonic()) > 0:
            message = await asyncio.wait_for(receive(), left)
            if message["type"] == "http.disconnect" or not message.get("more_body", False):
                return
    except asyncio.TimeoutError:
        return


async def _refuse(send: Send, error: _RefusedError) -> None:
    body = json.dumps({"detail": error.reason}).encode()
    length = str(len(body)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", length), (b"connection", b"close")]
    if error.status in _HEADERS:
        headers.append(_HEADERS[error.status])
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
