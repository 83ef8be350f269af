"""Tasks that failed for good though their attempt was answered with success."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appengine_compat.core import moments
from appengine_compat.local import records

if TYPE_CHECKING:
    from appengine_compat.local.store import Connection, Store

PERMANENT = "permanent"
"""The reason in the database: the task itself gave up, or its payload cannot be read."""


def keep_running(
    store: Store, queue_name: str, task_id: str, *, traceback: str, now_seconds: float
) -> bool:
    """Copy a task that an attempt runs for now; the attempt's success will delete it.

    Args:
        store: the database.
        queue_name: the queue's resource name.
        task_id: the task.
        traceback: of what it failed with.
        now_seconds: seconds since the epoch.

    Returns:
        Whether it was there, and is kept now.

    Raises:
        StoreError: the database could not be written.
    """

    def copy(connection: Connection) -> bool:
        found = records.load_queue(connection, queue_name)
        if found is None:
            return False
        cursor = connection.execute(
            "INSERT INTO kept (queue, task, reason, kept_at, attempts, last_status, service, "
            "method, url, headers, extra, body, traceback) SELECT ?, id, ?, ?, dispatches, ?, "
            "service, method, url, headers, extra, "
            "coalesce(body, (SELECT b.body FROM bodies b WHERE b.task = tasks.seq)), ? "
            "FROM tasks WHERE queue = ? AND id = ? AND claim > 0",
            (
                queue_name,
                PERMANENT,
                moments.from_seconds(now_seconds),
                200,
                traceback,
                found[0],
                task_id,
            ),
        )
        return cursor.rowcount > 0

    return store.write(copy)
