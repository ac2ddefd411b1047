"""Decide which LM writes the rationales, and how many calls are in flight."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import dspy

from radio_dspy.core.errors import SettingsError
from radio_dspy.core.redaction import logger_of
from radio_dspy.distillation.teacher.lm_signal import LMSignal
from radio_dspy.distillation.teacher.lm_signals import AnswerLikelihood
from radio_dspy.distillation.teacher.signals import RationaleSimilarity
from radio_dspy.lm.batches import batched
from radio_dspy.runs.records import BatchLine, reader_of
from radio_dspy.runs.run import Run

if TYPE_CHECKING:
    from radio_dspy.distillation.rationales.asking import Question
    from radio_dspy.distillation.teacher.signals import Signal
    from radio_dspy.models.engine import Engine

logger = logger_of(__name__)
_read_batch = reader_of(BatchLine)
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


def sent(lm: dspy.LM, run: Run, *, batch: bool, engine: Engine | None) -> dspy.LM:
    """Who is asked in an LM's place: one that answers from batches, which the run folder keeps, or on an engine.

    Raises:
        SettingsError: If the LM's provider has no batches that are known here, or its calls cannot be made elsewhere.
    """
    if batch:
        keep = functools.partial(run.append_record, "batches")
        return batched(lm, keep, lambda: run.records("batches", _read_batch))
    return lm if engine is None else engine.lm(lm)


@contextlib.contextmanager
def asked_elsewhere(signals: Iterable[Signal], run: Run, *, batch: bool, engine: Engine | None) -> Iterator[None]:
    """Inside the block signals keep scores in the run folder, unless they have a file, and ask as ``sent`` says."""
    with contextlib.ExitStack() as stack:
        for signal in signals:
            if isinstance(signal, LMSignal):
                stack.enter_context(signal.kept_in(run))
                lm = sent(signal.lm, run, batch=batch and goes_into_batches(signal), engine=engine)
                stack.enter_context(signal.asking(lm))
            elif isinstance(signal, RationaleSimilarity) and engine is not None:
                stack.enter_context(signal.encoding(engine.encoder(signal.encoder)))
        yield


def goes_into_batches(signal: Signal) -> bool:
    """Whether a signal can be asked in batches; log-probabilities of given texts are what no batch reports."""
    return isinstance(signal, LMSignal) and not isinstance(signal, AnswerLikelihood)


def check_sent(lm: dspy.LM | None, signals: Iterable[Signal], *, batch: bool, engine: Engine | None) -> None:
    """See that every LM can be asked in batches or on an engine, before anything is paid for.

    Raises:
        SettingsError: If one cannot.
    """
    asked = [(signal.lm, batch and goes_into_batches(signal)) for signal in signals if isinstance(signal, LMSignal)]
    for one, in_batches in [*([(lm, batch)] if lm is not None else []), *asked]:
        sent(one, Run(), batch=in_batches, engine=engine)


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
