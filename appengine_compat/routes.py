"""Routes for deferred tasks: every path that begins with ``/_ah/queue/deferred``.

``wrap_wsgi_app(use_deferred=True)`` serves that one path, as on App Engine. Apps also put a label
behind it (``_url="/_ah/queue/deferred_send_mail"``), and app.yaml caught those by
``url: /_ah/queue/deferred.*``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextvars import copy_context
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar

from appengine_compat.handler import running, view

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

PREFIX = "/_ah/queue/deferred"

App = TypeVar("App")

_Answer = tuple[str, int, list[tuple[str, str]]]


def install_defer_routes(app: App) -> App:
    """Serve deferred tasks at every path that begins with ``/_ah/queue/deferred``.

    POST only, and verified before a byte is unpickled, as everywhere. Where tasks go to the
    embedded service, a Flask app is also made known to it.

    Args:
        app: a Flask app (or blueprint without prefix), Django's list ``urlpatterns``, or a
            FastAPI or Starlette app. For any other WSGI app use ``defer_middleware``, for any
            other ASGI app ``appengine_compat.asgi.defer_middleware``.

    Returns:
        The same app or list.

    Raises:
        TypeError: it is none of these.
    """
    if hasattr(app, "add_url_rule"):
        _install_on_flask(app)
    elif hasattr(app, "add_route") and hasattr(app, "mount"):
        from appengine_compat.asgi import deferred_app

        app.add_route(f"{PREFIX}{{label:path}}", deferred_app, include_in_schema=False)
    elif isinstance(app, list):
        _install_on_django(app)
    else:
        raise TypeError(
            "install_defer_routes takes a Flask, FastAPI or Starlette app, or Django's "
            f"urlpatterns, not {app!r}. For another WSGI app write: "
            "app = appengine_compat.defer_middleware(app)"
        )
    return app


def defer_middleware(app: WSGIApplication) -> WSGIApplication:
    """Return the app with deferred tasks served at ``/_ah/queue/deferred…``.

    Args:
        app: a WSGI app; it gets all other paths.
    """

    def serve(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if not environ.get("PATH_INFO", "").startswith(PREFIX):
            view.prepare(environ)
            return app(environ, start_response)
        text, status, headers = _answer(environ)
        start_response(f"{status} {HTTPStatus(status).phrase}", headers)
        return [text.encode()]

    _make_known(serve)
    return serve


def _install_on_flask(app: Any) -> None:
    def run_deferred(**_: str) -> _Answer:
        return _answer(sys.modules["flask"].request.environ)

    # Flask's path converter does not match a leading slash, so the label needs rules for both.
    for rule in (PREFIX, f"{PREFIX}<path:label>", f"{PREFIX}/", f"{PREFIX}/<path:label>"):
        app.add_url_rule(
            rule, endpoint="appengine_compat_deferred", view_func=run_deferred, methods=["POST"],
            strict_slashes=True,
        )  # fmt: skip
    if hasattr(app, "wsgi_app"):
        _make_known(app)


def _install_on_django(urlpatterns: list[Any]) -> None:
    from django.http import HttpResponse
    from django.urls import re_path

    def run_deferred(request: Any) -> Any:
        environ = getattr(request, "environ", None)
        if environ is None:  # served by ASGI
            from io import BytesIO

            environ = {
                **request.META,
                "wsgi.input": BytesIO(request.body),
                "CONTENT_LENGTH": str(len(request.body)),
            }
        text, status, headers = _answer(environ)
        return HttpResponse(text, status=status, headers=dict(headers))

    # Tasks are verified by the door; Django's token against forged forms is not theirs to have.
    run_deferred.csrf_exempt = True  # type: ignore[attr-defined]
    urlpatterns.insert(0, re_path(rf"^{PREFIX[1:]}", run_deferred))


def _answer(environ: WSGIEnvironment) -> _Answer:
    # A context of its own: what a task sets (its namespace) ends with it, wrapped app or not.
    return copy_context().run(_run, environ)


def _run(environ: WSGIEnvironment) -> _Answer:
    from google.appengine.api import namespace_manager
    from google.appengine.ext import deferred

    if environ.get("REQUEST_METHOD") != "POST":
        return (
            "Tasks are sent by POST\n",
            HTTPStatus.METHOD_NOT_ALLOWED.value,
            [("Content-Type", "text/plain"), ("Allow", "POST")],
        )
    view.prepare(environ)
    namespace = environ.get("HTTP_X_APPENGINE_CURRENT_NAMESPACE")
    if namespace is not None:
        namespace_manager.set_namespace(namespace)
    text, status, headers = running.around(environ, deferred.application.post)
    return text, int(status), list(headers)


def _make_known(app: WSGIApplication) -> None:
    from appengine_compat.backends import serving, targets

    serving.register_if_embedded(app, targets.current_service())
