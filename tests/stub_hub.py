"""A stub of the Hugging Face hub on loopback: the few endpoints that pushing and loading a program need.

It keeps repositories in memory and speaks as the hub's client expects: commits as NDJSON, large files through the Git
LFS batch interface, downloads by commit. Xet storage is not spoken.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from tests.loopback import Handler, Loopback

TOKEN = "hf_MARKEDTOKEN"


@dataclass
class Repo:
    """A repository: all its commits, each with all its files."""

    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    @property
    def head(self) -> str:
        return list(self.commits)[-1]

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[self.head]

    def commit(self, message: str, files: dict[str, bytes]) -> None:
        named = json.dumps([len(self.commits), {name: _sha(data) for name, data in sorted(files.items())}])
        self.commits[hashlib.sha1(named.encode()).hexdigest()] = files
        self.messages.append(message)


class _Handler(Handler):
    stub: StubHub

    def do_POST(self) -> None:
        body = self._body()
        if self.path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if self.headers.get("authorization") != f"Bearer {TOKEN}":
            return self._json({"error": "Invalid credentials in Authorization header"}, 401)
        if self.path == "/api/repos/create":
            return self._create(json.loads(body))
        if match := re.fullmatch(r"/api/models/(.+)/preupload/main", self.path):
            sent = json.loads(body)["files"]
            modes = {True: "lfs", False: "regular"}
            files = [(one["path"], modes[one["path"].endswith(".safetensors")]) for one in sent]
            return self._json(
                {"files": [{"path": path, "uploadMode": mode, "shouldIgnore": False} for path, mode in files]}
            )
        if re.fullmatch(r"/(.+)\.git/info/lfs/objects/batch", self.path):
            return self._json(
                {"transfer": "basic", "objects": [self._batch(one) for one in json.loads(body)["objects"]]}
            )
        if match := re.fullmatch(r"/api/models/(.+)/commit/main", self.path):
            return self._commit(match[1], [json.loads(line) for line in body.splitlines()])
        return self._json({"error": "no such path"}, 404)

    def do_PUT(self) -> None:
        data = self._body()
        oid = self.path.rpartition("/")[2]
        if _sha(data) != oid:
            return self._json({"error": "another content"}, 400)
        self.stub.large[oid] = data
        return self._json({})

    def do_GET(self) -> None:
        self.stub.asked.append((self.command, self.path))
        path = unquote(self.path.partition("?")[0])
        match = re.fullmatch(r"(?:/api/models)?/([^/]+/[^/]+)/(revision|tree|resolve)/([^/]+)/?(.*)", path)
        repo = self.stub.repos.get(match[1]) if match else None
        if repo is None or (repo.private and self.headers.get("authorization") != f"Bearer {TOKEN}"):
            return self._json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        commit = repo.head if match[3] == "main" else match[3]
        if commit not in repo.commits:
            return self._json({"error": "Invalid rev id"}, 404, {"X-Error-Code": "RevisionNotFound"})
        files = repo.commits[commit]
        if match[2] == "revision":
            return self._json({"id": match[1], "sha": commit, "siblings": [{"rfilename": name} for name in files]})
        if match[2] == "tree":
            return self._json(
                [{"type": "file", "path": name, "size": len(data), "oid": _sha(data)} for name, data in files.items()]
            )
        if match[4] not in files:
            return self._json({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
        data = files[match[4]]
        return self.send_data(200, data, {"X-Repo-Commit": commit, "ETag": f'"{_sha(data)}"'})

    def do_HEAD(self) -> None:
        self.do_GET()

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        url = {"url": f"{self.stub.url}/{name}"}
        if name in self.stub.repos:
            return self._json({"error": "You already created this model repo", **url}, 409)
        self.stub.repos[name] = Repo(private=asked.get("visibility") == "private")
        self.stub.repos[name].commit("initial commit", {".gitattributes": b"*.safetensors filter=lfs\n"})
        return self._json(url)

    def _batch(self, one: dict[str, Any]) -> dict[str, Any]:
        href = f"{self.stub.url}/lfs/{one['oid']}"
        return one if one["oid"] in self.stub.large else {**one, "actions": {"upload": {"href": href}}}

    def _commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        repo = self.stub.repos[name]
        files, message = dict(repo.files), ""
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                message = value["summary"]
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.stub.large[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        repo.commit(message, files)
        self._json({"commitUrl": f"{self.stub.url}/{name}/commit/{repo.head}", "commitOid": repo.head})

    def _body(self) -> bytes:
        self.stub.asked.append((self.command, self.path))
        return self.body()

    def _json(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_json(status, value, headers)


class StubHub(Loopback):
    """The hub on a loopback port, for the length of a ``with`` block.

    Attributes:
        repos: By name.
        large: What was uploaded through LFS, by SHA-256.
        asked: Method and path of every request.
    """

    handler = _Handler

    def __init__(self) -> None:
        super().__init__()
        self.repos: dict[str, Repo] = {}
        self.large: dict[str, bytes] = {}
        self.asked: list[tuple[str, str]] = []


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
