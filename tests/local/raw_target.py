"""A target that speaks byte by byte what a test tells it, well-formed or not."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from appengine_compat.local.delivery import Claim, Delivery

LONG_SECONDS = 20.0
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

Answer = bytes | Callable[[socket.socket], None] | None
"""What goes over the wire, or what does something with it; None closes the connection."""


@dataclass
class Raw:
    """What came, and what is answered."""

    port: int
    answers: list[Answer] = field(default_factory=list)
    """Each answers one request, in turn; then ``OK``."""
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    over: threading.Event = field(default_factory=threading.Event)
    """Set at the end; an answer that waits may wait for it."""
    peer_closed: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def heads(self) -> list[list[str]]:
        return [
            request.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
            for request in self.requests
        ]

    def headers(self, place: int = -1) -> dict[str, str]:
        pairs = (line.partition(": ") for line in self.heads()[place][1:])
        return {name.lower(): value for name, _, value in pairs}


@contextmanager
def serving() -> Iterator[Raw]:
    """Serve while the context lasts."""
    listener = socket.create_server(("127.0.0.1", 0))
    target = Raw(listener.getsockname()[1])
    accepted: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            target.connections += 1
            accepted.append(connection)
            threads.append(threading.Thread(target=talk, args=(connection,), daemon=True))
            threads[-1].start()

    def talk(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while request := _read(connection):
                target.requests.append(request)
                answer = target.answers.pop(0) if target.answers else OK
                if answer is None:
                    return
                if callable(answer):
                    answer(connection)
                    return
                connection.sendall(answer)
            target.peer_closed.set()

    accepting = threading.Thread(target=accept, daemon=True)
    accepting.start()
    try:
        yield target
    finally:
        target.over.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        accepting.join()
        for connection in accepted:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()


def _read(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = connection.recv(65536)
        if not chunk:
            return b""
        data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    length = 0
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
    while len(body) < length:
        chunk = connection.recv(65536)
        if not chunk:
            break
        body += chunk
    return head + b"\r\n\r\n" + body


def delivery(
    url, *, method="POST", body=b"", headers=(), service="", extra=None, seconds=LONG_SECONDS
) -> Delivery:
    """Return an attempt of a task that has an address, or a service."""
    claim = Claim(
        seq=1, claim=1, queue=1, queue_id="q", task_id="t", lane=service, service=service, due=1,
        forced=0, is_named=True, method=method, url=url, headers={}, extra=extra or {}, body=body,
        deadline_ms=0, attempt=1, executions=0, previous_status=None, first_dispatch=0,
    )  # fmt: skip
    return Delivery(claim, tuple(headers), seconds)
