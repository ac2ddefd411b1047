"""One error tree: every error says what was got and what to do next."""


class RadioError(Exception):
    """Base class of every error that this library raises on purpose."""


class DataError(RadioError, ValueError):
    """Input that cannot be used: a bad line, an unknown id, a score that is not a number."""


class SettingsError(RadioError, ValueError):
    """A setting outside its range, or settings that contradict each other."""


class CheckpointError(RadioError, ValueError):
    """Weights, an index or a saved folder that cannot be loaded or does not match."""


class MissingExtraError(RadioError, ImportError):
    """An optional package is missing; the message holds the command that installs it."""


class BudgetError(RadioError, RuntimeError):
    """The limit of LM calls or dollars is reached; what was bought is kept."""


class LanguageModelError(RadioError, RuntimeError):
    """A model that is asked failed in the middle of a run; what it had written is kept.

    Where it is a ``dspy.LM``, ``except dspy.LMError`` catches it too (``radio_dspy.failures``).
    """


class RunError(RadioError, RuntimeError):
    """A run folder that cannot be taken up: another process is writing there, or it is another thing's."""
