"""No fork in the midst of what the scheduler's thread does with SQLite and OpenSSL.

A child inherits the locks of such libraries, and what SQLite believes of the file's, as they are.
Forked while another thread is in a transaction, it would wait for the end of that for ever, since
the thread is not there. So a fork waits for it, in the parent.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from types import TracebackType

_LONGEST_SECONDS = 5.0
"""A fork that waits for longer has a child that may hang; one that never came would be worse."""

_all: set[weakref.ref[Work]] = set()
_forking = threading.Lock()
_held: list[Work] = []


class Work:
    """Entered for as long as such work takes; one thread at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        _all.add(weakref.ref(self, _all.discard))

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lock.release()

    def _pause(self, until: float) -> None:
        if self._lock.acquire(timeout=max(0.0, until - time.monotonic())):
            _held.append(self)

    def _go_on(self) -> None:
        self._lock.release()


def _before_fork() -> None:
    _forking.acquire()
    until = time.monotonic() + _LONGEST_SECONDS
    for reference in list(_all):
        work = reference()
        if work is not None:
            work._pause(until)


def _after_fork() -> None:
    while _held:
        _held.pop()._go_on()
    _forking.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork
    )
