"""Work that runs when the response is out: ``run_after_response``.

It runs where the request ran, when the server closes the response, in order. It is not a task:
a failure is logged and that is all, and a process that dies takes it along. For work that must
be retried there is ``defer``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextvars import copy_context
from typing import TYPE_CHECKING, TypeVar

from appengine_compat import platform
from appengine_compat.core import trace
from appengine_compat.handler.bodies import answered
from appengine_compat.handler.request import CURRENT, Request, run_logged

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_log = logging.getLogger("appengine_compat.handler")

Work = TypeVar("Work", bound=Callable[[], object])

_has_warned = False


def run_after_response(function: Work) -> Work:
    """Run a function once the response of this request has been handed to the server.

    Works as a call with a function or a lambda, and as a decorator (which runs the function that
    it decorates, once). Functions run in the order given, see the request's context variables,
    and their failures are logged. Outside a request, and in a thread that outlived its request,
    the function runs at once. ``wrap_wsgi_app`` makes it work, and so does
    ``after_response_middleware``.

    Args:
        function: takes no arguments; a coroutine function is run to its end.

    Returns:
        The same function.

    Raises:
        TypeError: it cannot be called.
    """
    if not callable(function):
        raise TypeError(f"run_after_response takes a function, not {function!r}")
    request = CURRENT.get()
    if request is None or not request.add(function):
        run_logged(function)
    else:
        _warn_where_processors_stop()
    return function


def after_response_middleware(app: WSGIApplication) -> WSGIApplication:
    """Return the app with ``run_after_response`` at work, where ``wrap_wsgi_app`` is not used."""

    def serve(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        outer = CURRENT.get()
        if outer is not None and not outer.ended:
            return app(environ, start_response)
        context, request = copy_context(), Request()
        context.run(CURRENT.set, request)
        context.run(trace.enter, environ)
        try:
            body = context.run(app, environ, start_response)
        except BaseException:
            # The server answers for the app now; no close() comes to end the request.
            context.run(request.end)
            raise
        return answered(body, environ, context, request)

    return serve


def _warn_where_processors_stop() -> None:
    global _has_warned
    if _has_warned:
        return
    _has_warned = True
    if platform.detect() is platform.Platform.CLOUD_RUN:
        _log.warning(
            "run_after_response is used on Cloud Run, which by default takes the processor away "
            "once the response is sent: give the service CPU always "
            "(gcloud run services update SERVICE --no-cpu-throttling), or use deferred.defer."
        )
