"""What ``dev`` and ``server`` print while they run: lines, attempts, what was in flight."""

from __future__ import annotations

import io
import sys
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from appengine_compat.cli import lines

if TYPE_CHECKING:
    from appengine_compat.handler.kept import KeptTask
    from appengine_compat.local.delivery import AttemptEvent, InFlight


def begin() -> None:
    """Let no text of a task stop the output: arguments are anyone's."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def say(text: str) -> None:
    """Print a line, though nobody may read it any more."""
    try:
        # One write per line, so that lines of several threads do not mix.
        print(f"{text}\n", end="", flush=True)
    except BrokenPipeError:
        pass  # whoever read this has gone; what is served is still wanted


def say_in_flight(in_flight: Sequence[InFlight]) -> None:
    """Tell, at the end, which attempts had not ended."""
    if not in_flight:
        say("Ended. Nothing was in flight.")
        return
    say(f"Ended. In flight, and to be run again at the next start: {len(in_flight)}")
    for task in in_flight:
        say("  " + lines.in_flight_line(task))


class Watch:
    """Prints each attempt when it has ended."""

    def __init__(self) -> None:
        self._failures: dict[tuple[str, str], str] = {}
        self._lock = threading.Lock()

    def failed_for_good(self, task: KeptTask) -> None:
        """Remember why; the attempt that it belongs to has not ended yet."""
        with self._lock:
            self._failures[task.queue, task.task_name] = task.error

    def attempted(self, event: AttemptEvent) -> None:
        """Print an attempt."""
        with self._lock:
            failure = self._failures.pop((event.queue_id, event.task_id), "")
        say(lines.attempt_line(event, time.time(), failure))
