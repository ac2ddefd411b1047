"""Every form in which servers, libraries and tracebacks repeat a secret."""

from __future__ import annotations

import base64
import binascii
import functools
import html
import json
import re
from collections.abc import Iterator
from urllib.parse import quote, quote_plus, unquote

from radio_dspy.core.secret_names import AROUND, SHORTEST, is_word

HIDDEN = "***"
_RUN = re.compile(r"[^\s\"'<>]+")
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
        escaped |= {re.sub("[&<>]", lambda sign: f"\\u00{ord(sign[0]):x}", form) for form in escaped}  # Go's
        escaped |= {form.replace("/", "\\/") for form in escaped}  # PHP's
        escaped |= {json.dumps(form)[1:-1] for form in escaped} | {repr(form)[1:-1] for form in escaped}
        quoted = {quote(data, safe=""), quote(data), quote_plus(data)}
        quoted |= {quote(form, safe="") for form in quoted}
        quoted |= {re.sub("%..", lambda code: code[0].lower(), form) for form in quoted}
        found |= escaped | quoted | _in_html(one) | {" ".join(one.split())} | set(_base64(one))
        found |= {data.hex(), data.hex().upper()}
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


def without(text: str, forms: tuple[str, ...]) -> str:
    """A text without these forms, also where a part of one alone is quoted as addresses are, once or twice."""
    for form in forms:
        if form in text:
            text = text.replace(form, HIDDEN)
    if "%" in text and forms:
        text = _RUN.sub(lambda run: HIDDEN if "%" in run[0] and _holds(run[0], forms) else run[0], text)
    return text


def _holds(run: str, forms: tuple[str, ...]) -> bool:
    once = unquote(run)
    readings = {once, unquote(once)}
    return any(form in reading for reading in readings for form in forms)
