"""The v2 operations on queues, as functions of the database's connection.

Each raises ``ApiError`` before it writes, as ``local.store`` asks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from appengine_compat.core import messages, moments, throttle, validation
from appengine_compat.core.model import Queue, QueueState, QueueStats
from appengine_compat.local import documents, records, throttling, tombstones

if TYPE_CHECKING:
    from appengine_compat.local.store import Connection

_ROW = "id, name, state, settings, purge_time"
_POLICY_KEY = "policy "
_PURGED_AT_ONCE = 5000
"""Tasks deleted in one transaction: those who wait for theirs wait tens of milliseconds."""
_NO_QUEUE = 0
_LONGEST_PURGE_SECONDS = 86400.0


def find(connection: Connection, name: str) -> tuple[int, Queue]:
    """Return a queue's number and settings.

    Raises:
        ApiError: NOT_FOUND.
    """
    found = records.load_queue(connection, name)
    if found is None:
        raise messages.queue_missing()
    return found


def create(connection: Connection, queue: Queue, now: int) -> Queue:
    """Store a new queue in canonical form.

    Raises:
        ApiError: ALREADY_EXISTS, or FAILED_PRECONDITION for a name that was deleted recently.
    """
    if records.load_queue(connection, queue.name) is not None:
        raise messages.queue_exists()
    expires = connection.execute(
        "SELECT expires FROM deleted_queues WHERE name = ?", (queue.name,)
    ).fetchone()
    if expires is not None and expires[0] > now:
        raise messages.queue_existed_recently()
    _insert(connection, queue, now)
    return queue


def put(connection: Connection, queue: Queue, now: int) -> Queue:
    """Store a queue's settings, whether it is there or not; state and purge time stay."""
    found = records.load_queue(connection, queue.name)
    if found is None:
        _insert(connection, queue, now)
        return queue
    number, current = found
    if queue == replace(current, state=queue.state, purge_time=queue.purge_time):
        return current
    connection.execute(
        "UPDATE queues SET settings = ? WHERE id = ?", (records.settings_text(queue), number)
    )
    _changed(connection)
    return replace(queue, state=current.state, purge_time=current.purge_time)


def update(
    connection: Connection, given: Queue, mask: Iterable[str], now: int, *, keeps_burst: bool
) -> Queue:
    """Change a queue's settings, or create it.

    Raises:
        ApiError: INVALID_ARGUMENT: the result is not allowed, or the mask names no field.
    """
    found = records.load_queue(connection, given.name)
    current = Queue(name=given.name) if found is None else found[1]
    merged = validation.updated_queue(current, given, mask)
    return put(connection, validation.canonical_queue(merged, keeps_burst=keeps_burst), now)


def _insert(connection: Connection, queue: Queue, now: int) -> None:
    connection.execute("DELETE FROM deleted_queues WHERE name = ?", (queue.name,))
    cursor = connection.execute(
        "INSERT INTO queues (name, state, settings) VALUES (?, ?, ?)",
        (queue.name, queue.state.value, records.settings_text(queue)),
    )
    connection.execute(
        "INSERT INTO buckets VALUES (?, ?, ?)",
        (cursor.lastrowid, float(max(1, queue.rate_limits.max_burst_size)), now),
    )
    _changed(connection)


def _changed(connection: Connection) -> None:
    """Tell every scheduler on this file that queues are to be read again."""
    connection.execute(
        "INSERT INTO meta VALUES ('queues_version', 1) "
        "ON CONFLICT (key) DO UPDATE SET value = value + 1"
    )


def version(connection: Connection) -> int:
    """Return a number that grows with every change of a queue."""
    row = connection.execute("SELECT value FROM meta WHERE key = 'queues_version'").fetchone()
    return 0 if row is None else int(row[0])


def list_all(connection: Connection) -> dict[int, Queue]:
    """Return every queue of the database by its number."""
    return {
        row[0]: records.queue_of(*row[1:])
        for row in connection.execute(f"SELECT {_ROW} FROM queues")
    }


def list_page(connection: Connection, prefix: str, after: str, limit: int) -> list[Queue]:
    """Return queues whose name begins with a prefix, in the order of names, from after one."""
    start = max(after, prefix)
    rows = connection.execute(
        f"SELECT {_ROW} FROM queues WHERE name > ? AND name < ? ORDER BY name LIMIT ?",
        (start, prefix + "\U0010ffff", limit),
    )
    return [records.queue_of(*row[1:]) for row in rows]


def set_state(connection: Connection, name: str, state: QueueState) -> Queue:
    """Pause or resume a queue.

    Raises:
        ApiError: NOT_FOUND.
    """
    number, queue = find(connection, name)
    if queue.state is not state:
        connection.execute("UPDATE queues SET state = ? WHERE id = ?", (state.value, number))
        _changed(connection)
    return replace(queue, state=state)


def policy(connection: Connection, name: str) -> bytes | None:
    """Return the IAM policy of a queue, None when none was set.

    Raises:
        ApiError: NOT_FOUND.
    """
    find(connection, name)
    return documents.load(connection, _POLICY_KEY + name, 0)


def set_policy(connection: Connection, name: str, value: bytes) -> None:
    """Keep an IAM policy with a queue.

    Raises:
        ApiError: NOT_FOUND.
    """
    find(connection, name)
    documents.save(connection, _POLICY_KEY + name, value)


