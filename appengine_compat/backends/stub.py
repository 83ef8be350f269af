"""The backend of tests: tasks are kept in memory, looked at, and never sent anywhere.

What it accepts and refuses is what App Engine's own test stub did: automatic names ``task1``,
``task2``, … over all queues; names that stay reserved after a delete; and a call in which one
task cannot be verified (queue, ETA, size) adds none of its tasks. It differs where App Engine's
tests promised what Cloud Tasks does not keep: tasks may be as large as Cloud Tasks stores them.
"""

from __future__ import annotations

import difflib
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from appengine_compat.backends.base import BackendError, Outcome, Reason, TaskRequest
from appengine_compat.core import limits
from appengine_compat.core.model import (
    AppEngineRequest,
    QueueStats,
    RateLimits,
    RetryConfig,
    Task,
)
from appengine_compat.core.names import QUEUE_ID, TASK_ID
from appengine_compat.queues import queue_yaml
from appengine_compat.queues.queue_yaml import QueueEntry

DEFAULT_QUEUE = "default"
StrPath = str | os.PathLike[str]
PARENT = "projects/test/locations/test"

_MICROSECONDS = 1_000_000
_MAX_AHEAD = limits.MAX_SCHEDULE_AHEAD_SECONDS * _MICROSECONDS


@dataclass(slots=True, eq=False)
class StubTask:
    """A task as the stub keeps it; what an attempt changes is written in place."""

    id: str
    queue: str
    request: TaskRequest
    eta_microseconds: int
    """When it is due, since the epoch; a retry moves it."""
    created_at: float
    """Seconds since the epoch."""
    eta_at_creation: float
    """When it was due at first, in seconds since the epoch."""
    sequence: int
    """Rises with every task created: the order among those due at one time."""
    retries: int = 0
    executions: int = 0
    previous_response: int | None = None
    first_attempt_at: float | None = None

    @property
    def eta(self) -> datetime:
        """When it is due, aware, in UTC."""
        return _utc(self.eta_microseconds)


@dataclass(slots=True, eq=False)
class StubQueue:
    """A queue as the stub keeps it."""

    entry: QueueEntry
    retry_config: RetryConfig
    rate_limits: RateLimits
    is_configured: bool
    """Whether it stands in a queue.yaml; else it is ``default``, or was made on first use."""
    tasks: dict[str, StubTask] = field(default_factory=dict)
    tombstones: set[str] = field(default_factory=set)

    @property
    def name(self) -> str:
        """The queue id."""
        return self.entry.name

    @property
    def is_paused(self) -> bool:
        """Whether its rate is 0, so that nothing of it runs."""
        return self.entry.rate == 0

    def ordered_tasks(self) -> list[StubTask]:
        """Return its tasks by due time, then by name."""
        return sorted(self.tasks.values(), key=lambda task: (task.eta_microseconds, task.id))


