"""A hub on loopback for the tests: an account with datasets in memory, as the hub's own client asks for them."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from tests.serving import Answer, Server, running

TOKEN = "hf_of_the_tests"
OWNER = "owner"


@dataclass
class Repository:
    """A dataset: its files, which of them are in LFS, and how many commits made it."""

    private: bool
    files: dict[str, bytes] = field(default_factory=lambda: {".gitattributes": b"*.parquet filter=lfs\n"})
    large: set[str] = field(default_factory=set)
    commits: int = 0


class Account:
    """What the server holds; `refuses` is a status that every request gets, `after` so many commits at the earliest."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.judged: list[str] = []
        self.refuses = 0
        self.after = -1
        self.server: Server

    @property
    def commits(self) -> int:
        return sum(each.commits for each in self.repositories.values())

    def answer(self, handler: BaseHTTPRequestHandler) -> Answer:
        path, data = unquote(urlsplit(handler.path).path), body(handler)
        if self.refuses and self.commits > self.after:
            return self.refuses, {}, b"{}"
        if path == "/api/validate-yaml":
            return self.judge(json.loads(data))
        if path.startswith("/lfs/"):
            assert hashlib.sha256(data).hexdigest() == path[5:]
            self.objects[path[5:]] = data
            return 200, {}, b""
        if handler.headers.get("Authorization") != f"Bearer {TOKEN}":
            return 401, {}, b"{}"
        if path == "/api/whoami-v2":
            return 200, {}, json.dumps({"type": "user", "name": OWNER}).encode()
        if path == "/api/repos/create":
            return self.create(json.loads(data))
        if found := re.fullmatch(r"/(?:api/)?datasets/([\w.-]+/[\w.-]+?)(?:\.git)?(/.*)?", path):
            repository = self.repositories.get(found[1])
            if repository is None:
                return 404, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}, b"{}"
            return self.of(found[1], repository, found[2] or "", data)
        return 404, {}, b"{}"

    def judge(self, asked: dict[str, Any]) -> Answer:
        """As strict as the hub where it is strict, by a parser of YAML that is not ours."""
        yaml = pytest.importorskip("yaml")
        assert asked["repoType"] == "dataset"
        self.judged.append(asked["content"])
        head = yaml.safe_load(asked["content"].split("---\n")[1])
        wrong = [] if re.fullmatch(r"[a-z0-9.-]+", head["license"]) and head["configs"] else ["license or configs"]
        told = json.dumps({"errors": [{"message": each} for each in wrong], "warnings": []}).encode()
        return 400 if wrong else 200, {"Content-Type": "application/json"}, told

    def create(self, asked: dict[str, Any]) -> Answer:
        owner = asked.get("organization") or OWNER
        if owner != OWNER:
            return 403, {}, b'{"error": "You are not a member"}'
        name = f"{owner}/{asked['name']}"
        url = json.dumps({"url": f"{self.server.url}/datasets/{name}", "id": name, "name": name}).encode()
        if name in self.repositories:
            return 409, {}, url
        self.repositories[name] = Repository(bool(asked.get("private")) or asked.get("visibility") == "private")
        return 200, {}, url

    def of(self, name: str, repository: Repository, what: str, data: bytes) -> Answer:
        if what == "/tree/main":
            large = repository.large
            rows = [
                {"type": "file", "path": file, "size": len(content), "oid": blob(content)}
                | ({"lfs": {"oid": sha(content), "size": len(content), "pointerSize": 9}} if file in large else {})
                for file, content in repository.files.items()
            ]  # fmt: skip
            return 200, {}, json.dumps(rows).encode()
        if what.startswith("/resolve/"):
            content = repository.files.get(what.split("/", 3)[3])
            if content is None:
                return 404, {"X-Error-Code": "EntryNotFound"}, b""
            return 200, {"ETag": f'"{blob(content)}"', "X-Repo-Commit": f"{repository.commits:040x}"}, content
        if what == "/preupload/main":
            return 200, {}, json.dumps({"files": [
                {"path": each["path"], "shouldIgnore": False,
                 "uploadMode": "lfs" if each["path"].endswith(".parquet") else "regular",
                 "oid": blob(repository.files[each["path"]]) if each["path"] in repository.files else None}
                for each in json.loads(data)["files"]
            ]}).encode()  # fmt: skip
        if what == "/info/lfs/objects/batch":
            objects = [
                {"oid": each["oid"], "size": each["size"]}
                | ({} if each["oid"] in self.objects
                   else {"actions": {"upload": {"href": f"{self.server.url}/lfs/{each['oid']}", "header": {}}}})
                for each in json.loads(data)["objects"]
            ]  # fmt: skip
            return 200, {}, json.dumps({"transfer": "basic", "objects": objects}).encode()
        if what == "/commit/main":
            self.commit(repository, [json.loads(line) for line in data.splitlines() if line])
            number = f"{repository.commits:040x}"
            return (
                200,
                {},
                json.dumps(
                    {"commitUrl": f"{self.server.url}/datasets/{name}/commit/{number}", "commitOid": number}
                ).encode(),
            )
        if not what:
            about = {"id": "x", "sha": f"{repository.commits:040x}", "private": repository.private, "siblings": []}
            return 200, {}, json.dumps(about).encode()
        return 404, {}, b"{}"

    def commit(self, repository: Repository, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                assert value["encoding"] == "base64"
                repository.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                repository.files[value["path"]] = self.objects[value["oid"]]
                repository.large.add(value["path"])
            elif line["key"] == "deletedFile":
                del repository.files[value["path"]]
        repository.commits += 1


def body(handler: BaseHTTPRequestHandler) -> bytes:
    """All that was sent, in one piece or in chunks."""
    if "chunked" not in handler.headers.get("Transfer-Encoding", ""):
        return handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
    data = b""
    while size := int(handler.rfile.readline().split(b";")[0], 16):
        data += handler.rfile.read(size)
        handler.rfile.readline()
    handler.rfile.readline()
    return data


def blob(data: bytes) -> str:
    """The name that git has for a file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@contextmanager
def hub(patch: pytest.MonkeyPatch, cache: str) -> Iterator[Account]:
    """A hub without datasets, which the client asks with the account's token."""
    pytest.importorskip("huggingface_hub", reason="needs the extra hf")
    account = Account()
    with running(account.answer) as server:
        account.server = server
        for name, value in (
            ("ENDPOINT", server.url),
            ("HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"),
            ("HF_HUB_DISABLE_XET", True), ("HF_HUB_CACHE", cache), ("HF_HUB_OFFLINE", False),
        ):  # fmt: skip
            patch.setattr(f"huggingface_hub.constants.{name}", value)
        patch.setenv("HF_TOKEN", TOKEN)
        for name in ("NO_PROXY", "no_proxy"):
            patch.setenv(name, "127.0.0.1,localhost")
        yield account
