"""A model hub on loopback with just what `huggingface_hub` needs to download, and the faults of a real one.

with FakeHub() as hub:
    hub.repos["org/name"] = Repo({"config.json": b"{}"})
    download(..., endpoint=hub.url)
    assert hub.requests[...]
"""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import parse_qs, unquote, urlsplit

SHA = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Repo:
    """One model repository with one commit."""

    files: dict[str, bytes]
    sha: str = SHA
    revisions: tuple[str, ...] = ("main",)
    token: str | None = None
    """Only requests with this token see it; others get 401, as the hub does for private models."""
    gated: bool = False
    break_after: dict[str, int] = field(default_factory=dict)
    """File -> bytes of its first transfer, after which the connection is dropped; once."""
    pipeline_tag: str | None = "text-generation"


class FakeHub:
    """Serves `repos` until the end of the block."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.requests: list[tuple[str, str, str | None]] = []
        """Method, path, Range header."""
        self.fail_next = 0
        """Answer so many requests with 503."""
        hub = self

        class Handler(_Handler):
            def __init__(self, *arguments: object) -> None:
                self.hub = hub
                super().__init__(*arguments)  # type: ignore[arg-type]

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def transfers(self, name: str) -> list[str | None]:
        """The Range header of each GET of a file."""
        return [header for method, path, header in self.requests if method == "GET" and path.endswith(f"/{name}")]

    def __enter__(self) -> FakeHub:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Gone from the network: connections are refused."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def _answer(self, *, body: bool) -> None:
        path = unquote(self.path.partition("?")[0])
        self.hub.requests.append((self.command, path, self.headers.get("Range")))
        if self.hub.fail_next > 0:
            self.hub.fail_next -= 1
            self._send(503, b"busy")
            return
        parts = path.strip("/").split("/")
        if parts == ["api", "models"]:
            self._search()
        elif parts[:2] == ["api", "models"]:
            self._model_info("/".join(parts[2:4]), "/".join(parts[5:]) or "main")
        elif "resolve" in parts:
            at = parts.index("resolve")
            self._file("/".join(parts[:at]), parts[at + 1], "/".join(parts[at + 2 :]), body=body)
        else:
            self._send(404, b"")

    def _repo(self, name: str, revision: str) -> Repo | None:
        """The repository if this request may see it; else an answer was sent."""
        repo = self.hub.repos.get(name)
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if repo is None or (repo.token is not None and token != repo.token and not repo.gated):
            self._send(401, b'{"error":"Repository not found"}', {"X-Error-Code": "RepoNotFound"})
            return None
        if revision not in (*repo.revisions, repo.sha):
            self._send(404, b'{"error":"Invalid rev id"}', {"X-Error-Code": "RevisionNotFound"})
            return None
        return repo

    def _search(self) -> None:
        """Models whose names hold a text, as the hub finds them."""
        wanted = parse_qs(urlsplit(self.path).query).get("search", [""])[0].lower()
        found = [name for name, repo in self.hub.repos.items() if repo.token is None and wanted in name.lower()]
        about = [{"id": name, "modelId": name, "tags": [], "private": False} for name in found]
        self._send(200, json.dumps(about).encode(), {"Content-Type": "application/json"})

    def _model_info(self, name: str, revision: str) -> None:
        if (repo := self._repo(name, revision)) is not None:
            siblings = [{"rfilename": file} for file in repo.files]
            about = {"id": name, "modelId": name, "sha": repo.sha, "siblings": siblings, "private": False, "tags": []}
            about |= {"downloads": 0, "likes": 0, "pipeline_tag": repo.pipeline_tag, "gated": repo.gated}
            self._send(200, json.dumps(about).encode(), {"Content-Type": "application/json"})

    def _file(self, name: str, revision: str, file: str, *, body: bool) -> None:
        repo = self._repo(name, revision)
        if repo is None:
            pass
        elif repo.gated:
            self._send(403, b'{"error":"Access to model is restricted"}', {"X-Error-Code": "GatedRepo"})
        elif file not in repo.files:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": repo.sha})
        else:
            self._transfer(repo, file, body=body)

    def _transfer(self, repo: Repo, file: str, *, body: bool) -> None:
        data = repo.files[file]
        digest = hashlib.sha256(data).hexdigest()
        headers = {
            "ETag": f'"{digest}"',
            "X-Repo-Commit": repo.sha,
            "X-Linked-ETag": f'"{digest}"',
            "X-Linked-Size": str(len(data)),
            "Accept-Ranges": "bytes",
        }
        status, start = 200, 0
        if wanted := self.headers.get("Range"):
            start = int(wanted.removeprefix("bytes=").partition("-")[0])
            status = 206
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        cut = repo.break_after.pop(file, None) if body else None
        self._send(status, data[start:], headers, body=body, cut=cut)

    def _send(
        self,
        status: int,
        data: bytes,
        headers: dict[str, str] | None = None,
        *,
        body: bool = True,
        cut: int | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Connection", "close")  # so that a closed hub is gone for clients with a pool, too
        self.end_headers()
        if body and self.command != "HEAD":
            self.wfile.write(data[:cut])
