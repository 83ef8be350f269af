"""The backend ``rq``: tasks become jobs in Redis."""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from typing import Any, TypeVar

import redis

from appengine_compat.backends import api_errors, known_queues
from appengine_compat.backends.base import BackendError, Outcome, Reason, TaskRequest
from appengine_compat.backends.rq import connection, keys, queues, requests, scripts
from appengine_compat.core import names
from appengine_compat.core.model import Queue, QueueStats
from appengine_compat.errors import ApiError

PURGED_AT_ONCE = 1000
"""Tasks deleted in one script: Redis does nothing else meanwhile."""

_Answer = TypeVar("_Answer")


class RqBackend:
    """A backend over Redis, for RQ's workers. Thread-safe; usable after a fork.

    Attributes:
        kind: ``rq``.
    """

    kind = "rq"

    def __init__(self, url: str | None = None, *, queues: dict[str, Queue] | None = None) -> None:
        """Make a backend; Redis is not asked before the first task.

        Args:
            url: of Redis; None for the setting ``APPENGINE_COMPAT_REDIS_URL``.
            queues: the queues there are, by their ids; None for those of queue.yaml.

        Raises:
            ConfigError: the address is missing or malformed, or queue.yaml is wrong.
        """
        self._url = connection.url() if url is None else url
        self._client = connection.client(self._url)
        self._written = known_queues.written() if queues is None else queues
        self._queues = known_queues.with_default(self._written)
        self._published_by = 0
        self._lock = threading.Lock()
        self._scripts = {
            body: self._client.register_script(scripts.with_library(body))
            for body in (scripts.CREATE, scripts.DELETE, scripts.PURGE, scripts.STATS)
        }

    def create_tasks(
        self, queue: str, requests: Sequence[TaskRequest], *, timeout_seconds: float | None = None
    ) -> list[Outcome]:
        """Add tasks to the RQ queue of this name; when this returns Redis has them.

        Raises:
            BackendError: there is no such queue, or Redis did not take the tasks.
        """
        del timeout_seconds  # Redis answers at once, or within connection.ANSWER_SECONDS not at all
        settings = self._known(queue)
        outcomes: list[Outcome] = []
        stored: list[tuple[int, dict[str, Any], str]] = []
        now = datetime.now(timezone.utc)
        for place, request in enumerate(requests):
            try:
                task_id, fields, due = self._fields(queue, settings, request, now)
            except BackendError as error:
                outcomes.append(Outcome(request.name, error))
                continue
            stored.append((place, fields, due))
            outcomes.append(Outcome(task_id))
        if not stored:
            return outcomes
        arguments: list[Any] = [secrets.token_hex(8), len(stored)]
        for place, fields, due in stored:
            job_id = keys.job_id(queue, outcomes[place].task_id)
            flat = [part for field in fields.items() for part in field]
            arguments += [job_id, keys.tombstone(job_id), due, len(flat), *flat]
        answers = self._call(
            queue,
            "tasks cannot be added",
            lambda: self._scripts[scripts.CREATE](
                keys=[keys.waiting(queue), keys.scheduled(queue), keys.RQ_QUEUES],
                args=arguments,
            ),
        )
        for (place, _, _), answer in zip(stored, answers, strict=True):
            word = connection.text(answer)
            if word != "ok":
                task_id = outcomes[place].task_id
                outcomes[place] = Outcome(task_id, _refusal(word, queue, task_id))
        return outcomes

    def delete_tasks(
        self, queue: str, task_ids: Sequence[str], *, timeout_seconds: float | None = None
    ) -> list[Outcome]:
        """Delete tasks, waiting or running; the attempt of a running one goes on to its end.

        Raises:
            BackendError: there is no such queue, or Redis cannot be reached.
        """
        del timeout_seconds
        settings = self._known(queue)
        arguments: list[Any] = [max(1, int(settings.tombstone_ttl_seconds))]
        for task_id in task_ids:
            job_id = keys.job_id(queue, task_id)
            arguments += [job_id, keys.tombstone(job_id)]
        answers = self._call(
            queue,
            "tasks cannot be deleted",
            lambda: self._scripts[scripts.DELETE](
                keys=[keys.waiting(queue), keys.scheduled(queue), keys.running(queue)],
                args=arguments,
            ),
        )
        words = [connection.text(answer) for answer in answers]
        return [
            Outcome(task_id, None if word == "ok" else _missing(word, queue, task_id))
            for task_id, word in zip(task_ids, words, strict=True)
        ]

    def purge_queue(self, queue: str, *, timeout_seconds: float | None = None) -> None:
        """Delete every task of the queue; those in RQ's failed registry are none any more.

        Raises:
            BackendError: there is no such queue, or Redis cannot be reached.
        """
        del timeout_seconds
        self._known(queue)
        purge = self._scripts[scripts.PURGE]
        while self._call(
            queue,
            "it cannot be purged",
            lambda: purge(
                keys=[keys.waiting(queue), keys.scheduled(queue), keys.running(queue)],
                args=[PURGED_AT_ONCE],
            ),
        ):
            pass

    def queue_stats(
        self, queues: Sequence[str], *, timeout_seconds: float | None = None
    ) -> list[QueueStats]:
        """Return what each queue is doing, in the order asked for.

        Raises:
            BackendError: there is no such queue, or Redis cannot be reached.
        """
        del timeout_seconds
        return [self._stats(queue) for queue in queues]

    def _stats(self, queue: str) -> QueueStats:
        settings = self._known(queue)
        tasks, oldest, executed, running, rate = self._call(
            queue,
            "its statistics cannot be read",
            lambda: self._scripts[scripts.STATS](
                keys=[
                    keys.waiting(queue),
                    keys.scheduled(queue),
                    keys.running(queue),
                    keys.executed(queue),
                    keys.queue(queue),
                ]
            ),
        )
        return QueueStats(
            tasks_count=tasks,
            oldest_arrival_time=datetime.fromtimestamp(float(oldest), timezone.utc)
            if oldest
            else None,
            executed_last_minute_count=executed,
            concurrent_dispatches_count=running,
            effective_execution_rate=float(rate or settings.rate_limits.max_dispatches_per_second),
        )

    def _known(self, queue: str) -> Queue:
        known_queues.refuse_shapeless(queue)
        settings = self._queues.get(queue)
        if settings is None:
            raise known_queues.unknown(queue, self._queues)
        if self._published_by != os.getpid():
            with self._lock:
                self._call(
                    queue,
                    "its settings cannot be written down",
                    lambda: queues.publish(self._client, self._written),
                )
                self._published_by = os.getpid()
        return settings

    def _fields(
        self, queue: str, settings: Queue, request: TaskRequest, now: datetime
    ) -> tuple[str, dict[str, Any], str]:
        """The task's id, the fields of its job, and when it is due; "" for at once."""
        name = known_queues.queue_name(queue)
        try:
            task = requests.http_task(name, settings, request, now)
        except BackendError as error:
            error.queue, error.task = queue, request.name
            raise
        except ApiError as error:
            raise api_errors.backend_error(
                error, queue, request.name, payload_bytes=len(request.payload)
            ) from error
        assert task.schedule_time is not None
        is_later = task.schedule_time > now
        fields = requests.job_fields(
            self._client, queue, task, now, is_named=bool(request.name), is_later=is_later
        )
        return names.short_id(task.name), fields, fields["aec_due"] if is_later else ""

    def _call(self, queue: str, doing: str, call: Callable[[], _Answer]) -> _Answer:
        try:
            return call()
        except redis.RedisError as error:
            raise connection.failure(error, self._url, doing, queue) from error


def _refusal(word: str, queue: str, task_id: str) -> BackendError:
    reason, state = {
        "exists": (
            Reason.TASK_ALREADY_EXISTS,
            api_errors.WORDS[Reason.TASK_ALREADY_EXISTS],
        ),
        "tombstoned": (Reason.TOMBSTONED_TASK, api_errors.WORDS[Reason.TOMBSTONED_TASK]),
        "failed": (
            Reason.TOMBSTONED_TASK,
            "has failed for good and lies in RQ's failed registry: requeue or delete it there",
        ),
    }[word]
    return BackendError(
        reason, f"Task {task_id!r} of queue {queue!r} {state}.", queue=queue, task=task_id
    )


def _missing(word: str, queue: str, task_id: str) -> BackendError:
    is_gone = word == "tombstoned"
    return BackendError(
        Reason.TOMBSTONED_TASK if is_gone else Reason.UNKNOWN_TASK,
        f"Task {task_id!r} of queue {queue!r} is not there{' any more' if is_gone else ''}.",
        queue=queue,
        task=task_id,
    )
