"""Read an LM's reply, and tell an unreadable one from any other failure."""

from __future__ import annotations

import copy
import sys
import traceback
from collections.abc import Iterator
from typing import Any, NamedTuple

import dspy
from dspy.utils.exceptions import AdapterParseError

from radio_dspy.core.redaction import told
from radio_dspy.lm.adapters import DispatchingAdapter
from radio_dspy.lm.budget import usage_of_block
from radio_dspy.lm.reasoning import saw_thoughts
from radio_dspy.lm.secrets import lms_of
from radio_dspy.lm.thoughts import without_thoughts
from radio_dspy.lm.waiting import pause

# Whose code stands between the reply and the error, where the error is the reply's; the standard library as well.
_READERS = frozenset(("dspy", "litellm", "openai", "httpx", "json_repair", "pydantic", "regex", "radio_dspy"))
_TRANSPORT = frozenset(("httpx", "httpcore", "openai", "aiohttp"))  # whose errors say that a server failed
_SHOWN = 200  # characters of what came back
_NOTHING = ("{}", "[]", "null", '""')


class Reply(NamedTuple):
    """What one question to an LM came to.

    Attributes:
        value: The output; None where it cannot be read.
        unreadable: What came back instead; empty where the output was read.
        tries: How many replies in a row were no reply at all (a gateway's page, half a message).
    """

    value: Any
    unreadable: str = ""
    tries: int = 1


def what_came(error: Exception, *lms: Any) -> str:
    """What came back, where an error says that a reply cannot be read; any other error is raised again.

    Such a reply is one that DSPy's adapters cannot bring into the form of the signature, one that ends their parsers
    (brackets nested by the hundred), and a body that the client of the provider cannot read. An error that was raised
    in code of the user's own is none, nor one that a server or DSPy reports as a failure.
    """
    if isinstance(error, AdapterParseError):
        text = error.lm_response if isinstance(error.lm_response, str) else str(error.lm_response)
        return f"the reply {_short(text)!r}" if text.strip() not in ("", "None") else "an empty reply"
    if not (_no_reply(error) or _ends_the_parser(error)):
        raise error
    return f"a reply that cannot be read ({told(error, *lms)[:_SHOWN]})"


def read(module: dspy.Module, field: str, **inputs: Any) -> Reply:
    """Ask, and give one output without the LM's thoughts.

    A body that is no reply at all is asked for again, as often as the LM's ``num_retries`` says. A reply that holds
    nothing and comes from DSPy's cache is asked of the LM itself: it may have been a server's fault.

    Raises:
        dspy.LMError: If the LM cannot be reached or refuses.
    """
    asking = _Asking(module, field)
    for options in asking.tries():
        with usage_of_block() as used, dspy.context(**options):
            try:
                asking.take(module(**inputs), bool(used.calls))
            except Exception as error:
                asking.fail(error, bool(used.calls))
    return asking.reply


async def aread(module: dspy.Module, field: str, **inputs: Any) -> Reply:
    """Ask asynchronously; see ``read``."""
    asking = _Asking(module, field)
    for options in asking.tries(wait=False):
        with usage_of_block() as used, dspy.context(**options):
            try:
                asking.take(await module.acall(**inputs), bool(used.calls))
            except Exception as error:
                asking.fail(error, bool(used.calls))
    return asking.reply


