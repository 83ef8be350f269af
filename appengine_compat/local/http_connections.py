"""Connections to targets, kept open for the next task.

A new connection costs as much as the request. One that has been idle for a moment is not used
again, since many servers close them after two seconds; what a server closes all the same is
noticed before use, as far as that can be.
"""

from __future__ import annotations

import select
import socket
import ssl
import threading
import time
import weakref
from collections import deque
from contextlib import suppress
from dataclasses import dataclass

IDLE_SECONDS = 1.5
MOST_IDLE = 256


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a connection leads."""

    scheme: str
    host: str
    port: int

    @property
    def shown_host(self) -> str:
        """The value of the header ``Host``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"


PORTS = {"http": 80, "https": 443}


class Connections:
    """The open connections of one transport. Thread-safe."""

    def __init__(self) -> None:
        self._idle: dict[Origin, deque[tuple[socket.socket, float]]] = {}
        self._count = 0
        self._swept_at = 0.0
        self._lock = threading.Lock()
        self._contexts: list[ssl.SSLContext] = []
        # Who forgets a transport leaves no connections behind.
        weakref.finalize(self, _close_all, self._idle)

    def take(self, origin: Origin) -> socket.socket | None:
        """Return a connection that is open and idle, or None."""
        oldest = time.monotonic() - IDLE_SECONDS
        while True:
            with self._lock:
                idle = self._idle.get(origin)
                if not idle:
                    return None
                # The one used last: the others may grow old and be let go of.
                sock, since = idle.pop()
                self._count -= 1
            if since >= oldest and not _has_news(sock):
                return sock
            sock.close()

    def keep(self, origin: Origin, sock: socket.socket) -> None:
        """Keep a connection for the next request; one too many is closed."""
        now = time.monotonic()
        with self._lock:
            is_kept = self._count < MOST_IDLE
            if is_kept:
                self._idle.setdefault(origin, deque()).append((sock, now))
                self._count += 1
            old = self._take_old(now) if now - self._swept_at > IDLE_SECONDS else []
        for each in old if is_kept else [*old, sock]:
            each.close()

    def connect(self, origin: Origin, ends_at: float) -> socket.socket:
        """Return a new connection.

        Raises:
            TimeoutError: the moment has come.
            OSError: there is none to be had.
            UnicodeError: the host's name cannot be one.
        """
        seconds = ends_at - time.monotonic()
        if seconds <= 0:
            raise TimeoutError
        sock = socket.create_connection((origin.host, origin.port), timeout=seconds)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if origin.scheme == "https":
                sock.settimeout(max(0.001, ends_at - time.monotonic()))
                sock = self._context().wrap_socket(sock, server_hostname=origin.host)
        except BaseException:
            sock.close()
            raise
        return sock

    def close(self) -> None:
        """Close the connections that are idle."""
        with self._lock:
            self._count = 0
            _close_all(self._idle)

    def _context(self) -> ssl.SSLContext:
        # Reading the certificates of the system takes tens of milliseconds.
        with self._lock:
            if not self._contexts:
                self._contexts.append(ssl.create_default_context())
            return self._contexts[0]

    def _take_old(self, now: float) -> list[socket.socket]:
        self._swept_at = now
        old = []
        for origin in list(self._idle):
            idle = self._idle[origin]
            while idle and now - idle[0][1] > IDLE_SECONDS:
                old.append(idle.popleft()[0])
            if not idle:
                del self._idle[origin]
        self._count -= len(old)
        return old


def _close_all(idle: dict[Origin, deque[tuple[socket.socket, float]]]) -> None:
    for each in idle.values():
        for sock, _ in each:
            sock.close()
    idle.clear()


def _has_news(sock: socket.socket) -> bool:
    """Tell whether an idle connection has been closed, or has sent what nobody asked for."""
    with suppress(OSError, ValueError):
        if hasattr(select, "poll"):
            poll = select.poll()
            poll.register(sock, select.POLLIN)
            return bool(poll.poll(0))
        return bool(select.select([sock], [], [], 0)[0])
    return True
