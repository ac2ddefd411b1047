"""A stub of OpenAI's and Anthropic's batches on loopback: lines come back shuffled, some fail, and some expire."""

from __future__ import annotations

import json
import random
import re
import threading
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timezone
from email.parser import BytesParser
from typing import Any

from tests.stub_servers import Call, StubServer, _anthropic, _Handler, _openai


class _BatchHandler(_Handler):
    stub: BatchServer

    def do_POST(self) -> None:
        path = self.path.split("?")[0]
        if path in ("/v1/files", "/v1/messages/batches") and self.stub.refuses:
            self.body()
            return self.send_json(401, {"error": {"message": "Incorrect API key provided: sk-MARKED-KEY."}})
        if path == "/v1/files":
            head = f"content-type: {self.headers['content-type']}\n\n".encode()
            parts = BytesParser().parsebytes(head + self.body()).get_payload()
            data = next(one.get_payload(decode=True) for one in parts if one.get_filename())
            return self.send_json(200, self.stub.file(data))
        if path == "/v1/batches":
            return self.send_json(200, self.stub.batch(json.loads(self.body())))
        if path == "/v1/messages/batches":
            return self.send_json(200, self.stub.message_batch(json.loads(self.body())["requests"]))
        return super().do_POST()

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if found := re.fullmatch("/v1/files/([^/]+)/content", path):
            return self.send_data(200, self.stub.files[found[1]], {"content-type": "application/octet-stream"})
        if path == "/v1/batches":
            data = [self.stub.state(one) for one in self.stub.batches]
            return self.send_json(200, {"object": "list", "data": data, "has_more": False})
        if found := re.fullmatch("/v1/batches/([^/]+)", path):
            return self.send_json(200, self.stub.state(found[1]))
        if path == "/v1/messages/batches":
            data = [self.stub.message_state(one) for one in reversed(self.stub.batches)]
            return self.send_json(200, {"data": data, "has_more": False, "first_id": None, "last_id": None})
        if found := re.fullmatch("/v1/messages/batches/([^/]+)", path):
            return self.send_json(200, self.stub.message_state(found[1]))
        if found := re.fullmatch("/v1/messages/batches/([^/]+)/results", path):
            data = self.stub.files[self.stub.batches[found[1]]["files"][0]]
            return self.send_data(200, data, {"content-type": "application/x-jsonl"})
        return self.send_json(404, {"error": f"no such path: {path}"})


class BatchServer(StubServer):
    """A provider with batches.

    Args:
        brain: Gives the reply to a prompt.
        fate: Says of a line's number among all that were sent what becomes of it: an HTTP status, or ``"expired"``.

    Attributes:
        batches: What was asked for, by id.
        bought: How often each prompt was answered and paid for, in a batch or singly.
        lines: Every line that was sent.
        refuses: Whether the key is a wrong one.
        released: Cleared, batches stay under way.
    """

    handler = _BatchHandler

    def __init__(self, brain: Callable[[str], str], fate: Callable[[int], int | str] = lambda number: 200) -> None:
        self.bought: Counter[str] = Counter()
        super().__init__(self._answer)
        self._script, self.fate = brain, fate
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.lines: list[dict[str, Any]] = []
        self.refuses = False
        self.released = threading.Event()
        self.released.set()

    def _answer(self, prompt: str) -> str:
        self.bought[prompt] += 1
        return self._script(prompt)

    def file(self, data: bytes) -> dict[str, Any]:
        key = f"file-{len(self.files)}"
        self.files[key] = data
        about = {"object": "file", "bytes": len(data), "created_at": 1, "filename": "x.jsonl", "purpose": "batch"}
        return {"id": key, "status": "processed", **about}

    def batch(self, asked: dict[str, Any]) -> dict[str, Any]:
        key = f"batch_{len(self.batches)}"
        out, errors = [], []
        for text in self.files[asked["input_file_id"]].splitlines():
            line = json.loads(text)
            fate = self.fate(len(self.lines))
            self.lines.append(line)
            call = Call(line["url"], {}, line["body"])
            if fate == 200:
                response = {"status_code": 200, "body": _openai(call, self.brain(call.prompt))}
                out.append({"id": "r", "custom_id": line["custom_id"], "response": response, "error": None})
            elif fate == "expired":
                error = {"code": "batch_expired", "message": "This request could not be executed in time."}
                errors.append({"id": "r", "custom_id": line["custom_id"], "response": None, "error": error})
            else:
                response = {"status_code": fate, "body": {"error": {"message": "failed"}}}
                errors.append({"id": "r", "custom_id": line["custom_id"], "response": response, "error": None})
        random.Random(key).shuffle(out)
        files = [self.file("".join(json.dumps(one) + "\n" for one in rows).encode())["id"] for rows in (out, errors)]
        self.batches[key] = {"asked": asked, "files": files}
        return self.state(key)

    def message_batch(self, requests: list[dict[str, Any]]) -> dict[str, Any]:
        key = f"msgbatch_{len(self.batches)}"
        rows = [{"custom_id": one["custom_id"], "result": self._result(one)} for one in requests]
        random.Random(key).shuffle(rows)
        file = self.file("".join(json.dumps(one) + "\n" for one in rows).encode())["id"]
        moment = datetime.now(timezone.utc).isoformat().replace("+00:00", "Z")
        self.batches[key] = {"count": len(rows), "files": [file], "created_at": moment}
        return self.message_state(key)

    def _result(self, line: dict[str, Any]) -> dict[str, Any]:
        fate = self.fate(len(self.lines))
        self.lines.append(line)
        call = Call("/v1/messages", {}, line["params"])
        if fate == 200:
            return {"type": "succeeded", "message": _anthropic(call, self.brain(call.prompt))}
        if fate == "expired":
            return {"type": "expired"}
        error = {"type": "api_error" if fate == 500 else "invalid_request_error", "message": "failed"}
        return {"type": "errored", "error": {"type": "error", "error": error}}

    def message_state(self, key: str) -> dict[str, Any]:
        batch, done = self.batches[key], self.released.is_set()
        counts = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
        counts["succeeded" if done else "processing"] = batch["count"]
        return {
            "id": key, "type": "message_batch", "processing_status": "ended" if done else "in_progress",
            "created_at": batch["created_at"], "request_counts": counts,
            "results_url": "https://elsewhere.example/results" if done else None,
        }  # fmt: skip

    def state(self, key: str) -> dict[str, Any]:
        batch, done = self.batches[key], self.released.is_set()
        output, errors = batch["files"] if done else (None, None)
        return {
            "id": key, "object": "batch", "endpoint": "/v1/chat/completions", "completion_window": "24h",
            "created_at": 1, "status": "completed" if done else "in_progress", "output_file_id": output,
            "error_file_id": errors, **batch["asked"],
        }  # fmt: skip
