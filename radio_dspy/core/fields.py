"""Read the documentation of a dataclass' fields."""

from __future__ import annotations

import inspect
import re

_ENTRY = re.compile(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", re.MULTILINE)


def field_docs(kind: type) -> dict[str, str]:
    """Field -> its text in the class' docstring, in one line.

    Example:
        >>> from radio_dspy.lm.limits import Budget
        >>> field_docs(Budget)["max_cost"]
        "US dollars by LiteLLM's price list. No call begins once they are spent; calls in flight may still add theirs."
    """
    section = (inspect.getdoc(kind) or "").partition("Attributes:\n")[2].partition("\n\n")[0]
    found = _ENTRY.findall(section)
    return {name: " ".join(text.replace("``", "`").split()) for name, text in found}
