"""``google.appengine.api.runtime``: whether the platform is ending this instance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["is_shutting_down", "set_shutdown_hook"]

_Hook = Callable[[], Any]

_is_shutting_down = False
_hook: _Hook | None = None


def is_shutting_down() -> bool:
    """Tell whether App Engine asked this instance to stop (``/_ah/stop``).

    Differs from App Engine: elsewhere nobody sends that request; handle ``SIGTERM`` there.
    """
    return _is_shutting_down


def set_shutdown_hook(hook: _Hook | None) -> _Hook | None:
    """Choose what is called, without arguments, when the instance is asked to stop.

    Args:
        hook: the function; None for nothing.

    Returns:
        What was called until now, or None.

    Raises:
        TypeError: the hook cannot be called.
    """
    global _hook
    if hook is not None and not callable(hook):
        raise TypeError(f"hook must be callable, got {type(hook)}")
    before, _hook = _hook, hook
    return before


def _begin_shutdown() -> None:
    global _is_shutting_down
    _is_shutting_down = True
    if _hook is not None:
        _hook()
