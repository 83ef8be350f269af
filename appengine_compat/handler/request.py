"""The request that the running code serves, as far as this package remembers it."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

_log = logging.getLogger("appengine_compat.handler")

# One for all requests: it is held for the length of an append.
_lock = threading.Lock()


class Request:
    """One request: what it added to ``os.environ``, and what waits for its end."""

    __slots__ = ("after", "changes", "ended", "variables")

    def __init__(self, variables: Mapping[str, Any] | None = None) -> None:
        self.variables = variables
        """The WSGI environ as the app got it; None where ``os.environ`` does not show it."""
        self.changes: dict[str, str | None] = {}
        """What the request set in ``os.environ``; None for what it deleted."""
        self.after: deque[Callable[[], object]] = deque()
        """What runs after the response, in order."""
        self.ended = False

    def keep_text_only(self) -> None:
        """Let go of all but the variables: a thread may hold this request long after its end."""
        if self.variables is not None:
            self.variables = {
                name: value for name, value in self.variables.items() if type(value) is str
            }

    def add(self, function: Callable[[], object]) -> bool:
        """Let a function wait for the end; False when the end has been."""
        # Under the lock, so that nothing is added between the last look and the end.
        with _lock:
            if not self.ended:
                self.after.append(function)
            return not self.ended

    def end(self) -> None:
        """Run what waits for the end, and what is added meanwhile."""
        while True:
            with _lock:
                if not self.after:
                    self.ended = True
                    return
                function = self.after.popleft()
            run_logged(function)


def run_logged(function: Callable[[], object]) -> None:
    """Run a function, a coroutine function to its end; log its failure, and nothing else."""
    try:
        result = function()
        if hasattr(result, "__await__"):
            _run_coroutine(result)
    except Exception:
        module = getattr(function, "__module__", "")
        name = getattr(function, "__qualname__", repr(function))
        _log.exception("%s.%s, run after the response, failed; it is not retried", module, name)


def _run_coroutine(awaitable: Any) -> None:
    import asyncio

    async def run() -> None:
        await awaitable

    asyncio.run(run())


CURRENT: ContextVar[Request | None] = ContextVar("appengine_compat_request", default=None)
