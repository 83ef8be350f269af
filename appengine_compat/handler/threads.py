"""Threads that a request starts belong to it: they see its ``os.environ`` and its namespace.

Python gives a new thread an empty context. App Engine's runtime got around that by replacing the
function below ``threading`` and loading that module anew, which broke debuggers, and Python
3.13. Here two methods learn to hand the context over, and only while a request is served.
"""

from __future__ import annotations

import functools
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

from appengine_compat.handler.request import CURRENT

# Workers of libraries outlive the request that happened to start them, and work for all. (What
# is given to a pool brings its own context instead.)
_WORKERS = (
    "concurrent.futures.",
    "appengine_compat.",
    "grpc.",
    "google.cloud.",
    "google.api_core.",
)

_is_installed = False


def install() -> None:
    """Let threads and pool calls take the context of the request that starts them along."""
    global _is_installed
    if _is_installed:
        return
    _is_installed = True
    threading.Thread.start = _starting(threading.Thread.start)  # type: ignore[method-assign]
    ThreadPoolExecutor.submit = _submitting(  # type: ignore[method-assign]
        ThreadPoolExecutor.submit
    )


def _starting(start: Any) -> Any:
    @functools.wraps(start)
    def start_in_context(self: threading.Thread) -> None:
        request = CURRENT.get()
        if request is None or not _takes_context(self):
            start(self)
            return
        request.keep_text_only()
        context, run = copy_context(), self.run
        self.run = lambda: context.run(run)  # type: ignore[method-assign]
        try:
            start(self)
        except BaseException:
            self.__dict__.pop("run", None)
            raise

    return start_in_context


def _takes_context(thread: threading.Thread) -> bool:
    if getattr(thread, "_context", None) is not None:
        return False  # Python 3.14: the program chose one itself
    target = getattr(thread, "_target", None) or type(thread)
    return not f"{getattr(target, '__module__', '')}.".startswith(_WORKERS)


def _submitting(submit: Any) -> Any:
    @functools.wraps(submit)
    def submit_in_context(
        self: ThreadPoolExecutor, fn: Any, /, *args: Any, **kwargs: Any
    ) -> Future[Any]:
        # Python 3.14's pool of interpreters is one of these too, and cannot take a context.
        if CURRENT.get() is None or type(self).__name__ == "InterpreterPoolExecutor":
            return submit(self, fn, *args, **kwargs)  # type: ignore[no-any-return]
        return submit(  # type: ignore[no-any-return]
            self, copy_context().run, fn, *args, **kwargs
        )

    return submit_in_context
