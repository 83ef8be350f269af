"""The threads that make attempts."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from appengine_compat.core import outcome
from appengine_compat.local.clock import Clock
from appengine_compat.local.delivery import Delivery, Reply, Transport

SLOW_SECONDS = 0.25
"""An attempt that has taken so long is one that waits for its target."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Running:
    """An attempt that a thread is making."""

    delivery: Delivery
    started_at: float
    """By the clock."""
    began: float
    """By ``time.perf_counter``."""


@dataclass(frozen=True, slots=True)
class Ended:
    """An attempt that is over."""

    delivery: Delivery
    reply: Reply
    at: float
    """By the clock: when the reply came, or was given up."""
    milliseconds: float


class Workers:
    """Makes attempts in threads, as many at once as it was made for.

    A thread whose attempt has outlived its deadline cannot be stopped. The attempt is given up,
    another thread takes the place, and the first ends when the target at last returns; what it
    brings then counts for nothing. So for a while one more than the limit may run, as a target of
    Cloud Tasks may still be working when its request was cancelled.

    Few threads are best while attempts are quick, and yet a few dozen targets that hang must not
    hold up every other queue. So attempts that have become slow may be left out of the limit, as
    far as ``most_slow`` allows.
    """

    def __init__(
        self,
        transport: Transport,
        clock: Clock,
        limit: int,
        on_end: Callable[[Ended], None],
        *,
        most_slow: int = 0,
        on_slow: Callable[[], None] = lambda: None,
    ) -> None:
        """Make attempts.

        Args:
            transport: delivers them.
            clock: what deadlines go by.
            limit: how many are made at once, the slow ones left out.
            on_end: called with each that has ended, in its thread.
            most_slow: how many slow ones are left out at most.
            on_slow: called when more attempts may be made than before, since some are slow.
        """
        self._transport = transport
        self._clock = clock
        self._limit = limit
        self._on_end = on_end
        self._most_slow = most_slow
        self._on_slow = on_slow
        self._slow: set[int] = set()
        self._is_full = threading.Event()
        self._is_ending = threading.Event()
        self._watcher: threading.Thread | None = None
        self._ready: deque[Delivery] = deque()
        self._condition = threading.Condition()
        self._idle = 0
        self._is_stopped = False
        self._running: dict[int, Running] = {}
        self._count = 0
        self._names = itertools.count(1)

    def hand_over(self, deliveries: list[Delivery]) -> None:
        """Make these attempts as soon as threads are free."""
        self._ready.extend(deliveries)
        with self._condition:
            self._start_missing()
            self._condition.notify()

    def slow(self) -> int:
        """Return how many of the running attempts are left out of the limit."""
        return len(self._slow)

    def take_back(self) -> list[Delivery]:
        """Return the attempts that no thread has begun; they will not be."""
        waiting: list[Delivery] = []
        try:
            while True:
                waiting.append(self._ready.popleft())
        except IndexError:
            return waiting

    def running(self) -> list[Running]:
        """Return the attempts that are being made."""
        return list(self._running.values())

    def next_deadline(self) -> float | None:
        """Return when the first running attempt's deadline passes, by the clock."""
        return min((_deadline(each) for each in self.running()), default=None)

    def give_up_late(self) -> list[Ended]:
        """Give up the attempts whose deadline has passed, and return them."""
        now = self._clock.now()
        late = []
        for each in self.running():
            if _deadline(each) > now:
                continue
            claim = each.delivery.claim
            # Whoever takes it off the table decides: this, or the thread that just got a reply.
            if self._running.pop(claim.claim, None) is None:
                continue
            _logger.warning(
                "Task %s of queue %s has not answered within its deadline of %g seconds: the "
                "attempt counts as failed, though its thread still works on it.",
                claim.task_id,
                claim.queue_id,
                each.delivery.deadline_seconds,
            )
            self._slow.discard(claim.claim)
            with self._condition:
                # Its thread ends when the target returns; another takes its place if needed.
                self._count -= 1
                self._start_missing()
            reply = Reply(outcome.TIMED_OUT, error="dispatch deadline exceeded")
            late.append(Ended(each.delivery, reply, now, (now - each.started_at) * 1000))
        return late

    def stop(self) -> None:
        """Let each thread end after what it is doing."""
        with self._condition:
            self._is_stopped = True
            self._condition.notify_all()
        self._is_ending.set()
        self._is_full.set()

    def _start_missing(self) -> None:
        """Start threads for what no idle one will take, holding the condition."""
        spare = self._limit + len(self._slow) - self._count
        for _ in range(min(len(self._ready) - self._idle, spare)):
            self._count += 1
            threading.Thread(
                target=self._work, name=f"appengine-compat-task-{next(self._names)}", daemon=True
            ).start()
        if self._watcher is None and self._most_slow:
            self._watcher = threading.Thread(
                target=self._watch, name="appengine-compat-slow-tasks", daemon=True
            )
            self._watcher.start()

    def _watch(self) -> None:
        """While every thread is busy, look which of them only wait."""
        while True:
            self._is_full.wait()
            if self._is_ending.wait(SLOW_SECONDS / 2):
                return
            self._is_full.clear()
            if self._mark_slow():
                with self._condition:
                    self._start_missing()
                self._on_slow()
            if self._has_full_hands():
                self._is_full.set()

    def _mark_slow(self) -> bool:
        before = time.perf_counter() - SLOW_SECONDS
        is_news = False
        for number, each in list(self._running.items()):
            if len(self._slow) >= self._most_slow:
                break
            if each.began <= before and number not in self._slow:
                self._slow.add(number)
                # It may have ended meanwhile, before it could be taken out.
                if number in self._running:
                    is_news = True
                else:
                    self._slow.discard(number)
        return is_news

    def _has_full_hands(self) -> bool:
        return len(self._running) - len(self._slow) >= self._limit

    def _next(self) -> Delivery | None:
        """Return the next attempt to make, waiting for it, or None at the end."""
        while True:
            try:
                delivery = self._ready.popleft()
            except IndexError:
                with self._condition:
                    self._idle += 1
                    while not self._ready and not self._is_stopped:
                        self._condition.wait()
                    self._idle -= 1
                    if self._is_stopped and not self._ready:
                        return None
                continue
            # Each that sets to work wakes the next, if there is more: waking all for a handful of
            # quick tasks would cost more than the tasks.
            if self._ready and self._idle:
                with self._condition:
                    self._condition.notify()
            return delivery

    def _work(self) -> None:
        send, now = self._transport.send, self._clock.now
        running, on_end = self._running, self._on_end
        slow, is_full, watches = self._slow, self._is_full, bool(self._most_slow)
        while True:
            delivery = self._next()
            if delivery is None:
                return
            number = delivery.claim.claim
            started = time.perf_counter()
            running[number] = Running(delivery, now(), started)
            if watches and not is_full.is_set() and self._has_full_hands():
                is_full.set()
            try:
                reply = send(delivery)
            # The promise of Transport.send is broken: say so, and keep the thread.
            except BaseException as error:
                _logger.exception(
                    "Task %s of queue %s could not be delivered.",
                    delivery.claim.task_id,
                    delivery.claim.queue_id,
                )
                reply = Reply(outcome.NO_REPLY, error=f"{type(error).__name__}: {error}")
            milliseconds = (time.perf_counter() - started) * 1000
            if running.pop(number, None) is None:
                return  # given up: another thread has this one's place
            if number in slow:
                slow.discard(number)
                on_end(Ended(delivery, reply, now(), milliseconds))
                if self._is_one_too_many():
                    return
                continue
            on_end(Ended(delivery, reply, now(), milliseconds))

    def _is_one_too_many(self) -> bool:
        with self._condition:
            if self._count <= self._limit + len(self._slow):
                return False
            self._count -= 1
            return True


def _deadline(running: Running) -> float:
    return running.started_at + running.delivery.deadline_seconds
