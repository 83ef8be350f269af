"""Which tasks are claimed: what is known of the lanes, and the transaction of one round.

A *lane* is a queue and a service: what is due is looked up lane by lane through an index, so that
a round costs the same with ten tasks waiting or a million, and tasks for a service that has no app
here are passed over without being read.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from appengine_compat.core import moments, names, rate, throttle
from appengine_compat.core.model import Queue, QueueState
from appengine_compat.local import claims, owners, queue_operations, throttling
from appengine_compat.local.claims import Finish, Finished
from appengine_compat.local.clock import Clock
from appengine_compat.local.delivery import Claim, Transport

if TYPE_CHECKING:
    from appengine_compat.local.store import Connection
    from appengine_compat.local.tombstones import Windows

_UNSERVED_SECONDS = 5.0
"""So long a task for a service without an app waits before that is said."""

Lane = tuple[int, str]


@dataclass(slots=True)
class Round:
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
    """Services that tasks wait for and nobody has an app for."""
    under_way: Counter[int] = field(default_factory=Counter)
    """By how many the attempts of each queue have become more, or fewer."""


class Lanes:
    """What one process knows of the lanes of a database; one thread's, but where it says so.

    Attributes:
        numbers: the claims of this process, once it has some.
        queues: by number, as the last round has read them.
        next_look: when each lane is to be looked at, in seconds since the epoch; infinity for
            not before something changes.
    """

    def __init__(self, transport: Transport, clock: Clock, windows: Windows) -> None:
        """Begin to know, with nothing.

        Args:
            transport: tells which services are reached from here.
            clock: the time that tasks are due by.
            windows: how long names stay reserved.
        """
        self.numbers = claims.Numbers(0)
        self.queues: dict[int, Queue] = {}
        self.next_look: dict[Lane, float] = {}
        self._transport = transport
        self._clock = clock
        self._windows = windows
        self._queues_version = -1
        self._full: set[Lane] = set()
        self._under_way: Counter[int] = Counter()
        """Attempts of each queue that have begun here, those of deleted tasks too."""
        self._told_unserved: set[str] = set()
        self._turn = 0

    def runs(self, number: int) -> bool:
        """Tell whether a queue dispatches, as far as is known. Any thread may ask."""
        queue = self.queues.get(number)
        return queue is None or queue.state is QueueState.RUNNING

    def note(self, lane: Lane, due: float) -> None:
        """Take note of a task that is due then, unless its queue does not run."""
        if self.runs(lane[0]) and due < self.next_look.get(lane, math.inf):
            self.next_look[lane] = due

    def is_due(self, now_seconds: float) -> bool:
        """Tell whether a lane is to be looked at."""
        return any(at <= now_seconds for at in self.next_look.values())

    def forget_unserved(self) -> None:
        """Have services without an app told of again. Any thread may ask for it."""
        self._told_unserved = set()

    def take_over(self, done: Round, finishes: Sequence[Finish]) -> None:
        """Take over what a round has found, after its commit."""
        self._turn += 1
        self._queues_version = done.queues_version
        self._under_way.update(done.under_way)
        if done.queues is not None:
            self.queues = done.queues
        if done.lanes is not None:
            self.next_look = dict.fromkeys(done.lanes, math.inf)
        self.next_look.update(done.next_look)
        for finish, finished in zip(finishes, done.finished, strict=True):
            if finished.next_due is not None:
                lane = (finish.claim.queue, finish.claim.lane)
                due = finished.next_due / moments.SECOND
                self.next_look[lane] = min(due, self.next_look.get(lane, math.inf))
        self._full = (self._full - done.next_look.keys()) | done.full
        self._told_unserved.update(done.unserved)

    def give_back(self, claimed: Iterable[Claim]) -> None:
        """Count attempts no longer that were claimed and never begun."""
        self._under_way.subtract(claim.queue for claim in claimed)

    def transact(
        self, connection: Connection, finishes: Sequence[Finish], capacity: int, looks: bool
    ) -> Round:
        """Finish and claim. Changes nothing but the database: it may be rolled back.

        Args:
            connection: in a transaction.
            finishes: the attempts that have ended.
            capacity: how many tasks may be claimed.
            looks: whether every lane is to be looked at, the new ones among them.
        """
        this = Round()
        queues = self.queues
        this.queues_version = queue_operations.version(connection)
        if this.queues_version != self._queues_version:
            queues = this.queues = queue_operations.list_all(connection)
            looks = True
        this.finished = claims.finish(connection, finishes, queues, self._windows)
        this.under_way.subtract(finish.claim.queue for finish in finishes)
        now = moments.from_seconds(self._clock.now())
        if capacity > 0:
            self._claim_forced(connection, this, queues, capacity, now)
        next_look = self.next_look
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
        this: Round,
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
        this: Round,
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
        this: Round,
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
        under_way += claims.running_elsewhere(connection, number, self.numbers.owner)
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
        this: Round,
        rows: list[tuple[object, ...]],
        number: int,
        queue: Queue,
        service: str,
        now: int,
    ) -> None:
        this.claimed += claims.mark(
            connection, rows, number, names.short_id(queue.name), service, self.numbers, now
        )
        this.under_way[number] += len(rows)

    def _look_at_unserved(
        self, connection: Connection, this: Round, lane: Lane, service: str, now: int
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
