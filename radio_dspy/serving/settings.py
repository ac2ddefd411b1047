"""How a server listens, and how much it takes on."""

from __future__ import annotations

from dataclasses import dataclass, fields
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from radio_dspy.core.errors import RadioError, SettingsError
from radio_dspy.core.fields import field_docs
from radio_dspy.core.files import is_special
from radio_dspy.core.validation import shown

KEYS_VARIABLE = "RADIO_DSPY_API_KEY"
_AT_LEAST = {"port": 0, "workers": 1, "batch_wait": 0, "max_waiting": 1, "max_body": 1, "max_texts": 1, "max_tokens": 1}


class LimitError(RadioError):
    """A request that goes beyond a limit of the server."""


@dataclass(frozen=True)
class ServerSettings:
    """How a server listens, and how much it takes on.

    Attributes:
        host: Address to listen on; 0.0.0.0 is reached from other machines.
        port: Port to listen on; 0 takes a free one.
        workers: Processes that share the port, each with a model and an LM of its own.
        batch_wait: Milliseconds that a request waits for others to be scored with, when nothing is being scored.
        max_waiting: Requests under way at the same time; further ones get status 429.
        max_body: Bytes of a request.
        max_texts: Texts of a request.
        max_tokens: Tokens that a request's texts have together.
        time_limit: Seconds that a request may take, from its first byte to its answer.
        origins: Web pages of other servers that may ask this one, as in ``https://app.example``.
        api_key_file: A file of keys, one a line; every request then needs one. None reads ``RADIO_DSPY_API_KEY``.
        feedback: The JSON Lines file that feedback is added to; None takes no feedback.

    Example:
        >>> ServerSettings(port=9000).address
        'http://127.0.0.1:9000'
    """

    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    batch_wait: float = 2.0
    max_waiting: int = 256
    max_body: int = 8_000_000
    max_texts: int = 1000
    max_tokens: int = 500_000
    time_limit: float = 60.0
    origins: tuple[str, ...] = ()
    api_key_file: Path | None = None
    feedback: Path | None = None

    def __post_init__(self) -> None:
        for name, least in _AT_LEAST.items():
            if not getattr(self, name) >= least:
                raise SettingsError(f"{name} must be at least {least}, got {getattr(self, name)}.")
        if not self.time_limit > 0:
            raise SettingsError(f"time_limit must be above 0 seconds, got {self.time_limit}.")
        if self.port > 65535:
            raise SettingsError(f"port must be at most 65535, got {self.port}.")
        for one in self.origins:
            parts = urlsplit(one)
            if parts.scheme not in ("http", "https") or not parts.hostname or f"{parts.scheme}://{parts.netloc}" != one:
                raise SettingsError(f"origin {shown(one)} must be a scheme and a host, as in https://app.example.")

    @property
    def address(self) -> str:
        """Where the server is reached on this machine."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    def exceeded(self, name: str, got: object) -> str:
        """What a request is told that goes beyond a limit."""
        what = field_docs(type(self))[name].rstrip(".")
        return f"{name} ({what}) is {getattr(self, name)} here, and this request has {got}: send less at a time."


LIMITS = tuple(one.name for one in fields(ServerSettings) if one.name.startswith(("max_", "batch_", "time_")))


def read_keys(settings: ServerSettings, environment: dict[str, str]) -> tuple[str, ...]:
    """The keys that a request may have; none where no key is needed.

    Raises:
        SettingsError: If the file cannot be read, or holds no key or one that no header can carry.
    """
    path = settings.api_key_file
    if path is None:
        given, source = environment.get(KEYS_VARIABLE), KEYS_VARIABLE
        if given is None:
            return ()
    else:
        source = str(path)
        try:
            if is_special(path):  # of a pipe one worker would read all
                raise SettingsError(f"{path}: is no file, and keys are read more than once; give a file.")
            given = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text"
            raise SettingsError(
                f"{path}: the keys cannot be read ({reason}); give a file with one key a line."
            ) from None
    keys = tuple(filter(None, (line.strip() for line in given.splitlines())))
    if not keys or not all(key.isascii() and key.isprintable() and " " not in key for key in keys):
        raise SettingsError(f"{source}: needs a key a line, of printable ASCII characters without spaces.")
    return keys


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone.

    Example:
        >>> [is_loopback(one) for one in ("localhost", "127.0.0.2", "::1", "0.0.0.0", "app.example")]
        [True, True, True, False, False]
    """
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
