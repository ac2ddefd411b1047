"""Hosted models that are no LMs, reached through LiteLLM: addresses, keys, retries and errors in one place."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from typing import Any, Generic, Literal, TypeVar

from cachetools import LRUCache

from radio_dspy.core.copies import SharedByCopies
from radio_dspy.core.credentials import learn
from radio_dspy.core.errors import LanguageModelError, SettingsError
from radio_dspy.core.locks import ThreadLock
from radio_dspy.core.quiet import quiet_litellm
from radio_dspy.core.redaction import hide_in, redacted, watch_logs
from radio_dspy.core.validation import is_whole
from radio_dspy.lm.secrets import check_keys

T = TypeVar("T")
R = TypeVar("R")
LONGEST_WAIT = 60.0  # seconds: a provider that asks for more has run out of something that retries do not bring back
_BUSY = (408, 429)
_LONGEST_REASON = 400  # characters of what a provider said


def shown_name(model: str) -> str:
    """A LiteLLM name for files and people: of an address only the provider is left."""
    return model if "://" not in model else f"{model.partition('/')[0]}/(an address)"


class Endpoint(SharedByCopies):
    """A hosted model by its LiteLLM name, and how it is reached.

    Address and key stay in this process: no ``repr``, error message or pickle holds them.

    Args:
        model: ``provider/model``, as LiteLLM writes it; an address in the model's place is kept like ``api_base``.
        api_base: The address; None takes the provider's own, or its environment variable.
        api_key: The key; None takes the provider's environment variable.
        timeout: Longest wait for a reply, in seconds; LiteLLM ignores it for a few providers (``ollama``, ``gemini``).
        num_retries: Further tries after a busy or broken server. OpenAI's own client, which LiteLLM uses for
            ``openai/`` and its like, asks once more within each try.

    Raises:
        SettingsError: For a name without a provider, or numbers out of range.
    """

    def __init__(
        self,
        model: str,
        *,
        api_base: str | None = None,
        api_key: str | None = None,
        timeout: float = 60.0,
        num_retries: int = 3,
    ) -> None:
        if not isinstance(model, str) or not all(model.partition("/")):
            raise SettingsError(f"{model!r} names no provider; give 'provider/model', as LiteLLM writes it.")
        if not isinstance(timeout, int | float) or not timeout > 0 or not is_whole(num_retries) or num_retries < 0:
            raise SettingsError(
                f"Need a number timeout > 0 and a whole num_retries >= 0, got {timeout!r} and {num_retries!r}."
            )
        self.model = shown_name(model)
        self._called: str | None = model
        self.timeout = timeout
        self.num_retries = num_retries
        self.own_address = api_base is not None or model != self.model
        self._api_base = api_base
        self._api_key = api_key
        check_keys(self)

    def __repr__(self) -> str:
        return f"Endpoint({self.model!r})"

    def __getstate__(self) -> dict[str, Any]:
        called = self._called if self._called == self.model else None  # else it is an address
        return {**vars(self), "_api_base": None, "_api_key": None, "_called": called}

    @property
    def told(self) -> str:
        """The name as it was given, for keys of what is kept on this machine."""
        return self._called or self.model

    @property
    def provider(self) -> str:
        """The first part of the name."""
        return self.model.partition("/")[0]

    def call(self, task: Literal["embedding", "rerank"], /, **request: Any) -> Any:
        """Make one request, and again where the server is busy or broken.

        Args:
            task: The function of LiteLLM's.
            request: Its arguments beside model, address, key and time-out.

        Returns:
            LiteLLM's response.

        Raises:
            LanguageModelError: Whatever LiteLLM raises; the message names the model and what to do.
            SettingsError: If the address was lost because it is never saved.
        """
        litellm = quiet_litellm()
        learn(self)
        watch_logs()
        logging.getLogger("LiteLLM").addFilter(_not_said_twice)
        if self.own_address and self._api_base is None and self._called in (None, self.model):
            raise SettingsError(f"{self.model}: its address is never saved; make it again with api_base=.")
        attempt = 0
        while True:  # not tenacity: with waits that a server asks for, and secrets hidden, it is no shorter
            try:
                return getattr(litellm, task)(
                    model=self._called,
                    api_base=self._api_base,
                    api_key=self._api_key,
                    timeout=self.timeout,
                    num_retries=0,
                    max_retries=1,  # 0 would be taken for OpenAI's own 2
                    **request,
                )
            except Exception as error:
                wait = _seconds_to_wait(error, attempt)
                if wait is None or wait > LONGEST_WAIT or attempt == self.num_retries:
                    hide_in(error)  # its text may hold the key that the server did not like
                    raise self.failure(_status(error), str(error)) from None
            attempt += 1
            time.sleep(wait)

    def failure(self, status: int | None, reason: str) -> LanguageModelError:
        """An error that names the model and what to do, without secrets."""
        learn(self)
        said = " ".join(redacted(reason).partition("\nTraceback")[0].replace("litellm.", "").split())[:_LONGEST_REASON]
        return LanguageModelError(f"{self.model} failed: {said.rstrip('.')}. {self._advice(status)}")

    def _advice(self, status: int | None) -> str:
        variable = f"{self.provider.upper()}_API_KEY"
        if status in (401, 403):
            return f"Give api_key=, or set the provider's variable, such as {variable}."
        if status == 404:
            return "Check the name of the model and the address (api_base=)."
        if status == 429:
            return "Wait, or ask less at a time (num_threads=, batch_size=)."
        if status is None or status >= 500:
            return (
                f"Check the address (api_base=), the key (api_key=, or a variable such as {variable}) and the server."
            )
        return "Check the name of the model and the settings."


class Recent(SharedByCopies, Generic[R]):
    """The values that were asked for lately, by key; copies share it, a pickle leaves it empty.

    Args:
        size: How many are kept; those that were not asked for longest go first.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._values: LRUCache[bytes, R] = LRUCache(size)
        self._lock = ThreadLock()

    def __reduce__(self) -> tuple[type[Recent[R]], tuple[int]]:
        return Recent, (self.size,)

    def __len__(self) -> int:
        return len(self._values)

    def read(self, keys: Sequence[bytes]) -> dict[bytes, R]:
        """The values that are there."""
        with self._lock:
            return {key: self._values[key] for key in keys if key in self._values}

    def write(self, values: dict[bytes, R]) -> None:
        """Keep values."""
        with self._lock:
            self._values.update(values)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what led to it."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__


