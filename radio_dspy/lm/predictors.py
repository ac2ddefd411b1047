"""``dspy.Predict`` for the modules of this library, which takes nothing but prompts from a file."""

from __future__ import annotations

from typing import Any

import dspy
from dspy.adapters.types.base_type import CUSTOM_TYPE_START_IDENTIFIER

from radio_dspy.core.states import check_predictor


class Predict(dspy.Predict):
    """``dspy.Predict``, whose texts stay texts, and whose ``load_state`` refuses what a saved predictor does not hold.

    DSPy makes an image or a file, at whatever address, of a passage or question that holds its mark for one.

    DSPy's own sets whatever a file says: ``config`` goes into every call of the LM, and so may an address.

    Example:
        >>> from radio_dspy.lm.signatures import GenerateAnswer
        >>> predict = Predict(GenerateAnswer)
        >>> predict.load_state({**predict.dump_state(), "config": {"api_base": "http://10.0.0.1"}})
        Traceback (most recent call last):
        ...
        radio_dspy.core.errors.UnsafeFileError: A predictor: its state sets 'config'; a saved one holds prompts and
        demonstrations, never an LM, an address or settings of calls. Do not trust the file; set the LM in your code.
    """

    def load_state(self, state: dict[str, Any], *, allow_unsafe_lm_state: bool = False) -> Predict:
        """Take over a dumped state; see ``dspy.Predict``.

        Args:
            state: What ``dump_state`` gave.
            allow_unsafe_lm_state: Whether the file is your own: then its LM is taken as it is.

        Raises:
            UnsafeFileError: If it sets anything but prompts, demonstrations and, by a plain name, an LM.
            CheckpointError: If it is no state of a predictor.
        """
        trusted = allow_unsafe_lm_state and isinstance(state, dict)
        check_predictor({**state, "lm": None} if trusted else state, lm=True)
        super().load_state(state, allow_unsafe_lm_state=allow_unsafe_lm_state)
        return self

    def _forward_preprocess(self, **kwargs: Any) -> Any:
        lm, options, signature, demos, inputs = super()._forward_preprocess(**kwargs)
        return lm, options, signature, _as_text(demos), _as_text(inputs)


def _as_text(value: Any) -> Any:
    """The same without DSPy's mark, in whatever text of it."""
    if isinstance(value, str):
        while CUSTOM_TYPE_START_IDENTIFIER in value:  # what is left of one may be another
            value = value.replace(CUSTOM_TYPE_START_IDENTIFIER, CUSTOM_TYPE_START_IDENTIFIER.strip("<>"))
        return value
    if type(value) in (list, tuple):
        return type(value)(map(_as_text, value))
    if isinstance(value, dict | dspy.Example):
        texts = {_as_text(name): _as_text(one) for name, one in value.items()}
        return texts if isinstance(value, dict) else value.copy(**texts)
    return value
