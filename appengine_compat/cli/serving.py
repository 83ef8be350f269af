"""HTTP for ``appengine-compat dev``: one port per service, all in one waitress loop."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import signal
import socket
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from appengine_compat.cli.command import CommandError

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

HIGHEST_PORT = 65535

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def bind(host: str, port: int, services: Sequence[str]) -> list[socket.socket]:
    """Bind a port for each service: consecutive ones from ``port``, or free ones when it is 0.

    Raises:
        CommandError: a port is in use, not allowed, or the host is not of this machine.
    """
    if port + len(services) - 1 > HIGHEST_PORT:
        raise CommandError(
            f"{len(services)} services from port {port} need ports above {HIGHEST_PORT}: "
            "choose a lower one with --port."
        )
    bound: list[socket.socket] = []
    try:
        for index, service in enumerate(services):
            bound.append(_bind_one(host, port + index if port else 0, service))
    except CommandError:
        close(bound)
        raise
    return bound


def close(sockets: Sequence[socket.socket]) -> None:
    """Close sockets that will not be served."""
    for bound in sockets:
        bound.close()


def address(bound: socket.socket) -> str:
    """Return the address to type into a browser."""
    host, port = bound.getsockname()[:2]
    if host in ("127.0.0.1", "::1", "0.0.0.0", "::"):
        host = "localhost"
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def is_loopback(bound: socket.socket) -> bool:
    """Whether only this machine can reach the socket."""
    host = str(bound.getsockname()[0])
    return host == "::1" or host.startswith("127.")


def is_local(host: str) -> bool:
    """Whether an address to listen on is one that only this machine can reach."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def require_waitress() -> None:
    """Raise a ``CommandError`` that says how to install waitress, if it is not there."""
    try:
        import waitress  # type: ignore[import-untyped]  # noqa: F401
    except ImportError:
        raise CommandError(
            "Serving needs waitress, which is not installed: pip install 'appengine-compat[dev]'."
        ) from None


def serve(served: Sequence[tuple[socket.socket, WSGIApplication]], threads: int) -> None:
    """Serve until a ``KeyboardInterrupt``, then let the requests that run come to their end.

    Args:
        served: bound sockets, and what answers on each.
        threads: how many requests each service answers at once.
    """
    from waitress.server import create_server  # type: ignore[import-untyped]

    # The servers share one map, so that the loop of the first serves them all.
    loop: dict[int, Any] = {}
    servers = [
        create_server(
            app,
            map=loop,
            sockets=[bound],
            threads=threads,
            ident="appengine-compat",
            clear_untrusted_proxy_headers=True,
        )
        for bound, app in served
    ]
    try:
        servers[0].run()
    finally:
        for server in servers:
            server.task_dispatcher.shutdown()
        for dispatcher in list(loop.values()):
            dispatcher.close()


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Raise ``KeyboardInterrupt`` at the first SIGINT or SIGTERM; end at once at the second."""

    def end(*_: object) -> None:
        for each in _SIGNALS:
            signal.signal(each, _end_at_once)
        raise KeyboardInterrupt

    before = [signal.signal(number, end) for number in _SIGNALS]
    try:
        yield
    finally:
        for number, handler in zip(_SIGNALS, before, strict=True):
            signal.signal(number, handler)


def _end_at_once(number: int, *_: object) -> None:
    os._exit(128 + number)


def _bind_one(host: str, port: int, service: str) -> socket.socket:
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise CommandError(f"--host {host} is not known here: {error.strerror}.") from None
    bound = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":  # elsewhere the option lets two programs share a port
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind(place)
        # Two sockets may bind one port; the second to listen is the one that is refused.
        bound.listen(128)
    except OSError as error:
        bound.close()
        raise CommandError(_why_not(error, host, port, service)) from None
    return bound


def _why_not(error: OSError, host: str, port: int, service: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"Port {port} on {host}, for service {service!r}, is in use: "
            "end what uses it, or choose other ports with --port."
        )
    if error.errno == errno.EACCES:
        return (
            f"Port {port}, for service {service!r}, is not allowed to you: "
            "choose one from 1024 up with --port."
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return f"--host {host} is no address of this machine."
    return f"Port {port} on {host}, for service {service!r}, cannot be used: {error.strerror}."
