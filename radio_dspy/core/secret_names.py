"""Which names stand for secrets, and which values are no secret whatever they are called."""

from __future__ import annotations

import re
from pathlib import Path

SHORTEST = 8
_SHORTEST_MIXED = 6  # of a setting with letters and digits
_LONGEST_WORDS = 11  # characters; a key of letters alone is longer
# What files, shells and editors leave around a secret.
AROUND = " \t\r\n\v\f\"'`\xa0\u200b\u2060\ufeff"

_PASSWORD = r".*(?:PASSWORD|PASSWD|PASSPHRASE|PASSCODE|PWD|PW)S?"
_NAME = re.compile(
    rf"{_PASSWORD}|.*(?:KEY|SECRET|TOKEN|CREDENTIAL|COOKIE|PAT)S?|.*(?:AUTH|DSN|JWT|CREDS)"
    r"|AUTHORIZATION|BEARER|CRED|SIG|SIGNATURE"
)
_PASSWORD_NAME = re.compile(_PASSWORD)
# English words that end as a secret's name does.
_WORDS_LIKE_NAMES = frozenset(
    """BANDPASS BYPASS COMPASS ENCOMPASS HIGHPASS LOWPASS MULTIPASS OVERPASS SURPASS TRESPASS UNDERPASS
    DONKEY FLUNKEY HOCKEY HOTKEY JOCKEY LACKEY LATCHKEY MALARKEY MONKEY TURKEY TURNKEY WHISKEY
    COMPAT COWPAT EXPAT SPAT""".split()  # noqa: SIM905
)
# Of a count of tokens, a special token or an order; what stands behind it may be a secret's name all the same.
_NO_SECRET = re.compile(
    r"(?:BOS|CLS|EOS|MASK|MAX|MIN|NUM|PAD|PROMPT|SEP|SORT|STOP|UNK)"
    r"(?:_(?:CACHE|CACHED|COMPLETION|CONTEXT|GENERATED|INPUT|NEW|OUTPUT|REASONING|THINKING|TOTAL))*"
    r"_(?:KEY|TOKEN)S?(?=_|$)"
)
# What servers without keys are given, and passwords that are words of every text.
PLACEHOLDERS = frozenset(
    """anything changeme disabled dummy-key fake-key lm-studio localhost no-api-key no-key-needed no-key-required
    nokeyneeded not-a-key not-needed not-required not-used notneeded notrequired password placeholder postgres
    sk-no-key-required undefined unneeded your-api-key""".split()  # noqa: SIM905
)
_WORDS = re.compile(r"(?!(?:sk|pk|rk|hf|gsk|ghp)[_-])[A-Za-z]+(?:[ _-][A-Za-z]+)*")  # keys begin with such letters
_NUMBER = re.compile(r"[\d.,:+-]+")
_LOCAL = re.compile(r"[A-Za-z]:[\\/]|~/|\.{1,2}/")
# Parts of the name of a model or a version: words, years and dates, short mixtures such as "4o", "v1" and "qwen2".
_PLAIN_PART = re.compile(r"[A-Za-z]*|\d{1,4}|\d{6}|\d{8}|(?=\d*[A-Za-z])[A-Za-z\d]{1,7}")
_SHORTEST_SEGMENT = 12
_UUID = re.compile(r"[\da-f]{8}(?:-[\da-f]{4}){3}-[\da-f]{12}", re.IGNORECASE)


def is_secret_name(name: str) -> bool:
    """Whether a setting, header or variable of this name holds a secret.

    Example:
        >>> [is_secret_name(name) for name in ("OPENAI_API_KEY_2", "x-api-key", "MYPAT", "dbPass", "DSN")]
        [True, True, True, True, True]
        >>> [is_secret_name(name) for name in ("PATH", "PASSAGES", "COMPASS", "max_new_tokens", "MONKEY")]
        [False, False, False, False, False]
    """
    words = _words_of(name)
    return any(_NAME.fullmatch(word) for word in words) or (bool(words) and words[-1].endswith("PASS"))


def _words_of(name: str) -> list[str]:
    """The words of a name, in capitals, without those that only look like a secret's."""
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).upper()
    joined = "_".join(word for word in re.split(r"[^A-Z]+", parted) if word)
    words = [word for word in _NO_SECRET.sub("", joined, count=1).split("_") if word]
    return [word for word in words if word not in _WORDS_LIKE_NAMES and word[:-1] not in _WORDS_LIKE_NAMES]


def is_password_name(name: str) -> bool:
    """Whether what has this name was chosen by a person, and may be a word."""
    words = _words_of(name)
    return any(_PASSWORD_NAME.fullmatch(word) for word in words) or (bool(words) and words[-1].endswith("PASS"))


def is_word(value: str) -> bool:
    """Whether a value is a word or two, as no key is."""
    return len(value) <= _LONGEST_WORDS and _WORDS.fullmatch(value) is not None


def is_ordinary(value: str, name: str) -> bool:
    """Whether the value of a variable with a secret's name would be found in any text: a word, a number, a path."""
    if len(value) < SHORTEST or value.lower() in PLACEHOLDERS:
        return True
    if _LOCAL.match(value) or (value[0] == "/" and Path(*Path(value).parts[:2]).exists()):
        return True
    return not is_password_name(name) and (is_word(value) or _NUMBER.fullmatch(value) is not None)


def is_telling(value: str) -> bool:
    """Whether a secret is long enough to be looked for in texts, and no placeholder for one."""
    core = value.strip(AROUND)
    long_enough = len(core) >= SHORTEST or (len(core) >= _SHORTEST_MIXED and not core.isalpha())
    return long_enough and core.lower() not in PLACEHOLDERS


def is_uuid(value: str) -> bool:
    """Whether a value is a UUID, of which servers may change the case."""
    return _UUID.fullmatch(value) is not None


def looks_drawn(segment: str) -> bool:
    """Whether a part of an address's path was drawn at random, as a token is; names of models and versions are not.

    Example:
        >>> [looks_drawn(one) for one in ("9f8a7b6c5d4e3f2a", "gpt-4o-mini-2024-07-18", "Meta-Llama-3.1-8B-Instruct")]
        [True, False, False]
    """
    if _UUID.fullmatch(segment):
        return True
    if len(segment) < _SHORTEST_SEGMENT or segment.isalpha() or not any(map(str.isalpha, segment)):
        return False
    return not all(_PLAIN_PART.fullmatch(part) for part in re.split(r"[-_.:~@+]", segment))
