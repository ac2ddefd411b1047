"""OpenAI's files and batches, which LiteLLM speaks to several providers."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import dspy
from dspy import lm15
from dspy.clients.backend_selection import CLIENT_KEYS
from dspy.clients.lm15_boundary import request_kwargs

from radio_dspy.core.errors import LanguageModelError, SettingsError
from radio_dspy.core.quiet import quiet_litellm
from radio_dspy.core.redaction import cause_of, told

_TAG = "radio_dspy"  # a batch's metadata, by which one is found whose id a kill has cost
_PROVIDERS = ("openai", "azure", "vertex_ai", "bedrock", "hosted_vllm", "mistral", "xai")
_ENDED = ("completed", "failed", "expired", "cancelled")
_LISTED = 100


@dataclass(frozen=True)
class Answered:
    """One request of a batch that has ended.

    Attributes:
        body: OpenAI's shape of a reply; None where the request failed.
        refused: Whether the provider refuses this request, so that it would refuse it again.
    """

    body: dict[str, Any] | None
    refused: bool = False


class BatchAPI:
    """Sends requests as one file, and fetches the replies; every call is LiteLLM's.

    Args:
        lm: Whose model, key and address are used.
    """

    def __init__(self, lm: dspy.LM) -> None:
        provider, slash, model = lm.model.partition("/")
        self.lm, self.provider, self.model = lm, provider if slash else "openai", model or lm.model
        self.client = {key: lm.kwargs[key] for key in CLIENT_KEYS & lm.kwargs.keys()}
        self.client.setdefault("custom_llm_provider", self.provider)

    def line(self, key: str, request: lm15.Request) -> dict[str, Any]:
        """A request as it stands in the file."""
        body = {"model": self.model, **request_kwargs(request, "chat")}
        return {"custom_id": key, "method": "POST", "url": "/v1/chat/completions", "body": body}

    def submit(self, lines: list[dict[str, Any]], tag: str) -> str:
        """Send requests; the batch's id."""
        litellm = quiet_litellm()
        text = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in lines)
        with _named(self.lm, "takes no batch"):
            file = litellm.create_file(file=(f"{tag}.jsonl", text.encode()), purpose="batch", **self.client)
            batch = litellm.create_batch(
                completion_window="24h",
                endpoint="/v1/chat/completions",
                input_file_id=file.id,
                metadata={_TAG: tag},
                **self.client,
            )
        return str(batch.id)

    def find(self, tag: str) -> str | None:
        """The id of a batch that was sent and whose id was not kept; None where there is none."""
        litellm = quiet_litellm()
        with _named(self.lm, "does not list its batches"):
            found = litellm.list_batches(limit=_LISTED, **self.client)
        return next((str(one.id) for one in found.data if (one.metadata or {}).get(_TAG) == tag), None)

    def results(self, batch: str) -> dict[str, Answered] | None:
        """What became of each request, by its key; None while the batch is not done."""
        litellm = quiet_litellm()
        with _named(self.lm, f"gives no word of batch {batch}"):
            state = litellm.retrieve_batch(batch, **self.client)
            if state.status not in _ENDED:
                return None
            files = [one for one in (state.output_file_id, state.error_file_id) if one]
            contents = [litellm.file_content(one, **self.client).content for one in files]
        if state.status == "failed" and not files:
            problems = [one.message for one in getattr(state.errors, "data", None) or []]
            raise dspy.LMProviderError(f"the provider refused batch {batch}: {'; '.join(map(str, problems))}"[:500])
        return {key: answer for content in contents for key, answer in _answers(content)}


def batch_api(lm: dspy.LM) -> BatchAPI:
    """The interface for an LM's provider.

    Raises:
        SettingsError: If it is not known to have one.
    """
    api = BatchAPI(lm)
    if api.provider not in _PROVIDERS:
        raise SettingsError(
            f"batch=True: {lm.model} has no batches that are known here; they are spoken with "
            f"{', '.join(_PROVIDERS)}. Leave batch= out."
        )
    return api


def read_reply(answer: Answered, model: str) -> lm15.Response | None:
    """The reply that a request got; None where it failed, or where what came is none."""
    if answer.body is None:
        return None
    try:
        return lm15.response_from_openai_chat(answer.body, model=model)
    except (lm15.LM15Error, ValueError, TypeError, LookupError, AttributeError):
        return None


def _answers(content: bytes) -> Iterator[tuple[str, Answered]]:
    """The lines of an output or error file, in whatever order; one that cannot be read counts as lost."""
    for line in content.splitlines():
        try:
            row = json.loads(line)
            key, response = str(row["custom_id"]), row.get("response") or {}
            status, body = int(response.get("status_code") or 0), response.get("body")
        except (ValueError, TypeError, LookupError, AttributeError):
            continue
        if status == 200 and isinstance(body, Mapping):
            yield key, Answered(dict(body))
        else:
            yield key, Answered(None, refused=400 <= status < 500 and status not in (408, 409, 429))


@contextlib.contextmanager
def _named(lm: dspy.LM, problem: str) -> Iterator[None]:
    """Turn whatever a client raises into an error that names the LM and hides its key."""
    try:
        yield
    except Exception as error:
        raise LanguageModelError(f"{lm.model} {problem} ({told(error, lm)}).") from cause_of(error, lm)
