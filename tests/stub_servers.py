"""Stub LM servers on loopback: the wire formats of five providers, and one scripted brain behind them all.

It is a real HTTP server. It tells the formats apart by the path, and knows no path but the providers' own, so that an
address that would fail at the provider fails here too. vLLM speaks OpenAI's format; Ollama speaks it beside its own.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.loopback import Handler, Loopback

KEY = "sk-MARKED-KEY"
# What every answer reports.
PROMPT_TOKENS, COMPLETION_TOKENS = 101, 7


@dataclass(frozen=True)
class Call:
    """A request as it arrived."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def prompt(self) -> str:
        """The text of all messages, the system prompt first."""
        body = self.body
        if "contents" in body:  # Gemini
            instruction = body.get("systemInstruction") or body.get("system_instruction")
            turns = [*([instruction] if instruction else []), *body["contents"]]
            return "\n".join(part["text"] for turn in turns for part in turn["parts"])
        if "prompt" in body:  # Ollama, /api/generate
            return "\n".join(filter(None, [body.get("system"), body["prompt"]]))
        contents = [body.get("system") or "", *(message["content"] for message in body["messages"])]
        return "\n".join(one if isinstance(one, str) else "\n".join(block["text"] for block in one) for one in contents)

    @property
    def sampling(self) -> dict[str, Any]:
        """Temperature, longest reply and seed, as far as they were sent, under OpenAI's names."""
        sent = {**self.body, **self.body.get("options", {}), **self.body.get("generationConfig", {})}
        return {_SAMPLING[name]: value for name, value in sent.items() if name in _SAMPLING}


@dataclass(frozen=True)
class Fault:
    """What a request gets in place of an answer.

    Attributes:
        status: An HTTP error; the body is the provider's own for it.
        retry_after: Seconds, sent with the status.
        silent: No answer before the server closes, or the caller hangs up.
        dropped: The connection is closed without an answer.
    """

    status: int = 0
    retry_after: int | None = None
    silent: bool = False
    dropped: bool = False


BUSY = Fault(429, retry_after=0)
BROKEN = Fault(500, retry_after=0)
AWAY = Fault(503, retry_after=0)
WRONG_KEY = Fault(401)
GEMINI_WRONG_KEY = Fault(400)  # what Gemini sends for a key that it does not know
NO_SUCH_MODEL = Fault(404)
SLOW = Fault(silent=True)
DROPPED = Fault(dropped=True)


class _Handler(Handler):
    stub: StubServer

    def do_POST(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        call = Call(self.path.split("?")[0], headers, json.loads(self.body()))
        self.stub.calls.append(call)
        if call.path == _SHOW:
            return self.send_json(200, {"template": "", "model_info": {}, "capabilities": ["completion"]})
        provider = next((one for path, one in _PATHS.items() if re.fullmatch(path, call.path)), None)
        fault = self.stub.next_fault()
        if fault is None:
            if provider is None:
                return self.send_json(404, {"error": f"no such path: {call.path}"})
            return self.send_json(200, _ANSWERS[provider](call, self.stub.brain(call.prompt)))
        if fault.silent:
            self.stub.closing.wait(30)
        if fault.silent or fault.dropped:
            self.close_connection = True
            return None
        model = call.body.get("model") or call.path.rpartition("/")[2].partition(":")[0]
        retry_after = {} if fault.retry_after is None else {"retry-after": str(fault.retry_after)}
        return self.send_json(fault.status, _error(provider, fault.status, model), retry_after)


class StubServer(Loopback):
    """A provider on a loopback port, for the length of a ``with`` block.

    Args:
        brain: Gives the reply to a prompt: all messages, one after the other.

    Attributes:
        calls: Every request, faults included.
        faults: What the next requests get, one each.
        always: What every request gets once ``faults`` is empty; None answers.
    """

    handler = _Handler

    def __init__(self, brain: Callable[[str], str]) -> None:
        super().__init__()
        self.brain = brain
        self.calls: list[Call] = []
        self.faults: deque[Fault] = deque()
        self.always: Fault | None = None

    @property
    def asked(self) -> list[Call]:
        """The calls that ask for text: LiteLLM also looks up what an Ollama model can do."""
        return [call for call in self.calls if call.path != _SHOW]

    def next_fault(self) -> Fault | None:
        return self.faults.popleft() if self.faults else self.always


def _openai(call: Call, reply: str) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": call.body["model"],
        "choices": [{"index": 0, "message": {"role": "assistant", "content": reply}, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": PROMPT_TOKENS,
            "completion_tokens": COMPLETION_TOKENS,
            "total_tokens": PROMPT_TOKENS + COMPLETION_TOKENS,
        },
    }


def _anthropic(call: Call, reply: str) -> dict[str, Any]:
    content: dict[str, Any] = {"type": "text", "text": reply}
    if tools := call.body.get("tools"):  # LiteLLM asks older models for JSON by a tool
        content = {"type": "tool_use", "id": "toolu_1", "name": tools[0]["name"], "input": json.loads(reply)}
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": call.body["model"],
        "content": [content],
        "stop_reason": "tool_use" if tools else "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": PROMPT_TOKENS, "output_tokens": COMPLETION_TOKENS},
    }


