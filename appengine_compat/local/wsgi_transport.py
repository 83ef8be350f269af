"""Calls WSGI apps of this process as a server would, one request per attempt."""

from __future__ import annotations

import io
import logging
import sys
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from appengine_compat.core import outcome
from appengine_compat.core.in_process import ATTEMPT_KEY, Attempt
from appengine_compat.local.delivery import Delivery, Reply

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed.wsgi import WSGIApplication

SERVER_SOFTWARE = "Development/appengine-compat"
"""Old code tells a development server by how this begins."""

_KEPT_BODY_BYTES = 2048

_logger = logging.getLogger(__name__)


class WsgiTransport:
    """Delivers to the apps that were registered, by service."""

    def __init__(self, keep: Callable[[str, str, str], bool] = lambda *_: False) -> None:
        """Make a transport without apps.

        Args:
            keep: keeps a task whose app says that it failed for good: takes the queue's id, the
                task's and a traceback, and returns whether the task is safe.
        """
        self._keep = keep
        self._apps: dict[str, tuple[WSGIApplication, str]] = {}

    def register(self, app: WSGIApplication, service: str, host: str = "localhost") -> None:
        """Deliver a service's tasks to this app, from now on.

        Args:
            app: the WSGI application.
            service: whose tasks it takes; a later app of the same service replaces it.
            host: ``host`` or ``host:port`` that it sees as its own.
        """
        self._apps = {**self._apps, service: (app, host)}

    def services(self) -> frozenset[str] | None:
        """Return the services that have an app here."""
        return frozenset(self._apps)

    def send(self, delivery: Delivery) -> Reply:
        """Call the app; an exception is a reply of 500, and logged if nobody has done so."""
        claim = delivery.claim
        app, host = self._apps[claim.service]
        attempt = Attempt(partial(self._keep, claim.queue_id, claim.task_id))
        environ = _environ(delivery, host)
        environ[ATTEMPT_KEY] = attempt
        try:
            return _call(app, environ)
        # An attempt ends here whatever the app raises, sys.exit included: the thread goes on.
        except BaseException as error:
            if not attempt.was_logged(error):
                _logger.error(
                    "Task %s of queue %s: %s %s raised an exception.",
                    claim.task_id,
                    claim.queue_id,
                    claim.method,
                    claim.url,
                    exc_info=True,
                )
            return Reply(500, error=f"{type(error).__name__}: {error}")


def wsgi_path(url: str) -> tuple[str, str]:
    """Return PATH_INFO and QUERY_STRING of a path with query."""
    path, _, query = url.partition("#")[0].partition("?")
    if "%" in path or not path.isascii():
        # WSGI holds bytes as text, one character each.
        path = unquote_to_bytes(path).decode("latin-1")
        query = query.encode().decode("latin-1")
    return path, query


def _environ(delivery: Delivery, host: str) -> dict[str, Any]:
    claim = delivery.claim
    path, query = wsgi_path(claim.url)
    name, _, port = host.partition(":")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": claim.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "SERVER_NAME": name,
        "SERVER_PORT": port or "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_SOFTWARE": SERVER_SOFTWARE,
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": host,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(claim.body),
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "CONTENT_LENGTH": str(len(claim.body)),
    }
    for header, value in delivery.headers:
        if "_" in header:  # WSGI could not tell it from one with "-", such as a task header
            continue
        key = _KEYS.get(header) or _key(header)
        if not value.isascii():
            value = value.encode().decode("latin-1")
        environ[key] = f"{environ[key]},{value}" if key in environ else value
    return environ


_KEYS: dict[str, str] = {}
_MOST_KEYS = 512


def _key(header: str) -> str:
    key = header.upper().replace("-", "_")
    if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        key = "HTTP_" + key
    if len(_KEYS) < _MOST_KEYS:
        _KEYS[header] = key
    return key


def _call(app: WSGIApplication, environ: dict[str, Any]) -> Reply:
    status_line = ""
    retry_after = 0.0
    written: list[bytes] = []

    def start_response(
        status: str, headers: list[tuple[str, str]], exc_info: object = None
    ) -> Callable[[bytes], object]:
        nonlocal status_line, retry_after
        if status_line and exc_info is None:
            raise AssertionError("start_response was called twice without exc_info")
        status_line = status
        for name, value in headers:
            if name.lower() == "retry-after" and value.strip().isdigit():
                retry_after = float(value)
        return written.append

    body = b""
    result = app(environ, start_response)
    try:
        for chunk in result:
            if len(body) < _KEPT_BODY_BYTES:
                body += chunk[: _KEPT_BODY_BYTES - len(body)]
    finally:
        close = getattr(result, "close", None)
        if close is not None:
            close()
    if not status_line:
        return Reply(500, error="the app returned without calling start_response")
    try:
        status = int(status_line[:3])
    except ValueError:
        return Reply(500, error=f"the app answered with the status {status_line!r}")
    return Reply(
        status if status >= 100 else outcome.NO_REPLY,
        (b"".join(written) + body)[:_KEPT_BODY_BYTES],
        retry_after_seconds=retry_after,
    )
