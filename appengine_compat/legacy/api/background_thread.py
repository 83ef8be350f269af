"""``google.appengine.api.background_thread``: threads that outlive the request they begin in.

App Engine ran each within a request of its own, ``/_ah/background``, since its threads could not
live without one. Here they are threads of the process, and belong to no request.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context
from typing import Any

__all__ = [
    "BackgroundThread",
    "BackgroundThreadLimitReachedError",
    "Error",
    "FrontendsNotSupported",
    "start_new_background_thread",
]


class Error(Exception):
    """Base of this module's exceptions; nothing raises them here."""


class FrontendsNotSupported(Error):
    """The instance's scaling allowed no background threads."""


class BackgroundThreadLimitReachedError(Error):
    """The instance had as many background threads as App Engine allowed."""


class BackgroundThread(threading.Thread):
    """A ``threading.Thread`` that sees nothing of the request that starts it."""

    def start(self) -> None:
        """Start it, with the process's ``os.environ`` and no namespace."""
        Context().run(super().start)


def start_new_background_thread(
    target: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any] | None = None
) -> int:
    """Call a function in a background thread.

    Args:
        target: the function.
        args: positional arguments for it.
        kwargs: keyword arguments for it.

    Returns:
        The thread's identifier, as ``threading.get_ident()`` gives it there.

    Differs from App Engine: it works whatever the scaling and wherever the program runs. The
    thread ends with the process, which does not wait for it; where the platform gives a process
    no time between requests (Cloud Run's default), neither does the thread get any.
    """
    thread = BackgroundThread(
        target=target, args=tuple(args), kwargs=dict(kwargs or {}), daemon=True
    )
    thread.start()
    assert thread.ident is not None
    return thread.ident
