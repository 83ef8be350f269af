"""What a service and the app that it calls in its own process leave for each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

ATTEMPT_KEY = "appengine_compat.attempt"
"""Where an attempt stands in the WSGI environ; no header can get there."""


class Attempt:
    """One attempt of a service in this process, as the code that answers it sees it."""

    __slots__ = ("_keep", "_logged")

    def __init__(self, keep: Callable[[str], bool]) -> None:
        """Make one.

        Args:
            keep: keeps the task, which has failed for good with the traceback that it is given;
                returns whether the task is safe.
        """
        self._keep = keep
        self._logged = 0

    def keep(self, traceback: str) -> bool:
        """Keep the task aside, since it failed for good; tell whether it is safe."""
        return self._keep(traceback)

    def mark_logged(self, error: BaseException) -> None:
        """Remember that what is raised has been logged."""
        self._logged = id(error)  # the error itself holds the frames that hold this object

    def was_logged(self, error: BaseException) -> bool:
        """Tell whether what was raised has been logged."""
        return self._logged == id(error)


def attempt_of(environ: Mapping[str, Any]) -> Attempt | None:
    """Return the attempt that a request is, or None when it came from elsewhere."""
    found = environ.get(ATTEMPT_KEY)
    return found if type(found) is Attempt else None
