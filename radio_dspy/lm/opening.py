"""Open an LM by the name that a command or an experiment gives."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from radio_dspy.core.errors import SettingsError
from radio_dspy.core.quiet import quiet_litellm

if TYPE_CHECKING:
    import dspy


@contextlib.contextmanager
def open_lm(name: str, *, seed: int, max_tokens: int, temperature: float | None = None) -> Iterator[dspy.LM | None]:
    """``none``, ``local``, a GGUF file, or any LiteLLM name.

    Without a temperature a local one has its default, and a hosted one keeps all of its own settings.
    """
    import dspy

    from radio_dspy.lm.local import LOCAL_TEMPERATURE, local_lm

    if not name.strip():
        raise SettingsError("--lm is empty; give `local`, `none`, a GGUF file, or a LiteLLM name.")
    if "/" not in name and name not in ("none", "local") and not name.endswith(".gguf") and not _is_known(name):
        raise SettingsError(
            f"--lm {name}: no LM has this name; give `local`, `none`, a GGUF file, or a LiteLLM name with its provider "
            "(openai/gpt-4o-mini)."
        )
    if name == "none":
        yield None
    elif name == "local" or name.endswith(".gguf"):
        path, heat = None if name == "local" else name, LOCAL_TEMPERATURE if temperature is None else temperature
        with local_lm(path, seed=seed, max_tokens=max_tokens, temperature=heat) as model:
            yield model
    elif temperature is None:
        yield dspy.LM(name)
    else:
        yield dspy.LM(name, temperature=temperature, seed=seed, max_tokens=max_tokens)


def _is_known(name: str) -> bool:
    """Whether LiteLLM knows the provider of a name that gives none."""
    litellm = quiet_litellm()
    try:
        return bool(litellm.get_llm_provider(name))
    except litellm.exceptions.BadRequestError:
        return False
