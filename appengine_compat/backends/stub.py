"""The backend of tests: tasks are kept in memory, looked at, and never sent anywhere.

What it accepts and refuses is what App Engine's own test stub did: automatic names ``task1``,
``task2``, … over all queues; names that stay reserved after a delete; and a call in which one
task cannot be verified (queue, ETA, size) adds none of its tasks. It differs where App Engine's
tests promised what Cloud Tasks does not keep: tasks may be as large as Cloud Tasks stores them.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone

from appengine_compat.backends.base import BackendError, Outcome, Reason, TaskRequest
from appengine_compat.backends.stub_queues import (
    MICROSECONDS,
    PARENT,
    QueueConfig,
    StubQueue,
    StubQueues,
    StubTask,
    utc,
)
from appengine_compat.core import limits
from appengine_compat.core.model import AppEngineRequest, QueueStats, Task
from appengine_compat.core.names import TASK_ID

_MAX_AHEAD = limits.MAX_SCHEDULE_AHEAD_SECONDS * MICROSECONDS


class StubBackend:
    """A ``backends.base.Backend`` in memory; thread-safe.

    Args:
        queue_config: the queue.yaml, which is read again whenever it has changed, or a function
            that returns its path, its content, or None. Without one there is the queue
            ``default``.
        all_queues_valid: whether a queue that is not known is made on first use.
        now: returns seconds since the epoch.
        on_create: called with every task that is created, in order.
    """

    kind = "stub"

    def __init__(
        self,
        *,
        queue_config: QueueConfig = None,
        all_queues_valid: bool = False,
        now: Callable[[], float] = time.time,
        on_create: Callable[[StubTask], None] | None = None,
    ) -> None:
        self.now = now
        self.on_create = on_create
        self._lock = threading.RLock()
        self._numbers: Iterator[int] = itertools.count(1)
        self.due_at: Callable[[datetime], float] = datetime.timestamp
        """Turns a schedule time into seconds by the clock of ``now``."""
        self._sequence = 0
        self._queues = StubQueues(queue_config, all_queues_valid)

    # --- what tests look at -----------------------------------------------------------------

    def queues(self) -> list[StubQueue]:
        """Return the queues by name.

        Raises:
            QueueYamlError: the queue.yaml is wrong.
        """
        with self._lock:
            self._queues.refresh()
            return sorted(self._queues.by_name.values(), key=lambda queue: queue.name)

    def queue(self, name: str) -> StubQueue:
        """Return a queue.

        Raises:
            KeyError: there is none of this name.
        """
        with self._lock:
            self._queues.refresh()
            return self._queues.by_name[name]

    def tasks(self) -> list[StubTask]:
        """Return the tasks of all queues, in the order in which they are due and were created."""
        with self._lock:
            tasks = [
                task for queue in self._queues.by_name.values() for task in queue.tasks.values()
            ]
        return sorted(tasks, key=lambda task: (task.eta_microseconds, task.sequence))

    def remove(self, queue: str, task_id: str) -> None:
        """Remove a task, leaving its name free; nothing happens if it is not there."""
        with self._lock:
            if queue in self._queues.by_name:
                self._queues.by_name[queue].tasks.pop(task_id, None)

    def finish(self, task: StubTask) -> None:
        """Remove a task that has run or was given up; its name stays reserved."""
        with self._lock:
            queue = self._queues.by_name.get(task.queue)
            if queue is not None and queue.tasks.pop(task.id, None) is not None:
                queue.tombstones.add(task.id)

    def flush(self, queue: str) -> None:
        """Remove the tasks of a queue and free the names; nothing happens without the queue."""
        with self._lock:
            if queue in self._queues.by_name:
                self._queues.by_name[queue].tasks.clear()
                self._queues.by_name[queue].tombstones.clear()

    def clear(self) -> None:
        """Drop everything, queues as well, until the next call of this backend."""
        with self._lock:
            self._queues.clear()
            self._numbers = itertools.count(1)

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
            target = self._queues.existing(queue)
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
            target = self._queues.existing(queue)
            return [self._deleted(target, task_id) for task_id in task_ids]

    def purge_queue(
        self,
        queue: str,
        *,
        timeout_seconds: float | None = None,  # noqa: ARG002 - nothing here takes time
    ) -> None:
        """Delete every task of the queue, and reserve their names."""
        with self._lock:
            target = self._queues.existing(queue)
            target.tombstones.update(target.tasks)
            target.tasks.clear()

    def queue_stats(
        self,
        queues: Sequence[str],
        *,
        timeout_seconds: float | None = None,  # noqa: ARG002 - nothing here takes time
    ) -> list[QueueStats]:
        """Return what each queue holds; a queue that does not exist holds nothing."""
        with self._lock:
            self._queues.refresh(make_again=True)
            return [self._stats(self._queues.by_name.get(name)) for name in queues]

    # --- verification -----------------------------------------------------------------------

    def _verified(
        self, queue: StubQueue, requests: Sequence[TaskRequest], created_at: float
    ) -> list[StubTask]:
        tasks = []
        refusals = []
        for request in requests:
            eta = request.schedule_time
            due_at = created_at if eta is None else self.due_at(eta)
            eta_microseconds = round(due_at * MICROSECONDS)
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
                    eta_at_creation=eta_microseconds / MICROSECONDS,
                    sequence=self._sequence,
                )
            )
        if refusals:
            raise refusals[0]
        return tasks

    def _created(self, queue: StubQueue, task: StubTask) -> Outcome:
        reason = None
        if task.id in queue.tasks:
            reason, state = Reason.TASK_ALREADY_EXISTS, "is there already"
        elif task.id in queue.tombstones:
            reason, state = Reason.TOMBSTONED_TASK, "was deleted or has run; its name is reserved"
        if reason is None:
            queue.tasks[task.id] = task
            return Outcome(task.id)
        message = f"Task {task.id!r} of queue {queue.name!r} {state}."
        return Outcome(task.id, BackendError(reason, message, queue=queue.name, task=task.id))

    def _deleted(self, queue: StubQueue, task_id: str) -> Outcome:
        if queue.tasks.pop(task_id, None) is not None:
            queue.tombstones.add(task_id)
            return Outcome(task_id)
        gone = task_id in queue.tombstones
        reason = Reason.TOMBSTONED_TASK if gone else Reason.UNKNOWN_TASK
        message = f"Queue {queue.name!r} has no task {task_id!r}{' any more' if gone else ''}."
        return Outcome(task_id, BackendError(reason, message, queue=queue.name, task=task_id))

    def _stats(self, queue: StubQueue | None) -> QueueStats:
        if queue is None or not queue.tasks:
            return QueueStats()
        oldest = min(task.eta_microseconds for task in queue.tasks.values())
        return QueueStats(tasks_count=len(queue.tasks), oldest_arrival_time=utc(oldest))


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
    if eta_microseconds > round(created_at * MICROSECONDS) + _MAX_AHEAD:
        return refused(
            Reason.INVALID_ETA,
            f"The ETA {utc(eta_microseconds).isoformat()} is more than 30 days ahead.",
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
        schedule_time=utc(eta_microseconds),
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
