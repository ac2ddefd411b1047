"""Decide which LM writes the rationales, and how many calls are in flight."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import dspy

from radio_dspy.core.errors import SettingsError
from radio_dspy.core.redaction import logger_of

if TYPE_CHECKING:
    from radio_dspy.distillation.rationales.asking import Question
    from radio_dspy.distillation.teacher.signals import Signal

logger = logger_of(__name__)
RationaleLM: TypeAlias = dspy.LM | str | Literal[False] | None


def opened_lm(given: Any) -> dspy.LM | Literal[False] | None:
    """The LM of a name; anything else as it is.

    Raises:
        SettingsError: For what is neither an LM nor a name, nor False or None.
    """
    checked: Any = given
    if isinstance(checked, int | float) and checked is not False:
        raise SettingsError(f"rationale_lm must be a dspy.LM, its name, None or False, got {given!r}.")
    return dspy.LM(given) if isinstance(given, str) else given


def lm_of(given: dspy.LM | Literal[False] | None, signals: Iterable[Signal] | None) -> dspy.LM | None:
    """Who writes the rationales: the LM given, or for None that of ``dspy.settings``; None where nobody is asked.

    Args:
        given: What RADIO was given; False asks nobody.
        signals: The teacher, where it was given: without one that reads rationales, None asks nobody.
    """
    if given is None:
        return dspy.settings.lm if reads_rationales(signals) else None
    return given or None


def reads_rationales(signals: Iterable[Signal] | None) -> bool:
    """Whether a teacher reads rationales; the default one (None) does, and so may a signal that does not say."""
    return signals is None or any(getattr(one, "reads_rationale", True) for one in signals)


def threads_of(given: int | None) -> int:
    """LM calls in flight at the same time: as many as given, or for None DSPy's own number."""
    return given if given is not None else dspy.settings.num_threads


def check_asked(
    given: dspy.LM | Literal[False] | None,
    signals: Iterable[Signal] | None,
    questions: Iterable[Question],
    rationales: Mapping[str, str],
) -> None:
    """See that there is an LM for the questions without a rationale, and say who is asked where RADIO was not told.

    Raises:
        SettingsError: If there is none.
    """
    missing = any(not rationales.get(key, "").strip() for key, _, _ in questions)
    if given is not None or not missing or not reads_rationales(signals):
        return
    lm: Any = dspy.settings.lm
    if lm is None:
        raise SettingsError(
            "RADIO has no LM to write rationales. Give RADIO(rationale_lm=dspy.LM(...)) or dspy.configure(lm=...), or "
            "RADIO(rationale_lm=False), which asks nobody: the answer alone is then the guide."
        )
    logger.warning(
        "Rationales are asked of %s, the LM of dspy.settings; RADIO(rationale_lm=False) asks nobody.",
        getattr(lm, "model", type(lm).__name__),
    )
