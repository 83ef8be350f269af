"""What every backend does, and what it is told.

A backend takes finished tasks to where they will be kept and dispatched. It reports per task:
one bad task in a batch does not hide the fate of the others. Foreign exceptions (gRPC, SQLite,
Redis) end here, as ``BackendError`` with a reason that the legacy surface has an exception for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Protocol, runtime_checkable

from appengine_compat.core.model import QueueStats, RetryOverrides
from appengine_compat.errors import CompatError


class Reason(Enum):
    """Why a backend refused; ``taskqueue`` has an exception class for each."""

    UNKNOWN_QUEUE = "UNKNOWN_QUEUE"
    UNKNOWN_TASK = "UNKNOWN_TASK"
    TASK_ALREADY_EXISTS = "TASK_ALREADY_EXISTS"
    TOMBSTONED_TASK = "TOMBSTONED_TASK"
    TASK_TOO_LARGE = "TASK_TOO_LARGE"
    INVALID_TASK_NAME = "INVALID_TASK_NAME"
    INVALID_QUEUE_NAME = "INVALID_QUEUE_NAME"
    INVALID_QUEUE_MODE = "INVALID_QUEUE_MODE"
    """A push task for a pull queue."""
    INVALID_URL = "INVALID_URL"
    INVALID_ETA = "INVALID_ETA"
    INVALID_DISPATCH_DEADLINE = "INVALID_DISPATCH_DEADLINE"
    INVALID_REQUEST = "INVALID_REQUEST"
    INVALID_TARGET = "INVALID_TARGET"
    """``_target`` names a service that is not known here."""
    PERMISSION_DENIED = "PERMISSION_DENIED"
    TRANSIENT = "TRANSIENT"
    """May work if tried again: not reachable, over quota, too slow."""
    INTERNAL = "INTERNAL"


class BackendError(CompatError):
    """A backend refused or could not be reached.

    Attributes:
        reason: which kind of refusal.
        queue: the queue id, or "".
        task: the task id, or "".
    """

    def __init__(self, reason: Reason, message: str, *, queue: str = "", task: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.queue = queue
        self.task = task

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_error, (self.reason, str(self), self.queue, self.task)


def _rebuild_error(reason: Reason, message: str, queue: str, task: str) -> BackendError:
    return BackendError(reason, message, queue=queue, task=task)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRequest:
    """A task that is to be created, as the legacy surface hands it over."""

    relative_url: str
    """Path with query; never empty."""
    method: str = "POST"
    headers: tuple[tuple[str, str], ...] = ()
    """As asked for, repeated names and ``X-AppEngine-*`` included; not yet carried."""
    payload: bytes = b""
    name: str = ""
    """Task id; "" for one that the service makes."""
    schedule_time: datetime | None = None
    """Aware UTC; None for at once."""
    target: str = ""
    """``service``, ``version.service`` or ``instance.version.service``; "" for the service that
    enqueues."""
    retry: RetryOverrides | None = None
    dispatch_deadline_seconds: float = 0.0
    """0 for the default of the kind of target."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one task of a call: its id, or the error."""

    task_id: str
    error: BackendError | None = None


@runtime_checkable
class Backend(Protocol):
    """Where tasks go. Thread-safe; usable after a fork.

    Every method raises ``BackendError`` when the call as a whole failed, and reports what
    concerns one task in that task's ``Outcome``, in the order of the request.
    """

    @property
    def kind(self) -> str:
        """The word of the setting ``APPENGINE_COMPAT_BACKEND``, or ``stub``."""
        ...

    def create_tasks(
        self, queue: str, requests: Sequence[TaskRequest], *, timeout_seconds: float | None = None
    ) -> list[Outcome]:
        """Create tasks in the queue of this id (1 to 100 of them)."""
        ...

    def delete_tasks(
        self, queue: str, task_ids: Sequence[str], *, timeout_seconds: float | None = None
    ) -> list[Outcome]:
        """Delete tasks; one that is not there has the reason UNKNOWN_TASK or TOMBSTONED_TASK."""
        ...

    def purge_queue(self, queue: str, *, timeout_seconds: float | None = None) -> None:
        """Delete every task of the queue."""
        ...

    def queue_stats(
        self, queues: Sequence[str], *, timeout_seconds: float | None = None
    ) -> list[QueueStats]:
        """Return what each queue is doing, in the order asked for."""
        ...
