"""App Engine's deferred and taskqueue on Google Cloud Tasks, for unchanged code, anywhere."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from appengine_compat.installation import install
    from appengine_compat.settings import configure

__version__ = "0.1.0"

# What a user imports from here, and where it lives; loaded on first use, since services start
# cold many times an hour.
_HOMES = {
    "configure": "appengine_compat.settings",
    "install": "appengine_compat.installation",
}

__all__ = ["__version__", "configure", "install"]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)
