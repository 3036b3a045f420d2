"""A local server that speaks a hub's protocol to the real client: what every such server does. What it knows, each test says for itself."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar


class HubHandler(BaseHTTPRequestHandler):
    """Answers with bytes, or with a value as JSON; to HEAD with the headers alone. What is not said by a test is not there."""

    def do_HEAD(self) -> None:
        self.get()

    def do_GET(self) -> None:
        self.get()

    def do_POST(self) -> None:
        self.post(self._body())

    def do_PUT(self) -> None:
        self.put(self._body())

    def get(self) -> None:
        self.answer(404, {"error": self.path})

    def post(self, body: bytes) -> None:
        self.answer(404, {"error": self.path})

    def put(self, body: bytes) -> None:
        self.answer(404, {"error": self.path})

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def answer(self, code: int, body: Any, headers: dict[str, str] | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(code)
        for key, value in {"Content-Type": "application/json", **(headers or {}), "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None: ...


class ModelHub(HubHandler):
    """A hub with one model, some/topics, at two commits that hold the same files."""

    REVISION = "0123456789abcdef0123456789abcdef01234567"
    LATER = "abcdef0123456789abcdef0123456789abcdef01"
    files: ClassVar[dict[str, bytes]] = {}
    asked: ClassVar[list[str]] = []

    def get(self) -> None:
        ModelHub.asked.append(self.path)
        commit = next((known for known in (self.REVISION, self.LATER) if known in self.path), None)
        listed, _, name = self.path.partition(f"/resolve/{commit}/")
        if self.path.startswith("/api/models/some/topics/revision/") and commit is None:
            self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Revision Not Found"})
        elif self.path.startswith("/api/models/some/topics/tree/"):
            self.answer(200, [{"type": "file", "path": file, "size": len(data), "oid": sha1(data).hexdigest()} for file, data in self.files.items()])
        elif self.path.startswith("/api/models/some/topics"):
            self.answer(200, {"id": "some/topics", "sha": commit or self.REVISION, "siblings": [{"rfilename": file} for file in self.files]})
        elif listed == "/some/topics" and name in self.files:
            data = self.files[name]
            self.answer(200, data, {"ETag": f'"{sha1(data).hexdigest()}"', "X-Repo-Commit": str(commit)})
        else:
            self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository Not Found"})


@contextmanager
def serving(handler: type[HubHandler]) -> Iterator[str]:
    """The address of a hub on this machine's loopback, for as long as the block runs."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
