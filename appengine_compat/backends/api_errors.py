"""What a refusal of the service's rules means for whoever enqueues, where the rules run here."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone

from appengine_compat.backends.base import BackendError, Reason, TaskRequest
from appengine_compat.core import headers, limits, messages, names
from appengine_compat.core.model import HttpRequest, Task
from appengine_compat.errors import ApiError

REASONS = {
    messages.TASK_ALREADY_EXISTS: Reason.TASK_ALREADY_EXISTS,
    messages.TOMBSTONED_TASK: Reason.TOMBSTONED_TASK,
    messages.UNKNOWN_TASK: Reason.UNKNOWN_TASK,
    messages.TASK_TOO_LARGE: Reason.TASK_TOO_LARGE,
    messages.INVALID_TASK_NAME: Reason.INVALID_TASK_NAME,
    messages.INVALID_QUEUE_NAME: Reason.INVALID_QUEUE_NAME,
    messages.INVALID_ETA: Reason.INVALID_ETA,
    messages.INVALID_DISPATCH_DEADLINE: Reason.INVALID_DISPATCH_DEADLINE,
    messages.INVALID_URL: Reason.INVALID_URL,
}


def backend_error(error: ApiError, queue: names.QueueName, request: TaskRequest) -> BackendError:
    """Return the error for a task that the rules refuse.

    Args:
        error: the rules' own.
        queue: where the task was to go.
        request: the task.
    """
    task = request.name
    which = f"Task {task!r} of queue {queue.queue!r}" if task else f"A task for {queue.queue!r}"
    reason = REASONS.get(error.reason, Reason.INVALID_REQUEST)
    detail = f": {error.message}"
    if reason is Reason.TASK_TOO_LARGE:
        size = limits.stored_size(_as_stored(queue, request))
        detail = (
            f" takes {size:,} bytes as stored (its payload alone {len(request.payload):,}), "
            f"and the limit is {limits.MAX_STORED_TASK_BYTES:,}. Store the payload elsewhere "
            "and pass a reference to it."
        )
    return BackendError(reason, which + detail, queue=queue.queue, task=task)


def _as_stored(queue: names.QueueName, request: TaskRequest) -> Task:
    now = datetime.now(timezone.utc)
    stored = HttpRequest(
        url=request.relative_url,
        method=request.method,
        headers=headers.stored_http_headers(headers.carry(request.headers)),
        body=request.payload,
    )
    return replace(
        Task(name=queue.task(request.name or "0" * 19), request=stored),
        schedule_time=request.schedule_time or now,
        create_time=now.replace(microsecond=0),
    )
