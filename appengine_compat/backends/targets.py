"""Which service runs a task, and where that service is.

A *service* is App Engine's word (once: module): ``_target`` names one, and without it a task
stays on the service that enqueues.
"""

from __future__ import annotations

import os
from contextvars import ContextVar

SERVICE: ContextVar[str] = ContextVar("appengine_compat_service")
"""The service whose code runs now, where one process serves several (``appengine-compat dev``)."""

DEFAULT_SERVICE = "default"


def current_service() -> str:
    """Return the service whose code runs now; ``default`` where the platform names none."""
    service = SERVICE.get("")
    return (
        service or os.environ.get("GAE_SERVICE") or os.environ.get("K_SERVICE") or DEFAULT_SERVICE
    )
