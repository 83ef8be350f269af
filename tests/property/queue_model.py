"""What a Cloud Tasks service must do, in the smallest form: dictionaries, and a time as argument.

It is written from the rules and not from the service: nothing here knows of rows, rounds, threads
or claims. A model has no time of its own; whatever is due happens when ``dispatch`` is called.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from appengine_compat.core import retry
from appengine_compat.core.model import UNLIMITED, RateLimits, RetryConfig

Key = tuple[int, int]
"""An attempt: the task's serial number, and which attempt of it."""


@dataclass
class ModelTask:
    """A task that waits or runs."""

    serial: int
    task_id: str
    is_named: bool
    due: float
    deadline: float
    dispatches: int = 0
    responses: int = 0
    executions: int = 0
    first_dispatch: float | None = None
    previous: int | None = None
    """Status of the attempt before, 0 for no reply."""
    is_forced: bool = False
    attempt: int | None = None
    """The attempt whose failure decides, None while the task waits."""


@dataclass
class ModelAttempt:
    """An attempt that its target has not answered."""

    key: Key
    queue: ModelQueue
    task: ModelTask
    started: float
    run_at: float | None
    """When RunTask asked for it."""


@dataclass
class ModelQueue:
    """A queue, from its creation to its end."""

    queue_id: str
    is_http: bool
    rates: RateLimits
    retry: RetryConfig
    tokens: float
    updated: float
    is_paused: bool = False
    tasks: dict[str, ModelTask] = field(default_factory=dict)
    reserved: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Start:
    """What a target must be told with one attempt."""

    queue_id: str
    task_id: str
    retries: int
    executions: int
    previous: int | None


