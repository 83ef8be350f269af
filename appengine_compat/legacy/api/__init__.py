"""``google.appengine.api``: ``wrap_wsgi_app``, and what it holds together."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["wrap_wsgi_app"]

_NOT_OURS = frozenset(
    {
        "app_identity", "backends", "blobstore", "capabilities", "channel",
        "datastore", "datastore_errors", "files", "images", "lib_config", "logservice", "mail",
        "memcache", "modules", "oauth", "quota", "search", "urlfetch",
        "urlfetch_errors", "users", "validation",
    }
)  # fmt: skip


def wrap_wsgi_app(
    app: WSGIApplication, use_legacy_context_mode: bool = True, use_deferred: bool = False
) -> WSGIApplication:
    """Return the app as App Engine's runtime would run it.

    Each request runs in a context of its own; task headers are removed from requests that are
    not verified tasks, and shown as ``X-AppEngine-*`` in those that are; the namespace that a
    task carries is set; what the app raises is logged and raised on. Where tasks go to the
    embedded service, it delivers them to the wrapped app.

    Args:
        app: a WSGI app.
        use_legacy_context_mode: whether ``os.environ`` shows the variables of the request within
            it and in threads that it starts.
        use_deferred: whether ``/_ah/queue/deferred``, exactly, runs deferred tasks.

    Raises:
        ConfigError: a setting is unknown or its value not allowed.

    Differs from App Engine: responses are streamed and closed; ``os.environ`` and ``threading``
    are not replaced; headers count only when the request is verified (docs/security.md).
    """
    from appengine_compat import settings
    from appengine_compat.backends import serving, targets
    from appengine_compat.handler import wrap

    settings.check()
    if use_legacy_context_mode:
        from appengine_compat.handler import environ

        environ.install()
    service = targets.current_service()
    wrapped = wrap.WrappedApp(
        app,
        is_legacy=use_legacy_context_mode,
        deferred=_deferred if use_deferred else None,
        set_namespace=_set_namespace,
        stop=_begin_shutdown,
        enter=_entering(service),
        around=_beside_sdk(),
    )
    serving.register_if_embedded(wrapped, service)
    return wrapped


if not TYPE_CHECKING:  # type checkers should tell of names that are not there

    def __getattr__(name: str) -> object:
        if name in _NOT_OURS:
            from appengine_compat import installation

            installation.refuse(__name__, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _deferred(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    from google.appengine.ext import deferred

    return deferred.application(environ, start_response)


def _set_namespace(namespace: str) -> None:
    from google.appengine.api import namespace_manager

    namespace_manager.set_namespace(namespace)


def _begin_shutdown() -> None:
    from google.appengine.api import runtime

    runtime._begin_shutdown()


def _entering(service: str) -> Callable[[], object] | None:
    from appengine_compat.backends import targets

    # One process may serve several services: a task that names none stays on its own.
    if targets.SERVICE.get("") != service:
        return None
    return functools.partial(_enter, service)


def _enter(service: str) -> None:
    from appengine_compat.backends import targets

    # One module may be the app of several services; then whoever serves it has said which.
    if not targets.SERVICE.get(""):
        targets.SERVICE.set(service)


def _beside_sdk() -> Callable[[WSGIApplication], WSGIApplication] | None:
    # Google's SDK keeps the request's context, its API calls and its callbacks by layers of its
    # own; where it is installed, its ndb, memcache and the rest need them.
    try:
        from google.appengine.runtime import middlewares  # type: ignore[attr-defined]
    except ImportError:
        return None
    from google.appengine.api import full_app_id  # type: ignore[attr-defined]
    from google.appengine.runtime import default_api_stub  # type: ignore[attr-defined]

    default_api_stub.Register(default_api_stub.DefaultApiStub())
    full_app_id.normalize()
    layers = [
        middlewares.SetContextFromHeadersMiddleware,
        middlewares.CallbackMiddleware,
        middlewares.UseRequestSecurityTicketForApiMiddleware,
        middlewares.BackgroundAndShutdownMiddleware,
    ]

    def around(app: WSGIApplication) -> WSGIApplication:
        wrapped: WSGIApplication = middlewares.Wrap(app, layers)
        return wrapped

    return around
