"""A real HTTP server over a folder, on a free port of this machine, whose paths can be made to fail and mended again.

with HttpFiles(folder) as server:
    server.fail("talks/1.wav", "500")            # every request for it until mended
    server.fail("talks/2.wav", "half", times=1)  # the next request only
    ... server.url + "/talks/1.wav" ...
    server.mend()
    server.requests                              # what was asked and answered
"""

from __future__ import annotations

import html
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Literal
from urllib.parse import quote, unquote, urlsplit

Fate = Literal["500", "503", "404", "403", "hang", "half", "slow"]
_BLOCK = 64 * 1024


@dataclass(frozen=True)
class Request:
    """One request as it was answered."""

    method: str
    path: str
    """Relative to the folder, without query."""
    query: str
    range: str | None
    """The `Range` header, e.g. `bytes=0-99`."""
    status: int
    """0 where the connection was dropped before an answer."""
    sent: int
    """Bytes of the body."""


@dataclass
class Fault:
    """What happens to requests for one path."""

    fate: Fate
    times: int | None
    """How many requests it holds for; None: until it is mended."""
    after: int
    """How many requests pass before it begins."""
    methods: tuple[str, ...]
    block_s: float


class HttpFiles:
    """Serves `folder` over HTTP/1.1 at `url`: HEAD, byte ranges, pages of links for folders. Use as a context manager."""

    def __init__(self, folder: Path, ranges: bool = True) -> None:
        self.folder = folder
        self.ranges = ranges
        """Whether the server knows byte ranges; without, it sends the whole file whatever is asked."""
        self._lock = threading.Lock()
        self._log: list[Request] = []
        self._faults: dict[str, Fault] = {}
        self._changed = threading.Condition(self._lock)
        self._closed = False
        self._hanging = 0
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.files = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> HttpFiles:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """Where the folder is, without a slash at the end."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def requests(self) -> list[Request]:
        """All requests that were answered so far."""
        with self._lock:
            return list(self._log)

    def forget(self) -> None:
        """Empty the log."""
        with self._lock:
            self._log.clear()

    def fail(
        self,
        path: str,
        fate: Fate,
        times: int | None = None,
        after: int = 0,
        methods: tuple[str, ...] = ("GET", "HEAD"),
        block_s: float = 0.05,
    ) -> None:
        """Let requests for `path` (relative to the folder; a folder's own page: `talks/`) meet a fate.

        A number: that status. hang: no answer until the path is mended or the server closed, then the connection is dropped.
        half: half of the body, then the connection is closed (HEAD is answered as ever). slow: `block_s` of pause before
        each of 16 parts of the body.
        """
        with self._changed:
            self._faults[path.strip("/")] = Fault(fate, times, after, methods, block_s)

    def mend(self, path: str | None = None) -> None:
        """End the fault of a path, or all of them; requests that hang are let go."""
        with self._changed:
            if path is None:
                self._faults.clear()
            else:
                self._faults.pop(path.strip("/"), None)
            self._changed.notify_all()

    def wait_until_hanging(self, count: int = 1) -> None:
        """Return when `count` requests hang at once."""
        with self._changed:
            self._changed.wait_for(lambda: self._hanging >= count)

    def _fault_for(self, method: str, path: str) -> Fault | None:
        with self._lock:
            fault = self._faults.get(path.strip("/"))
            if fault is None or method not in fault.methods:
                return None
            if fault.after > 0:
                fault.after -= 1
                return None
            if fault.times is not None:
                if fault.times <= 0:
                    return None
                fault.times -= 1
            return fault

    def _wait_until_mended(self, path: str, fault: Fault) -> None:
        with self._changed:
            self._hanging += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._closed or self._faults.get(path.strip("/")) is not fault)
            self._hanging -= 1

    def _pause(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed, seconds)

    def _note(self, request: Request) -> None:
        with self._lock:
            self._log.append(request)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    files: HttpFiles

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients that give up are what the faults are for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""

    def _answer(self) -> None:
        files = self.server.files
        parts = urlsplit(self.path)
        self._path, self._query = unquote(parts.path).lstrip("/"), parts.query
        fault = files._fault_for(self.command, self._path)
        fate = fault.fate if fault else None
        if fault and fate == "hang":
            files._wait_until_mended(self._path, fault)
            self._drop()
            self._note(0, 0)
        elif fate is not None and fate.isdigit():
            self._send(int(fate), b"this server was told to fail\n", "text/plain")
        else:
            self._serve(fault)

    def _serve(self, fault: Fault | None) -> None:
        folder = self.server.files.folder.resolve()
        file = (folder / self._path).resolve()
        if not file.is_relative_to(folder) or not file.exists():
            self._send(404, b"not found\n", "text/plain")
        elif file.is_dir() and self._path and not self._path.endswith("/"):
            self._send(301, b"", "text/plain", None, {"Location": f"/{quote(self._path)}/"})
        elif file.is_dir():
            self._send(200, self._page(file), "text/html; charset=utf-8", fault)
        else:
            self._send_file(file, fault)

    def _page(self, folder: Path) -> bytes:
        names = sorted(f"{path.name}/" if path.is_dir() else path.name for path in folder.iterdir())
        links = "".join(f'<li><a href="{quote(name)}">{html.escape(name)}</a></li>\n' for name in names)
        # Web servers put such links above their lists.
        usual = '<a href="?C=N;O=D">Name</a> <a href="/">Top</a> <a href="../">Parent</a>'
        return f"<!DOCTYPE html><title>files</title>{usual}<ul>\n{links}</ul>\n".encode()

    def _send_file(self, file: Path, fault: Fault | None) -> None:
        content, size = file.read_bytes(), file.stat().st_size
        headers = {
            "ETag": f'"{size:x}-{file.stat().st_mtime_ns:x}"',
            "Last-Modified": formatdate(file.stat().st_mtime, usegmt=True),
        }
        if self.server.files.ranges:
            headers["Accept-Ranges"] = "bytes"
        first, last = self._range(size)
        if first is None or last is None:
            self._send(200, content, "application/octet-stream", fault, headers)
        elif first >= size:
            self._send(416, b"", "text/plain", fault, {"Content-Range": f"bytes */{size}"})
        else:
            headers["Content-Range"] = f"bytes {first}-{last}/{size}"
            self._send(206, content[first : last + 1], "application/octet-stream", fault, headers)

    def _range(self, size: int) -> tuple[int | None, int | None]:
        """(first, last) byte of a single range; (None, None) where none is asked for."""
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range") or "")
        if not self.server.files.ranges or asked is None or asked.groups() == ("", ""):
            return None, None
        if not asked[1]:
            return max(0, size - int(asked[2])), size - 1
        return int(asked[1]), min(int(asked[2]), size - 1) if asked[2] else size - 1

    def _send(
        self,
        status: int,
        body: bytes,
        kind: str,
        fault: Fault | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        sent = 0
        try:
            self.send_response(status)
            for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                fate = fault.fate if fault else None
                for block in self._blocks(body[: len(body) // 2] if fate == "half" else body, fault):
                    self.wfile.write(block)
                    sent += len(block)
                if fate == "half":
                    self._drop()
        except OSError:
            # The client has given up.
            self.close_connection = True
        self._note(status, sent)

    def _blocks(self, body: bytes, fault: Fault | None) -> Iterator[bytes]:
        slow = fault is not None and fault.fate == "slow"
        size = max(1, -(-len(body) // 16)) if slow else _BLOCK
        for start in range(0, len(body), size):
            if fault is not None and slow:
                self.server.files._pause(fault.block_s)
            yield body[start : start + size]

    def _drop(self) -> None:
        self.close_connection = True
        try:
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def _note(self, status: int, sent: int) -> None:
        asked = self.headers.get("Range")
        self.server.files._note(Request(self.command, self._path, self._query, asked, status, sent))
