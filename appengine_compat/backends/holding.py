"""Whether this process may dispatch: a flag by itself, so that setting it loads nothing else.

The pytest plugin sets it in every test run, also in those that use nothing of this package.
"""

from __future__ import annotations

holds = 0
"""How many times dispatching is held."""


def hold() -> None:
    """Start no dispatching in this process until ``release``; holds nest."""
    global holds
    holds += 1


def release() -> None:
    """End one ``hold``."""
    global holds
    holds = max(0, holds - 1)
