"""Small pieces of HTML and Markdown with everything in them escaped."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from typing import Any

from radio_dspy.core.redaction import redacted

# A page must not hold the first, an unpaired surrogate cannot be written, and the last put texts in another order.
_UNWRITABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff\u202a-\u202e\u2066-\u2069]")
_MEANS_SOMETHING = re.compile(r"([\\`*_\[\]<>#|~&$@])")
_IS_A_LINK = re.compile(r"(?i)(https?|ftp|mailto|xmpp|www)([:.])")  # by itself, on GitHub and the hub
_STARTS_A_BLOCK = re.compile(r"^(\d*)([.)](?=\s|$)|[-+](?=\s|$)|-{2}|=+(?=\s*$))")


def writable(text: str) -> str:
    """The text with a replacement character for everything that an HTML file must not hold.

    Example:
        >>> writable(f"a{chr(0)}b") == f"a{chr(0xFFFD)}b"
        True
    """
    return _UNWRITABLE.sub("\ufffd", text)


def escaped(value: Any) -> str:
    """A value as text that stands in HTML and means nothing there, without known secrets.

    Example:
        >>> escaped("<b> & c")
        '&lt;b&gt; &amp; c'
    """
    return html.escape(writable(redacted(str(value))))


def plain(value: Any) -> str:
    r"""A value as one line of Markdown in which nothing means anything, without known secrets.

    Example:
        >>> print(plain("<b> a|b"))
        \<b\> a\|b
    """
    text = " ".join(writable(redacted(str(value))).split())
    return _STARTS_A_BLOCK.sub(r"\1\\\2", _IS_A_LINK.sub(r"\1\\\2", _MEANS_SOMETHING.sub(r"\\\1", text)))


def code(value: Any) -> str:
    """A value as one line of code in Markdown, whatever backticks it holds.

    Example:
        >>> code("BAAI/bge-m3"), code("a`b")
        ('`BAAI/bge-m3`', '`` a`b ``')
    """
    text = " ".join(writable(redacted(str(value))).split())
    if "`" not in text:
        return f"`{text}`" if text else ""
    fence = "`" * (1 + max(map(len, re.findall("`+", text))))
    return f"{fence} {text} {fence}"


def markdown_table(head: Sequence[Any], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table.

    Example:
        >>> print(markdown_table(["ranking", "mrr"], [["base", "0.5"]]))
        | ranking | mrr |
        | --- | --- |
        | base | 0.5 |
    """
    lines = [[plain(cell) for cell in head], ["---"] * len(head), *([plain(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


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
