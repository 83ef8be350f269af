"""When tasks are dispatched: one thread that claims due tasks and writes down what became.

It works in rounds. A round is one transaction (``local.lanes``): the attempts that have ended are
finished, and as many due tasks are claimed as threads are free, queue rates, concurrency and pauses
allowing. One commit so carries many tasks' claims and finishes, which is what makes it fast: the
disk allows a few thousand commits a second, not more.

Between rounds the thread waits for an event: a task that was created here, an attempt that ended,
the next schedule time, token or deadline. Only other processes on the same file cannot wake it;
for them it looks, a few times a second, at SQLite's ``data_version``.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from appengine_compat.core import moments
from appengine_compat.errors import StoreError
from appengine_compat.local import announcements, claims, housekeeping, owners
from appengine_compat.local.claims import Finish
from appengine_compat.local.clock import Clock
from appengine_compat.local.delivery import AttemptEvent, Claim, InFlight, Transport
from appengine_compat.local.lanes import Lane, Lanes, Round
from appengine_compat.local.requests import delivery_of
from appengine_compat.local.workers import Ended, Workers

if TYPE_CHECKING:
    from appengine_compat.local.store import Store
    from appengine_compat.local.tombstones import Windows

POLL_SECONDS = 0.2
"""How often other processes' writes are looked for; one look costs some microseconds."""
_AFTER_ERROR_SECONDS = 1.0
_RESERVES = ((0.5, 6), (5.0, 1))
"""While attempts take fewer milliseconds than the first, threads have so many more in reserve
each, so that they have work while a commit is made."""
SYNC_SECONDS = 0.1
"""So long after its commit, at most, the end of an attempt is on disk.

The commit itself is safe from the death of the process. Waiting for the disk at each would make
the drain as slow as the disk, and save only from repeating the last tasks after a loss of power.
"""
_GATE_SECONDS = 0.05

_logger = logging.getLogger(__name__)


