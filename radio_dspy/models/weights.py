"""The trained parameter of a reranker: the name of its checkpoint, never the model itself."""

from __future__ import annotations

import copy
import functools
import sys
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from types import FrameType
from typing import Any, get_args

from dspy.predict.parameter import Parameter

from radio_dspy.core.errors import CheckpointError, SettingsError
from radio_dspy.core.redaction import logger_of
from radio_dspy.core.states import check_weights
from radio_dspy.core.validation import checked_text, is_whole, shown
from radio_dspy.models.architecture import Architecture, check_architecture, chosen_architecture
from radio_dspy.models.encoder import Encoder, TextEncoder
from radio_dspy.models.files import fetched_weights, fingerprint, weights, weights_name

logger = logger_of(__name__)
LONGEST_PROMPT = 10_000  # characters, as a saved state may have
# What states without these stand for. A prompt is written where there is one: earlier releases, which would leave it
# out, refuse such a state and read all others.
_ADDED_LATER: dict[str, Any] = {"passage_checkpoint": None, "prompt": None, "training": ()}


@functools.lru_cache(maxsize=64)  # once for each checkpoint
def _say_where(checkpoint: str) -> None:
    logger.warning(
        "The saved file names its reranker's weights, which lie in %s, and does not hold them: "
        "radio_dspy.save(program, folder) keeps both in one folder that can be moved.",
        checkpoint,
    )


def _saved_by_dspy(frame: FrameType | None) -> bool:
    """Whether the caller is ``program.save``, which calls ``program.dump_state``."""
    for _ in range(4):
        if frame is None:
            return False
        if frame.f_code.co_name == "save" and str(frame.f_globals.get("__name__")).startswith("dspy."):
            return True
        frame = frame.f_back
    return False


