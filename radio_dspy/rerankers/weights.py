"""The trained parameter of a reranker: names only, never a model."""

from __future__ import annotations

from typing import Any, Literal, get_args

from dspy.predict.parameter import Parameter

from radio_dspy.encoders import Encoder, fingerprint, weights_name
from radio_dspy.errors import CheckpointError, SettingsError

Architecture = Literal["cross-encoder", "bi-encoder"]
_ADDED_LATER = ("passage_checkpoint",)  # states of earlier releases do not hold these


class RerankerWeights(Parameter):
    """The name of an immutable checkpoint and how it scores.

    Only strings and numbers live here, so DSPy may copy, save and reset it as often as it likes: the model itself is
    loaded once in the process. Training writes a new folder and assigns its name.

    Attributes:
        checkpoint: A folder or hub name.
        architecture: ``"cross-encoder"`` or ``"bi-encoder"``.
        base: The name of the weights that training started from.
        passage_checkpoint: A bi-encoder's passage side, where only the query side was trained; None: ``checkpoint``.
        max_length: Longest input in tokens; None keeps the checkpoint's own.
        query_prefix: A bi-encoder's query prefix; None takes what the model declares.
        passage_prefix: A bi-encoder's passage prefix; None as above.
    """

    def __init__(
        self,
        checkpoint: str | Encoder,
        architecture: Architecture = "cross-encoder",
        *,
        max_length: int | None = None,
    ) -> None:
        if architecture not in get_args(Architecture):
            raise SettingsError(f"architecture must be one of {get_args(Architecture)}, got {architecture!r}.")
        if max_length is not None and max_length < 8:
            raise SettingsError(f"max_length must be at least 8 tokens, got {max_length}.")
        encoder = checkpoint if isinstance(checkpoint, Encoder) else Encoder(checkpoint)
        self.checkpoint = encoder.name
        self.architecture: Architecture = architecture
        self.base = weights_name(self.checkpoint)
        self.passage_checkpoint: str | None = None
        self.max_length = max_length if max_length is not None else encoder.max_length
        self.query_prefix = encoder.query_prefix
        self.passage_prefix = encoder.passage_prefix

    def __repr__(self) -> str:
        return f"RerankerWeights({weights_name(self.checkpoint)!r}, {self.architecture!r}, base={self.base!r})"

    @property
    def fingerprint(self) -> str:
        """A hash of the checkpoint's files."""
        return fingerprint(self.checkpoint)

    def reset(self) -> None:
        """Keep the weights: DSPy's ``reset_copy`` clears prompts and demonstrations, and this is neither."""

    def dump_state(self, json_mode: bool = True) -> dict[str, Any]:
        """The state as JSON types."""
        return dict(vars(self))

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over a dumped state; no model is loaded.

        Raises:
            CheckpointError: If the state is not one of reranker weights.
        """
        known = {**dict.fromkeys(_ADDED_LATER), **state}
        unknown = set(known) ^ set(vars(self))
        if unknown:
            raise CheckpointError(f"Not a state of reranker weights: unexpected or missing {sorted(unknown)}.")
        self.__dict__.update(known)

    @property
    def passage_side(self) -> str:
        """The checkpoint that encodes a bi-encoder's passages."""
        return self.passage_checkpoint or self.checkpoint
