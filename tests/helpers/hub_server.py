"""A server on this machine with the interface of the Hugging Face hub, for the hub's own client."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "0" * 39 + "1"
#: Code that Python runs at its start if it is in ``sitecustomize.py``: no connection leaves the process.
NO_NETWORK = """
import socket


def refused(*_, **__):
    raise OSError("there is no network in this test")


socket.socket.connect = socket.socket.connect_ex = refused
socket.getaddrinfo = refused
"""


@contextmanager
def hub_of(root: Path) -> Iterator[str]:
    """Serve the models ``root/models/ORG/NAME`` and the datasets ``root/datasets/ORG/NAME``; yield the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, root))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, root: Path, *given: Any):
        self._root = root
        super().__init__(*given)

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers["Content-Length"])).decode()
        folder = self._folder(self.path.strip("/").split("/")[1:])
        try:
            names = json.loads(asked)["paths"]
        except ValueError:  # a form
            names = [part.partition("=")[2].replace("%2F", "/") for part in asked.split("&")]
        found = [folder / name for name in names]
        self._json([_entry(folder, path) for path in found if path.exists()])

    def log_message(self, *_: Any) -> None:
        """Print nothing."""

    def _folder(self, parts: list[str]) -> Path:
        return self._root.joinpath(*parts[:3])

    def _answer(self) -> None:
        parts = self.path.split("?")[0].strip("/").split("/")
        if parts[0] == "api":
            self._about(parts[1:])
            return
        folder = self._folder(parts if parts[0] == "datasets" else ["models", *parts])
        path = folder.joinpath(*parts[parts.index("resolve") + 2 :]) if "resolve" in parts else folder
        if not path.is_file():
            self._send(b"", 404, {"X-Error-Code": "EntryNotFound" if folder.is_dir() else "RepoNotFound"})
            return
        content = path.read_bytes()
        self._send(content, 200, {"ETag": f'"{hashlib.sha256(content).hexdigest()}"'})

    def _about(self, parts: list[str]) -> None:
        folder = self._folder(parts)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        if not folder.is_dir():
            self._send(b"{}", 404, {"X-Error-Code": "RepoNotFound"})
        elif len(parts) > 3 and parts[3] == "tree":
            inside = folder.joinpath(*parts[5:])
            found = inside.rglob("*") if "recursive=true" in self.path.lower() else inside.glob("*")
            self._json([_entry(folder, path) for path in sorted(found)])
        else:
            names = [{"rfilename": path.relative_to(folder).as_posix()} for path in files]
            self._json(
                {
                    "id": "/".join(parts[1:3]),
                    "sha": COMMIT,
                    "siblings": names,
                    "tags": [],
                    "lastModified": "2026-01-01T00:00:00.000Z",
                    "private": False,
                }
            )

    def _json(self, content: Any) -> None:
        self._send(json.dumps(content).encode(), 200, {"Content-Type": "application/json"})

    def _send(self, content: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in (headers | {"X-Repo-Commit": COMMIT, "Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _entry(folder: Path, path: Path) -> dict[str, Any]:
    name = path.relative_to(folder).as_posix()
    if path.is_dir():
        return {"type": "directory", "path": name, "oid": COMMIT}
    content = path.read_bytes()
    return {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha256(content).hexdigest()[:40]}
