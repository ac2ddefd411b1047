"""Recognize secrets, in every form in which servers, libraries and tracebacks repeat them."""

from __future__ import annotations

import base64
import binascii
import contextlib
import functools
import html
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

from radio_dspy.core.locks import ThreadLock

_SHORTEST = 8
_SHORTEST_MIXED = 6  # of a setting with letters and digits
_NAME = re.compile(
    r"KEYS?|.*(?:API|ACCESS|AUTH|PRIVATE|SECRET|AI|HUB)KEYS?|COOKIES?|PATS?|PWD|AUTH|AUTHORIZATION|DSN|SIG|SIGNATURE"
    r"|JWT|BEARER|.*(?:SECRET|TOKEN|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL)S?"
)
_PASSWORD_NAME = re.compile(r"PASS|PWD", re.IGNORECASE)
# First words of settings that are no secrets: max_tokens, stop_token.
_NO_SECRET = frozenset("BOS CLS EOS MASK MAX MIN NUM PAD PROMPT SEP SORT STOP UNK".split())  # noqa: SIM905
_DATABASE = re.compile(r"(?:DATABASE|DB|REDIS|MONGO\w*|POSTGRES\w*|MYSQL|AMQP|BROKER)_?(?:URL|URI)", re.IGNORECASE)
_ADDRESS = re.compile(r"(?:.*_)?(?:api_?base|base_?url|endpoint|host|address|url)", re.IGNORECASE)
_ADDRESS_VARIABLE = re.compile(r".*_(?:API_BASE|BASE_URL|API_ENDPOINT|API_HOST)|OLLAMA_HOST", re.IGNORECASE)
_ORDINARY_HEADERS = re.compile(
    r"accept.*|content-.*|user-agent|(?:http-)?referer|x-title|host|connection|cache-control|anthropic-.*|openai-.*"
    r"|x-request-id|traceparent",
    re.IGNORECASE,
)
# What servers without keys are given, and passwords that are words of every text.
_PLACEHOLDERS = frozenset(
    [
        "anything",
        "changeme",
        "disabled",
        "dummy-key",
        "fake-key",
        "lm-studio",
        "localhost",
        "no-api-key",
        "no-key-needed",
        "no-key-required",
        "nokeyneeded",
        "not-a-key",
        "not-needed",
        "not-required",
        "not-used",
        "notneeded",
        "notrequired",
        "password",
        "placeholder",
        "postgres",
        "sk-no-key-required",
        "undefined",
        "unneeded",
        "your-api-key",
    ]
)
_WORDS = re.compile(r"[A-Za-z]+(?:[ _-][A-Za-z]+)*")
_LONGEST_WORDS = 11  # characters; a key of letters alone is longer
_USERINFO = re.compile(r"://([^\s/@:]*):?([^\s/]*)@")  # a password may hold an @
_PARAMETER = re.compile(r"([A-Za-z][\w-]*)=([^&;\s\"']+)")
_SCHEME = re.compile(r"(?:bearer|basic|token|apikey|api-key|key|digest)\s+", re.IGNORECASE)
# What files, shells and editors leave around a secret, and between several of them.
_AROUND = " \t\r\n\v\f\"'`\xa0\u200b\u2060\ufeff"
_BETWEEN = re.compile(rf"[{_AROUND},;=]+")
# Where LMs, hosted encoders and rerankers keep what they send.
_HOLDERS = (
    "kwargs",
    "launch_kwargs",
    "train_kwargs",
    "default_kwargs",
    "fallbacks",
    "model",
    "api_key",
    "api_base",
    "base_url",
    "headers",
    "token",
    "_endpoint",
    "_engine_spec",
    "_async_engine_spec",
    "_api_key",
    "_api_base",
    "_called",
)
_DEPTH = 6


def is_secret_name(name: str) -> bool:
    """Whether a setting, header or variable of this name holds a secret.

    Example:
        >>> [is_secret_name(name) for name in ("OPENAI_API_KEY_2", "x-api-key", "GITHUB_PAT", "PATH", "max_tokens")]
        [True, True, True, False, False]
    """
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).upper()
    parts = [word for word in re.split(r"[^A-Z]+", words) if word]
    named = any(_NAME.fullmatch(word) for word in parts) or parts[-1:] == ["PASS"]
    return named and parts[0] not in _NO_SECRET


class _Known:
    """The secrets and addresses that this process has met, each in all its forms, the longest first."""

    def __init__(self) -> None:
        self._lock = ThreadLock()
        self.secrets: tuple[str, ...] = ()
        self.addresses: tuple[str, ...] = ()

    def add(self, secrets: Iterable[str], addresses: Iterable[str]) -> None:
        new = {form for one in secrets for form in forms_of(one)} - set(self.secrets)
        places = set(addresses) - set(self.addresses)
        if new or places:
            with self._lock:
                self.secrets = _longest_first({*self.secrets, *new})
                self.addresses = _longest_first({*self.addresses, *places})


_KNOWN = _Known()


