"""A WSGI app under waitress, on a port of its own, and raw bytes for any server."""

from __future__ import annotations

import contextlib
import functools
import socket
import threading
from collections.abc import Iterator
from typing import Any

import waitress.server

PATIENCE_SECONDS = 20.0


@contextlib.contextmanager
def serving(app: Any, **options: Any) -> Iterator[int]:
    """Serve an app while the context lasts; gives its port."""
    server = waitress.server.create_server(
        app, host="127.0.0.1", port=0, asyncore_loop_timeout=0.05, **options
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server.effective_port
    finally:
        # In the server's own loop, which would trip over sockets that another thread closed. It
        # may have closed all, the trigger's end included, before the call has pulled that.
        with contextlib.suppress(OSError):
            server.trigger.pull_trigger(functools.partial(server.asyncore.close_all, server._map))
        thread.join(PATIENCE_SECONDS)
        server.task_dispatcher.shutdown()


def exchange(port: int, request: bytes) -> bytes:
    """Send raw bytes and return the raw answer, as far as the server gives one."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS) as connection:
        try:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(65536):
                answer += piece
        except ConnectionError:
            pass  # a server may hang up on what it will not read
    return answer
