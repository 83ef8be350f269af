"""``QueueStatistics``: what a queue is doing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from google.appengine.api.taskqueue import _rpc
from google.appengine.api.taskqueue import _sending as sending
from google.appengine.api.taskqueue._errors import InvalidDeadlineError, InvalidQueueError

if TYPE_CHECKING:
    from google.appengine.api.taskqueue.taskqueue import Queue

    from appengine_compat.core.model import QueueStats


def check_deadline(deadline: object) -> None:
    """Check the deadline of a call, in seconds.

    Raises:
        TypeError: it is not a number.
        InvalidDeadlineError: it is not positive.
    """
    if not isinstance(deadline, (int, float)):
        raise TypeError("deadline must be numeric")
    if deadline <= 0:
        raise InvalidDeadlineError("Negative or zero deadline requested")


class QueueStatistics:
    """What a queue is doing now.

    Attributes:
        queue: the ``Queue``.
        tasks: how many tasks are in it.
        oldest_eta_usec: the ETA of the task that has been due longest, in microseconds since the
            epoch; None when nothing waits.
        executed_last_minute: tasks that ran in the last minute.
        in_flight: tasks that run now.
        enforced_rate: the rate that the queue dispatches at, in tasks a second.
    """

    _ATTRS = (
        "queue",
        "tasks",
        "oldest_eta_usec",
        "executed_last_minute",
        "in_flight",
        "enforced_rate",
    )
    __hash__ = None  # type: ignore[assignment]

    def __init__(
        self,
        queue: Queue,
        tasks: int,
        oldest_eta_usec: int | None = None,
        executed_last_minute: int | None = None,
        in_flight: int | None = None,
        enforced_rate: float | None = None,
    ) -> None:
        """Keep the figures as they are given."""
        self.queue = queue
        self.tasks = tasks
        self.oldest_eta_usec = oldest_eta_usec
        self.executed_last_minute = executed_last_minute
        self.in_flight = in_flight
        self.enforced_rate = enforced_rate

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, QueueStatistics):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self._ATTRS)

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._ATTRS)
        return f"QueueStatistics({fields})"

    @classmethod
    def fetch_async(cls, queue_or_queues: Any, rpc: Any = None) -> Any:
        """Start to fetch the statistics of queues, as ``fetch`` does.

        Returns:
            An RPC object.
        """
        queues, multiple = _queues(queue_or_queues)
        backend = sending.backend_for(None)

        def make(stats: Sequence[QueueStats]) -> Any:
            made = [_made(cls, queue, one) for queue, one in zip(queues, stats, strict=True)]
            return made if multiple else made[0]

        operation = (
            sending.fetching([queue.name for queue in queues], make, backend)
            if queues
            else sending.Operation("FetchQueueStats", lambda _: [], make, True)
        )
        return _rpc.start(_rpc.create(None, None) if rpc is None else rpc, operation)

    @classmethod
    def fetch(cls, queue_or_queues: Any, deadline: float = 10) -> Any:
        """Fetch what queues are doing.

        Args:
            queue_or_queues: a queue or its name, or several.
            deadline: seconds.

        Returns:
            One object, or a list of them in the same order.

        Raises:
            TypeError: the deadline is no number, or names and queues are mixed.
            InvalidDeadlineError: the deadline is not positive.
            taskqueue.Error: the statistics could not be fetched.
        """
        check_deadline(deadline)
        if not queue_or_queues:
            return []
        return cls.fetch_async(
            queue_or_queues, _rpc.create(deadline, None, waits=True)
        ).get_result()


def _queues(queue_or_queues: Any) -> tuple[list[Queue], bool]:
    from google.appengine.api.taskqueue import taskqueue

    if isinstance(queue_or_queues, str):
        return [taskqueue.Queue(queue_or_queues)], False
    if not isinstance(queue_or_queues, Iterable):
        queue_or_queues._app  # noqa: B018 - what is no queue is told as App Engine did
        return [queue_or_queues], False
    given = list(queue_or_queues)
    names = sum(isinstance(item, str) for item in given)
    if names not in (0, len(given)):
        raise TypeError("queue_or_queues must contain either strings or queue instances, not both.")
    queues = [taskqueue.Queue(name) for name in given] if names else given
    if any(queue._app != queues[0]._app for queue in queues):
        raise InvalidQueueError("Inconsistent app ids requested.")
    return queues, True


def _made(cls: type[QueueStatistics], queue: Queue, stats: QueueStats) -> QueueStatistics:
    oldest = stats.oldest_arrival_time
    return cls(
        queue,
        stats.tasks_count,
        None if oldest is None else round(oldest.timestamp() * 1e6),
        stats.executed_last_minute_count,
        stats.concurrent_dispatches_count,
        stats.effective_execution_rate,
    )
