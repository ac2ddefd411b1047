"""Tell which LMs reason before they answer."""

from __future__ import annotations

import re
from typing import Any

# DSPy's catalogue knows most; these families it does not know under every provider.
_FAMILIES = re.compile(
    r"(^|[/.\-])(o[134](-mini|-pro|-preview)?|gpt-oss|qwq|magistral|grok-4|grok-3-mini|deepseek-r1|deepseek-reasoner"
    r"|qwen3(\.\d)?(?!.*(instruct|coder|base|embed|rerank))|glm-4\.[5-9]|minimax-m\d|seed-oss|exaone-deep|openthinker\d?)"
    r"($|[-:.@])|(?<!non-)(?<!non_)\b(thinking|reasoning|reasoner)\b",
    re.IGNORECASE,
)
# They think only where they are asked to, or not at all, whatever the catalogue says.
_PLAIN = re.compile(r"claude|gpt-5[\d.]*-chat|non-reasoning|no-?think", re.IGNORECASE)
_known: dict[tuple[str, str], bool] = {}


def is_reasoning(lm: Any) -> bool:
    """Whether an LM thinks before it answers, as far as its settings, DSPy's catalogue and its name tell.

    The name of a model on a server of one's own may say nothing: then it is taken for an ordinary one.
    """
    settings = dict(getattr(lm, "kwargs", {}))
    for name in ("extra_body", "chat_template_kwargs"):  # as servers of one's own are told
        if isinstance(inner := settings.get(name), dict):
            settings = {**settings, **inner}
    if "max_completion_tokens" in settings:  # DSPy's mark of OpenAI's reasoning models
        return True
    for name in ("reasoning_effort", "reasoning", "thinking", "enable_thinking"):
        value = settings.get(name)
        if isinstance(value, dict):
            return not {value.get("type"), value.get("effort"), value.get("enabled")} & {"disabled", "none", False}
        if value is not None:
            return value not in ("none", "disable", False)
    model = str(getattr(lm, "model", ""))
    if _PLAIN.search(model):
        return False
    key = (model, str(getattr(lm, "engine", "")))
    if key not in _known:
        _known[key] = _FAMILIES.search(model) is not None or _in_catalogue(lm)
    return _known[key]


def _in_catalogue(lm: Any) -> bool:
    try:
        return bool(getattr(lm, "supports_reasoning", False))
    except Exception:  # a name that DSPy can route nowhere is told when the LM is asked
        return False
