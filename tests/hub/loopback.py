"""A Hub on the loopback: repositories in memory, behind the requests that `huggingface_hub` makes."""

import base64
import hashlib
import itertools
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

Files = dict[str, bytes]
KINDS = {"models": "model", "datasets": "dataset"}


@dataclass
class Commit:
    """One state of a repository."""

    oid: str
    title: str
    files: Files


@dataclass
class Repository:
    """A model or a data set: branches, each a list of commits, the newest last."""

    private: bool
    branches: dict[str, list[Commit]] = field(default_factory=dict)

    def find(self, revision: str) -> Commit | None:
        """The commit that a branch's name or a commit's id means."""
        if revision in self.branches:
            return self.branches[revision][-1]
        commits = (commit for branch in self.branches.values() for commit in branch)
        return next((commit for commit in commits if commit.oid == revision), None)


class LoopbackHub:
    """
    The server.

    Args:
        tokens (`dict[str, str]`): Who each token belongs to. Uploads and private repositories ask for one.
    """

    def __init__(self, tokens: dict[str, str]) -> None:
        self.tokens = tokens
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.requests: list[str] = []
        self.cut: dict[str, int] = {}  # how many more times a file breaks off half way
        self.failing: set[str] = set()  # files that it answers for with an error of its own
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Nothing answers at the address from now on."""
        self._server.shutdown()
        self._server.server_close()

    def files(self, name: str, kind: str = "model", revision: str = "main") -> Files:
        """What a repository holds."""
        commit = self.repositories[kind, name].find(revision)
        assert commit is not None, f"{name} has no {revision}"
        return commit.files

    def commits(self, name: str, kind: str = "model", branch: str = "main") -> list[Commit]:
        """The history of a branch, the newest last."""
        return self.repositories[kind, name].branches[branch]

    def create(self, kind: str, name: str, private: bool) -> bool:
        """Makes a repository with one empty commit; whether it is new."""
        with self._lock:
            if (kind, name) in self.repositories:
                return False
            self.repositories[kind, name] = Repository(private, {"main": [self._commit("initial commit", {})]})
            return True

    def commit(self, repository: Repository, branch: str, lines: list[dict[str, Any]]) -> Commit:
        """Applies what a client sent as one commit."""
        with self._lock:
            history = repository.branches[branch]
            files, title = dict(history[-1].files), ""
            for line in lines:
                value = line["value"]
                if line["key"] == "header":
                    title = value["summary"]
                elif line["key"] == "file":
                    assert value["encoding"] == "base64"
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "deletedFile":
                    del files[value["path"]]
                else:
                    raise AssertionError(f"a commit holds {line['key']!r}, which no test needs")
            history.append(self._commit(title, files))
            return history[-1]

    def _commit(self, title: str, files: Files) -> Commit:
        return Commit(hashlib.sha1(str(next(self._numbers)).encode()).hexdigest(), title, files)


def blob_id(content: bytes) -> str:
    """The id that git gives to a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Refused(Exception):
    """An answer other than success."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class _Handler(BaseHTTPRequestHandler):
    hub: LoopbackHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Silence: the tests look at `LoopbackHub.requests`."""

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path).strip("/")
        self.hub.requests.append(f"{self.command} /{path}")
        try:
            parts = path.split("/")
            if parts[0] == "cut":  # of no Hub: a test's client says here what is to break off
                self.hub.cut["/".join(parts[2:])] = int(parts[1])
                self._send_json({}, 200)
            elif parts[0] == "fail":  # or what is to fail, and nothing else
                self.hub.failing = {"/".join(parts[1:])}
                self._send_json({}, 200)
            elif parts[0] == "api":
                self._send_json(*self._api(parts[1:], body))
            else:
                self._send_file(parts)
        except _Refused as error:
            headers = {"X-Error-Message": str(error)} | ({"X-Error-Code": error.code} if error.code else {})
            self._send_json({"error": str(error)}, error.status, headers)

    @property
    def _user(self) -> str | None:
        return self.hub.tokens.get((self.headers.get("Authorization") or "").removeprefix("Bearer "))

    def _api(self, parts: list[str], body: bytes) -> tuple[Any, int]:
        if parts == ["whoami-v2"]:
            if self._user is None:
                raise _Refused(401, "Invalid username or password.")
            return {"type": "user", "name": self._user, "orgs": []}, 200
        if parts == ["validate-yaml"]:
            return {}, 200
        if parts == ["repos", "create"]:
            return self._create(json.loads(body))
        if parts[0] in KINDS and len(parts) >= 3:
            return self._repository_api(KINDS[parts[0]], "/".join(parts[1:3]), parts[3:], body)
        raise _Refused(404, f"no such address: {self.path}")

    def _create(self, wanted: dict[str, Any]) -> tuple[Any, int]:
        if self._user is None:
            raise _Refused(401, "Invalid username or password.")
        name, kind = f"{wanted.get('organization') or self._user}/{wanted['name']}", wanted.get("type") or "model"
        private = wanted.get("private") or wanted.get("visibility") == "private"
        is_new = self.hub.create(kind, name, bool(private))
        prefix = "datasets/" if kind == "dataset" else ""
        return {"url": f"{self.hub.url}/{prefix}{name}", "name": name}, 200 if is_new else 409

    def _repository_api(self, kind: str, name: str, rest: list[str], body: bytes) -> tuple[Any, int]:
        repository = self._find(kind, name)
        if rest[:1] in (["preupload"], ["commit"], ["branch"]) and self._user is None:
            raise _Refused(403, f"no right to write to {name}")
        if rest[:1] == ["preupload"]:
            files = json.loads(body)["files"]
            return {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]}, 200
        if rest[:1] == ["branch"]:
            if rest[1] in repository.branches:
                raise _Refused(409, "Reference already exists")
            repository.branches[rest[1]] = list(repository.branches["main"])
            return {}, 200
        if rest[:1] == ["commit"]:
            if rest[1] not in repository.branches:
                raise _Refused(404, f"no branch {rest[1]}", "RevisionNotFound")
            lines = [json.loads(line) for line in body.splitlines() if line.strip()]
            commit = self.hub.commit(repository, rest[1], lines)
            return {"commitOid": commit.oid, "commitUrl": f"{self.hub.url}/{name}/commit/{commit.oid}"}, 200
        commit = self._revision(repository, rest[1] if len(rest) > 1 else "main")
        if rest[:1] == ["tree"]:
            return list(_tree(commit.files)), 200
        if rest[:1] == ["commits"]:
            history = [
                {"id": c.oid, "title": c.title, "message": "", "authors": [], "date": "2026-11-25T00:00:00.000Z"}
                for c in reversed(repository.branches[rest[1]])
            ]
            return history, 200
        if rest[:1] in ([], ["revision"]):
            siblings = [{"rfilename": path} for path in commit.files]
            return {
                "id": name,
                "sha": commit.oid,
                "private": repository.private,
                "tags": [],
                "siblings": siblings,
            }, 200
        raise _Refused(404, f"no such address: {self.path}")

    def _send_file(self, parts: list[str]) -> None:
        kind = KINDS[parts.pop(0)] if parts[0] in KINDS else "model"
        if len(parts) < 5 or parts[2] != "resolve":
            raise _Refused(404, f"no such address: {self.path}")
        commit = self._revision(self._find(kind, "/".join(parts[:2])), parts[3])
        path = "/".join(parts[4:])
        if path in self.hub.failing:
            raise _Refused(503, "Service Unavailable")
        if path not in commit.files:
            raise _Refused(404, f"no file {path}", "EntryNotFound")
        content = commit.files[path]
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
        headers = {
            "X-Repo-Commit": commit.oid,
            "ETag": f'"{blob_id(content)}"',
            "Accept-Ranges": "bytes",
            "Content-Type": "application/octet-stream",
        }
        is_cut = self.command == "GET" and self.hub.cut.get(path, 0) > 0
        if is_cut:
            self.hub.cut[path] -= 1
        self._send(content[start:], 206 if start else 200, headers, is_cut=is_cut)

    def _find(self, kind: str, name: str) -> Repository:
        repository = self.hub.repositories.get((kind, name))
        if repository is None or (repository.private and self._user is None):
            # As the Hub does: who has no token is not told whether a private repository exists.
            raise _Refused(404 if self._user else 401, "Repository not found", "RepoNotFound")
        return repository

    @staticmethod
    def _revision(repository: Repository, revision: str) -> Commit:
        commit = repository.find(revision)
        if commit is None:
            raise _Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    def _send_json(self, content: Any, status: int, headers: dict[str, str] | None = None) -> None:
        self._send(json.dumps(content).encode(), status, {"Content-Type": "application/json"} | (headers or {}))

    def _send(self, content: bytes, status: int, headers: dict[str, str], is_cut: bool = False) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if is_cut else content)
        if is_cut:
            self.close_connection = True


def _tree(files: Files) -> Iterator[dict[str, Any]]:
    folders = {path.rsplit("/", number)[0] for path in files for number in range(1, path.count("/") + 1)}
    for folder in sorted(folders):
        yield {"type": "directory", "path": folder, "oid": "0" * 40, "size": 0}
    for path, content in files.items():
        yield {"type": "file", "path": path, "oid": blob_id(content), "size": len(content)}
