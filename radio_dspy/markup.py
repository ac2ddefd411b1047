"""Small pieces of HTML for notebooks; whatever stands in them is escaped."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from typing import Any

# A page must not hold them, and half a character cannot be written.
_UNWRITABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def writable(text: str) -> str:
    """The text with a replacement character for everything that an HTML file must not hold.

    Example:
        >>> writable(f"a{chr(0)}b") == f"a{chr(0xFFFD)}b"
        True
    """
    return _UNWRITABLE.sub("\ufffd", text)


def escaped(value: Any) -> str:
    """A value as text that stands in HTML and means nothing there.

    Example:
        >>> escaped("<b> & c")
        '&lt;b&gt; &amp; c'
    """
    return html.escape(writable(str(value)))


def paragraph(text: Any) -> str:
    """One paragraph."""
    return f"<p>{escaped(text)}</p>"


def html_table(caption: str, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table with a caption and column heads; the first cell of a row names it.

    Example:
        >>> html_table("Means", ["ranking", "mrr"], [["base", "0.5"]])[:41]
        '<table><caption>Means</caption><thead><tr'
    """
    heads = "".join(f'<th scope="col">{escaped(one)}</th>' for one in head)
    body = "".join(
        f'<tr><th scope="row">{escaped(first)}</th>{"".join(f"<td>{escaped(one)}</td>" for one in rest)}</tr>'
        for first, *rest in rows
    )
    return f"<table><caption>{escaped(caption)}</caption><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"


def shortened(text: str, characters: int) -> str:
    """The beginning of a text, with an ellipsis where something was left out.

    Example:
        >>> shortened("Ice floats.", 20), shortened("Ice floats.", 4)
        ('Ice floats.', 'Ice…')
    """
    return text if len(text) <= characters else f"{text[: characters - 1].rstrip()}…"