def _gemini(call: Call, reply: str) -> dict[str, Any]:
    content = {"role": "model", "parts": [{"text": reply}]}
    return {
        "candidates": [{"index": 0, "content": content, "finishReason": "STOP"}],
        "usageMetadata": {
            "promptTokenCount": PROMPT_TOKENS,
            "candidatesTokenCount": COMPLETION_TOKENS,
            "totalTokenCount": PROMPT_TOKENS + COMPLETION_TOKENS,
        },
        "modelVersion": call.path.rpartition("/")[2].partition(":")[0],
        "responseId": "r1",
    }


def _ollama(call: Call, reply: str) -> dict[str, Any]:
    message = {"message": {"role": "assistant", "content": reply}}
    return {
        "model": call.body["model"],
        "created_at": "2026-01-01T00:00:00Z",
        **({"response": reply} if call.path == "/api/generate" else message),
        "done": True,
        "done_reason": "stop",
        "prompt_eval_count": PROMPT_TOKENS,
        "eval_count": COMPLETION_TOKENS,
    }


_SHOW = "/api/show"
_PATHS = {
    "/v1/chat/completions": "openai",
    "/v1/messages": "anthropic",
    "/v1beta/models/[^/]+:generateContent": "gemini",
    "/api/chat": "ollama",
    "/api/generate": "ollama",
}
_SAMPLING = {
    "temperature": "temperature",
    "seed": "seed",
    "max_tokens": "max_tokens",
    "max_completion_tokens": "max_tokens",  # OpenAI's newer name
    "num_predict": "max_tokens",  # Ollama
    "maxOutputTokens": "max_tokens",  # Gemini, which takes both spellings
    "max_output_tokens": "max_tokens",
}
_ANSWERS = {"openai": _openai, "anthropic": _anthropic, "gemini": _gemini, "ollama": _ollama}


def _error(provider: str | None, status: int, model: str) -> dict[str, Any]:
    """The body that the provider sends with an error."""
    message = {
        401: "Incorrect API key provided.",
        404: f"The model {model} does not exist.",
        429: "Rate limit reached.",
        503: "The server is overloaded.",
    }.get(status, "The server had an error.")
    if provider == "anthropic":
        kinds = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error", 503: "overloaded_error"}
        return {"type": "error", "error": {"type": kinds.get(status, "api_error"), "message": message}}
    if provider == "gemini":
        kinds = {401: "UNAUTHENTICATED", 404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED", 503: "UNAVAILABLE"}
        if status == 400:
            message, kinds[400] = "API key not valid. Please pass a valid API key.", "INVALID_ARGUMENT"
        return {"error": {"code": status, "message": message, "status": kinds.get(status, "INTERNAL")}}
    if provider == "ollama":
        return {"error": message}
    kinds = {401: "invalid_api_key", 404: "model_not_found", 429: "rate_limit_exceeded"}
    return {"error": {"message": message, "type": "error", "param": None, "code": kinds.get(status)}}
