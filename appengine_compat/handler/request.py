"""The request that the running code serves, as far as this package remembers it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any


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


CURRENT: ContextVar[Request | None] = ContextVar("appengine_compat_request", default=None)
