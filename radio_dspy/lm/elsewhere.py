"""An LM whose requests are answered elsewhere: in a batch, or by the workers of a cluster."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import dspy
from dspy.clients.backend_selection import CLIENT_KEYS

from radio_dspy.core.errors import SettingsError

# Requests and responses as plain values. Imported by a statement, this one typed package within dspy would make mypy
# take dspy itself for a package without names.
serde: Any = import_module("dspy._vendor.lm15.serde")


class Elsewhere:
    """An engine of DSPy's in place of an LM's own; DSPy's cache, retries and bookkeeping stay around it.

    Subclasses have ``complete(request)``, which gives an ``lm15.Response``.

    Args:
        lm: Whose requests are answered; its keys and addresses stay here.
    """

    def __init__(self, lm: dspy.LM) -> None:
        self.lm = lm

    def __str__(self) -> str:  # what tells LMs apart is what answers in the end
        return str(self.lm.engine)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("supports_") or name == "supported_params":
            return getattr(self.lm, name)
        raise AttributeError(name)


def answered_by(engine: Elsewhere) -> dspy.LM:
    """A copy of the engine's LM whose requests the engine answers; what it decides and is known by stays the same.

    Raises:
        SettingsError: If the LM is none of DSPy's own: what another class does with a request is not known.
    """
    lm = engine.lm
    if not hasattr(lm, "engine") or type(lm).forward is not dspy.LM.forward or lm.model_type != "chat":
        raise SettingsError(
            f"{getattr(lm, 'model', type(lm).__name__)}: is a {type(lm).__name__}; batches and clusters need a dspy.LM "
            "for chat, whose requests can be answered elsewhere."
        )
    return lm.copy(engine=engine, **dict.fromkeys(CLIENT_KEYS & lm.kwargs.keys()))
