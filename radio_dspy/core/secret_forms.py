"""Every form in which servers, libraries and tracebacks repeat a secret."""

from __future__ import annotations

import base64
import binascii
import functools
import html
import json
import re
from collections.abc import Iterator
from itertools import takewhile
from urllib.parse import quote, quote_plus, unquote

from radio_dspy.core.secret_names import AROUND, SHORTEST, is_uuid, is_word

HIDDEN = "***"
_RUN = re.compile(r"[^\s\"'<>]+")
_ESCAPING = re.compile(r"%|&#?\w+;|\\(?:u[0-9A-Fa-f]{4}|[^\w\s])")
_ESCAPED = re.compile(r"\\+(?:u([0-9A-Fa-f]{4})|(\W))")  # by JSON, or by a shell
_UNBROKEN = re.compile(r"[\w.~+=-]{16,}", re.ASCII)
_SHORTEST_BEGINNING = 12
_BETWEEN = re.compile(rf"[{AROUND},;=]+")  # several secrets


@functools.lru_cache(maxsize=1024)
def forms_of(secret: str) -> frozenset[str]:
    """A secret as texts hold it: plain, as Python and JSON write it, quoted for URLs and HTML, in base64 and hex."""
    core = secret.strip(AROUND)
    plain = {core, secret.strip(), secret.strip("\r\n")}
    if not core.startswith("{"):  # of JSON, whoever found it knows which values are secret
        plain |= {part for part in _BETWEEN.split(core) if len(part) >= 2 * SHORTEST}
    plain |= {one for one in (unquote(core), decoded(core)) if len(one) >= SHORTEST and not is_word(one)}
    found = set(plain)
    for one in plain:
        data = one.encode("utf-8", "replace")
        escaped = {one, repr(one)[1:-1], ascii(one)[1:-1], repr(data)[2:-1]}
        # Beside a double quote that is no part of it, Python escapes a single one.
        escaped |= {re.sub(r"(?<!\\)'", r"\\'", form) for form in escaped}
        escaped |= {json.dumps(one)[1:-1], json.dumps(one, ensure_ascii=False)[1:-1]}
        for signs in ("[&<>]", "[&<>=']"):  # Go's, Gson's
            escaped |= {re.sub(signs, lambda sign: f"\\u00{ord(sign[0]):x}", form) for form in escaped}
        escaped |= {form.replace("/", "\\/") for form in escaped}  # PHP's
        escaped |= {json.dumps(form)[1:-1] for form in escaped} | {repr(form)[1:-1] for form in escaped}
        quoted = {quote(data, safe=""), quote(data), quote_plus(data)}
        quoted |= {quote(form, safe="") for form in quoted}
        quoted |= {re.sub("%..", lambda code: code[0].lower(), form) for form in quoted}
        found |= escaped | quoted | _in_html(one) | {" ".join(one.split())} | set(_base64(one))
        found |= {data.hex(), data.hex().upper()}
        found |= {one.lower(), one.upper()} if is_uuid(one) else set()
    return frozenset(one for one in found if len(one) >= SHORTEST or one in plain) - {""}


def decoded(text: str) -> str:
    """What a text says in base64; empty where it says nothing that can be printed."""
    try:
        found = base64.b64decode(text + "=" * (-len(text) % 4), validate=True).decode()
    except (binascii.Error, ValueError):
        return ""
    return found if found.strip().isprintable() else ""


def _in_html(text: str) -> set[str]:
    escaped = html.escape(text)
    by_mustache = re.sub("[/=`]", lambda sign: f"&#x{ord(sign[0]):X};", escaped)
    return {
        escaped,
        escaped.replace("&#x27;", "&#39;").replace("&quot;", "&#34;"),
        escaped.replace("&#x27;", "&apos;"),
        by_mustache,
        by_mustache.replace("&#x27;", "&#39;"),
    }


def _base64(text: str) -> Iterator[str]:
    """The base64 forms of a text at each of three offsets, without the characters that depend on its neighbours.

    A password stands behind a user's name and a colon there.
    """
    data = text.encode("utf-8", "replace")
    for before in range(3):
        coded = base64.b64encode(b"\0" * before + data).decode()
        whole = coded[(0, 2, 3)[before] : len(coded) - (0, 3, 2)[(before + len(data)) % 3]]
        yield from (whole, whole.replace("+", "-").replace("/", "_"))


def without(text: str, forms: tuple[str, ...]) -> str:
    """A text without these forms, also where one is cut off, or a part of one is escaped as in addresses or pages."""
    for form in forms:
        if form in text:
            text = text.replace(form, HIDDEN)
    for beginning, form in _beginnings(forms):
        while (start := text.find(beginning)) >= 0:
            alike = takewhile(lambda pair: pair[0] == pair[1], zip(text[start:], form, strict=False))
            text = text[:start] + HIDDEN + text[start + sum(1 for _ in alike) :]
    if forms and _ESCAPING.search(text):
        text = _RUN.sub(lambda run: HIDDEN if _ESCAPING.search(run[0]) and _holds(run[0], forms) else run[0], text)
    return text


@functools.lru_cache(maxsize=8)
def _beginnings(forms: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """What stands for a secret that was cut off: its first dozen characters, of which one is a digit at least.

    A name of words alone begins as others do.
    """
    found = []
    for form in forms:
        if _UNBROKEN.fullmatch(form) and (digit := re.search(r"\d", form)):
            length = max(_SHORTEST_BEGINNING, digit.end())
            if length < len(form) and not form[:length].isdigit():
                found.append((form[:length], form))
    return tuple(found)


def _holds(run: str, forms: tuple[str, ...]) -> bool:
    once = unquote(run)
    readings = {once, unquote(once), html.unescape(run), _ESCAPED.sub(_character, run)} - {run}
    return any(form in reading for reading in readings for form in forms)


def _character(escape: re.Match[str]) -> str:
    return chr(int(escape[1], 16)) if escape[1] else escape[2]