@dataclass(frozen=True, init=False, repr=False)
class RerankerWeights(Parameter):
    """The name of an immutable checkpoint and how it scores.

    Only JSON types live here, so DSPy may copy, save and reset it as often as it likes: the model itself is loaded once
    in the process. Nothing can be set: training writes a new folder, and a copy made by ``with_checkpoint`` names it.
    Weights are equal where they score alike.

    Attributes:
        checkpoint: A folder or hub name.
        chosen: How they score; None until weights of the hub are on this machine.
        base: The name of the weights that training started from.
        passage_checkpoint: The passage side, where only the query side was trained; None: ``checkpoint``.
        max_length: Longest input in tokens; None keeps the checkpoint's own.
        query_prefix: Before a query, where it is read apart from passages; None takes what the model declares.
        passage_prefix: Before a passage, as above.
        prompt: A cross-encoder's prompt; None takes what the model declares, ``""`` none.
        new_head: Whether an encoder may get a head that is drawn anew, to be trained. It is no part of the state.
        training: What trained them, one record for each ``RADIO.compile`` whose weights were taken, the first one
            first: settings, teacher, counts, figures before and after. Empty for weights as they came.

    Example:
        >>> weights = RerankerWeights("BAAI/bge-reranker-base", max_length=256)
        >>> weights.with_checkpoint("runs/first/reranker-1").base
        'BAAI/bge-reranker-base'
    """

    checkpoint: str
    chosen: Architecture | None
    base: str = field(compare=False)
    passage_checkpoint: str | None
    max_length: int | None
    query_prefix: str | None
    passage_prefix: str | None
    prompt: str | None
    training: tuple[dict[str, Any], ...] = field(compare=False)
    new_head: bool = field(default=False, compare=False)

    def __init__(
        self,
        checkpoint: str | TextEncoder,
        architecture: Architecture | None = None,
        *,
        max_length: int | None = None,
        prompt: str | None = None,
        new_head: bool = False,
    ) -> None:
        if architecture is not None and architecture not in get_args(Architecture):
            raise SettingsError(f"architecture must be one of {get_args(Architecture)} or None, got {architecture!r}.")
        if max_length is not None and not (is_whole(max_length) and max_length >= 8):
            raise SettingsError(f"max_length must be at least 8 tokens, got {max_length!r}.")
        encoder = Encoder(checkpoint) if isinstance(checkpoint, str) else checkpoint
        if not isinstance(encoder, Encoder):
            raise SettingsError(
                f"{encoder.name} is asked for vectors and has no weights here, so it cannot be trained; give Rerank a "
                "folder or hub name, or an Encoder. It can still build the index and compare passages with rationales."
            )
        if (folder := Path(encoder.name)).is_dir():
            architecture = architecture or chosen_architecture(folder)
            check_architecture(folder, architecture, new_head=new_head)
        _check_prompt(prompt, architecture)
        self.__dict__.update(
            checkpoint=encoder.name,
            chosen=architecture,
            base=weights_name(encoder.name),
            passage_checkpoint=None,
            max_length=max_length if max_length is not None else encoder.max_length,
            query_prefix=encoder.query_prefix,
            passage_prefix=encoder.passage_prefix,
            prompt=prompt,
            training=(),
            new_head=new_head,
        )

    def __repr__(self) -> str:
        return f"RerankerWeights({weights_name(self.checkpoint)!r}, {self.chosen!r}, base={self.base!r})"

    @property
    def architecture(self) -> Architecture:
        """How they score; weights that are not on this machine are fetched to see it.

        Raises:
            CheckpointError: If they cannot be found, or are neither.
            SettingsError: If they do not say which, or have a prompt that they have no place for.
        """
        found = self.chosen or chosen_architecture(fetched_weights(self.checkpoint))
        _check_prompt(self.prompt, found)
        return found

    def settled(self) -> RerankerWeights:
        """A copy that has looked which architecture it is."""
        return self._changed(chosen=self.architecture)

    @property
    def fingerprint(self) -> str:
        """A hash of the checkpoint's files."""
        return fingerprint(self.checkpoint)

    def reset(self) -> None:
        """Keep the weights: DSPy's ``reset_copy`` clears prompts and demonstrations, and this is neither."""

    def dump_state(self, json_mode: bool = True) -> dict[str, Any]:
        """The state as JSON types. Called by DSPy's ``save``, it says in the log where the weights lie."""
        if _saved_by_dspy(sys._getframe(1)) and Path(self.checkpoint).is_absolute():
            _say_where(self.checkpoint)
        own = {**vars(self), "training": list(self.training)}
        own.pop("new_head", None)
        if self.prompt is None:
            del own["prompt"]
        return {"checkpoint": own.pop("checkpoint"), "architecture": own.pop("chosen"), **own}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over a dumped state; no model is loaded.

        Raises:
            CheckpointError: If the state is not one of reranker weights, or names an address.
        """
        if not isinstance(state, dict):
            raise CheckpointError(f"Not a state of reranker weights, but {type(state).__name__}.")
        known = {**_ADDED_LATER, **state}
        unknown = set(known) ^ {*self.dump_state(), "prompt"}
        if unknown:
            raise CheckpointError(
                f"Not a state of reranker weights: unexpected or missing {sorted(unknown)}. If a newer release "
                "saved it, upgrade radio-dspy."
            )
        check_weights(known)
        self.__dict__.update(known, chosen=known.pop("architecture"), training=tuple(known["training"]))

    def take_over(self, other: RerankerWeights) -> None:
        """Become equal to others in place, as by ``load_state``: the rerankers that share these keep sharing them."""
        self.__dict__.update(vars(other))

    @property
    def passage_side(self) -> str:
        """The checkpoint that encodes passages, where they are read apart from queries."""
        return self.passage_checkpoint or self.checkpoint

    def with_checkpoint(
        self, checkpoint: str | PathLike[str], passage_checkpoint: str | PathLike[str] | None = None
    ) -> RerankerWeights:
        """A copy that names another checkpoint; None keeps the passage side."""
        passages = str(passage_checkpoint) if passage_checkpoint else self.passage_checkpoint
        return self._changed(checkpoint=str(checkpoint), passage_checkpoint=passages)

    def with_training(self, record: dict[str, Any]) -> RerankerWeights:
        """A copy with one more record of what trained them."""
        return self._changed(training=(*self.training, record))

    def untrained(self) -> RerankerWeights:
        """The weights that training started from, for queries and passages alike.

        Raises:
            CheckpointError: If it was a folder, which is not there.
        """
        return self._changed(checkpoint=weights(self.base), passage_checkpoint=None, training=())

    def _changed(self, **values: Any) -> RerankerWeights:
        other = copy.copy(self)
        other.__dict__.update(values)
        return other


def _check_prompt(prompt: Any, architecture: Architecture | None) -> None:
    if prompt is None:
        return
    if not isinstance(prompt, str) or len(prompt) > LONGEST_PROMPT:
        raise SettingsError(
            f"prompt must be a text of at most {LONGEST_PROMPT:,} characters, or None for the model's own; got "
            f"{shown(prompt)}."
        )
    if prompt:
        checked_text(prompt, "The prompt")
    if architecture in ("bi-encoder", "late-interaction"):
        raise SettingsError(
            f"prompt= is a cross-encoder's. A {architecture} reranker has one for each side: give "
            "Rerank(Encoder(name, query_prefix=..., passage_prefix=...))."
        )
