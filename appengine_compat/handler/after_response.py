"""Work that runs when the response is out: ``run_after_response``.

It runs where the request ran, when the server closes the response, in order. It is not a task:
a failure is logged and that is all, and a process that dies takes it along. For work that must
be retried there is ``defer``.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from appengine_compat import platform
from appengine_compat.handler.request import CURRENT, Request

_log = logging.getLogger("appengine_compat.handler")

Work = TypeVar("Work", bound=Callable[[], object])

_lock = threading.Lock()
_has_warned = False


def run_after_response(function: Work) -> Work:
    """Run a function once the response of this request has been handed to the server.

    Works as a call with a function or a lambda, and as a decorator (which runs the function that
    it decorates, once). Functions run in the order given, see the request's context variables,
    and their failures are logged. Outside a request, and in a thread that outlived its request,
    the function runs at once.

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
    if request is None or not _add(request, function):
        _run(function)
        return function
    _warn_where_processors_stop()
    return function


def _add(request: Request, function: Callable[[], object]) -> bool:
    # Under a lock, so that nothing is added between the last look and the end.
    with _lock:
        if not request.ended:
            request.after.append(function)
        return not request.ended


def end(request: Request) -> None:
    """Run what waited for the end of a request; what is added meanwhile too."""
    while True:
        with _lock:
            if not request.after:
                request.ended = True
                return
            function = request.after.popleft()
        _run(function)


def _run(function: Callable[[], object]) -> None:
    try:
        result: Any = function()
        if inspect.iscoroutine(result):
            asyncio.run(result)
    except Exception:
        module = getattr(function, "__module__", "")
        name = getattr(function, "__qualname__", repr(function))
        _log.exception("%s.%s, run after the response, failed; it is not retried", module, name)


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
