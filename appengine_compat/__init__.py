"""App Engine's deferred and taskqueue on Google Cloud Tasks, for unchanged code, anywhere."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from appengine_compat.handler.after_response import (
        after_response_middleware,
        run_after_response,
    )
    from appengine_compat.handler.guard import require_task
    from appengine_compat.handler.kept import on_permanent_failure
    from appengine_compat.installation import install
    from appengine_compat.routes import defer_middleware, install_defer_routes
    from appengine_compat.settings import configure

__version__ = "0.1.0"

# What a user imports from here, and where it lives; loaded on first use, since services start
# cold many times an hour.
_HOMES = {
    "configure": "appengine_compat.settings",
    "install": "appengine_compat.installation",
    "install_defer_routes": "appengine_compat.routes",
    "defer_middleware": "appengine_compat.routes",
    "on_permanent_failure": "appengine_compat.handler.kept",
    "require_task": "appengine_compat.handler.guard",
    "run_after_response": "appengine_compat.handler.after_response",
    "after_response_middleware": "appengine_compat.handler.after_response",
}

__all__ = [
    "__version__",
    "after_response_middleware",
    "configure",
    "defer_middleware",
    "install",
    "install_defer_routes",
    "on_permanent_failure",
    "require_task",
    "run_after_response",
]


_MODULES = ("asgi", "logging")


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