def learn(*things: Any) -> None:
    """Take in the secrets and addresses of LMs, encoders, rerankers, or of mappings of their settings."""
    secrets, addresses = set[str](), set[str]()
    for thing in things:
        for is_secret, value in _found(thing, "", 0):
            (secrets if is_secret else addresses).add(value)
    _KNOWN.add(filter(_is_telling, secrets), addresses)


def secret_forms() -> tuple[str, ...]:
    """Every form of every secret that was learnt or is in the environment, the longest first."""
    variables = _in_variables(tuple(os.environ.items()))[0]
    return _longest_first({*_KNOWN.secrets, *variables}) if variables else _KNOWN.secrets


def address_forms() -> tuple[str, ...]:
    """Every address that was learnt or is in the environment, the longest first."""
    variables = _in_variables(tuple(os.environ.items()))[1]
    return _longest_first({*_KNOWN.addresses, *variables}) if variables else _KNOWN.addresses


@functools.lru_cache(maxsize=4)
def _in_variables(variables: tuple[tuple[str, str], ...]) -> tuple[frozenset[str], frozenset[str]]:
    """The forms of secrets in the environment, and its addresses of models."""
    secrets, addresses = set[str](), set[str]()
    for name, value in variables:
        if name.upper().endswith("_PROXY") and "@" in value and "://" not in value:
            value = f"http://{value}"
        if name.upper().endswith("HEADERS"):  # of a tracer or a gateway: name: value, or name=value, in lines or a list
            pairs = (re.split("[:=]", one, maxsplit=1) for one in re.split(r"[\r\n,]+", unquote(value)))
            found = _found({one[0].strip(): one[-1] for one in pairs}, "headers", 0)
            secrets.update(one for _, one in found if not _is_ordinary(one, name))
        if value.lstrip(_AROUND).startswith("{"):
            secrets.update(one for is_secret, one in _in_json(value, "") if is_secret and not _is_ordinary(one, name))
        if "://" in value or "=" in value:
            secrets.update(one for one in _inside(value) if not _is_ordinary(one, "password"))
        addresses.update(_places(value) if _ADDRESS_VARIABLE.fullmatch(name) else ())
        named = is_secret_name(name) or _DATABASE.search(name)
        if named and "://" not in value and not _is_ordinary(value.strip(_AROUND), name):
            secrets.add(value)
    return frozenset(form for one in secrets for form in forms_of(one)), frozenset(addresses)


def _is_ordinary(value: str, name: str) -> bool:
    """Whether the value of a variable with a secret's name would be found in any text: a word, a number, a path."""
    if len(value) < _SHORTEST or value.lower() in _PLACEHOLDERS:
        return True
    if re.match(r"[A-Za-z]:[\\/]|~/|\.{1,2}/", value) or (value[0] == "/" and Path(*Path(value).parts[:2]).exists()):
        return True
    if _PASSWORD_NAME.search(name):
        return False
    return bool(re.fullmatch(r"[\d.,:+-]+", value) or (_WORDS.fullmatch(value) and len(value) <= _LONGEST_WORDS))


def _is_telling(value: str) -> bool:
    """Whether a secret is long enough to be looked for in texts, and no placeholder for one."""
    core = value.strip(_AROUND)
    long_enough = len(core) >= _SHORTEST or (len(core) >= _SHORTEST_MIXED and not core.isalpha())
    return long_enough and core.lower() not in _PLACEHOLDERS


def _found(thing: Any, name: str, depth: int) -> Iterator[tuple[bool, str]]:
    """Secrets (True) and addresses (False) in a thing that stands under a name."""
    if thing is None or isinstance(thing, int | float | type) or depth > _DEPTH:
        return
    if callable(reveal := getattr(thing, "get_secret_value", None)):  # pydantic's
        thing = reveal()
    if isinstance(thing, bytes):
        thing = thing.decode("utf-8", "replace")
    if isinstance(thing, str):
        yield from _in_text(thing, name)
    elif isinstance(thing, Mapping):
        headers = name.lower().rstrip("s").endswith("header")
        for key, value in thing.items():
            key = str(key)
            if headers and not _ORDINARY_HEADERS.fullmatch(key):
                named = is_secret_name(key)
                yield from ((True, one) for one in _in_header(value) if named or not _is_ordinary(one, key))
            if key not in ("messages", "prompt", "tools"):
                yield from _found(value, key, depth + 1)
    elif isinstance(thing, list | tuple | set | frozenset):
        for one in thing:
            yield from _found(one, name, depth + 1)
    else:
        holders = _HOLDERS if depth == 0 or name in ("fallbacks", "lm") else tuple(getattr(thing, "__dict__", ()))
        for holder in holders:
            yield from _found(getattr(thing, holder, None), holder.lstrip("_"), depth + 1)