@dataclass
class Model:
    """Queues by id, the attempts under way, and all that has ever begun and ended."""

    task_seconds: float
    automatic_seconds: float
    queue_seconds: float
    queues: dict[str, ModelQueue] = field(default_factory=dict)
    deleted: dict[str, float] = field(default_factory=dict)
    running: dict[Key, ModelAttempt] = field(default_factory=dict)
    started: dict[Key, Start] = field(default_factory=dict)
    ended: dict[Key, tuple[str, float | None]] = field(default_factory=dict)
    """Per attempt: what it meant, and when the task is tried again."""
    accepted: int = 0
    done: int = 0
    deleted_tasks: int = 0
    failed: set[int] = field(default_factory=set)
    _serials: itertools.count = field(default_factory=lambda: itertools.count(1))

    # --- queues ---

    def create_queue(
        self, queue_id: str, is_http: bool, rates: RateLimits, config: RetryConfig, now: float
    ) -> None:
        self.deleted.pop(queue_id, None)
        self.queues[queue_id] = ModelQueue(
            queue_id, is_http, rates, config, float(rates.max_burst_size), now
        )

    def is_queue_reserved(self, queue_id: str, now: float) -> bool:
        return self.deleted.get(queue_id, now) > now

    def delete_queue(self, queue_id: str, now: float) -> None:
        queue = self.queues.pop(queue_id)
        self.deleted_tasks += len(queue.tasks)
        queue.tasks = {}
        self.deleted[queue_id] = now + self.queue_seconds

    def purge_queue(self, queue_id: str, now: float) -> None:
        queue = self.queues[queue_id]
        for task in list(queue.tasks.values()):
            self.delete_task(queue, task, now)

    # --- tasks ---

    def next_serial(self) -> int:
        return next(self._serials)

    def refusal(self, queue: ModelQueue, task_id: str, now: float) -> str | None:
        """Why a name cannot be taken: "exists", "reserved", or None."""
        if task_id in queue.tasks:
            return "exists"
        return "reserved" if queue.reserved.get(task_id, now) > now else None

    def create_task(self, queue: ModelQueue, task: ModelTask) -> None:
        queue.tasks[task.task_id] = task
        self.accepted += 1

    def delete_task(self, queue: ModelQueue, task: ModelTask, now: float) -> None:
        self._end(queue, task, now)
        self.deleted_tasks += 1

    def _end(self, queue: ModelQueue, task: ModelTask, now: float) -> None:
        del queue.tasks[task.task_id]
        seconds = self.task_seconds if task.is_named else self.automatic_seconds
        queue.reserved[task.task_id] = now + seconds

    # --- attempts ---

    def dispatch(self, now: float) -> None:
        """Begin every attempt that may begin."""
        for queue in self.queues.values():
            for task in queue.tasks.values():
                if task.is_forced:
                    self._begin(queue, task, now, run_at=now)
            if queue.is_paused:
                continue
            burst = float(max(1, queue.rates.max_burst_size))
            gained = max(0.0, now - queue.updated) * queue.rates.max_dispatches_per_second
            tokens = min(burst, queue.tokens + gained)
            under_way = sum(each.queue is queue for each in self.running.values())
            free = queue.rates.max_concurrent_dispatches - under_way
            waiting = [
                each for each in queue.tasks.values() if each.attempt is None and each.due <= now
            ]
            waiting.sort(key=lambda each: (each.due, each.serial))
            chosen = waiting[: max(0, min(free, int(tokens)))]
            for task in chosen:
                self._begin(queue, task, now, run_at=None)
            if chosen:
                queue.tokens, queue.updated = tokens - len(chosen), now

    def _begin(
        self, queue: ModelQueue, task: ModelTask, now: float, *, run_at: float | None
    ) -> None:
        task.is_forced = False
        previous = None if task.dispatches == 0 else (task.previous or 0)
        task.dispatches += 1
        task.first_dispatch = now if task.first_dispatch is None else task.first_dispatch
        task.attempt, task.previous = task.dispatches, None
        key = (task.serial, task.dispatches)
        self.started[key] = Start(
            queue.queue_id, task.task_id, task.dispatches - 1, task.executions, previous
        )
        self.running[key] = ModelAttempt(key, queue, task, now, run_at)

    def answer(self, key: Key, status: int, now: float) -> None:
        """Let an attempt end with an HTTP status, 0 for no reply."""
        attempt = self.running.pop(key)
        queue, task = attempt.queue, attempt.task
        is_there = queue.tasks.get(task.task_id) is task
        if 200 <= status <= 299:
            if is_there:
                self._end(queue, task, now)
                self.done += 1
            self.ended[key] = ("done" if is_there else "gone", None)
            return
        if not is_there or task.attempt != key[1]:
            self.ended[key] = ("gone", None)
            return
        assert task.first_dispatch is not None
        config, age = queue.retry, now - task.first_dispatch
        if _is_spent(config, key[1], age):
            self._end(queue, task, now)
            self.failed.add(task.serial)
            self.ended[key] = ("failed", None)
            return
        base = now if attempt.run_at is None else attempt.run_at
        task.due = base + retry.backoff_seconds(config, key[1])
        task.attempt, task.previous = None, status
        task.responses += status > 0
        task.executions += status > 0 and not (queue.is_http and 500 <= status <= 599)
        self.ended[key] = ("retry", task.due)

    def time_out(self, now: float) -> list[Key]:
        """Let the attempts end whose deadline has passed."""
        late = [
            key for key, each in self.running.items() if each.started + each.task.deadline <= now
        ]
        for key in late:
            self.answer(key, 0, now)
        return late

    def restart(self) -> None:
        """The service dies and comes back: what ran was dispatched, and never answered."""
        for queue in self.queues.values():
            for task in queue.tasks.values():
                task.attempt = None
        self.running = {}

    def waits_for_answer(self, queue: ModelQueue) -> int:
        """How many of a queue's tasks have an attempt under way."""
        return sum(each.attempt is not None for each in queue.tasks.values())


def _is_spent(config: RetryConfig, attempts: int, age: float) -> bool:
    """The table of which limit decides, written out."""
    has_count = config.max_attempts != UNLIMITED
    has_age = config.max_retry_duration_seconds > 0
    counted, aged = attempts >= config.max_attempts, age > config.max_retry_duration_seconds
    return {
        (True, False): counted,
        (False, True): aged,
        (True, True): counted and aged,
        (False, False): False,
    }[has_count, has_age]
