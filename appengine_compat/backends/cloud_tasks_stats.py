"""Statistics of a queue, which only the v2beta3 face of Cloud Tasks tells."""

from __future__ import annotations

from datetime import timezone
from typing import Any

from google.cloud import tasks_v2beta3

from appengine_compat.backends.cloud_tasks_connection import Rpc
from appengine_compat.core.model import QueueStats

_GetQueueRequest = tasks_v2beta3.GetQueueRequest.pb()
GET_QUEUE = Rpc(
    "/google.cloud.tasks.v2beta3.CloudTasks/GetQueue",
    "",
    tasks_v2beta3.GetQueueRequest,
    tasks_v2beta3.Queue.pb(),
)


def request(queue_name: str) -> Any:
    """Return the request for a queue's statistics."""
    message = _GetQueueRequest(name=queue_name)
    message.read_mask.paths.append("stats")
    return message


def read(queue: Any) -> QueueStats:
    """Return the statistics out of the answer."""
    stats = queue.stats
    oldest = None
    if stats.HasField("oldest_estimated_arrival_time"):
        oldest = stats.oldest_estimated_arrival_time.ToDatetime(timezone.utc)
    return QueueStats(
        tasks_count=stats.tasks_count,
        oldest_arrival_time=oldest,
        executed_last_minute_count=stats.executed_last_minute_count,
        concurrent_dispatches_count=stats.concurrent_dispatches_count,
        effective_execution_rate=stats.effective_execution_rate,
    )
