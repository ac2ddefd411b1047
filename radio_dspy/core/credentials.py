"""Find secrets in settings, objects and the environment, and remember them for the life of the process."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from radio_dspy.core.locks import ThreadLock
from radio_dspy.core.secret_forms import decoded, forms_of
from radio_dspy.core.secret_names import (
    AROUND,
    SHORTEST,
    is_ordinary,
    is_password_name,
    is_secret_name,
    is_telling,
    is_word,
    looks_drawn,
)

_DATABASE = re.compile(r"(?:DATABASE|DB|REDIS|MONGO\w*|POSTGRES\w*|MYSQL|AMQP|BROKER)_?(?:URL|URI)", re.IGNORECASE)
_ADDRESS = re.compile(r"(?:.*_)?(?:api_?base|base_?url|endpoint|host|address|url)", re.IGNORECASE)
_ADDRESS_VARIABLE = re.compile(r".*_(?:API_BASE|BASE_URL|API_ENDPOINT|API_HOST)|OLLAMA_HOST", re.IGNORECASE)
_WEBHOOK = re.compile(r"WEBHOOK", re.IGNORECASE)
_HEADERS = re.compile(r".*(?:header|cookie)s?", re.IGNORECASE)
_ORDINARY_HEADERS = re.compile(
    r"accept.*|content-.*|user-agent|(?:http-)?referer|x-title|host|connection|cache-control|anthropic-.*|openai-.*"
    r"|x-request-id|traceparent",
    re.IGNORECASE,
)
_USERINFO = re.compile(r"://([^\s/@:]*):?([^\s/]*)@")  # a password may hold an @
_PARAMETER = re.compile(r"([A-Za-z][\w-]*)=(?:'((?:[^'\\]|\\.)*)'|\"([^\"]*)\"|\{([^}]*)\}|([^&;\s\"']+))")
_IN_HEADER = re.compile(r"\b(?:bearer|basic)\s+([\w.~+/=-]{16,})", re.IGNORECASE)
_SCHEME = re.compile(r"(?:bearer|basic|token|apikey|api-key|key|digest)\s+", re.IGNORECASE)
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
# Of an LM what it was told and does itself, or what dspy.LM keeps beside its settings.
_NO_SETTINGS = frozenset(
    ("history", "callbacks", "provider", "_providers", "_engine_store", "_async_engine_store", "_engine_lock")
)
# Packages of models, which hold no keys.
_LARGE = frozenset({"numpy", "sentence_transformers", "tokenizers", "torch", "transformers"})
_PROPERTIES = ("password", "api_key", "token", "dsn")  # of clients written in C, or with slots
# Where libraries take keys and headers for the whole process: litellm.api_key, litellm.openai_key...
_OF_LIBRARIES = {
    "litellm": re.compile(r"(?:\w+_)?(?:api_)?key|headers"),
    "openai": re.compile(r"api_key|azure_ad_token"),
}
_SKIPPED = (int, float, type, ModuleType, FunctionType, MethodType, BuiltinFunctionType)
_DEPTH = 8
_MOST = 5000  # things that are looked at: a store may hold a corpus
_FIRST = 300  # of a container


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
    """Take in the secrets and addresses of LMs, encoders, rerankers, stores, or of mappings of their settings."""
    secrets, addresses = set[str](), set[str]()
    for thing in (*things, _set_in_libraries()):
        for is_secret, value in _found(thing):
            (secrets if is_secret else addresses).add(value)
    _KNOWN.add(filter(is_telling, secrets), addresses)


def _set_in_libraries() -> dict[str, Any]:
    """The keys and headers that libraries of LMs were given for the whole process."""
    return {
        name: value
        for library in _OF_LIBRARIES
        if library in sys.modules
        for name in _names_in(library)
        if (value := vars(sys.modules[library]).get(name)) and isinstance(value, str | Mapping)
    }


@functools.lru_cache(maxsize=8)
def _names_in(library: str) -> tuple[str, ...]:
    """The names of a library's keys; a library has them from its import on."""
    return tuple(filter(_OF_LIBRARIES[library].fullmatch, vars(sys.modules[library])))


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
        found: list[str] = []
        if name.upper().endswith("_PROXY") and "@" in value and "://" not in value:
            value = f"http://{value}"
        if name.upper().endswith("HEADERS"):  # of a tracer or a gateway: name: value, or name=value, in lines or a list
            lines = re.split(r"[\r\n,]+", unquote(value))
            named = [re.sub("[:=]", ":", one, count=1) for one in lines if ":" in one or "=" in one]
            found += (one for _, one in _found({"headers": named}))
        found += _IN_HEADER.findall(value)
        if value.lstrip(AROUND).startswith("{"):
            found += (one for is_secret, one in _in_json(value, "") if is_secret)
        if _ADDRESS_VARIABLE.fullmatch(name):
            addresses.update(_places(value))
            found += _in_path(value)
        elif _WEBHOOK.search(name):
            found += _in_path(value)
        secrets.update(one for one in found if not is_ordinary(one, name))
        if "://" in value or "=" in value:
            secrets.update(one for one in _inside(value) if not is_ordinary(one, "password"))
        if (is_secret_name(name) or _DATABASE.search(name)) and "://" not in value:
            secrets.update(_within(value))
            secrets.update(() if is_ordinary(value.strip(AROUND), name) else (value,))
    return frozenset(form for one in secrets for form in forms_of(one)), frozenset(addresses)


