"""The HTTP server of the REST door: waitress, which holds idle and slow clients without threads."""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from appengine_compat.errors import ApiError, ConfigError
from appengine_compat.local.fronts import listening, rest_front
from appengine_compat.local.service import LocalService

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_THREADS = 16
_MAX_REQUEST_BYTES = 160 * 1024 * 1024
_BACKLOG = 2048
_IDLE_SECONDS = 60
_CLEANUP_SECONDS = 10
_ACCEPTED_AT_ONCE = 128
_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1", "host.docker.internal", "ip6-localhost"})


class RestServer:
    """An HTTP server that runs in threads of this process.

    Attributes:
        host: the address that it listens on.
        port: the port that it listens on.
    """

    def __init__(self, app: WSGIApplication, bound: socket.socket) -> None:
        from waitress.server import create_server  # type: ignore[import-untyped]

        self.host, self.port = bound.getsockname()[:2]
        self._loop: dict[int, Any] = {}
        self._server = create_server(
            app,
            map=self._loop,
            sockets=[bound],
            threads=_THREADS,
            ident="appengine-compat",
            backlog=_BACKLOG,
            connection_limit=listening.most_connections(),
            channel_timeout=_IDLE_SECONDS,
            cleanup_interval=_CLEANUP_SECONDS,
            # select() knows no file above 1023.
            asyncore_use_poll=True,
            max_request_body_size=_MAX_REQUEST_BYTES,
            # A thread would wait for a slow reader at the default of 16 MiB.
            outbuf_high_watermark=2 * _MAX_REQUEST_BYTES,
            clear_untrusted_proxy_headers=True,
        )
        self._server.handle_accept = self._accept_many
        self._thread = threading.Thread(
            target=self._server.run, name="appengine-compat-rest", daemon=True
        )
        self._thread.start()

    def _accept_many(self) -> None:
        # A turn of the loop looks at every connection: with one accepted per turn, who comes
        # behind a thousand idle clients would wait a thousand turns.
        accept = type(self._server).handle_accept
        for _ in range(_ACCEPTED_AT_ONCE):
            before = len(self._loop)
            accept(self._server)
            if len(self._loop) == before or not self._server.readable():
                return

    def stop(self, grace_seconds: float = 1.0) -> None:
        """Take no more requests, and give those that run a moment to end."""
        self._server.task_dispatcher.shutdown(timeout=grace_seconds)
        if self._thread.is_alive():
            # The loop's own thread must close what the loop looks at.
            try:
                self._server.trigger.pull_trigger(self._close)
            except OSError:
                pass  # a turn that had begun already has closed it, the trigger's end included
            self._thread.join()

    def _close(self) -> None:
        for dispatcher in list(self._loop.values()):
            dispatcher.close()


def serve_rest(
    service: LocalService,
    host: str = "127.0.0.1",
    port: int = 8124,
    *,
    location: str = "us-central1",
    mounts: Mapping[str, WSGIApplication] | None = None,
) -> RestServer:
    """Serve Cloud Tasks over REST, in threads of this process.

    Args:
        service: does the work; it is not closed with the server.
        host: the address to listen on.
        port: the port to listen on; 0 for any that is free.
        location: the location that is listed though it has no queue yet.
        mounts: what else the port serves, by the path that it begins with (``/_local``).

    Returns:
        The server, which has begun to take requests.

    Raises:
        ConfigError: nothing can listen on this address, or waitress is not installed.
    """
    app = rest_front.application(service, location=location, mounts=mounts)
    return serve_app(app, host, port)


def serve_app(app: WSGIApplication, host: str, port: int) -> RestServer:
    """Serve any WSGI application as the REST door is served, guarded against web pages.

    Raises:
        ConfigError: as ``serve_rest``.
    """
    try:
        import waitress  # type: ignore[import-untyped]  # noqa: F401
    except ImportError:
        raise ConfigError(
            "Serving REST needs waitress, which is not installed: "
            "pip install 'appengine-compat[dev]'."
        ) from None
    bound = listening.bind(host, port, "REST", "--rest-port")
    return RestServer(guarded(app, bound.getsockname()[0]), bound)


def guarded(app: WSGIApplication, host: str) -> WSGIApplication:
    """Return an application that refuses what a web page makes a browser ask.

    Whoever creates tasks has them run as this service's own. A page from anywhere could make the
    developer's browser create some, since a local port is no secret: by asking across sites, or
    by a name of its own that resolves to this machine.

    Args:
        app: what is to be kept safe.
        host: the address that it is served on.
    """
    own_names = _LOCAL_NAMES | {host}
    is_local = _is_loopback(host)

    def guard(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        origin = environ.get("HTTP_ORIGIN")
        asked = _host_of(f"//{environ.get('HTTP_HOST', '')}") or host
        if origin is not None and not _is_trusted(_host_of(origin), asked, own_names):
            why = (
                f"A page of {origin} may not use this service. Send no Origin header, or one of "
                "this machine."
            )
        elif is_local and not _is_own(asked, own_names):
            why = (
                f"This service listens on {host} and is not known as {asked}. Use localhost, or "
                "start it with the host that it shall be reached by."
            )
        else:
            return app(environ, start_response)
        text = rest_front.error_text(ApiError("PERMISSION_DENIED", why))
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(text)))]
        start_response("403 Forbidden", headers)
        return [text]

    return guard


def _host_of(origin: str) -> str:
    try:
        return urlsplit(origin).hostname or ""
    except ValueError:
        return ""


def _is_trusted(page_host: str, asked: str, own_names: frozenset[str]) -> bool:
    if _is_own(page_host, own_names):
        return True
    # A page that this server gave itself, under a name that nobody outside can make his own:
    # an address, or a word without a dot.
    return page_host == asked and ("." not in page_host or _address(page_host) is not None)


def _is_own(name: str, own_names: frozenset[str]) -> bool:
    return name in own_names or name.endswith(".localhost") or _is_loopback(name)


def _is_loopback(host: str) -> bool:
    address = _address(host)
    return host == "localhost" if address is None else address.is_loopback


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
