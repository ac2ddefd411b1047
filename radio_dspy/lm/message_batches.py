"""Anthropic's message batches, which LiteLLM reads and does not send; DSPy's own engine writes their requests."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from importlib import import_module
from typing import Any

import dspy
from dspy import lm15

from radio_dspy.lm.batch_apis import LISTED, Answered, BatchAPI, named

_HOST = "https://api.anthropic.com"
_HEADERS = {"anthropic-version": "2023-06-01"}
_SECONDS = 600.0  # for sending a batch
_CLOCKS = 600.0  # seconds by which the provider's clock and ours may differ
_AGAIN = ("api_error", "overloaded_error", "rate_limit_error", "timeout_error")  # what another try may mend
# For mypy, as in ``elsewhere.py``.
_entries: Any = import_module("dspy._vendor.lm15.providers.base")


class _NoTransport:
    def stream(self, request: Any) -> Any:
        raise RuntimeError("A request is only converted here.")


class MessageBatches(BatchAPI):
    """Sends requests to ``/v1/messages/batches`` and fetches the replies.

    A batch carries no mark of its sender's. What tells one whose id was lost are the keys of its requests, which stand
    in its results.
    """

    marks = False

    def __init__(self, lm: dspy.LM) -> None:
        super().__init__(lm)
        self._dialect: Any = lm15.AnthropicLM(api_key="none", transport=_NoTransport())
        given = [self.client.get(name) for name in ("api_base", "base_url")]
        host = next(filter(None, [*given, *map(os.environ.get, ("ANTHROPIC_API_BASE", "ANTHROPIC_BASE_URL")), _HOST]))
        # DSPy's own engine is given an address with /v1, and LiteLLM one without.
        self._address = f"{host.rstrip('/').removesuffix('/messages').removesuffix('/v1')}/v1/messages/batches"
        key = self.client.get("api_key") or os.environ.get("ANTHROPIC_API_KEY") or ""
        more = {**(self.client.get("headers") or {}), **(self.client.get("extra_headers") or {})}
        self._headers = {**_HEADERS, "x-api-key": key, **more}

    def line(self, key: str, request: lm15.Request) -> dict[str, Any]:
        """A request as it stands in a batch."""
        return {"custom_id": key, "params": self._dialect._payload(replace(request, model=self.model), stream=False)}

    def submit(self, lines: list[dict[str, Any]], tag: str) -> str:
        """Send requests; the batch's id."""
        with named(self.lm, "takes no batch"):
            return str(json.loads(self._call("POST", "", json={"requests": lines}))["id"])

    def find(self, tag: str, count: int, since: float) -> list[str]:
        """See ``BatchAPI``: those of as many requests that were made since."""
        with named(self.lm, "does not list its batches"):
            found = json.loads(self._call("GET", f"?limit={LISTED}"))["data"]
            return [
                str(one["id"])
                for one in found
                if sum(one["request_counts"].values()) == count and _seconds(one["created_at"]) >= since - _CLOCKS
            ]

    def results(self, batch: str) -> dict[str, Answered] | None:
        """What became of each request, by its key; None while the batch is not done."""
        with named(self.lm, f"gives no word of batch {batch}"):
            if json.loads(self._call("GET", f"/{batch}"))["processing_status"] != "ended":
                return None
            return dict(_answers(self._call("GET", f"/{batch}/results")))

    def read(self, body: dict[str, Any]) -> tuple[lm15.Response, dict[str, Any]]:
        """What a reply says, and its tokens by OpenAI's names."""
        found = self._dialect.parse_response(_entries.batch_entry_request(self.model), _entries.batch_entry_http(body))
        said = body.get("usage") or {}
        sent = sum(number or 0 for name, number in said.items() if name.endswith("input_tokens"))
        return found, {"prompt_tokens": sent, "completion_tokens": said.get("output_tokens")}

    def _call(self, method: str, path: str, **more: Any) -> bytes:
        import httpx

        timeout = self.client.get("timeout") or _SECONDS
        response = httpx.request(method, self._address + path, headers=self._headers, timeout=timeout, **more)
        if response.is_error:
            raise dspy.LMProviderError(f"HTTP {response.status_code}: {response.text[:300]}")
        return response.content


def _answers(content: bytes) -> Iterator[tuple[str, Answered]]:
    """The lines of the results, in whatever order; one that cannot be read counts as lost."""
    for line in content.splitlines():
        try:
            row = json.loads(line)
            key, result = str(row["custom_id"]), row["result"]
            if result["type"] == "succeeded":
                yield key, Answered(dict(result["message"]))
                continue
            error = result.get("error") or {}
            kind = (error.get("error") or error).get("type")
            yield key, Answered(None, refused=result["type"] == "errored" and kind not in _AGAIN)
        except (ValueError, TypeError, LookupError, AttributeError):
            continue


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment.replace("Z", "+00:00")).timestamp()
