"""What a database lets go of with time: names that may be used again, counts, overdue tasks."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from appengine_compat.core import moments
from appengine_compat.local import kept, queue_operations, throttling, tombstones

if TYPE_CHECKING:
    from appengine_compat.core.model import Queue
    from appengine_compat.local.store import Connection, Store
    from appengine_compat.local.tombstones import Windows

INTERVAL_SECONDS = 60.0
KEPT_SECONDS = 31 * 86400.0
"""How long a task that failed for good is kept: as long as Cloud Tasks retains one."""

_AT_ONCE = 1000

_logger = logging.getLogger(__name__)


def clean(store: Store, windows: Windows, now: int) -> float:
    """Delete what has expired, in small transactions; return the seconds until the next time."""
    while store.write(
        lambda connection: tombstones.clear_expired(connection, now, _AT_ONCE), is_durable=False
    ):
        pass
    store.write(lambda connection: _clear_counts(connection, now), is_durable=False)
    store.write(
        lambda connection: queue_operations.forget_purges(connection, now), is_durable=False
    )
    store.write(
        lambda connection: throttling.forget_over(
            connection, queue_operations.list_all(connection), now
        ),
        is_durable=False,
    )
    after: int | None = 0
    while after is not None:
        after = _expire_from(store, after, windows, now)
    return INTERVAL_SECONDS


def _clear_counts(connection: Connection, now: int) -> None:
    connection.execute("DELETE FROM executions WHERE second < ?", (now // moments.SECOND - 60,))
    connection.execute(
        "DELETE FROM kept WHERE kept_at < ?", (now - moments.from_seconds(KEPT_SECONDS),)
    )


def _expire_from(store: Store, after: int, windows: Windows, now: int) -> int | None:
    """Drop the overdue of the tasks that come next in order of creation.

    Returns:
        Where to go on, or None at the first that no queue would call old.
    """
    queues = store.read(queue_operations.list_all)
    if not queues:
        return None
    shortest = moments.from_seconds(min(queue.task_ttl_seconds for queue in queues.values()))
    rows = store.read(
        lambda connection: connection.execute(
            "SELECT seq, queue, id, is_named, created FROM tasks WHERE seq > ? AND claim = 0 "
            "ORDER BY seq LIMIT ?",
            (after, _AT_ONCE),
        ).fetchall()
    )
    overdue = [
        row
        for row in rows
        if row[1] in queues and now - row[4] > moments.from_seconds(queues[row[1]].task_ttl_seconds)
    ]
    if overdue:
        store.write(lambda connection: _drop(connection, overdue, queues, windows, now))
    if len(rows) < _AT_ONCE or now - rows[-1][4] < shortest:
        return None
    return int(rows[-1][0])


def _drop(
    connection: Connection,
    rows: list[tuple[int, int, str, int, int]],
    queues: dict[int, Queue],
    windows: Windows,
    now: int,
) -> None:
    for seq, queue, task_id, is_named, created in rows:
        # Since the rows were read, it may have ended, and a new task have got its row.
        cursor = connection.execute(
            "SELECT 1 FROM tasks WHERE seq = ? AND queue = ? AND id = ? AND created = ? "
            "AND claim = 0",
            (seq, queue, task_id, created),
        )
        if cursor.fetchone() is None:
            continue
        name = queues[queue].name
        kept.keep_dropped(connection, name, seq, 0, kept.EXPIRED, None, now)
        connection.execute("DELETE FROM tasks WHERE seq = ?", (seq,))
        seconds = windows.of_task(queues[queue], bool(is_named))
        tombstones.set_up(connection, queue, task_id, seconds, now)
        _logger.error(
            "Task %s of %s is older than its queue retains tasks, and was dropped without "
            "having succeeded; what it carried is kept in the database.",
            task_id,
            name,
        )