def _status(error: Exception) -> int | None:
    """The HTTP status of the server's reply; None where there was none.

    LiteLLM gives a status to its own errors, too: 500 for a missing key, a server that is not there, a reply that it
    cannot read. What the network said stands at the end of the chain.
    """
    from httpx import HTTPStatusError, TransportError

    for one in _causes(error):
        if isinstance(one, HTTPStatusError):
            return one.response.status_code
        if isinstance(one, TransportError):
            return None
    status = getattr(error, "status_code", None)
    return status if isinstance(status, int) and status < 500 else None


def _seconds_to_wait(error: Exception, attempt: int) -> float | None:
    """How long to wait before the next try; None where the same request would fail again."""
    from httpx import HTTPStatusError, TransportError

    status = _status(error)
    broken = any(isinstance(one, TransportError) for one in _causes(error))
    if not (broken or status in _BUSY or (status or 0) >= 500):
        return None
    for one in _causes(error):
        if isinstance(one, HTTPStatusError):
            try:
                return max(0.0, float(one.response.headers["retry-after"]))
            except (KeyError, ValueError):  # none, or a date
                break
    return 0.5 * 2.0**attempt


def _not_said_twice(record: logging.LogRecord) -> bool:
    """LiteLLM logs the errors that it raises, and what the server said with them."""
    return "Error in rerank" not in record.getMessage()
