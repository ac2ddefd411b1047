"""A DSPy adapter that small models can follow."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import dspy
from dspy.adapters.base import Adapter
from dspy.signatures.signature import Signature
from dspy.utils.exceptions import AdapterParseError

from radio_dspy.lm.thoughts import without_thoughts

# The prefix of the embedded models' names: their address is a fact of the process, never of a saved program.
LOCAL_PROVIDER = "radio-local"


class PlainAdapter(Adapter):
    """Asks in plain words and takes the reply whole, for models too small for DSPy's field markers.

    A signature with one string output becomes the instruction, the inputs as ``Name: value`` lines and the output's
    name; the whole reply is the output. Any other signature goes through ``dspy.JSONAdapter``, whose schema a
    local server enforces by grammar.

    Example:
        >>> adapter = PlainAdapter()
        >>> signature = dspy.Signature("question -> answer", "Answer briefly.")
        >>> print(adapter.format(signature, [], {"question": "2+2?"})[0]["content"])
        Answer briefly.
        <BLANKLINE>
        Question: 2+2?
        <BLANKLINE>
        Answer:
    """

    def __init__(self) -> None:
        super().__init__()
        self._json = dspy.JSONAdapter()

    def __call__(
        self,
        lm: Any,
        lm_kwargs: dict[str, Any],
        signature: type[Signature],
        demos: list[dict[str, Any]],
        inputs: dict[str, Any],
    ) -> list[dict[str, Any]]:
        """Run one call; see ``dspy.Adapter``."""
        with _overflow_named():
            if single_text_output(signature) is None:
                return self._json(lm, lm_kwargs, signature, demos, inputs)
            return super().__call__(lm, lm_kwargs, signature, demos, inputs)

    async def acall(
        self,
        lm: Any,
        lm_kwargs: dict[str, Any],
        signature: type[Signature],
        demos: list[dict[str, Any]],
        inputs: dict[str, Any],
    ) -> list[dict[str, Any]]:
        """Run one asynchronous call; see ``dspy.Adapter``."""
        with _overflow_named():
            if single_text_output(signature) is None:
                return await self._json.acall(lm, lm_kwargs, signature, demos, inputs)
            return await super().acall(lm, lm_kwargs, signature, demos, inputs)

    def format(
        self, signature: type[Signature], demos: list[dict[str, Any]], inputs: dict[str, Any]
    ) -> list[dict[str, Any]]:
        """Write demonstrations and inputs as a conversation of plain messages."""
        output = single_text_output(signature) or next(iter(signature.output_fields))
        messages = []
        for demo in demos:
            if demo.get(output):
                messages.append({"role": "user", "content": _ask(signature, demo, output)})
                messages.append({"role": "assistant", "content": str(demo[output])})
        messages.append({"role": "user", "content": _ask(signature, inputs, output)})
        return messages

    def format_user_message_content(
        self,
        signature: type[Signature],
        inputs: dict[str, Any],
        prefix: str = "",
        suffix: str = "",
        main_request: bool = False,
    ) -> str:
        """Write inputs as ``Name: value`` lines; ``dspy.ReAct`` writes its trajectory so."""
        return f"{prefix}{_lines(signature, inputs)}{suffix}"

    def parse(self, signature: type[Signature], completion: str) -> dict[str, Any]:
        """Take the whole reply as the output, without the field's name if the model repeated it."""
        output = single_text_output(signature) or next(iter(signature.output_fields))
        text = without_thoughts(without_label(without_thoughts(completion), output))
        if not text:
            raise AdapterParseError(
                adapter_name=type(self).__name__,
                signature=signature,
                lm_response=completion,
                message="The LM returned an empty reply.",
            )
        return {output: text}


class DispatchingAdapter(Adapter):
    """Uses ``PlainAdapter`` for the embedded models, and the adapter the user configured for all others.

    Args:
        outer: The adapter in force outside; None follows ``dspy.configure``. (Every argument has a default: DSPy's
            ``Refine`` makes a copy of the class without any.)
    """

    def __init__(self, outer: Adapter | None = None) -> None:
        super().__init__()
        self.outer: Adapter | None = outer.outer if isinstance(outer, DispatchingAdapter) else outer
        self._plain = PlainAdapter()

    def pick(self, lm: Any) -> Any:
        """The adapter that this LM is asked through."""
        from dspy.dsp.utils.settings import main_thread_config

        if str(getattr(lm, "model", "")).startswith(f"{LOCAL_PROVIDER}-"):
            return self._plain
        outer = self.outer or main_thread_config["adapter"]
        if isinstance(outer, DispatchingAdapter):
            outer = outer.outer
        return outer or dspy.ChatAdapter()

    def __call__(self, lm: Any, *args: Any, **kwargs: Any) -> list[dict[str, Any]]:
        """Hand the call on to the adapter that fits the LM."""
        return self.pick(lm)(lm, *args, **kwargs)

    async def acall(self, lm: Any, *args: Any, **kwargs: Any) -> list[dict[str, Any]]:
        """Hand the asynchronous call on to the adapter that fits the LM."""
        return await self.pick(lm).acall(lm, *args, **kwargs)

    def format(self, *args: Any, **kwargs: Any) -> list[dict[str, Any]]:
        """Write a prompt as the adapter does that fits the LM in force, without asking it."""
        formatted: list[dict[str, Any]] = self.pick(dspy.settings.lm).format(*args, **kwargs)
        return formatted

    def format_user_message_content(self, *args: Any, **kwargs: Any) -> str:
        """Write values as the adapter does that fits the LM in force: ``dspy.ReAct`` writes its trajectory so."""
        return self.pick(dspy.settings.lm).format_user_message_content(*args, **kwargs)


@contextlib.contextmanager
def _overflow_named() -> Iterator[None]:
    """Raise DSPy's own error for a prompt that is too long: llama.cpp says it in words, and DSPy goes by a code."""
    try:
        yield
    except dspy.LMInvalidRequestError as error:
        if "exceeds the available context size" not in str(error):
            raise
        raise dspy.ContextWindowExceededError(
            message=f"{error.message}: shorten the prompt, or give local_lm more context_tokens", model=error.model
        ) from error


def single_text_output(signature: type[Signature]) -> str | None:
    """The output's name where there is one alone and it is a string: then the whole reply is its value."""
    outputs = list(signature.output_fields.items())
    return outputs[0][0] if len(outputs) == 1 and outputs[0][1].annotation is str else None


def _ask(signature: type[Signature], values: dict[str, Any], output: str) -> str:
    return f"{signature.instructions}\n\n{_lines(signature, values)}\n\n{label_of(output)}:"


def _lines(signature: type[Signature], values: dict[str, Any]) -> str:
    return "\n".join(f"{label_of(name)}: {_show(values[name])}" for name in signature.input_fields if name in values)


def label_of(field: str) -> str:
    """A field's name as a prompt writes it."""
    return field.replace("_", " ").capitalize()


def without_label(reply: str, field: str) -> str:
    """A reply without white space at its ends, and without the field's name if the model repeated it.

    Example:
        >>> without_label("**Answer:** blue ", "answer")
        'blue'
    """
    return re.sub(rf"^[\s*#]*{re.escape(label_of(field))}\s*:[\s*]*", "", reply, flags=re.IGNORECASE).strip()


def _show(value: Any) -> str:
    if isinstance(value, list | tuple):
        if len(value) == 1:
            return str(value[0])
        return "".join(f"\n[{number}] {one}" for number, one in enumerate(value, start=1))
    return str(value)
