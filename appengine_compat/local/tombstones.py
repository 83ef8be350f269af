"""Names that stay reserved after their task or queue has ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from appengine_compat.core import moments
from appengine_compat.core.model import TOMBSTONE_TTL_SECONDS, Queue

if TYPE_CHECKING:
    from appengine_compat.local.store import Connection

HOUR = 3600.0
DAY = 24 * HOUR


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """How long names stay reserved, in seconds.

    Production says "up to 24 hours" for tasks and 3 to 7 days for queues.
    """

    task_seconds: float | None = None
    """None is a day, or what the queue has been given: 9 days when it is from a queue.yaml."""
    automatic_task_seconds: float = HOUR
    """For ids that the service made. They never come again: this only lets GetTask say that the
    task existed, and 0 saves the write."""
    queue_seconds: float = 3 * DAY

    def of_task(self, queue: Queue | None, is_named: bool) -> float:
        """Return how long the name of a task of this queue stays reserved."""
        if not is_named:
            return self.automatic_task_seconds
        if self.task_seconds is not None:
            return self.task_seconds
        if queue is None or queue.tombstone_ttl_seconds == TOMBSTONE_TTL_SECONDS:
            return DAY
        return queue.tombstone_ttl_seconds


def set_up(connection: Connection, queue: int, task_id: str, seconds: float, now: int) -> None:
    """Reserve the name of a task that has just ended, for so many seconds."""
    if seconds > 0:
        connection.execute(
            "INSERT OR REPLACE INTO tombstones VALUES (?, ?, ?)",
            (queue, task_id, now + moments.from_seconds(seconds)),
        )


def stands(connection: Connection, queue: int, task_id: str, now: int) -> bool:
    """Tell whether a task of this name ended recently."""
    row = connection.execute(
        "SELECT expires FROM tombstones WHERE queue = ? AND id = ?", (queue, task_id)
    ).fetchone()
    return row is not None and row[0] > now


def clear_expired(connection: Connection, now: int, limit: int) -> bool:
    """Delete some tombstones whose time has passed, and tell whether any may be left."""
    rows = connection.execute(
        "SELECT queue, id FROM tombstones WHERE expires <= ? ORDER BY expires LIMIT ?",
        (now, limit),
    ).fetchall()
    connection.executemany("DELETE FROM tombstones WHERE queue = ? AND id = ?", rows)
    connection.execute("DELETE FROM deleted_queues WHERE expires <= ?", (now,))
    return len(rows) == limit
