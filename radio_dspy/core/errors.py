"""One error tree: every error says what was got and what to do next."""

from __future__ import annotations

from radio_dspy.core.redaction import presentable


class RadioError(Exception):
    """Base class of every error that this library raises on purpose.

    No message holds a secret that is known, or a character that steers a terminal.
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*(presentable(one) if isinstance(one, str) else one for one in args))


class DataError(RadioError, ValueError):
    """Input that cannot be used: a bad line, an unknown id, a score that is not a number."""


class SettingsError(RadioError, ValueError):
    """A setting outside its range, or settings that contradict each other."""


class CheckpointError(RadioError, ValueError):
    """Weights, an index or a saved folder that cannot be loaded or does not match."""


class UnsafeFileError(CheckpointError):
    """A file that asks for code, an address, an LM or another repository; nothing of it was loaded."""


class MissingExtraError(RadioError, ImportError):
    """An optional package is missing; the message holds the command that installs it."""


class StoreError(RadioError, RuntimeError):
    """A vector store that is down, lacks a table, a column or an extension, or refuses a request."""


class BudgetError(RadioError, RuntimeError):
    """The limit of LM calls or dollars is reached; replies received so far are kept."""


class LanguageModelError(RadioError, RuntimeError):
    """A model that is asked failed in the middle of a run; what it had written is kept.

    Where it is a ``dspy.LM``, ``except dspy.LMError`` catches it too (``radio_dspy.lm.calls``).
    """


class RunError(RadioError, RuntimeError):
    """A run folder that cannot be used: another process is writing there, or it holds something else."""