class _Asking:
    """One question: all of it but the waiting for the LM."""

    def __init__(self, module: dspy.Module, field: str) -> None:
        self.module, self.field = module, field
        self.lm = getattr(module, "lm", None) or dspy.settings.lm
        self.reply = Reply(None, "nothing")
        self._asked = self._garbage = False

    def tries(self, *, wait: bool = True) -> Iterator[dict[str, Any]]:
        """The settings of each try."""
        options: dict[str, Any] = {"adapter": reading(dspy.settings.adapter or dspy.ChatAdapter(), self.lm)}
        yield options
        if self.reply.unreadable and not self._asked and getattr(self.lm, "cache", False):
            fresh = copy.copy(self.lm)
            fresh.cache = False
            options = {**options, "lm": fresh}
            yield options
        for attempt in range(getattr(self.lm, "num_retries", 0) if wait else 0):
            if not self._garbage or not pause(min(2.0**attempt, 60.0)):
                return
            yield options

    def take(self, prediction: Any, asked: bool) -> None:
        """Read a prediction."""
        value = prediction.get(self.field) if hasattr(prediction, "get") else getattr(prediction, self.field, None)
        value = without_thoughts(value).strip() if isinstance(value, str) else value
        nothing = value is None or value == ""
        self.reply = Reply(None, "an empty reply") if nothing else Reply(value)
        self._asked, self._garbage = asked, False

    def fail(self, error: Exception, asked: bool) -> None:
        """Take in a reply that cannot be read; raise any other error again."""
        came = what_came(error, *lms_of(self.module))
        tries = self.reply.tries + 1 if self._garbage else 1
        self._garbage = _no_reply(error) and not isinstance(error, dspy.LMServerError)
        if isinstance(error, dspy.LMServerError):  # DSPy has tried again already
            tries = getattr(self.lm, "num_retries", 0) + 1
        self.reply = Reply(None, came, tries)
        self._asked = asked or isinstance(error, dspy.LMError)


def reading(adapter: Any, lm: Any = None) -> Any:
    """A copy of an adapter that leaves the LM's thoughts out of what it reads, and notes that the LM has some."""
    if isinstance(adapter, DispatchingAdapter):
        dispatching, pick = copy.copy(adapter), adapter.pick
        dispatching.__dict__["pick"] = lambda lm: reading(pick(lm), lm)
        return dispatching
    copied, parse = copy.copy(adapter), adapter.parse
    tags_are_fields = isinstance(adapter, dspy.XMLAdapter)

    def parsed(signature: Any, completion: Any) -> dict[str, Any]:
        fields = signature.output_fields if tags_are_fields else ()
        text = without_thoughts(completion, fields) if isinstance(completion, str) else completion
        if text != completion:
            saw_thoughts(lm)
        if isinstance(text, str) and (not text.strip() or text.strip() in _NOTHING):
            raise AdapterParseError(type(adapter).__name__, signature, text.strip(), "The reply holds nothing.")
        values: dict[str, Any] = parse(signature, text)
        # DSPy makes the text "None" of a JSON null.
        return {name: None if value == "None" and "None" not in text else value for name, value in values.items()}

    copied.__dict__["parse"] = parsed
    if fallback := getattr(adapter, "_make_json_adapter_fallback", None):
        copied.__dict__["_make_json_adapter_fallback"] = lambda: reading(fallback(), lm)
    if inner := adapter.__dict__.get("_json"):
        copied.__dict__["_json"] = reading(inner, lm)
    return copied


def _no_reply(error: BaseException) -> bool:
    """Whether what the provider's client got is no reply at all, although no server says that it failed."""
    if type(error) is dspy.LMProviderError:
        return bool(getattr(error, "status", None) == 200)
    if isinstance(error, dspy.LMUnexpectedError):
        return error.__cause__ is not None and _raised_by_a_reader(error.__cause__)
    if not isinstance(error, dspy.LMServerError):
        return False
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    modules = {type(one).__module__.partition(".")[0] for one in chain}
    return "litellm" in modules and not modules & _TRANSPORT  # LiteLLM calls what it cannot read a server's error


def _ends_the_parser(error: BaseException) -> bool:
    """Whether a parser or DSPy's prediction failed on what came, and no code of the user's."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if isinstance(error, AttributeError) and frames:  # LiteLLM gave no choice, so the prediction has no field
        held = frames[-1].f_locals.get("self")
        return isinstance(held, dspy.Prediction) and not held.keys()
    if not isinstance(error, ValueError | RecursionError | TypeError | AttributeError):
        return False
    parsing = any(
        frame.f_code.co_name in ("parse", "parsed", "_call_postprocess")
        and str(frame.f_globals.get("__name__")).startswith(("dspy.adapters", "radio_dspy."))
        for frame in frames
    )
    return parsing and _raised_by_a_reader(error)


def _raised_by_a_reader(error: BaseException) -> bool:
    names = [str(frame.f_globals.get("__name__")) for frame, _ in traceback.walk_tb(error.__traceback__)]
    last = names[-1].partition(".")[0] if names else ""
    return last in _READERS or last in sys.stdlib_module_names


def _short(text: str) -> str:
    text = " ".join(text[: 2 * _SHOWN].split())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
