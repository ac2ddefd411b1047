"""LiteLLM without what it prints."""

from __future__ import annotations

from typing import Any


def quiet_litellm() -> Any:
    """LiteLLM, which else prints a list of providers after each error, and for each model that it does not know."""
    import litellm

    litellm.suppress_debug_info = True
    return litellm
