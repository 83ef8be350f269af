"""Which task is dispatched when: one thread that claims due tasks and writes down what became.

It works in rounds. A round is one transaction: the attempts that have ended are finished, and as
many due tasks are claimed as threads are free, queue rates, concurrency and pauses allowing. One
commit so carries many tasks' claims and finishes, which is what makes it fast: the disk allows a
few thousand commits a second, not more.

Between rounds the thread waits for an event: a task that was created here, an attempt that ended,
the next schedule time, token or deadline. Only other processes on the same file cannot wake it;
for them it looks, a few times a second, at SQLite's ``data_version``.

A *lane* is a queue and a service: what is due is looked up lane by lane through an index, so that
a round costs the same with ten tasks waiting or a million, and tasks for a service that has no app
here are passed over without being read.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from appengine_compat.core import moments, names, rate, throttle
from appengine_compat.core.model import Queue, QueueState
from appengine_compat.errors import StoreError
from appengine_compat.local import claims, housekeeping, owners, queue_operations, throttling
from appengine_compat.local.claims import Finish, Finished
from appengine_compat.local.clock import Clock
from appengine_compat.local.delivery import (
    AttemptEvent,
    Claim,
    InFlight,
    Outcome,
    Transport,
)
from appengine_compat.local.requests import delivery_of
from appengine_compat.local.workers import Ended, Workers

if TYPE_CHECKING:
    from appengine_compat.local.store import Connection, Store
    from appengine_compat.local.tombstones import Windows

POLL_SECONDS = 0.2
"""How often other processes' writes are looked for; one look costs some microseconds."""
_AFTER_ERROR_SECONDS = 1.0
_UNSERVED_SECONDS = 5.0
"""So long a task for a service without an app waits before that is said."""
_RESERVES = ((0.5, 6), (5.0, 1))
"""While attempts take fewer milliseconds than the first, threads have so many more in reserve
each, so that they have work while a commit is made."""
SYNC_SECONDS = 0.1
"""So long after its commit, at most, the end of an attempt is on disk.

The commit itself is safe from the death of the process. Waiting for the disk at each would make
the drain as slow as the disk, and save only from repeating the last tasks after a loss of power.
"""
_GATE_SECONDS = 0.05

Lane = tuple[int, str]

_logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Round:
    """What one transaction read and did; taken over once it is committed."""

    finished: list[Finished] = field(default_factory=list)
    claimed: list[Claim] = field(default_factory=list)
    queues: dict[int, Queue] | None = None
    queues_version: int = -1
    lanes: list[Lane] | None = None
    next_look: dict[Lane, float] = field(default_factory=dict)
    full: set[Lane] = field(default_factory=set)
    """Lanes whose queue runs as many attempts as it may."""
    unserved: set[str] = field(default_factory=set)
    under_way: Counter[int] = field(default_factory=Counter)
    """By how many the attempts of each queue have become more, or fewer."""


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
        self._under_way: Counter[int] = Counter()
        """Attempts of each queue that have begun here, those of deleted tasks too."""
        self._queues: dict[int, Queue] = {}
        self._queues_version = -1
        self._next_look: dict[Lane, float] = {}
        self._full: set[Lane] = set()
        self._told_unserved: set[str] = set()
        self._must_tell_services = False
        self._is_settled = False
        """Between rounds: what the last one found is what holds."""
        self._idle_waiters = 0
        self._mean_ms = 0.0
        self._turn = 0
        self._data_version = 0
        self._looks_at = 0.0
        self._syncs_at = math.inf
        self._cleans_at = 0.0
        self._owner: owners.Owner | None = None
        self._numbers = claims.Numbers(0)
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
            if self._is_waiting and not self._runs(queue):
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
            self._told_unserved = set()
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
        self._numbers = claims.Numbers(self._owner.number)
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
        if self._next_look and self._capacity() > 0:
            moments_ahead.append(min(self._next_look.values()))
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
        is_due = capacity > 0 and any(at <= now_seconds for at in self._next_look.values())
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
                lambda connection: self._transact(connection, finishes, capacity, looks),
                is_durable=is_closing,
            )
        except BaseException:
            # Not written down, so not over: these are finished by the next round.
            self._ended_attempts.extendleft(reversed(ended))
            self._must_look = True
            raise
        self._take_over(done, ended)

    def _take_news(self) -> None:
        with self._condition:
            news, self._news = self._news, {}
        for lane, due in news.items():
            if not self._runs(lane[0]):
                continue
            if due < self._next_look.get(lane, math.inf):
                self._next_look[lane] = due

    def _runs(self, number: int) -> bool:
        queue = self._queues.get(number)
        return queue is None or queue.state is QueueState.RUNNING

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
            for claim in waiting:
                del self._claimed[claim.claim]
                self._under_way[claim.queue] -= 1

    # --- one transaction -------------------------------------------------------------------------

    def _transact(
        self, connection: Connection, finishes: list[Finish], capacity: int, looks: bool
    ) -> _Round:
        """Finish and claim. Changes nothing but the database: it may be rolled back."""
        this = _Round()
        queues = self._queues
        this.queues_version = queue_operations.version(connection)
        if this.queues_version != self._queues_version:
            queues = this.queues = queue_operations.list_all(connection)
            looks = True
        this.finished = claims.finish(connection, finishes, queues, self._windows)
        this.under_way.subtract(finish.claim.queue for finish in finishes)
        now = self._now()
        if capacity > 0:
            self._claim_forced(connection, this, queues, capacity, now)
        next_look = self._next_look
        if looks:
            this.lanes = [
                (row[0], row[1])
                for row in connection.execute("SELECT queue, service FROM lanes").fetchall()
            ]
            next_look = dict.fromkeys(this.lanes, 0.0)
        freed = {finish.claim.queue for finish in finishes}
        seconds = now / moments.SECOND
        due = [
            lane
            for lane, at in next_look.items()
            if at <= seconds or (lane in self._full and lane[0] in freed)
        ]
        self._claim_lanes(connection, this, due, queues, capacity, now)
        return this

    def _claim_forced(
        self,
        connection: Connection,
        this: _Round,
        queues: dict[int, Queue],
        capacity: int,
        now: int,
    ) -> None:
        # By lanes: tasks for a service that is nowhere must not stand before the others'.
        for number, own_service in claims.forced_lanes(connection):
            queue, left = queues.get(number), capacity - len(this.claimed)
            if queue is None or left <= 0:
                continue
            service = self._destination(queue, own_service)
            if self._serves(service):
                rows = claims.forced_tasks(connection, number, own_service, left)
                self._claim(connection, this, rows, number, queue, service, now)

    def _claim_lanes(
        self,
        connection: Connection,
        this: _Round,
        due: list[Lane],
        queues: dict[int, Queue],
        capacity: int,
        now: int,
    ) -> None:
        if not due:
            return
        # Each lane gets a fair part first, in turns; then whoever has more takes what is left.
        start = self._turn % len(due)
        due = due[start:] + due[:start]
        share = max(1, capacity // len(due))
        for limit in (share, capacity):
            for lane in due:
                left = capacity - len(this.claimed)
                if this.next_look.get(lane, 0.0) * moments.SECOND > now:
                    continue
                if left <= 0:
                    this.next_look[lane] = 0.0
                    continue
                this.next_look[lane] = self._claim_lane(
                    connection, this, lane, queues.get(lane[0]), min(limit, left), now
                )

    def _claim_lane(
        self,
        connection: Connection,
        this: _Round,
        lane: Lane,
        queue: Queue | None,
        limit: int,
        now: int,
    ) -> float:
        """Claim up to so many of a lane's tasks; return when to look at it again."""
        if queue is None or queue.state is not QueueState.RUNNING:
            return math.inf
        number, own_service = lane
        service = self._destination(queue, own_service)
        if not self._serves(service):
            return self._look_at_unserved(connection, this, lane, service, now)
        limits = queue.rate_limits
        # A row may be gone, deleted or purged, while its attempt still keeps the target busy.
        under_way = self._under_way[number] + this.under_way[number]
        under_way += claims.running_elsewhere(connection, number, self._numbers.owner)
        free = limits.max_concurrent_dispatches - under_way
        if free <= 0:
            this.full.add(lane)
            return math.inf
        burst, speed = limits.max_burst_size, limits.max_dispatches_per_second
        seconds = now / moments.SECOND
        slowed = throttling.load(connection, number)
        if slowed is not None:
            if slowed.held_until > seconds:
                return slowed.held_until
            full_speed, speed = speed, throttle.rate_at(slowed, speed, seconds)
            burst = throttle.burst_at(burst, speed, full_speed)
        bucket = rate.refilled(claims.bucket(connection, number, burst, now), speed, burst, seconds)
        wanted = min(limit, free, rate.available(bucket))
        if wanted <= 0:
            return seconds + rate.seconds_until_token(bucket, speed)
        rows = claims.due_tasks(connection, number, own_service, now, wanted)
        if rows:
            self._claim(connection, this, rows, number, queue, service, now)
            left = rate.taken(bucket, len(rows))
            claims.put_bucket(connection, number, left.tokens, now)
        if len(rows) == wanted:
            return 0.0
        due = claims.next_due(connection, number, own_service)
        return math.inf if due is None else due / moments.SECOND

    def _claim(
        self,
        connection: Connection,
        this: _Round,
        rows: list[tuple[object, ...]],
        number: int,
        queue: Queue,
        service: str,
        now: int,
    ) -> None:
        this.claimed += claims.mark(
            connection, rows, number, names.short_id(queue.name), service, self._numbers, now
        )
        this.under_way[number] += len(rows)

    def _look_at_unserved(
        self, connection: Connection, this: _Round, lane: Lane, service: str, now: int
    ) -> float:
        due = claims.next_due(connection, *lane)
        if due is None or service in self._told_unserved:
            return math.inf
        patience = due / moments.SECOND + _UNSERVED_SECONDS
        if patience > now / moments.SECOND:
            return patience
        served = owners.services_of_all(connection)
        if service not in served and "*" not in served:
            this.unserved.add(service)
        return math.inf

    def _serves(self, service: str) -> bool:
        services = self._transport.services()
        return services is None or service in services

    @staticmethod
    def _destination(queue: Queue, service: str) -> str:
        override = queue.app_engine_routing_override
        return (
            override.service if override is not None and override.service and service else service
        )

    # --- after the commit ------------------------------------------------------------------------

    def _take_over(self, done: _Round, ended: list[Ended]) -> None:
        self._turn += 1
        self._queues_version = done.queues_version
        self._under_way.update(done.under_way)
        if done.queues is not None:
            self._queues = done.queues
        if done.lanes is not None:
            self._next_look = dict.fromkeys(done.lanes, math.inf)
        self._next_look.update(done.next_look)
        for each, finished in zip(ended, done.finished, strict=True):
            claim = each.delivery.claim
            self._claimed.pop(claim.claim, None)
            self._mean_ms += (each.milliseconds - self._mean_ms) / 16
            lane = (claim.queue, claim.lane)
            if finished.next_due is not None:
                due = finished.next_due / moments.SECOND
                self._next_look[lane] = min(due, self._next_look.get(lane, math.inf))
        self._full = (self._full - done.next_look.keys()) | done.full
        if done.claimed:
            for claim in done.claimed:
                self._claimed[claim.claim] = claim
            secret = self._store.secret
            self._workers.hand_over(
                [
                    delivery_of(claim, secret, self._queues.get(claim.queue))
                    for claim in done.claimed
                ]
            )
        for service in done.unserved:
            self._tell_unserved(service)
        for each, finished in zip(ended, done.finished, strict=True):
            self._tell_observers(each, finished)

    def _tell_unserved(self, service: str) -> None:
        self._told_unserved.add(service)
        here = ", ".join(sorted(self._transport.services() or ())) or "none"
        _logger.warning(
            "Tasks wait for the service %r, and no running process has an app for it (here: %s). "
            "Start the app of that service, or name another with _target.",
            service,
            here,
        )

    def _tell_observers(self, ended: Ended, finished: Finished) -> None:
        claim, reply = ended.delivery.claim, ended.reply
        if finished.outcome is Outcome.FAILED:
            _logger.error(
                "Task %s of queue %s failed for good: %s, and this was attempt %d, the last that "
                "its retry settings allow. It is no longer in the queue; what it carried is kept "
                "in the database.",
                claim.task_id,
                claim.queue_id,
                f"status {reply.status}" if reply.status > 0 else reply.error or "no reply",
                claim.attempt,
            )
        if not self._observers:
            return
        due = finished.next_due
        event = AttemptEvent(
            queue_id=claim.queue_id,
            task_id=claim.task_id,
            service=claim.service,
            method=claim.method,
            path=claim.path if claim.service else claim.url,
            body=claim.body,
            attempt=claim.attempt,
            status=reply.status,
            milliseconds=ended.milliseconds,
            outcome=finished.outcome,
            next_try=None if due is None else due / moments.SECOND,
            error=reply.error,
        )
        for observer in list(self._observers):
            try:
                observer(event)
            # Whoever looks on must not be able to stop the work.
            except Exception:  # noqa: PERF203
                _logger.exception("An observer of attempts raised an exception.")
