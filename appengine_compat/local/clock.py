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

    def wait(self, condition: threading.Condition, until: float | None) -> None:
        """Wait, holding ``condition``, until it is notified or the clock shows ``until``.

        May return early; callers loop. None waits for a notification alone.
        """
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        """Return seconds since the epoch."""
        return time.time()

    def wait(self, condition: threading.Condition, until: float | None) -> None:
        """Wait for a notification, or the real seconds until then."""
        if until is None:
            condition.wait()
            return
        seconds = until - time.time()
        if seconds > 0:
            condition.wait(min(seconds, threading.TIMEOUT_MAX))


class ManualClock:
    """A clock that moves only when told to; waits end when it has moved far enough."""

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self._now = start
        self._lock = threading.Lock()
        self._waiting: dict[threading.Condition, int] = {}

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

    def wait(self, condition: threading.Condition, until: float | None) -> None:
        """Wait for a notification, or until the clock has been advanced so far."""
        # First the name on the list, then the look at the time: who advances does it the other
        # way round, so that one of the two sees the other.
        with self._lock:
            self._waiting[condition] = self._waiting.get(condition, 0) + 1
            is_over = until is not None and self._now >= until
        try:
            if not is_over:
                condition.wait()
        finally:
            with self._lock:
                self._waiting[condition] -= 1
                if not self._waiting[condition]:
                    del self._waiting[condition]
