"""A target of tasks: an HTTP server that remembers what it was sent and answers as told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Arrived:
    method: str
    path: str
    headers: dict[str, str]
    """By their names in small letters."""
    body: bytes
    at: float
    """Seconds since the epoch."""


Answer = int | Callable[[Arrived], int]


@dataclass
class Target:
    address: str = ""
    answers: list[Answer] = field(default_factory=list)
    """Each answers one request, in turn; then 200."""
    reply_headers: dict[str, str] = field(default_factory=dict)
    arrived: list[Arrived] = field(default_factory=list)
    most_at_once: int = 0
    _at_once: int = 0
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def answer(self, request: Arrived) -> int:
        with self._changed:
            self.arrived.append(request)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            answer = self.answers.pop(0) if self.answers else 200
            self._changed.notify_all()
        try:
            return answer(request) if callable(answer) else answer
        finally:
            with self._changed:
                self._at_once -= 1

    def await_requests(self, count: int, seconds: float = 30.0) -> Sequence[Arrived]:
        """Return the first requests, as soon as so many have come."""
        with self._changed:
            came = self._changed.wait_for(lambda: len(self.arrived) >= count, seconds)
        assert came, f"{len(self.arrived)} of {count} requests came within {seconds} s"
        return self.arrived[:count]

    def bodies(self) -> list[bytes]:
        return [request.body for request in self.arrived]


@contextmanager
def serving(port: int = 0) -> Iterator[Target]:
    """Serve a target while the context lasts."""
    target = Target()

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status = target.answer(Arrived(self.command, self.path, headers, body, time.time()))
            try:
                self.send_response(status)
                for name, value in target.reply_headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "6")
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(b"answer")
            except OSError:
                pass  # whoever asked has gone

        do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = do_OPTIONS = handle_any

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    target.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=lambda: server.serve_forever(0.05), daemon=True)
    thread.start()
    try:
        yield target
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
