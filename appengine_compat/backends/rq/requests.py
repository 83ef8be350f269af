"""A task as RQ keeps it: a job whose arguments are the HTTP request, in plain values."""

from __future__ import annotations

import math
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from appengine_compat import settings
from appengine_compat.backends import targets
from appengine_compat.backends.base import BackendError, Reason, TaskRequest
from appengine_compat.backends.rq import keys
from appengine_compat.core import headers, names, validation
from appengine_compat.core.model import AppEngineRouting, HttpRequest, Queue, Task
from appengine_compat.payload import description, plain, signing

if TYPE_CHECKING:
    from redis import Redis

DELIVER = "appengine_compat.backends.rq.attempts.deliver"
"""What RQ calls for each attempt."""
ENDLESS = 1_000_000_000
"""How often RQ may run a job again by itself: how often is decided by the task's own rules."""
MARGIN_SECONDS = 90
"""So much longer than an attempt its run may take in RQ: for waiting its turn, and for Redis."""
FINISHED_SECONDS = 500
"""How long a finished task stays to be seen in RQ's dashboard; RQ's own default."""
FOREVER = -1

# A pickle of protocol 2 and later, and of 0 and 1; both in base64.
_STARTS_OF_PAYLOADS = (b"\x80", b"(", b"g", b"K")


def http_task(name: names.QueueName, queue: Queue, request: TaskRequest, now: datetime) -> Task:
    """Return the task as Cloud Tasks would store it for an HTTP target.

    Args:
        name: the queue's.
        queue: its settings.
        request: what is asked for.
        now: aware; what "at once" means.

    Raises:
        BackendError: INVALID_TARGET: there is no address for the service that it names.
        ApiError: a field of the task is not allowed.
    """
    return validation.canonical_task(
        name,
        Task(
            name=name.task(request.name) if request.name else "",
            request=HttpRequest(
                url=targets.url(_address(queue, request), request.relative_url),
                method=request.method,
                headers=headers.carry(request.headers),
                body=request.payload,
            ),
            schedule_time=request.schedule_time,
            dispatch_deadline_seconds=request.dispatch_deadline_seconds,
            retry_config=request.retry,
        ),
        now,
    )


def _address(queue: Queue, request: TaskRequest) -> str:
    override = queue.app_engine_routing_override
    target = request.target or targets.current_service()
    if override is not None:
        # queue.yaml's target: as on Cloud Tasks, it goes before the task's own.
        target = ".".join(filter(None, (override.instance, override.version, override.service)))
    found = targets.find(target, settings.TARGETS.get())
    if isinstance(found, AppEngineRouting):
        raise BackendError(
            Reason.INVALID_TARGET,
            f"The service {found.service!r} is on App Engine by {settings.TARGETS.variable}, which "
            "an RQ worker cannot reach: give its address there.",
        )
    return found


def job_fields(
    connection: Redis, queue_id: str, task: Task, now: datetime, *, is_named: bool, is_later: bool
) -> dict[str, Any]:
    """Return the fields of a new job's hash in Redis.

    Args:
        connection: not used to talk to Redis; RQ's jobs must have one.
        queue_id: the queue.
        task: as ``http_task`` made it.
        now: when it is added.
        is_named: whether the caller chose the name, so that it is reserved afterwards.
        is_later: whether it goes to the scheduled registry.

    Raises:
        ConfigError: there is no key to sign it with.
    """
    from rq.job import Job, JobStatus

    assert isinstance(task.request, HttpRequest)
    assert task.schedule_time is not None
    task_id = names.short_id(task.name)
    request = task.request
    signature = signing.header_for(
        method=request.method,
        url=request.url,
        queue=queue_id,
        task_name=task_id,
        body=request.body,
        at=task.schedule_time.timestamp(),
    )
    job = Job.create(
        DELIVER,
        kwargs={
            "queue": queue_id,
            "task": task_id,
            "method": request.method,
            "url": request.url,
            "headers": [*request.headers.items(), *signature.items()],
            "body": bytes(request.body),
            "deadline_seconds": task.dispatch_deadline_seconds,
            "retry": None if task.retry_config is None else asdict(task.retry_config),
        },
        connection=connection,
        id=keys.job_id(queue_id, task_id),
        origin=queue_id,
        timeout=math.ceil(task.dispatch_deadline_seconds) + MARGIN_SECONDS,
        result_ttl=FINISHED_SECONDS,
        failure_ttl=FOREVER,
        description=describe(request),
        status=JobStatus.SCHEDULED if is_later else JobStatus.QUEUED,
        serializer=plain,
    )
    job.retries_left, job.retry_intervals = ENDLESS, [0]
    job.enqueued_at = now
    return {
        **job.to_dict(),
        "aec_due": f"{task.schedule_time.timestamp():.6f}",
        "aec_named": int(is_named),
    }


def describe(request: HttpRequest) -> str:
    """Return what a task does, in a line for the dashboard: the call, or method and path."""
    described = None
    if request.body[:1] in _STARTS_OF_PAYLOADS:
        described = description.describe(request.body)
    if described is None:
        parts = urlsplit(request.url)
        path = f"{parts.path}?{parts.query}" if parts.query else parts.path
        text = f"{request.method} {path}"
    else:
        text = str(described)
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)
