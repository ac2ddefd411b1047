"""Keep the keys of LMs out of errors and logs, and refuse keys that no server takes."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from radio_dspy.core.credentials import learn as learn
from radio_dspy.core.redaction import hide_in, told, watch_logs

if TYPE_CHECKING:
    import dspy

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@contextlib.contextmanager
def hiding_secrets(*things: Any) -> Iterator[None]:
    """Take in the secrets of LMs and the like, and keep them out of what the block raises and logs.

    Raises:
        RadioError: In place of an error that cannot be rid of a secret; any other error as it is.
    """
    from radio_dspy.core.errors import RadioError

    learn(*things)
    watch_logs()
    try:
        yield
    except BaseException as error:
        if hide_in(error) or not isinstance(error, Exception):
            raise
        raise RadioError(told(error)) from None  # a ``with`` makes it the context in any case; this is not shown


def check_keys(*lms: Any) -> None:
    """Refuse keys that no server takes, before anything is asked.

    Raises:
        SettingsError: For a key or a header with a line break or another control character.
    """
    from radio_dspy.core.errors import SettingsError

    learn(*lms)
    for lm in lms:
        settings = getattr(lm, "kwargs", None) or {"api_key": getattr(lm, "_api_key", None)}
        headers = [one for name in ("headers", "extra_headers") for one in (settings.get(name) or {}).items()]
        variable = f"{str(getattr(lm, 'model', '')).partition('/')[0].upper()}_API_KEY"
        key = settings.get("api_key")
        for name, value in [("api_key", key), (variable, os.environ.get(variable) if key is None else None), *headers]:
            if isinstance(value, str) and _CONTROL.search(value):
                raise SettingsError(
                    f"{getattr(lm, 'model', type(lm).__name__)}: its {name} holds a line break or another control "
                    "character, which no server takes; strip it, as in open(...).read().strip()."
                )


def lms_of(program: dspy.Module) -> list[Any]:
    """The configured LM and those that a program's predictors were given, each once; their secrets are known then."""
    import dspy

    predictors = program.named_sub_modules(dspy.Predict)  # also those that an optimizer has frozen
    found = [dspy.settings.lm, *(one.lm for _, one in predictors)]
    lms = list({id(lm): lm for lm in found if lm is not None}.values())
    learn(*lms)
    return lms