def _found(root: Any) -> Iterator[tuple[bool, str]]:
    """Secrets (True) and addresses (False) in a thing, the nearest first."""
    waiting = deque([(root, "", 0, False)])  # what, under which name, how deep, and whether all in it is secret
    seen = set[int]()
    looked = 0
    while waiting and looked < _MOST:
        thing, name, depth, secret = waiting.popleft()
        looked += 1
        if thing is None or isinstance(thing, _SKIPPED) or depth > _DEPTH:
            continue
        if type(thing).__module__.partition(".")[0] in _LARGE:
            continue
        if isinstance(thing, str | bytes):
            yield from _in_text(_text(thing), name, secret)
        elif id(thing) not in seen:
            seen.add(id(thing))
            try:
                waiting.extend((one, key, depth + 1, inside) for one, key, inside in _parts(thing, name, depth, secret))
            except Exception:  # code of others
                continue


def _parts(thing: Any, name: str, depth: int, secret: bool) -> Iterator[tuple[Any, str, bool]]:
    """What a thing holds: each with its name, and whether it is secret whatever its name."""
    pairs = _pairs(thing, name)
    if pairs is not None:
        sent = _HEADERS.fullmatch(name) is not None
        for key, value in pairs:
            if key not in ("messages", "prompt", "tools"):
                yield value, key, secret or (sent and not _ORDINARY_HEADERS.fullmatch(key))
    elif isinstance(thing, list | tuple | set | frozenset):
        for one in islice(thing, _FIRST):
            yield one, name, secret
    elif type(thing).__name__ == "URL":  # httpx's, yarl's
        yield str(thing), name, secret
    elif callable(reveal := getattr(thing, "get_secret_value", None)):  # pydantic's
        yield reveal(), name, secret
    elif secret and hasattr(thing, "domain"):  # a cookie
        yield getattr(thing, "value", None), "cookie", True
    else:
        own = getattr(thing, "__dict__", None)
        of_model = depth == 0 or name in ("fallbacks", "lm") or hasattr(thing, "kwargs")
        holders = tuple(_PROPERTIES if own is None else own)
        if of_model:
            holders = tuple(dict.fromkeys((*_HOLDERS, *(one for one in own or () if one not in _NO_SETTINGS))))
        yield from ((getattr(thing, one, None), one.lstrip("_"), secret) for one in holders[:_FIRST])


