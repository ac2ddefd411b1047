"""Show control characters as escapes on a terminal and in logs."""

from __future__ import annotations

import re
import unicodedata

# C0, C1, soft hyphen, zero width, direction, line and paragraph separators, tags, unpaired surrogates, no characters.
_STEERING = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\u3164\ud800-\udfff\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff\U0001d173-\U0001d17a\U000e0000-\U000e00ff"
    "\U000e01f0-\U000e0fff]"
)
_JOINERS = "\u200c\u200d"
_MARKS = "\u200e\u200f\u061c"  # direction marks, which cannot reorder more than their neighbours
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]")  # Thai, Lao, Burmese, Khmer: U+200B parts words
_FLAG = re.compile("\U0001f3f4[\U000e0020-\U000e007e]+\U000e007f")  # England's and the like


def printable(text: str, *, lines: bool = False) -> str:
    r"""A text that only shows: control characters, and others that hide or reorder, are written as escapes.

    Joiners stay between letters of scripts that need them and in emoji, spaces of no width in scripts without others,
    direction marks in texts that run right to left, tabs everywhere.

    Args:
        text: Any text.
        lines: Whether it may have several lines; else a line break is an escape, too.

    Example:
        >>> printable("a\x1b[31m\u202eb\nc")
        'a\\x1b[31m\\u202eb\\nc'
    """
    if not _STEERING.search(text):
        return text
    allowed = {place for flag in _FLAG.finditer(text) for place in range(*flag.span())}
    right_to_left = any(unicodedata.bidirectional(character) in ("R", "AL") for character in text)

    def shown(found: re.Match[str]) -> str:
        one, place = found.group(), found.start()
        if one == "\t" or place in allowed or (one == "\n" and lines) or (one in _MARKS and right_to_left):
            return one
        around = text[max(0, place - 1) : place], text[place + 1 : place + 2]
        if (one in _JOINERS and all(map(_joins, around))) or (one == "\u200b" and all(map(_UNSPACED.match, around))):
            return one
        return one.encode("unicode_escape").decode()

    return _STEERING.sub(shown, text.replace("\r\n", "\n") if lines else text)


def _joins(neighbour: str) -> bool:
    """Whether a joiner beside a character has a use: in Arabic, Indic and other scripts, and between emoji."""
    return bool(neighbour) and ord(neighbour) >= 0x590 and unicodedata.category(neighbour)[0] in "LMS"
