"""When dispatching may begin: once the program is set up, and not in one that only reloads.

``wrap_wsgi_app`` is called in the middle of an app's setting up: routes come after it. A task
dispatched then would meet a 404 and spend an attempt, for some queues the only one. So the gate
looks at the frames that were on the stack at that moment, and opens once none of their modules
is being imported any more, and those that are left no longer advance (a server's main loop).
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

SETTLED_SECONDS = 0.5
"""So long a thread must stay where it is, and hardly work, to count as being in a main loop."""

_WORKING_SHARE = 0.1
_MOST_WINDOWS = 20
"""A server of one thread under load works all the time, too: after so long it is one."""


class Gate:
    """Opens when what was being set up when it was made is set up.

    Args:
        settled_seconds: how long a thread that stands still is watched.
        now: returns seconds, rising.
        wanted: returns for how many seconds the thread that makes the gate, by its native
            identifier, has worked or waited for a processor.
    """

    def __init__(
        self,
        settled_seconds: float = SETTLED_SECONDS,
        *,
        now: Callable[[], float] = time.monotonic,
        wanted: Callable[[int], float] | None = None,
    ) -> None:
        self._settled_seconds = settled_seconds
        self._now = now
        self._wanted = wanted or processor_seconds
        self._thread = threading.get_ident()
        self._native_thread = threading.get_native_id()
        self._frames: list[FrameType] = _stack(sys._getframe(1))
        self._places: tuple[int, ...] = ()
        self._still_since = now()
        self._wanted_before = 0.0

    def is_open(self) -> bool:
        """Tell whether dispatching may begin; to be asked again while it says no."""
        if _is_reloader():
            return False
        if not self._frames:
            return True
        on_stack = _stack(sys._current_frames().get(self._thread))
        left = [frame for frame in self._frames if any(frame is each for each in on_stack)]
        if left and not self._is_settled(left, on_stack):
            self._frames = left
            return False
        self._frames = []  # frames hold all their variables
        return True

    def _is_settled(self, left: list[FrameType], on_stack: list[FrameType]) -> bool:
        places = () if any(map(_is_importing, on_stack)) else tuple(each.f_lasti for each in left)
        now, wanted = self._now(), self._wanted(self._native_thread)
        still = now - self._still_since
        if places and places == self._places:
            if still < self._settled_seconds:
                return False
            # A loop that computes is always seen at the same place: where threads take turns.
            is_working = wanted - self._wanted_before > _WORKING_SHARE * still
            return not is_working or still > _MOST_WINDOWS * self._settled_seconds
        self._places, self._still_since, self._wanted_before = places, now, wanted
        return False


def _stack(frame: FrameType | None) -> list[FrameType]:
    frames = []
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    return frames


def _is_importing(frame: FrameType) -> bool:
    """Whether the frame is the body of a module that is being imported."""
    if frame.f_code.co_name != "<module>":
        return False
    spec = frame.f_globals.get("__spec__")
    # The program's own module is never done importing: it ends when the program does.
    return spec is not None and bool(getattr(spec, "_initializing", False))


def processor_seconds(native_thread: int) -> float:
    """Seconds on a processor, and in the queue for one: on a busy machine those are the more."""
    try:
        told = Path(f"/proc/self/task/{native_thread}/schedstat").read_text("ascii")
        worked, waited, _ = map(int, told.split())
    except (OSError, ValueError):  # the thread has ended, or this is no Linux
        return 0.0
    return (worked + waited) / 1e9


def _is_reloader() -> bool:
    """Whether this process only watches files and starts the one that serves.

    Its code is as old as its start: tasks must run in the other.
    """
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    # Werkzeug and Django both call it so.
    return any(each.f_code.co_name == "restart_with_reloader" for each in _stack(frame))
