"""Streaming replies that hold no field markers."""

from __future__ import annotations

import re
from typing import Any

import dspy
from dspy.streaming import StreamListener, StreamResponse

from radio_dspy.core.errors import SettingsError
from radio_dspy.lm.adapters import DispatchingAdapter, PlainAdapter, label_of, single_text_output, without_label
from radio_dspy.lm.thoughts import may_open_thoughts, without_thoughts


class PlainStreamListener(StreamListener):
    """Streams a field of an LM that is asked through ``PlainAdapter``, as ``local_lm`` is: it is the whole reply.

    DSPy's own ``StreamListener`` waits for the markers that ``ChatAdapter``, ``JSONAdapter`` and ``XMLAdapter`` have an
    LM write. The field must be the one text output of its predictor. What the LM thinks is left out, unless only the
    end of its thoughts is marked: then the value begins anew there. A reply that comes from the cache is not streamed:
    then the prediction alone comes.

    Args:
        signature_field_name: The field to listen to.
        predict: Its predictor; None finds it in the program by the field's name.
        predict_name: The predictor's name in the program.
        allow_reuse: Listen to every reply, not to the first alone; needed to call the streaming program twice.

    Raises:
        SettingsError: While streaming, if the field is not the one text output of its predictor, or the LM is asked
            through another adapter.

    Example:
        >>> import asyncio, dspy, radio_dspy as radio
        >>> async def parts(question):
        ...     answering = dspy.streamify(dspy.Predict("question -> answer"), stream_listeners=[listener])
        ...     return [part.chunk async for part in answering(question=question) if hasattr(part, "chunk")]
        >>> listener = PlainStreamListener("answer")
        >>> with radio.local_lm(max_tokens=16) as lm, dspy.context(lm=lm.copy(cache=False)):
        ...     len(asyncio.run(parts("What colour is the sky?"))) > 1
        True
    """

    def __init__(
        self,
        signature_field_name: str,
        predict: Any = None,
        predict_name: str | None = None,
        allow_reuse: bool = False,
    ) -> None:
        super().__init__(signature_field_name, predict, predict_name, allow_reuse)
        self.stream_start: bool = False
        self.stream_end: bool = False
        self._text = self._shown = ""

    def receive(self, chunk: Any) -> StreamResponse | None:
        """Take the next piece of the reply; gives what is new of the field's value, without white space at its ends."""
        if not chunk.choices:  # LiteLLM's last piece holds the usage alone
            return None
        choice = chunk.choices[0]
        if self.stream_end:
            if not (self.allow_reuse and choice.delta.content):
                return None
            self.stream_start = self.stream_end = False
            self._text = self._shown = ""
        if not self.stream_start:
            self._check()
        self.stream_start = True
        self._text += choice.delta.content or ""
        if choice.finish_reason:
            self.stream_end = True
        elif self._may_be_label() or may_open_thoughts(self._value()):
            return None
        return self._response()

    def _check(self) -> None:
        """See that the reply is plain: else its markers would be taken for the value."""
        if self.predict is None:
            return
        lm, adapter = self.predict.lm or dspy.settings.lm, dspy.settings.adapter
        if isinstance(adapter, DispatchingAdapter):
            adapter = adapter.pick(lm)
        if not isinstance(adapter, PlainAdapter):
            raise SettingsError(
                f"PlainStreamListener is for PlainAdapter, and {getattr(lm, 'model', lm)} is asked through "
                f"{type(adapter or dspy.ChatAdapter()).__name__}: give dspy.streaming.StreamListener."
            )
        if single_text_output(self.predict.signature) != self.signature_field_name:
            raise SettingsError(
                f"PlainStreamListener streams the one text output of a predictor, which {self.signature_field_name!r} "
                f"is not: its outputs are {list(self.predict.signature.output_fields)}."
            )

    def finalize(self) -> StreamResponse | None:
        """Give what is left where the reply broke off."""
        if self.stream_end or not self.stream_start:
            return None
        self.stream_end = True
        return self._response()

    def _response(self) -> StreamResponse | None:
        value = self._value()
        if self._shown.startswith(value):
            new = ""
        else:  # what was thoughts after all cannot be taken back: then the value begins anew
            new = value[len(self._shown) :] if value.startswith(self._shown) else value
            self._shown = value
        if not new and not self.stream_end:
            return None
        return StreamResponse(self.predict_name, self.signature_field_name, new, is_last_chunk=self.stream_end)

    def _value(self) -> str:
        """The field's value, as ``PlainAdapter`` parses what is there so far."""
        return without_thoughts(without_label(without_thoughts(self._text), self.signature_field_name))

    def _may_be_label(self) -> bool:
        """Whether what is there so far can still become the field's name and a colon, which is no part of its value."""
        start = re.sub(r"^[\s*#]+", "", self._text).rstrip().lower()
        return label_of(self.signature_field_name).lower().startswith(start)
