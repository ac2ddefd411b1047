"""Tell which LMs reason before they answer."""

from __future__ import annotations

import re
from typing import Any

# DSPy's catalogue knows most; these families it does not know under every provider.
_FAMILIES = re.compile(
    r"(^|[/.\-])(o[134](-mini|-pro|-preview)?|gpt-oss|qwq|qvq|magistral|grok-4|grok-3-mini|deepseek-r1|deepseek-reasoner"
    r"|qwen3(\.\d)?(?!.*(instruct|coder|base|embed|rerank))|glm-(4\.[5-9]|[5-9])v?|minimax-m\d|seed-oss|exaone-deep"
    r"|openthinker\d?|smollm3|mimo(?!.*base)|hunyuan-(a?\d[\d.]*b|t1)|nemotron-(nano|super|ultra|3)|kimi-k2\.[5-9]|intern-s1)"
    r"($|[-:.@])|(?<!non-)(?<!non_)\b(think|thinking|reasoning|reasoner)\b",
    re.IGNORECASE,
)
# They think only where they are asked to, or not at all, whatever the catalogue says.
_PLAIN = re.compile(r"claude|gpt-5[\d.]*-chat|non-reasoning|no-?think", re.IGNORECASE)
_known: dict[tuple[str, str], bool] = {}
_seen: set[tuple[str, str, str]] = set()


def saw_thoughts(lm: Any) -> None:
    """Note that a reply of this LM began with thoughts: it is a reasoning LM, whatever its name says."""
    _seen.add((*_key(lm), _server(lm)))


def is_reasoning(lm: Any, *, seen: bool = True) -> bool:
    """Whether an LM thinks before it answers, as far as its settings, its replies, DSPy's catalogue and its name tell.

    The name of a model on a server of one's own may say nothing: then it is taken for an ordinary one until it thinks.

    Args:
        lm: The LM.
        seen: Whether its replies so far count; they do not where the same must be said in every process.
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
    key = _key(lm)
    if seen and (*key, _server(lm)) in _seen:
        return True
    model = key[0]
    if _PLAIN.search(model):
        return False
    if key not in _known:
        _known[key] = _FAMILIES.search(model) is not None or _in_catalogue(lm)
    return _known[key]


def _key(lm: Any) -> tuple[str, str]:
    return str(getattr(lm, "model", "")), str(getattr(lm, "engine", ""))


def _server(lm: Any) -> str:
    return str(getattr(lm, "kwargs", {}).get("api_base"))


def _in_catalogue(lm: Any) -> bool:
    try:
        return bool(getattr(lm, "supports_reasoning", False))
    except Exception:  # a name that DSPy can route nowhere is told when the LM is asked
        return False
