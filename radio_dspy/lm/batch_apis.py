"""Batches of providers: OpenAI's files and batches, which LiteLLM speaks to several, and what others are made from."""

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

from radio_dspy.core.errors import LanguageModelError
from radio_dspy.core.quiet import quiet_litellm
from radio_dspy.core.redaction import cause_of, told

_TAG = "radio_dspy"  # a batch's metadata, by which one is found whose id a kill has cost
PROVIDERS = ("openai", "azure", "vertex_ai", "bedrock", "hosted_vllm", "mistral", "xai")
_ENDED = ("completed", "failed", "expired", "cancelled")
LISTED = 100


@dataclass(frozen=True)
class Answered:
    """One request of a batch that has ended.

    Attributes:
        body: The provider's shape of a reply; None where the request failed.
        refused: Whether the provider refuses this request, so that it would refuse it again.
    """

    body: dict[str, Any] | None
    refused: bool = False


class BatchAPI:
    """Sends requests as one file, and fetches the replies; every call is LiteLLM's.

    Args:
        lm: Whose model, key and address are used.

    Attributes:
        marks: Whether a batch carries the tag that it was sent with.
    """

    marks = True

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
        with named(self.lm, "takes no batch"):
            file = litellm.create_file(file=(f"{tag}.jsonl", text.encode()), purpose="batch", **self.client)
            batch = litellm.create_batch(
                completion_window="24h",
                endpoint="/v1/chat/completions",
                input_file_id=file.id,
                metadata={_TAG: tag},
                **self.client,
            )
        return str(batch.id)

    def find(self, tag: str, count: int, since: float) -> list[str]:
        """The ids of the batches that may be one whose id was not kept.

        Args:
            tag: It was sent with.
            count: Its requests.
            since: When it was sent, in seconds since 1970.
        """
        litellm = quiet_litellm()
        with named(self.lm, "does not list its batches"):
            found = litellm.list_batches(limit=LISTED, **self.client)
        return [str(one.id) for one in found.data if (one.metadata or {}).get(_TAG) == tag]

    def results(self, batch: str) -> dict[str, Answered] | None:
        """What became of each request, by its key; None while the batch is not done."""
        litellm = quiet_litellm()
        with named(self.lm, f"gives no word of batch {batch}"):
            state = litellm.retrieve_batch(batch, **self.client)
            if state.status not in _ENDED:
                return None
            files = [one for one in (state.output_file_id, state.error_file_id) if one]
            contents = [litellm.file_content(one, **self.client).content for one in files]
        if state.status == "failed" and not files:
            problems = [one.message for one in getattr(state.errors, "data", None) or []]
            raise dspy.LMProviderError(f"the provider refused batch {batch}: {'; '.join(map(str, problems))}"[:500])
        return {key: answer for content in contents for key, answer in _answers(content)}

    def read(self, body: dict[str, Any]) -> tuple[lm15.Response, dict[str, Any]]:
        """What a reply says, and its tokens by OpenAI's names."""
        return lm15.response_from_openai_chat(body, model=self.lm.model), body.get("usage") or {}


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
def named(lm: dspy.LM, problem: str) -> Iterator[None]:
    """Turn whatever a client raises into an error that names the LM and hides its key."""
    try:
        yield
    except Exception as error:
        raise LanguageModelError(f"{lm.model} {problem} ({told(error, lm)}).") from cause_of(error, lm)