def location_ids(connection: Connection, project: str) -> list[str]:
    """Return the locations in which a project has queues, in the order of their names."""
    prefix = f"projects/{project}/locations/"
    rows = connection.execute(
        "SELECT name FROM queues WHERE name > ? AND name < ? ORDER BY name",
        (prefix, prefix + "\U0010ffff"),
    )
    return list(dict.fromkeys(name[len(prefix) :].partition("/")[0] for (name,) in rows))


def mark_purged(connection: Connection, name: str, now: int) -> tuple[int, Queue, int]:
    """Note a purge; return the queue's number, the queue, and a row after the tasks concerned.

    Raises:
        ApiError: NOT_FOUND.
    """
    number, queue = find(connection, name)
    connection.execute("UPDATE queues SET purge_time = ? WHERE id = ?", (now, number))
    # A new row's number is one more than the highest there is, so that of a task which has ended
    # would come again, and its new bearer be purged. A row of no queue keeps the place.
    last = 1 + (connection.execute("SELECT max(seq) FROM tasks").fetchone()[0] or 0)
    connection.execute(
        "INSERT INTO tasks (seq, queue, id, service, due, is_named, created, method, url, "
        "deadline_ms, headers, body) VALUES (?, ?, ?, '', 0, 0, ?, '', '', 0, '', x'')",
        (last, _NO_QUEUE, f"purge {last}", now),
    )
    return number, replace(queue, purge_time=moments.to_datetime(now)), last


def purge_some(
    connection: Connection,
    number: int,
    queue: Queue,
    last: int,
    windows: tombstones.Windows,
    now: int,
) -> bool:
    """Delete some of a queue's tasks up to a row, and tell whether any may be left.

    Their names stay reserved. Once none is left, the row goes too.
    """
    rows = connection.execute(
        "SELECT seq, id, is_named FROM tasks WHERE queue = ? AND seq <= ? LIMIT ?",
        (number, last, _PURGED_AT_ONCE),
    ).fetchall()
    for seq, task_id, is_named in rows:
        connection.execute("DELETE FROM tasks WHERE seq = ?", (seq,))
        seconds = windows.of_task(queue, bool(is_named))
        tombstones.set_up(connection, number, task_id, seconds, now)
    if len(rows) == _PURGED_AT_ONCE:
        return True
    connection.execute("DELETE FROM tasks WHERE seq = ? AND queue = ?", (last, _NO_QUEUE))
    return False


def forget_purges(connection: Connection, now: int) -> None:
    """Delete what purges have left behind whose process has died meanwhile."""
    connection.execute(
        "DELETE FROM tasks WHERE queue = ? AND created < ?",
        (_NO_QUEUE, now - moments.from_seconds(_LONGEST_PURGE_SECONDS)),
    )


def remove(connection: Connection, name: str, expires: int) -> int:
    """Delete a queue but not yet its tasks; return its number. Its name stays reserved.

    Raises:
        ApiError: NOT_FOUND, in DeleteQueue's own words.
    """
    found = records.load_queue(connection, name)
    if found is None:
        raise messages.queue_missing_for_delete()
    number = found[0]
    for table, column in (
        ("queues", "id"),
        ("buckets", "queue"),
        ("throttles", "queue"),
        ("lanes", "queue"),
        ("executions", "queue"),
        ("tombstones", "queue"),
    ):
        connection.execute(f"DELETE FROM {table} WHERE {column} = ?", (number,))
    connection.execute("INSERT OR REPLACE INTO deleted_queues VALUES (?, ?)", (name, expires))
    documents.forget(connection, _POLICY_KEY + name)
    _changed(connection)
    return number


def remove_tasks(connection: Connection, number: int) -> bool:
    """Delete some tasks of a deleted queue, and tell whether any may be left."""
    cursor = connection.execute(
        "DELETE FROM tasks WHERE seq IN (SELECT seq FROM tasks WHERE queue = ? LIMIT ?)",
        (number, _PURGED_AT_ONCE),
    )
    return cursor.rowcount == _PURGED_AT_ONCE


def stats(connection: Connection, name: str, now: int) -> QueueStats:
    """Return what a queue is doing.

    Raises:
        ApiError: NOT_FOUND.
    """
    number, queue = find(connection, name)
    one = (number,)
    tasks = connection.execute("SELECT count(*) FROM tasks WHERE queue = ?", one).fetchone()[0]
    running = connection.execute(
        "SELECT count(*) FROM tasks WHERE queue = ? AND claim > 0", one
    ).fetchone()[0]
    services = connection.execute("SELECT service FROM lanes WHERE queue = ?", one).fetchall()
    oldest = None
    for (service,) in services:
        due = connection.execute(
            "SELECT min(due) FROM tasks WHERE claim = 0 AND queue = ? AND service = ?",
            (number, service),
        ).fetchone()[0]
        if due is not None and due <= now and (oldest is None or due < oldest):
            oldest = due
    executed = connection.execute(
        "SELECT coalesce(sum(count), 0) FROM executions WHERE queue = ? AND second > ?",
        (number, now // moments.SECOND - 60),
    ).fetchone()[0]
    return QueueStats(
        tasks_count=tasks,
        oldest_arrival_time=None if oldest is None else moments.to_datetime(oldest),
        executed_last_minute_count=executed,
        concurrent_dispatches_count=running,
        effective_execution_rate=throttle.rate_at(
            throttling.load(connection, number),
            queue.rate_limits.max_dispatches_per_second,
            now / moments.SECOND,
        ),
    )
