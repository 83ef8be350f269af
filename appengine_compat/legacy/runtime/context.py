"""The facts of the request that is served, as ``google.appengine.runtime.context`` gives them."""

from __future__ import annotations

import os


def get(key: str, default: str | None = None) -> str | None:
    """Return a variable of the request's environment, such as ``HTTP_HOST``."""
    return os.environ.get(key, default)
