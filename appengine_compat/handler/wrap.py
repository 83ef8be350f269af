"""What ``wrap_wsgi_app`` puts around an app: one layer that does the work of App Engine's many.

In this order: task headers are removed or shown (``view``), what the front end says of the
connection is taken over, ``os.environ`` shows the request, the namespace is set, and the app, or
the deferred application, answers; all in a copy of the context, so that nothing of one request
is seen by the next.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Iterable
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING

from appengine_compat import platform, settings
from appengine_compat.core import in_process, trace
from appengine_compat.handler import door, running, view
from appengine_compat.handler.bodies import answered
from appengine_compat.handler.request import CURRENT, Request

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

DEFERRED_PATH = "/_ah/queue/deferred"
_STOP_PATH = "/_ah/stop"
_STOP_ADDRESS = "0.1.0.3"

_log = logging.getLogger("appengine_compat.handler")

_DEFAULT_PORTS = {"http": "80", "https": "443"}

# App Engine's older runtimes gave these without the prefix.
_WITHOUT_PREFIX = {
    view.APP_ENGINE + name: name
    for name in (
        "APPSERVER_DATACENTER", "APPSERVER_TASK_BNS", "AUTH_DOMAIN", "DATACENTER",
        "DEFAULT_VERSION_HOSTNAME", "GAIA_ID", "GAIA_SESSION", "LOAS_PEER_USERNAME",
        "LOAS_SECURITY_LEVEL", "REMOTE_ADDR", "REQUEST_ID_HASH", "REQUEST_LOG_ID",
        "TRUSTED_IP_REQUEST", "USER_EMAIL", "USER_ID", "USER_IS_ADMIN", "USER_NICKNAME",
        "USER_ORGANIZATION",
    )
}  # fmt: skip


class WrappedApp:
    """A WSGI app with App Engine's ways around it."""

    def __init__(
        self,
        app: WSGIApplication,
        *,
        is_legacy: bool,
        deferred: WSGIApplication | None,
        set_namespace: Callable[[str], None],
        stop: Callable[[], object],
        enter: Callable[[], object] | None = None,
        around: Callable[[WSGIApplication], WSGIApplication] | None = None,
    ) -> None:
        """Wrap an app.

        Args:
            app: the app.
            is_legacy: whether ``os.environ`` shows each request's variables.
            deferred: answers ``/_ah/queue/deferred``; None leaves that path to the app.
            set_namespace: called with the namespace that a task carries.
            stop: called when the platform is about to end this instance.
            enter: called within each request's context before anything else.
            around: wraps what answers, the deferred application included, once more.
        """
        self._app = app
        self._is_legacy = is_legacy
        self._deferred = deferred
        self._set_namespace = set_namespace
        self._stop = stop
        self._enter = enter
        self._inner = self._answer if around is None else around(self._answer)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        context, request = copy_context(), Request()
        try:
            body = context.run(self._serve, request, environ, start_response)
        except BaseException as error:
            if isinstance(error, Exception):
                context.run(_log_error, environ, error)
            # The server answers for the app now; no close() comes to end the request.
            context.run(request.end)
            raise
        return answered(body, environ, context, request, _log_error)

    def _serve(
        self, request: Request, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        CURRENT.set(request)
        if self._enter is not None:
            self._enter()
        has_headers = view.prepare(environ)
        trace.enter(environ)
        if has_headers:
            task = running.begin(environ)
            if task is not None:
                start_response = running.noting(task, start_response)
                request.add(partial(running.end, task))
        _take_connection(environ, has_headers)
        if self._is_legacy:
            _drop_prefix(environ, has_headers)
            request.variables = environ.copy()
        return self._inner(environ, start_response)

    def _answer(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        namespace = environ.get("HTTP_X_APPENGINE_CURRENT_NAMESPACE")
        if namespace is not None:
            self._set_namespace(namespace)
        path = environ.get("PATH_INFO")
        if self._deferred is not None and path == DEFERRED_PATH:
            return self._deferred(environ, start_response)
        if path == _STOP_PATH and environ.get("REMOTE_ADDR") == _STOP_ADDRESS:
            self._stop()
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [b"ok"]
        return self._app(environ, start_response)


def _log_error(environ: WSGIEnvironment, error: Exception) -> None:
    running.note_error(environ, error)
    attempt = in_process.attempt_of(environ)
    if attempt is not None:
        attempt.mark_logged(error)
    task = environ.get("HTTP_X_APPENGINE_TASKNAME")
    if task is None:
        logging.error("The app raised while it served this request", exc_info=error)
        return
    logging.error(
        "Task %s of queue %s raised an exception at %s",
        task,
        environ.get("HTTP_X_APPENGINE_QUEUENAME"),
        door.request_path(environ),
        exc_info=error,
    )


def _take_connection(environ: WSGIEnvironment, has_headers: bool) -> None:
    scheme = environ.get("HTTP_X_FORWARDED_PROTO")
    if scheme is not None and (
        settings.TRUST_PROXY.get() or platform.detect() in platform.ENDS_TLS
    ):
        port = _DEFAULT_PORTS.get(scheme)
        if port is None:
            _log.warning("X-Forwarded-Proto is %.40r, neither http nor https", scheme)
        else:
            environ["wsgi.url_scheme"] = scheme
            environ["SERVER_PORT"] = port
    host = environ.get("HTTP_HOST")
    if host:
        environ["SERVER_NAME"] = _without_port(host)
    environ["CLOUD_TRACE_ENABLE_STACK_TRACE"] = ""
    if not has_headers:
        return
    https = environ.get("HTTP_X_APPENGINE_HTTPS")
    if https is not None:
        environ["HTTPS"] = https
    # The view left this header only where the front end sets it on every request.
    user_address = environ.get("HTTP_X_APPENGINE_USER_IP")
    if user_address is not None:
        door.rewrite_address(environ, user_address)
    log_id = environ.get("HTTP_X_APPENGINE_REQUEST_LOG_ID")
    if log_id:
        environ["HTTP_X_APPENGINE_REQUEST_ID_HASH"] = (
            f"{zlib.crc32(log_id.encode('latin-1', 'replace')):08X}"
        )


def _without_port(host: str) -> str:
    if host[0] == "[":  # an IPv6 address, whose own colons the brackets keep apart
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]


def _drop_prefix(environ: WSGIEnvironment, has_headers: bool) -> None:
    environ.setdefault("HTTP_X_APPENGINE_AUTH_DOMAIN", "gmail.com")
    environ.setdefault("HTTP_X_APPENGINE_USER_IS_ADMIN", "0")
    if has_headers:
        for name in _WITHOUT_PREFIX.keys() & environ.keys():
            environ[_WITHOUT_PREFIX[name]] = environ[name]
    else:
        environ["AUTH_DOMAIN"] = environ["HTTP_X_APPENGINE_AUTH_DOMAIN"]
        environ["USER_IS_ADMIN"] = environ["HTTP_X_APPENGINE_USER_IS_ADMIN"]