class Scheduler:
    """Dispatches the tasks of one database from this process."""

    def __init__(
        self,
        store: Store,
        transport: Transport,
        *,
        clock: Clock,
        threads: int,
        most_slow: int = 0,
        windows: Windows,
        observers: list[Callable[[AttemptEvent], None]],
        gate: Callable[[], bool] | None = None,
    ) -> None:
        self._store = store
        self._transport = transport
        self._clock = clock
        self._threads = threads
        self._windows = windows
        self._observers = observers
        self._gate = gate
        self._condition = threading.Condition()
        self._workers = Workers(
            transport, clock, threads, self._ended, most_slow=most_slow, on_slow=self._wake
        )
        self._ended_attempts: deque[Ended] = deque()
        self._news: dict[Lane, float] = {}
        self._must_look = True
        self._is_waiting = False
        self._closes_at: float | None = None
        self._is_stopped = False
        self._claimed: dict[int, Claim] = {}
        self._must_tell_services = False
        self._is_settled = False
        """Between rounds: what the last one found is what holds."""
        self._idle_waiters = 0
        self._mean_ms = 0.0
        self._data_version = 0
        self._looks_at = 0.0
        self._syncs_at = math.inf
        self._cleans_at = 0.0
        self._owner: owners.Owner | None = None
        self._lanes = Lanes(transport, clock, windows)
        self._thread: threading.Thread | None = None

    # --- called from other threads -------------------------------------------------------------

    def start(self) -> None:
        """Begin to dispatch, in a thread of its own."""
        self._thread = threading.Thread(
            target=self._run, name="appengine-compat-scheduler", daemon=True
        )
        self._thread.start()

    def tell(self, queue: int, service: str, due: int) -> None:
        """Say that a task was created that is due then."""
        lane, moment = (queue, service), due / moments.SECOND
        with self._condition:
            # While it waits, what it knows of the queues is what holds: one that does not run
            # is looked at when it does, and need not wake it for each task until then.
            if self._is_waiting and not self._lanes.runs(queue):
                return
            if moment < self._news.get(lane, math.inf):
                self._news[lane] = moment
                if self._is_waiting:
                    self._condition.notify_all()

    def look(self) -> None:
        """Say that queues, forced tasks or services have changed."""
        with self._condition:
            self._must_look = True
            self._condition.notify_all()

    def services_changed(self) -> None:
        """Say that the transport reaches other services than before."""
        with self._condition:
            self._lanes.forget_unserved()
            self._must_tell_services = True
        self.look()

    def wait_idle(self, until: float) -> bool:
        """Wait until nothing is due or running, or ``time.monotonic()`` shows ``until``."""
        with self._condition:
            while not self._is_idle():
                seconds = until - time.monotonic()
                if seconds <= 0:
                    return False
                self._idle_waiters += 1
                self._condition.wait(seconds)
                self._idle_waiters -= 1
        return True

    def _is_idle(self) -> bool:
        if not self._is_settled or self._must_look or self._news or self._ended_attempts:
            return False
        until = self._wakes_at()
        return not self._claimed and (until is None or until > self._clock.now())

    def close(self, timeout_seconds: float) -> list[InFlight]:
        """Claim no more, wait for what runs, and end.

        Returns:
            The attempts that were still running; their tasks are dispatched again later, by
            this program's next start or by another process on the same file.
        """
        with self._condition:
            self._closes_at = time.monotonic() + timeout_seconds
            self._condition.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout_seconds + 10.0)
        now = self._clock.now()
        return [
            InFlight(
                queue_id=each.delivery.claim.queue_id,
                task_id=each.delivery.claim.task_id,
                service=each.delivery.claim.service,
                method=each.delivery.claim.method,
                path=each.delivery.claim.path,
                body=each.delivery.claim.body,
                attempt=each.delivery.claim.attempt,
                seconds=now - each.started_at,
            )
            for each in self._workers.running()
        ]

    def _wake(self) -> None:
        with self._condition:
            self._condition.notify_all()

    def _ended(self, ended: Ended) -> None:
        self._ended_attempts.append(ended)
        # Set under the condition before the deque is looked at: one of the two sees the other.
        if self._is_waiting:
            with self._condition:
                self._condition.notify_all()

    # --- the thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        while self._gate is not None and self._closes_at is None and not self._gate():
            time.sleep(_GATE_SECONDS)
        while self._closes_at is None:
            try:
                self._enter()
                break
            except (StoreError, OSError) as error:
                self._report(error)
        while not self._is_over():
            self._wait()
            try:
                self._round()
            except StoreError as error:
                self._report(error)
            except Exception:
                _logger.exception("The scheduler met an error of its own, and goes on.")
                self._pause()
        self._leave()

    def _enter(self) -> None:
        now = self._now()
        self._owner = owners.Owner(self._store, self._services_here(), now)
        self._lanes.numbers = claims.Numbers(self._owner.number)
        owners.release_dead(self._store, self._owner.number, now)

    def _leave(self) -> None:
        self._workers.stop()
        # While a thread still works on a task, nobody else may have it: the lock stays until the
        # process ends.
        if self._owner is not None and not self._workers.running():
            try:
                self._owner.leave()
            except StoreError as error:
                _logger.warning("%s The next start clears up.", error)

    def _report(self, error: Exception) -> None:
        _logger.error("Tasks cannot be dispatched for now: %s", error)
        self._pause()

    def _pause(self) -> None:
        with self._condition:
            if self._closes_at is not None and time.monotonic() >= self._closes_at:
                self._is_stopped = True
                return
            self._condition.wait(_AFTER_ERROR_SECONDS)

    def _is_over(self) -> bool:
        if self._is_stopped:
            return True
        if self._closes_at is None:
            return False
        if self._ended_attempts or self._owner is None:
            return self._owner is None
        return not self._claimed or time.monotonic() >= self._closes_at

    def _wait(self) -> None:
        with self._condition:
            self._is_waiting = self._is_settled = True
            if self._idle_waiters:
                self._condition.notify_all()
            try:
                while not (self._must_look or self._news or self._ended_attempts):
                    if self._closes_at is not None:
                        if self._claimed:
                            self._condition.wait(max(0.0, self._closes_at - time.monotonic()))
                        return
                    until = self._wakes_at()
                    if until is not None and until <= self._clock.now():
                        return
                    self._clock.wait(self._condition, until)
            finally:
                self._is_waiting = self._is_settled = False

    def _wakes_at(self) -> float | None:
        moments_ahead = [self._cleans_at, self._syncs_at]
        if self._store.path:
            moments_ahead.append(self._looks_at)
        next_look = self._lanes.next_look
        if next_look and self._capacity() > 0:
            moments_ahead.append(min(next_look.values()))
        deadline = self._workers.next_deadline()
        if deadline is not None:
            moments_ahead.append(deadline)
        earliest = min(moments_ahead)
        return None if earliest == math.inf else earliest

    def _capacity(self) -> int:
        reserve = next((each for below, each in _RESERVES if self._mean_ms < below), 0)
        return self._threads * (1 + reserve) + self._workers.slow() - len(self._claimed)

    def _now(self) -> int:
        return moments.from_seconds(self._clock.now())

    def _services_here(self) -> frozenset[str]:
        services = self._transport.services()
        return frozenset(("*",)) if services is None else services

    def _round(self) -> None:
        now_seconds = self._clock.now()
        self._take_news()
        if self._store.path and now_seconds >= self._looks_at:
            self._look_at_others(now_seconds)
        if now_seconds >= self._cleans_at:
            self._cleans_at = now_seconds + housekeeping.clean(
                self._store, self._windows, moments.from_seconds(now_seconds)
            )
        ended = self._take_ended()
        is_closing = self._closes_at is not None
        if now_seconds >= self._syncs_at:
            self._sync()
        if is_closing:
            self._give_back()
        capacity = 0 if is_closing else self._capacity()
        is_due = capacity > 0 and self._lanes.is_due(now_seconds)
        if not (ended or is_due or self._must_look):
            return
        finishes = [
            Finish(
                each.delivery.claim,
                each.reply.status,
                moments.from_seconds(each.at),
                each.reply.retry_after_seconds,
            )
            for each in ended
        ]
        with self._condition:
            # A look that is asked for between reading and clearing would be forgotten.
            looks, self._must_look = self._must_look, False
        if finishes and self._syncs_at == math.inf:
            self._syncs_at = now_seconds + SYNC_SECONDS
        try:
            done = self._store.write(
                lambda connection: self._lanes.transact(connection, finishes, capacity, looks),
                is_durable=is_closing,
            )
        except BaseException:
            # Not written down, so not over: these are finished by the next round.
            self._ended_attempts.extendleft(reversed(ended))
            self._must_look = True
            raise
        self._take_over(done, ended, finishes)

    def _take_news(self) -> None:
        with self._condition:
            news, self._news = self._news, {}
        for lane, due in news.items():
            self._lanes.note(lane, due)

    def _take_ended(self) -> list[Ended]:
        ended = self._workers.give_up_late()
        while self._ended_attempts:
            ended.append(self._ended_attempts.popleft())
        return ended

    def _look_at_others(self, now_seconds: float) -> None:
        assert self._owner is not None
        self._looks_at = now_seconds + POLL_SECONDS
        version = self._store.data_version()
        now = moments.from_seconds(now_seconds)
        if version != self._data_version:
            self._data_version = version
            self._must_look = True
        if owners.release_dead(self._store, self._owner.number, now):
            self._must_look = True
        is_changed, self._must_tell_services = self._must_tell_services, False
        is_lease_old = now - self._owner.renewed_at > moments.from_seconds(owners.RENEW_SECONDS)
        if is_changed or (is_lease_old and not self._owner.is_locked):
            self._owner.renew(self._services_here(), now)

    def _sync(self) -> None:
        """Have the disk hold what was committed so far: a commit that waits takes all along."""
        assert self._owner is not None
        self._syncs_at = math.inf
        if self._store.path:
            self._owner.renew(self._services_here(), self._now(), is_durable=True)

    def _give_back(self) -> None:
        waiting = [each.claim for each in self._workers.take_back()]
        if waiting:
            self._store.write(lambda connection: claims.release(connection, waiting))
            self._lanes.give_back(waiting)
            for claim in waiting:
                del self._claimed[claim.claim]

    def _take_over(self, done: Round, ended: list[Ended], finishes: list[Finish]) -> None:
        self._lanes.take_over(done, finishes)
        for each in ended:
            self._claimed.pop(each.delivery.claim.claim, None)
            self._mean_ms += (each.milliseconds - self._mean_ms) / 16
        if done.claimed:
            for claim in done.claimed:
                self._claimed[claim.claim] = claim
            secret, queues = self._store.secret, self._lanes.queues
            self._workers.hand_over(
                [delivery_of(claim, secret, queues.get(claim.queue)) for claim in done.claimed]
            )
        for service in done.unserved:
            announcements.nobody_serves(service, self._transport.services() or ())
        for each, finished in zip(ended, done.finished, strict=True):
            announcements.attempt_ended(each, finished, self._observers)
