"""What a refusal of the service's rules means for whoever enqueues, where the rules run here."""

from __future__ import annotations

from appengine_compat.backends.base import BackendError, Reason
from appengine_compat.core import limits, messages
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
WORDS = {
    Reason.TASK_ALREADY_EXISTS: "is there already; a name is for one task",
    Reason.TOMBSTONED_TASK: "existed recently, and its name stays reserved for a while",
    Reason.UNKNOWN_TASK: "is not there",
}


def backend_error(
    error: ApiError, queue: str, task: str = "", *, payload_bytes: int = 0
) -> BackendError:
    """Return the error for a task that the rules refuse.

    Args:
        error: the rules' own.
        queue: the id of the task's queue.
        task: the task's id; "" where the caller gave it none.
        payload_bytes: how long its payload is.
    """
    which = f"Task {task!r} of queue {queue!r}" if task else f"A task for queue {queue!r}"
    reason = REASONS.get(error.reason, Reason.INVALID_REQUEST)
    if reason is Reason.TASK_TOO_LARGE:
        state = (
            f"takes {error.stored_bytes:,} bytes as stored (its payload alone "
            f"{payload_bytes:,}), and the limit is {limits.MAX_STORED_TASK_BYTES:,}. Store the "
            "payload elsewhere and pass a reference to it"
        )
    else:
        state = WORDS.get(reason, "")
    text = f"{which} {state}" if state else f"{which}: {error.message.rstrip('.')}"
    return BackendError(reason, f"{text}.", queue=queue, task=task)
