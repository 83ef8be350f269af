"""Time as the local service takes it: the system's, or one that tests step."""

from __future__ import annotations

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """Tells the time, and waits by it."""

    def now(self) -> float:
        """Return seconds since the epoch."""
        ...

    def wait(self, condition: threading.Condition, timeout_seconds: float | None) -> None:
        """Wait, holding ``condition``, until it is notified or the time has passed.

        May return early; callers loop.
        """
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        """Return seconds since the epoch."""
        return time.time()

    def wait(self, condition: threading.Condition, timeout_seconds: float | None) -> None:
        """Wait for a notification, or the given real seconds."""
        condition.wait(timeout_seconds)


class ManualClock:
    """A clock that moves only when told to; waits end when it has moved far enough."""

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self._now = start
        self._lock = threading.Lock()
        self._waiting: set[threading.Condition] = set()

    def now(self) -> float:
        """Return seconds since the epoch, as last set."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Move forward and wake whoever waits.

        Raises:
            ValueError: ``seconds`` is negative.
        """
        if seconds < 0:
            raise ValueError("a clock is not turned back")
        with self._lock:
            self._now += seconds
            waiting = list(self._waiting)
        for condition in waiting:
            with condition:
                condition.notify_all()

    def wait(self, condition: threading.Condition, timeout_seconds: float | None) -> None:
        """Wait for a notification, or until the clock has been advanced."""
        if timeout_seconds is not None and timeout_seconds <= 0:
            return
        with self._lock:
            self._waiting.add(condition)
        condition.wait()