def _in_text(text: str, name: str) -> Iterator[tuple[bool, str]]:
    if "://" in text:
        yield from ((True, one) for one in _inside(text))
    elif is_secret_name(name):
        yield True, _SCHEME.sub("", text.strip(_AROUND), count=1)
    if text.lstrip(_AROUND).startswith("{"):
        yield from _in_json(text, name)
    if _ADDRESS.fullmatch(name) or (name in ("model", "called") and "://" in text):
        yield from ((False, one) for one in _places(text))


def _in_json(text: str, name: str) -> Iterator[tuple[bool, str]]:
    """The secrets of settings that are given as JSON, as Vertex AI's credentials may be."""
    with contextlib.suppress(ValueError, RecursionError):
        yield from _found(json.loads(text.strip(_AROUND)), name, 1)


def _in_header(value: Any) -> Iterator[str]:
    """The secrets of a header's value: all of it, without its scheme, its password, and each value of a cookie."""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    core = _SCHEME.sub("", text.strip(_AROUND), count=1)
    yield core
    yield from (part for _, part in _PARAMETER.findall(core) if not _is_ordinary(part, "cookie"))
    try:
        decoded = base64.b64decode(core, validate=True).decode()
    except (binascii.Error, ValueError):
        return
    yield from (decoded, decoded.partition(":")[2])


def _inside(text: str) -> Iterator[str]:
    """The secrets of an address or a connection string: userinfo and parameters with a secret's name."""
    for user, password in _USERINFO.findall(text):
        if password:
            yield from (f"{user}:{password}", password, unquote(password))
        elif not _is_ordinary(user, "user"):
            yield user
    for name, value in (*_PARAMETER.findall(text), *(parse_qsl(urlsplit(text).query) if _is_url(text) else ())):
        if is_secret_name(name) or name == "code":  # so an Azure function names its key
            yield value


def _is_url(text: str) -> bool:
    try:
        urlsplit(text)
    except ValueError:
        return False
    return True


def _places(text: str) -> Iterator[str]:
    """An address as it is shown: whole, without userinfo, host and port, and the host where it is no plain word."""
    whole = text.strip()[max(0, text.strip().find("http")) :].rstrip("/")  # of huggingface/http://..., the address
    plain = _USERINFO.sub("://", whole)
    rest = plain.partition("://")[2] or plain
    netloc = re.split(r"[/?#]", rest, maxsplit=1)[0]
    host = netloc.rpartition(":")[0] or netloc
    yield from (one for one in (whole, plain, rest) if len(one) >= _SHORTEST)
    yield from (one for one in (netloc, host) if re.search(r"[.:]", one))


@functools.lru_cache(maxsize=1024)
def forms_of(secret: str) -> frozenset[str]:
    """A secret as texts hold it: plain, as Python and JSON write it, quoted for URLs and HTML, in base64."""
    core = secret.strip(_AROUND)
    plain = {core, secret.strip(), secret.strip("\r\n")}
    if not core.startswith("{"):  # of JSON, `_in_json` knows which values are secret
        plain |= {part for part in _BETWEEN.split(core) if len(part) >= 2 * _SHORTEST}
    found = set(plain)
    for one in plain:
        data = one.encode("utf-8", "replace")
        escaped = {one, repr(one)[1:-1], ascii(one)[1:-1], repr(data)[2:-1]}
        # Beside a double quote that is no part of it, Python escapes a single one.
        escaped |= {re.sub(r"(?<!\\)'", r"\\'", form) for form in escaped}
        escaped |= {json.dumps(one)[1:-1], json.dumps(one, ensure_ascii=False)[1:-1]}
        escaped |= {re.sub("[&<>]", lambda sign: f"\\u00{ord(sign[0]):x}", form) for form in escaped}  # Go's
        escaped |= {form.replace("/", "\\/") for form in escaped}  # PHP's
        escaped |= {json.dumps(form)[1:-1] for form in escaped} | {repr(form)[1:-1] for form in escaped}
        quoted = {quote(data, safe=""), quote(data), quote_plus(data)}
        quoted |= {quote(form, safe="") for form in quoted}
        quoted |= {re.sub("%..", lambda code: code[0].lower(), form) for form in quoted}
        found |= escaped | quoted | _in_html(one) | {" ".join(one.split())} | set(_base64(one))
    return frozenset(one for one in found if len(one) >= _SHORTEST or one in plain) - {""}


def _in_html(text: str) -> set[str]:
    escaped = html.escape(text)
    return {escaped, escaped.replace("&#x27;", "&#39;").replace("&quot;", "&#34;")}


def _base64(text: str) -> Iterator[str]:
    """The base64 forms of a text at each of three offsets, without the characters that depend on its neighbours.

    A password stands behind a user's name and a colon there.
    """
    data = text.encode("utf-8", "replace")
    for before in range(3):
        coded = base64.b64encode(b"\0" * before + data).decode()
        whole = coded[(0, 2, 3)[before] : len(coded) - (0, 3, 2)[(before + len(data)) % 3]]
        yield from (whole, whole.replace("+", "-").replace("/", "_"))


def _longest_first(forms: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(forms, key=lambda form: (-len(form), form)))
