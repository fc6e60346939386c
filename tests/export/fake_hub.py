"""A small Hugging Face hub over HTTP: what huggingface_hub asks of one, kept in memory.

Repositories with branches and commits, large files by the LFS batch protocol with their SHA-256
checked, tokens, private repositories, and failures on request. Xet is not spoken.
"""

import base64
import fnmatch
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import yaml

LARGE = ("*.safetensors", "*.bin", "*.onnx", "*.npy", "*.parquet", "*.sqlite")
KINDS = {"models": "model", "datasets": "dataset"}


@dataclass(frozen=True)
class Blob:
    """A file's content, and whether it went through the store of large files."""

    content: bytes
    large: bool = False

    @property
    def oid(self) -> str:
        """Git's name of a small file, the SHA-256 of a large one."""
        if self.large:
            return hashlib.sha256(self.content).hexdigest()
        return hashlib.sha1(b"blob %d\0%s" % (len(self.content), self.content)).hexdigest()


@dataclass(frozen=True)
class Commit:
    """All files of the repository after a commit."""

    message: str
    files: Mapping[str, Blob]
    parent: str = ""

    @property
    def sha(self) -> str:
        state = [self.message, self.parent, sorted((p, b.oid) for p, b in self.files.items())]
        return hashlib.sha1(json.dumps(state).encode()).hexdigest()


@dataclass
class Repository:
    kind: str
    name: str
    private: bool
    branches: dict[str, list[Commit]] = field(
        default_factory=lambda: {"main": [Commit("initial", {".gitattributes": Blob(b"")})]}
    )

    def at(self, revision: str) -> Commit | None:
        if revision in self.branches:
            return self.branches[revision][-1]
        commits = [commit for own in self.branches.values() for commit in own]
        return next((commit for commit in commits if commit.sha == revision), None)

    @property
    def files(self) -> dict[str, bytes]:
        """Path -> content on main, without what the hub itself puts there."""
        found = self.branches["main"][-1].files
        return {path: blob.content for path, blob in found.items() if path != ".gitattributes"}


@dataclass
class Failure:
    """Calls whose path holds ``path`` are answered with ``status``, ``times`` times."""

    path: str
    status: int
    message: str = "told to"
    times: int = 1_000
    method: str = "POST"


class FakeHub:
    """Serves at ``url`` as long as it is open. Owners are users and ``team``, which all may write
    to; the token ``read-only`` may write nowhere."""

    def __init__(self) -> None:
        self.tokens = {"hf_secret": "ann", "read-only": "bob"}
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.large: dict[str, bytes] = {}  # by SHA-256, as uploaded
        self.calls: list[str] = []  # "POST /api/…", without queries
        self.failures: list[Failure] = []
        self.ignores_private = False
        hub = self

        class Handler(_Handler):
            def __init__(self, *arguments: object) -> None:
                self.hub = hub
                super().__init__(*arguments)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    @contextmanager
    def open(self) -> Iterator["FakeHub"]:
        thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.server.shutdown()
            self.server.server_close()
            thread.join()

    def add(self, kind: str, name: str, files: Mapping[str, bytes] = {}, *, private: bool = True):
        """A repository that is there already."""
        own = self.repositories[kind, name] = Repository(kind, name, private)
        first = own.branches["main"][0]
        blobs = {path: Blob(content) for path, content in files.items()}
        own.branches["main"].append(Commit("before", {**first.files, **blobs}, first.sha))
        return own

    def wrote(self) -> list[str]:
        """The calls that change something."""
        return [call for call in self.calls if call.split()[0] not in ("GET", "HEAD")]