class StubBackend:
    """A ``backends.base.Backend`` in memory; thread-safe.

    Args:
        queue_config: the queue.yaml, or a function that returns its path (or None); it is read
            again whenever it has changed. Without one there is the queue ``default``.
        all_queues_valid: whether a queue that is not known is made on first use.
        now: returns seconds since the epoch.
        on_create: called with every task that is created, in order.
    """

    kind = "stub"

    def __init__(
        self,
        *,
        queue_config: StrPath | Callable[[], StrPath | None] | None = None,
        all_queues_valid: bool = False,
        now: Callable[[], float] = time.time,
        on_create: Callable[[StubTask], None] | None = None,
    ) -> None:
        self._queue_config = queue_config
        self.all_queues_valid = all_queues_valid
        self.now = now
        self.on_create = on_create
        self._lock = threading.RLock()
        self._numbers: Iterator[int] = itertools.count(1)
        self.due_at: Callable[[datetime], float] = datetime.timestamp
        """Turns a schedule time into seconds by the clock of ``now``."""
        self._sequence = 0
        self._queues: dict[str, StubQueue] = {}
        self._read: tuple[Path, int, int] | None = None
        self._is_cleared = False

    # --- what tests look at -----------------------------------------------------------------

    def queues(self) -> list[StubQueue]:
        """Return the queues by name.

        Raises:
            QueueYamlError: the queue.yaml is wrong.
        """
        with self._lock:
            self._refresh()
            return [self._queues[name] for name in sorted(self._queues)]

    def queue(self, name: str) -> StubQueue:
        """Return a queue.

        Raises:
            KeyError: there is none of this name.
        """
        with self._lock:
            self._refresh()
            return self._queues[name]

    def tasks(self) -> list[StubTask]:
        """Return the tasks of all queues, in the order in which they are due and were created."""
        with self._lock:
            tasks = [task for queue in self._queues.values() for task in queue.tasks.values()]
        return sorted(tasks, key=lambda task: (task.eta_microseconds, task.sequence))

    def remove(self, queue: str, task_id: str) -> None:
        """Remove a task, leaving its name free; nothing happens if it is not there."""
        with self._lock:
            if queue in self._queues:
                self._queues[queue].tasks.pop(task_id, None)

    def finish(self, task: StubTask) -> None:
        """Remove a task that has run or was given up; its name stays reserved."""
        with self._lock:
            queue = self._queues.get(task.queue)
            if queue is not None and queue.tasks.pop(task.id, None) is not None:
                queue.tombstones.add(task.id)

    def flush(self, queue: str) -> None:
        """Remove the tasks of a queue and free the names; nothing happens without the queue."""
        with self._lock:
            if queue in self._queues:
                self._queues[queue].tasks.clear()
                self._queues[queue].tombstones.clear()

    def clear(self) -> None:
        """Drop everything, queues as well, until the next call of this backend."""
        with self._lock:
            self._queues.clear()
            self._numbers = itertools.count(1)
            self._read = None
            self._is_cleared = True

    # --- Backend ----------------------------------------------------------------------------

    def create_tasks(
        self,
        queue: str,
        requests: Sequence[TaskRequest],
        *,
        timeout_seconds: float | None = None,  # noqa: ARG002 - nothing here takes time
    ) -> list[Outcome]:
        """Create tasks; none of them if the queue or one of them cannot be verified."""
        with self._lock:
            target = self._existing(queue)
            created_at = self.now()
            tasks = self._verified(target, requests, created_at)
            outcomes = [self._created(target, task) for task in tasks]
        if self.on_create is not None:
            for task, outcome in zip(tasks, outcomes, strict=True):
                if outcome.error is None:
                    self.on_create(task)
        return outcomes

    def delete_tasks(
        self,
        queue: str,
        task_ids: Sequence[str],
        *,
        timeout_seconds: float | None = None,  # noqa: ARG002 - nothing here takes time
    ) -> list[Outcome]:
        """Delete tasks, and reserve their names."""
        with self._lock:
            target = self._existing(queue)
            return [self._deleted(target, task_id) for task_id in task_ids]

    def purge_queue(
        self,
        queue: str,
        *,
        timeout_seconds: float | None = None,  # noqa: ARG002 - nothing here takes time
    ) -> None:
        """Delete every task of the queue; names that were reserved before stay so."""
        with self._lock:
            self._existing(queue).tasks.clear()

    def queue_stats(
        self,
        queues: Sequence[str],
        *,
        timeout_seconds: float | None = None,  # noqa: ARG002 - nothing here takes time
    ) -> list[QueueStats]:
        """Return what each queue holds; a queue that does not exist holds nothing."""
        with self._lock:
            self._refresh(make_again=True)
            return [self._stats(self._queues.get(name)) for name in queues]

    # --- verification -----------------------------------------------------------------------

    def _verified(
        self, queue: StubQueue, requests: Sequence[TaskRequest], created_at: float
    ) -> list[StubTask]:
        tasks = []
        refusals = []
        for request in requests:
            eta = request.schedule_time
            due_at = created_at if eta is None else self.due_at(eta)
            eta_microseconds = round(due_at * _MICROSECONDS)
            refusal = _refusal(queue, request, eta_microseconds, created_at)
            if refusal is not None:
                refusals.append(refusal)
                continue
            # Drawn even if another task of the call is refused, as App Engine's stub does.
            task_id = request.name or f"task{next(self._numbers)}"
            self._sequence += 1
            tasks.append(
                StubTask(
                    id=task_id,
                    queue=queue.name,
                    request=request,
                    eta_microseconds=eta_microseconds,
                    created_at=created_at,
                    eta_at_creation=eta_microseconds / _MICROSECONDS,
                    sequence=self._sequence,
                )
            )
        if refusals:
            raise refusals[0]
        return tasks

    def _created(self, queue: StubQueue, task: StubTask) -> Outcome:
        reason = None
        if task.id in queue.tasks:
            reason, state = Reason.TASK_ALREADY_EXISTS, "is in the queue"
        elif task.id in queue.tombstones:
            reason, state = Reason.TOMBSTONED_TASK, "was deleted or has run; its name is reserved"
        if reason is None:
            queue.tasks[task.id] = task
            return Outcome(task.id)
        message = f"A task named {task.id!r} {state} ({queue.name!r})."
        return Outcome(task.id, BackendError(reason, message, queue=queue.name, task=task.id))

    def _deleted(self, queue: StubQueue, task_id: str) -> Outcome:
        if queue.tasks.pop(task_id, None) is not None:
            queue.tombstones.add(task_id)
            return Outcome(task_id)
        gone = task_id in queue.tombstones
        reason = Reason.TOMBSTONED_TASK if gone else Reason.UNKNOWN_TASK
        message = f"Queue {queue.name!r} has no task {task_id!r}{' any more' if gone else ''}."
        return Outcome(task_id, BackendError(reason, message, queue=queue.name, task=task_id))

    # --- queues -----------------------------------------------------------------------------

    def _existing(self, name: str) -> StubQueue:
        self._refresh(make_again=True)
        queue = self._queues.get(name)
        if queue is not None:
            return queue
        if QUEUE_ID.match(name) is None:
            raise BackendError(
                Reason.INVALID_QUEUE_NAME,
                f"Queue name {name!r} is not 1 to 100 letters, digits and hyphens.",
                queue=name,
            )
        if self.all_queues_valid:
            return self._queues.setdefault(name, _implicit(name))
        where = (
            f"in {self._read[0]}"
            if self._read
            else "without a queue.yaml (root_path= says where it is)"
        )
        close = difflib.get_close_matches(name, self._queues, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise BackendError(
            Reason.UNKNOWN_QUEUE,
            f"There is no queue {name!r} {where}; there are {', '.join(sorted(self._queues))}."
            + hint,
            queue=name,
        )

    def _refresh(self, *, make_again: bool = False) -> None:
        if self._is_cleared and not make_again:
            return
        self._is_cleared = False
        self._read_configuration()
        if DEFAULT_QUEUE not in self._queues:
            self._queues[DEFAULT_QUEUE] = _implicit(DEFAULT_QUEUE)

    def _read_configuration(self) -> None:
        config = self._queue_config
        path = config() if callable(config) else config
        if path is None:
            return
        path = Path(path)
        try:
            state = path.stat()
            seen = (path, state.st_mtime_ns, state.st_size)
        except OSError:
            seen = None
        if seen is not None and seen == self._read:
            return
        file = queue_yaml.read(path)
        from appengine_compat.queues.deployed import deployed_queue

        names = set()
        for entry in file.queues:
            names.add(entry.name)
            as_deployed = deployed_queue(entry, PARENT)
            kept = self._queues.get(entry.name)
            self._queues[entry.name] = StubQueue(
                entry=entry,
                retry_config=as_deployed.retry_config,
                rate_limits=as_deployed.rate_limits,
                is_configured=True,
                tasks=kept.tasks if kept else {},
                tombstones=kept.tombstones if kept else set(),
            )
        for name in [
            name
            for name, queue in self._queues.items()
            if queue.is_configured and name not in names
        ]:
            del self._queues[name]
        self._read = seen

    def _stats(self, queue: StubQueue | None) -> QueueStats:
        if queue is None or not queue.tasks:
            return QueueStats()
        oldest = min(task.eta_microseconds for task in queue.tasks.values())
        return QueueStats(tasks_count=len(queue.tasks), oldest_arrival_time=_utc(oldest))


def _implicit(name: str) -> StubQueue:
    entry = QueueEntry(name=name, rate=5.0, rate_text="5.00/s", bucket_size=5)
    return StubQueue(
        entry=entry,
        retry_config=RetryConfig(),
        rate_limits=RateLimits(max_dispatches_per_second=5.0, max_burst_size=5),
        is_configured=False,
    )


def _refusal(
    queue: StubQueue, request: TaskRequest, eta_microseconds: int, created_at: float
) -> BackendError | None:
    """Why a task cannot be added to the queue, whatever else is in it."""

    def refused(reason: Reason, message: str) -> BackendError:
        return BackendError(reason, message, queue=queue.name, task=request.name)

    if queue.entry.is_pull:
        return refused(
            Reason.INVALID_QUEUE_MODE,
            f"Queue {queue.name!r} is a pull queue (mode: pull in its queue.yaml), and takes no "
            "push tasks; Cloud Tasks has no pull queues at all. Pub/Sub takes their place.",
        )
    if request.name and TASK_ID.match(request.name) is None:
        return refused(
            Reason.INVALID_TASK_NAME,
            f"Task name {request.name!r} is not 1 to 500 letters, digits, hyphens and underscores.",
        )
    if eta_microseconds > round(created_at * _MICROSECONDS) + _MAX_AHEAD:
        return refused(
            Reason.INVALID_ETA,
            f"The ETA {_utc(eta_microseconds).isoformat()} is more than 30 days ahead.",
        )
    size = limits.stored_size(_as_stored(queue.name, request, eta_microseconds, created_at))
    if size > limits.MAX_STORED_TASK_BYTES:
        return refused(
            Reason.TASK_TOO_LARGE,
            f"The task takes {size:,} bytes as stored (its payload {len(request.payload):,}); "
            f"Cloud Tasks takes {limits.MAX_STORED_TASK_BYTES:,} at most.",
        )
    return None


def _as_stored(queue: str, request: TaskRequest, eta_microseconds: int, created_at: float) -> Task:
    return Task(
        name=f"{PARENT}/queues/{queue}/tasks/{request.name or '0' * 19}",
        schedule_time=_utc(eta_microseconds),
        create_time=datetime.fromtimestamp(created_at, timezone.utc),
        dispatch_deadline_seconds=request.dispatch_deadline_seconds,
        retry_config=request.retry,
        request=AppEngineRequest(
            relative_uri=request.relative_url,
            method=request.method,
            headers=dict(request.headers),
            body=request.payload,
        ),
    )


def _utc(microseconds: int) -> datetime:
    return datetime.fromtimestamp(microseconds / _MICROSECONDS, timezone.utc)