def _pairs(thing: Any, name: str) -> list[tuple[str, Any]] | None:
    """Names and values, if that is what a thing consists of: a mapping, a list of pairs, or lines of headers."""
    if isinstance(thing, Mapping):
        return [(_text(key), value) for key, value in islice(thing.items(), _FIRST)]
    if not isinstance(thing, list | tuple) or not thing:
        return None
    some = list(islice(thing, _FIRST))
    if all(isinstance(one, list | tuple) and len(one) in (2, 3) and isinstance(one[0], str | bytes) for one in some):
        return [(_text(one[-2]), one[-1]) for one in some]  # httpx keeps a name twice
    if _HEADERS.fullmatch(name) and all(isinstance(one, str) and ":" in one for one in some):
        return [(key.strip(), value) for key, _, value in (one.partition(":") for one in some)]
    return None


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _in_text(text: str, name: str, secret: bool) -> Iterator[tuple[bool, str]]:
    named = is_secret_name(name)
    if "://" in text or "=" in text:
        yield from ((True, one) for one in _inside(text))
    if (named or secret) and "://" not in text:
        core = _SCHEME.sub("", text.strip(AROUND), count=1)
        plain = is_word(core) and not is_password_name(name) if named else is_ordinary(core, name)
        yield from ((True, one) for one in (*_within(core), *(() if plain else (core,))))
    if text.lstrip(AROUND).startswith("{"):
        yield from _in_json(text, name)
    if _ADDRESS.fullmatch(name) or (name in ("model", "called") and "://" in text):
        yield from ((False, one) for one in _places(text))
        yield from ((True, one) for one in _in_path(text))


def _in_json(text: str, name: str) -> Iterator[tuple[bool, str]]:
    """The secrets of settings that are given as JSON, as Vertex AI's credentials may be."""
    with contextlib.suppress(ValueError, RecursionError):
        yield from _found({name: json.loads(text.strip(AROUND))})


def _within(secret: str) -> Iterator[str]:
    """The parts of a secret that are secret alone: each value of a cookie, the password behind a user's name."""
    yield from (part for _, part in _parameters(secret) if not is_ordinary(part, "cookie"))
    for pair in (secret, decoded(secret)):
        user, colon, password = pair.partition(":")
        told = (pair, password) if colon and not re.search(r"\s", user) else ()
        yield from (one for one in told if not is_ordinary(pair, "password") and not is_ordinary(one, "password"))


def _parameters(text: str) -> Iterator[tuple[str, str]]:
    for name, *values in _PARAMETER.findall(text):
        yield name, next(filter(None, values), "")


def _inside(text: str) -> Iterator[str]:
    """The secrets of an address or a connection string: userinfo and parameters with a secret's name."""
    for user, password in _USERINFO.findall(text):
        if password:
            yield from (f"{user}:{password}", password, unquote(password))
        elif not is_ordinary(user, "user"):
            yield user
    for name, value in (*_parameters(text), *(parse_qsl(urlsplit(text).query) if _is_url(text) else ())):
        named = is_secret_name(name) or name == "code"  # so an Azure function names its key
        if named and (is_password_name(name) or not is_word(value)):
            yield value


def _is_url(text: str) -> bool:
    try:
        urlsplit(text)
    except ValueError:
        return False
    return True


def _in_path(text: str) -> Iterator[str]:
    """The tokens that stand in an address's path."""
    path = re.split(r"[?#]", text.partition("://")[2], maxsplit=1)[0].partition("/")[2]
    yield from (part for part in unquote(path).split("/") if looks_drawn(part))


def _places(text: str) -> Iterator[str]:
    """An address as it is shown: whole, without userinfo, host and port, and the host where it is no plain word."""
    whole = text.strip()[max(0, text.strip().find("http")) :].rstrip("/")  # of huggingface/http://..., the address
    plain = _USERINFO.sub("://", whole)
    rest = plain.partition("://")[2] or plain
    netloc = re.split(r"[/?#]", rest, maxsplit=1)[0]
    host = netloc.rpartition(":")[0] or netloc
    yield from (one for one in (whole, plain, rest) if len(one) >= SHORTEST)
    yield from (one for one in (netloc, host) if re.search(r"[.:]", one))


def _longest_first(forms: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(forms, key=lambda form: (-len(form), form)))
