"""Render ``report.html``: one file without scripts or styles from elsewhere."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from radio_dspy.core.html import writable
from radio_dspy.reporting.plots import INSTALL, drawable, figures
from radio_dspy.reporting.summary import Summary

if TYPE_CHECKING:
    from jinja2 import Template

# Inside a script element these could end it or begin a comment; everything beyond ASCII is escaped as well.
_SCRIPT_ESCAPES = {ord(one): f"\\u{ord(one):04x}" for one in "<>&"}


def render_page(summary: Summary, questions: Sequence[Mapping[str, Any]]) -> str:
    """The page as text.

    Args:
        summary: What happened.
        questions: To browse, as ``read_summary`` gives them.
    """
    from markupsafe import Markup

    script = _file("report.js")
    return _template().render(
        summary=summary,
        figures=[(one, Markup(one.svg)) for one in figures(summary)],
        drawable=drawable(),
        install=INSTALL,
        style=Markup(_file("report.css")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        data=Markup(_as_script(questions)),
        count=len(questions),
    )


@functools.cache
def _template() -> Template:
    """The page's template; to read it takes longer than to fill it in."""
    from jinja2 import Environment, FunctionLoader
    from markupsafe import Markup

    def shown(value: Any) -> Any:
        return value if isinstance(value, Markup) or not isinstance(value, str) else writable(value)

    environment = Environment(
        loader=FunctionLoader(_file), autoescape=True, finalize=shown, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("report.html")


def _as_script(value: Any) -> str:
    """JSON that stands in a script element and does not end it."""
    return json.dumps(value, ensure_ascii=True, allow_nan=False).translate(_SCRIPT_ESCAPES)


def _file(name: str) -> str:
    return (files("radio_dspy.reporting") / "templates" / name).read_text(encoding="utf-8")
