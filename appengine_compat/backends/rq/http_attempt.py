"""One HTTP request to wherever a task goes, ended at its deadline whatever the target does."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from urllib.parse import urlsplit

from appengine_compat.core import outcome
from appengine_compat.local.delivery import Reply

_KEPT_BODY_BYTES = 2048
_CHUNK_BYTES = 65536
_LATE = Reply(outcome.TIMED_OUT, error="no reply within the deadline")


def send(
    method: str,
    url: str,
    headers: Iterable[tuple[str, str]],
    body: bytes,
    *,
    deadline_seconds: float,
) -> Reply:
    """Send a request and return the reply; whatever goes wrong is told in it.

    Args:
        method: of HTTP.
        url: whole, with ``http`` or ``https``.
        headers: all but ``Host`` and ``Content-Length``.
        body: sent with its length, also when there is none and the method has one.
        deadline_seconds: for all of it, from looking up the address to the reply's last byte.
    """
    ends_at = time.monotonic() + deadline_seconds
    parts = urlsplit(url)
    try:
        connection = _connection(parts.scheme, parts.hostname or "", parts.port, deadline_seconds)
    except ValueError as error:
        return Reply(outcome.NO_REPLY, error=f"the address {url!r} is malformed: {error}")
    target = parts.path or "/"
    if parts.query:
        target += f"?{parts.query}"
    try:
        connection.connect()
        with _ended_at(connection.sock, ends_at) as end:
            connection.putrequest(method, target, skip_accept_encoding=True)
            for name, value in headers:
                connection.putheader(name, value.encode())
            if body or method in ("POST", "PUT", "PATCH"):
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body or None)
            reply = _reply(connection.getresponse())
        # What was cut off may look whole: the end of a connection ends headers and bodies too.
        return _LATE if end.has_come else reply
    # UnicodeError is what a host name that cannot be one raises.
    except (OSError, http.client.HTTPException, ValueError) as error:
        if time.monotonic() >= ends_at - 0.001:
            return _LATE
        return Reply(outcome.NO_REPLY, error=f"{type(error).__name__}: {error}")
    finally:
        connection.close()


def _connection(
    scheme: str, host: str, port: int | None, timeout_seconds: float
) -> http.client.HTTPConnection:
    if scheme == "https":
        return http.client.HTTPSConnection(host, port, timeout=timeout_seconds)
    return http.client.HTTPConnection(host, port, timeout=timeout_seconds)


class _ended_at:
    """Shuts a socket at a moment: a timeout alone would begin anew with every byte that comes."""

    def __init__(self, sock: socket.socket, moment: float) -> None:
        self._sock = sock
        self.has_come = False
        self._timer = threading.Timer(max(0.0, moment - time.monotonic()), self._shut)
        self._timer.daemon = True

    def __enter__(self) -> _ended_at:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def _shut(self) -> None:
        self.has_come = True
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)


def _reply(response: http.client.HTTPResponse) -> Reply:
    retry_after = response.getheader("Retry-After", "").strip()
    kept = b""
    try:
        # To its end, so that the target is not cut off while it answers.
        while chunk := response.read(_CHUNK_BYTES):
            kept += chunk[: _KEPT_BODY_BYTES - len(kept)]
    except http.client.IncompleteRead as error:
        kept += error.partial[: _KEPT_BODY_BYTES - len(kept)]
    except OSError:
        pass  # the status has come, and it decides
    return Reply(
        response.status,
        kept,
        retry_after_seconds=float(retry_after) if retry_after.isdigit() else 0.0,
    )