class _Refused(Exception):
    def __init__(self, status: int, message: str, code: str = "") -> None:
        self.status, self.message, self.code = status, message, code


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.calls.append(f"{self.command} {path}")
        body = self._body()
        try:
            for failure in self.hub.failures:
                if failure.path in path and failure.method == self.command and failure.times:
                    failure.times -= 1
                    raise _Refused(failure.status, failure.message)
            self._route(path, body)
        except _Refused as refused:
            headers = {"X-Error-Message": refused.message}
            if refused.code:
                headers["X-Error-Code"] = refused.code
            self._json({"error": refused.message}, refused.status, headers)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _send(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _json(
        self, value: object, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        content = json.dumps(value).encode()
        self._send(status, content, {"Content-Type": "application/json", **(headers or {})})

    # ---- who asks, and for what

    def _user(self) -> str:
        """Who the token belongs to; empty without one."""
        given = self.headers.get("Authorization", "")
        if not given:
            return ""
        user = self.hub.tokens.get(given.removeprefix("Bearer "), "")
        if not user:
            raise _Refused(401, "Invalid credentials in Authorization header")
        return user

    def _writer(self, owner: str) -> str:
        user = self._user()
        if not user:
            raise _Refused(401, "Invalid username or password.")
        readers = self.headers["Authorization"].endswith("read-only")
        if readers or owner not in (user, "team"):
            raise _Refused(403, f"You don't have the rights to create or change {owner}'s")
        return user

    def _repository(self, kind: str, name: str) -> Repository:
        user = self._user()
        found = self.hub.repositories.get((kind, name))
        if found is None or (found.private and name.split("/")[0] not in (user, "team")):
            raise _Refused(404 if user else 401, "Repository not found", "RepoNotFound")
        return found

    def _route(self, path: str, body: bytes) -> None:
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        match self.command, *parts:
            case "GET", "api", "whoami-v2":
                user = self._writer(self._user())
                self._json({"type": "user", "name": user, "orgs": []})
            case "POST", "api", "validate-yaml":
                self._validate(json.loads(body)["content"])
            case "POST", "api", "repos", "create":
                self._create(json.loads(body))
            case "POST", "api", kind, owner, name, "branch", branch:
                self._writer(owner)
                own = self._repository(KINDS[kind], f"{owner}/{name}")
                if branch in own.branches:
                    raise _Refused(409, "Reference already exists")
                own.branches[branch] = list(own.branches["main"])
                self._json({})
            case "POST", "api", kind, owner, name, "preupload", revision:
                self._writer(owner)
                self._preupload(KINDS[kind], f"{owner}/{name}", revision, json.loads(body))
            case "POST", "api", kind, owner, name, "commit", revision:
                self._writer(owner)
                self._commit(KINDS[kind], f"{owner}/{name}", revision, body)
            case "GET", "api", kind, owner, name, "tree", revision:
                commit = self._commit_at(KINDS[kind], f"{owner}/{name}", revision)
                self._json([_entry(p, blob) for p, blob in sorted(commit.files.items())])
            case "GET", "api", kind, owner, name, *revision if kind in KINDS:
                self._info(KINDS[kind], f"{owner}/{name}", (revision or ["", "main"])[-1])
            case "POST", *where, "info", "lfs", "objects", "batch":
                self._writer(where[-2])
                self._batch(json.loads(body))
            case "PUT", "large", oid:
                if hashlib.sha256(body).hexdigest() != oid:
                    raise _Refused(400, "the content is not that of its SHA-256")
                self.hub.large[oid] = body
                self._send(200, b"", {"ETag": f'"{oid}"'})
            case "POST", "large", oid, "verify":
                wanted = json.loads(body)
                if len(self.hub.large.get(oid, b"")) != wanted["size"] or oid != wanted["oid"]:
                    raise _Refused(404, "not uploaded")
                self._json({})
            case "GET" | "HEAD", "large", oid:
                self._send(200, self.hub.large[oid], {"ETag": f'"{oid}"'})
            case "GET" | "HEAD", "datasets", owner, name, "resolve", revision, *file:
                self._file("dataset", f"{owner}/{name}", revision, "/".join(file))
            case "GET" | "HEAD", owner, name, "resolve", revision, *file:
                self._file("model", f"{owner}/{name}", revision, "/".join(file))
            case _:
                raise _Refused(404, f"{self.command} {path} is not spoken here")

    # ---- the calls

    def _commit_at(self, kind: str, name: str, revision: str) -> Commit:
        commit = self._repository(kind, name).at(revision)
        if commit is None:
            raise _Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    def _info(self, kind: str, name: str, revision: str) -> None:
        commit = self._commit_at(kind, name, revision)
        self._json({
            "id": name, "sha": commit.sha, "private": self._repository(kind, name).private,
            "siblings": [{"rfilename": path} for path in sorted(commit.files)], "tags": [],
        })  # fmt: skip

    def _create(self, wanted: dict) -> None:
        owner = wanted.get("organization") or self._user()
        self._writer(owner)
        kind, name = wanted.get("type") or "model", f"{owner}/{wanted['name']}"
        if (kind, name) in self.hub.repositories:
            raise _Refused(409, "You already created this repo")
        private = wanted.get("visibility") == "private" or wanted.get("private") is True
        self.hub.repositories[kind, name] = Repository(
            kind, name, private and not self.hub.ignores_private
        )
        prefix = "datasets/" if kind == "dataset" else ""
        self._json({"url": f"{self.hub.url}/{prefix}{name}", "name": name, "id": name})

    def _validate(self, content: str) -> None:
        front = content.split("---\n")[1] if content.startswith("---\n") else ""
        try:
            facts = yaml.safe_load(front) or {}
            language = facts.get("language") or []
            wrong = [own for own in language if not isinstance(own, str) or len(own) > 3]
        except (yaml.YAMLError, AttributeError):
            wrong = ["not YAML"]
        errors = [{"message": f'"language" is wrong: {own}'} for own in wrong]
        self._json({"errors": errors, "warnings": []}, 400 if errors else 200)

    def _preupload(self, kind: str, name: str, revision: str, wanted: dict) -> None:
        there = self._commit_at(kind, name, revision).files
        answer = []
        for file in wanted["files"]:
            base64.b64decode(file["sample"], validate=True)
            path = file["path"]
            large = file["size"] > 10_000_000 or any(fnmatch.fnmatch(path, own) for own in LARGE)
            mode = "lfs" if large else "regular"
            old = {"oid": there[path].oid} if path in there else {}
            answer.append({"path": path, "uploadMode": mode, "shouldIgnore": False, **old})
        self._json({"files": answer})

    def _batch(self, wanted: dict) -> None:
        assert wanted["operation"] == "upload"
        assert wanted["hash_algo"] == "sha256"
        objects = []
        for one in wanted["objects"]:
            href = f"{self.hub.url}/large/{one['oid']}"
            actions = {"upload": {"href": href}, "verify": {"href": f"{href}/verify"}}
            new = one["oid"] not in self.hub.large
            objects.append({**one, **({"actions": actions} if new else {})})
        self._json({"transfer": "basic", "objects": objects})

    def _commit(self, kind: str, name: str, branch: str, body: bytes) -> None:
        own = self._repository(kind, name)
        before = self._commit_at(kind, name, branch)
        files, message = dict(before.files), ""
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            match entry["key"]:
                case "header":
                    message = value["summary"]
                    if value.get("parentCommit", before.sha) != before.sha:
                        raise _Refused(412, "A commit has happened since. Please refresh")
                case "file":
                    files[value["path"]] = Blob(base64.b64decode(value["content"], validate=True))
                case "lfsFile":
                    if value["oid"] not in self.hub.large:
                        raise _Refused(400, f"{value['path']}: no such large file")
                    files[value["path"]] = Blob(self.hub.large[value["oid"]], large=True)
                case other:
                    raise _Refused(400, f"{other} is not spoken here")
        commit = Commit(message, files, before.sha)
        own.branches[branch].append(commit)
        self._json({
            "commitUrl": f"{self.hub.url}/{'datasets/' if kind == 'dataset' else ''}{name}"
                         f"/commit/{commit.sha}",
            "commitOid": commit.sha, "success": True,
        })  # fmt: skip

    def _file(self, kind: str, name: str, revision: str, path: str) -> None:
        commit = self._commit_at(kind, name, revision)
        if path not in commit.files:
            raise _Refused(404, "Entry not found", "EntryNotFound")
        blob = commit.files[path]
        headers = {"X-Repo-Commit": commit.sha, "ETag": f'"{blob.oid}"'}
        if not blob.large:
            return self._send(200, blob.content, headers)
        # at another host, as large files of the real hub are: within a host, clients follow at once
        elsewhere = self.hub.url.replace("127.0.0.1", "localhost")
        headers |= {"X-Linked-Etag": f'"{blob.oid}"', "X-Linked-Size": str(len(blob.content)),
                    "Location": f"{elsewhere}/large/{blob.oid}"}  # fmt: skip
        return self._send(302, b"", headers)


def _entry(path: str, blob: Blob) -> dict[str, object]:
    size = len(blob.content)
    facts = {"type": "file", "path": path, "size": size, "oid": blob.oid}
    if blob.large:
        facts["lfs"] = {"oid": blob.oid, "size": size, "pointerSize": 130}
    return facts
