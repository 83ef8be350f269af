"""``require_task``: ordinary handlers of tasks behind the same door as deferred ones.

On App Engine ``login: admin`` in app.yaml kept task addresses for tasks; elsewhere nothing does.
"""

from __future__ import annotations

import functools
import io
import sys
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar

from appengine_compat import settings
from appengine_compat.handler import door, view
from appengine_compat.handler.door import Environ, Verdict

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

Guarded = TypeVar("Guarded", bound=Callable[..., Any])


def require_task(app_or_view: Guarded, *, paths: Iterable[str] | None = None) -> Guarded:
    """Let only verified tasks in, and answer everyone else with 401 or 403 and the reason.

    Args:
        app_or_view: what to guard. Of a WSGI app, or a Flask app, the paths that begin with one
            of ``paths``. A view function of Flask or Django always, whatever its path.
        paths: path prefixes, or one, ``SCRIPT_NAME`` left out; None for those of the setting
            ``APPENGINE_COMPAT_TASK_PATHS``. ``/tasks/`` is not ``/tasks``: where a router takes
            the one for the other, write it without the slash.

    Returns:
        The guarded view or WSGI app; a Flask app itself, with its ``wsgi_app`` guarded.
    """
    inner = getattr(app_or_view, "wsgi_app", None)
    if inner is not None:
        app_or_view.wsgi_app = require_task(inner, paths=paths)  # type: ignore[attr-defined]
        return app_or_view
    if isinstance(paths, str):
        paths = (paths,)
    prefixes = None if paths is None else tuple(paths)

    @functools.wraps(app_or_view, updated=())
    def guarded(*args: Any, **kwargs: Any) -> Any:
        if len(args) == 2 and not kwargs and isinstance(args[0], dict) and callable(args[1]):
            return _served(app_or_view, args[0], args[1], prefixes)
        if args and hasattr(args[0], "META"):
            return _viewed_by_django(app_or_view, args, kwargs)
        return _viewed_by_flask(app_or_view, args, kwargs)

    # Django's token against forged forms is nothing that a task could have.
    guarded.csrf_exempt = True  # type: ignore[attr-defined]
    return guarded  # type: ignore[return-value]


def refusal(environ: Environ) -> Verdict | None:
    """Return the verdict on a request that is not let in; None for a task, now shown as one."""
    view.prepare(environ)
    verdict = door.verdict(environ)
    return None if verdict.trusted else verdict


def refusal_headers(verdict: Verdict) -> list[tuple[str, str]]:
    """Return the headers of the answer to a refused request."""
    headers = [("Content-Type", "text/plain; charset=utf-8")]
    if verdict.status == HTTPStatus.UNAUTHORIZED:
        headers.append(("WWW-Authenticate", "Bearer"))
    return headers


def _served(
    app: WSGIApplication,
    environ: WSGIEnvironment,
    start_response: StartResponse,
    prefixes: tuple[str, ...] | None,
) -> Iterable[bytes]:
    if prefixes is None:
        prefixes = settings.TASK_PATHS.get()
    path = environ.get("PATH_INFO", "")
    if not (path.startswith(prefixes) or _plain(path).startswith(prefixes)):
        view.prepare(environ)
        return app(environ, start_response)
    refused = refusal(environ)
    if refused is None:
        return app(environ, start_response)
    status = HTTPStatus(refused.status)
    start_response(f"{status.value} {status.phrase}", refusal_headers(refused))
    return [refused.text.encode()]


def _plain(path: str) -> str:
    """Return a path as routers may read it that go by its parts: ``//a/./b`` is ``/a/b``."""
    if "//" not in path and "/." not in path and path[:1] == "/":
        return path
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts) + ("/" if path.endswith("/") else "")


def _viewed_by_flask(function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    flask = sys.modules.get("flask")
    if flask is None or not flask.has_request_context():
        raise TypeError(
            f"require_task guards WSGI apps and the views of Flask and Django; "
            f"{function!r} was called as none of them."
        )
    refused = refusal(flask.request.environ)
    if refused is None:
        # An async view is awaited by Flask itself, as without the guard.
        return flask.current_app.ensure_sync(function)(*args, **kwargs)
    return refused.text, refused.status, refusal_headers(refused)


def _viewed_by_django(function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    request = args[0]
    # Django holds the stream itself: what the door reads of it is read through Django.
    request.META["wsgi.input"] = _DjangoBody(request)
    refused = refusal(request.META)
    if refused is None:
        return function(*args, **kwargs)
    response = sys.modules["django.http"].HttpResponse(
        refused.text, status=refused.status, headers=dict(refusal_headers(refused))
    )
    return response


class _DjangoBody:
    """A request's body as a stream; Django reads it whole at the first use, and keeps it."""

    def __init__(self, request: Any) -> None:
        self._request = request
        self._stream: io.BytesIO | None = None

    def __getattr__(self, name: str) -> Any:
        if self._stream is None:
            self._stream = io.BytesIO(self._request.body)
        return getattr(self._stream, name)
