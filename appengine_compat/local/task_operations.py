"""The v2 operations on tasks, as functions of the database's connection.

Each raises ``ApiError`` before it writes, as ``local.store`` asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from appengine_compat.core import messages, moments, names
from appengine_compat.core.model import Attempt, Task
from appengine_compat.errors import ApiError
from appengine_compat.local import queue_operations, records, tombstones

if TYPE_CHECKING:
    from appengine_compat.local.store import Connection

_INSERT = (
    "INSERT INTO tasks (queue, id, service, due, is_named, created, method, url, deadline_ms, "
    "headers, extra, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (queue, id) DO NOTHING"
)
_FIND_QUEUE = (
    "SELECT id, EXISTS (SELECT 1 FROM lanes WHERE queue = queues.id AND service = ?) "
    "FROM queues WHERE name = ?"
)

_PAGE_BYTES = 3 * 1024 * 1024
"""gRPC's clients take 4 MiB where nobody tells them otherwise, and one more task may be 1 MiB."""


@dataclass(slots=True)
class NewTask:
    """A canonical task on its way into a queue, made ready outside the transaction."""

    task: Task
    task_id: str
    is_named: bool
    service: str
    due: int
    values: tuple[Any, ...]
    """What the columns from ``created`` on will hold."""
    long_body: bytes | None


def prepare(task: Task, is_named: bool) -> NewTask:
    """Make a canonical task ready to be inserted."""
    request, schedule_time, create_time = task.request, task.schedule_time, task.create_time
    assert request is not None
    assert schedule_time is not None
    assert create_time is not None
    body = request.body
    is_long = len(body) > records.INLINE_BODY_BYTES
    return NewTask(
        task=task,
        task_id=names.short_id(task.name),
        is_named=is_named,
        service=records.service_of(task),
        due=moments.from_datetime(schedule_time),
        values=(
            moments.from_datetime(create_time),
            request.method,
            request.url if hasattr(request, "url") else request.relative_uri,
            round(task.dispatch_deadline_seconds * 1000),
            records.headers_text(request.headers),
            records.extra_text(task),
            None if is_long else body,
        ),
        long_body=body if is_long else None,
    )


def create(
    connection: Connection, queue_name: str, new_tasks: Sequence[NewTask], now: int
) -> tuple[int, list[ApiError | None]]:
    """Store tasks in one queue; return its number, and per task None or why not.

    Raises:
        ApiError: NOT_FOUND: there is no such queue.
    """
    service = new_tasks[0].service if new_tasks else ""
    row = connection.execute(_FIND_QUEUE, (service, queue_name)).fetchone()
    if row is None:
        raise messages.queue_missing()
    queue, has_lane = row
    # Nearly always there is the one lane already, and looking costs less than putting it again.
    lanes = {new.service for new in new_tasks}
    if has_lane:
        lanes.discard(service)
    for each in lanes:
        connection.execute("INSERT OR IGNORE INTO lanes VALUES (?, ?)", (queue, each))
    return queue, [_insert(connection, queue, new, now) for new in new_tasks]


def _insert(connection: Connection, queue: int, new: NewTask, now: int) -> ApiError | None:
    if new.is_named and tombstones.stands(connection, queue, new.task_id, now):
        return messages.task_tombstoned()
    cursor = connection.execute(
        _INSERT, (queue, new.task_id, new.service, new.due, new.is_named, *new.values)
    )
    if not cursor.rowcount:
        return messages.task_exists()
    if new.long_body is not None:
        connection.execute("INSERT INTO bodies VALUES (?, ?)", (cursor.lastrowid, new.long_body))
    return None


def get(connection: Connection, queue_name: str, task_id: str, now: int) -> Task:
    """Return a task in the FULL view.

    Raises:
        ApiError: NOT_FOUND, with different texts for a task that ended and one never there.
    """
    number, _ = queue_operations.find(connection, queue_name)
    row = connection.execute(
        f"SELECT {records.TASK_COLUMNS} FROM tasks WHERE queue = ? AND id = ?", (number, task_id)
    ).fetchone()
    if row is None:
        raise _missing(connection, number, task_id, now)
    return records.task_of(row, queue_name)


def _missing(connection: Connection, queue: int, task_id: str, now: int) -> ApiError:
    if tombstones.stands(connection, queue, task_id, now):
        return messages.task_gone()
    return messages.task_missing()


def list_page(
    connection: Connection, queue_name: str, after: str, limit: int, *, has_bodies: bool
) -> tuple[list[Task], bool]:
    """Return tasks in the order of their ids, from after one, and whether more follow.

    What a page weighs is bounded, so that it may hold fewer tasks than its limit.

    Raises:
        ApiError: NOT_FOUND: there is no such queue.
    """
    number, _ = queue_operations.find(connection, queue_name)
    columns = records.TASK_COLUMNS if has_bodies else records.BODILESS_TASK_COLUMNS
    rows = connection.execute(
        f"SELECT {columns} FROM tasks WHERE queue = ? AND id > ? ORDER BY id LIMIT ?",
        (number, after, limit + 1),
    )
    tasks: list[Task] = []
    size = 0
    for row in rows:
        size += records.weight(row)
        if len(tasks) == limit or (tasks and size > _PAGE_BYTES):
            return tasks, True
        tasks.append(records.task_of(row, queue_name))
    return tasks, False


def delete(
    connection: Connection,
    queue_name: str,
    task_ids: Sequence[str],
    windows: tombstones.Windows,
    now: int,
) -> list[ApiError | None]:
    """Delete tasks, waiting or running; return per task None or why not.

    Raises:
        ApiError: NOT_FOUND: there is no such queue.
    """
    number, queue = queue_operations.find(connection, queue_name)
    results: list[ApiError | None] = []
    for task_id in task_ids:
        row = connection.execute(
            "SELECT seq, is_named FROM tasks WHERE queue = ? AND id = ?", (number, task_id)
        ).fetchone()
        if row is None:
            results.append(_missing(connection, number, task_id, now))
            continue
        connection.execute("DELETE FROM tasks WHERE seq = ?", (row[0],))
        seconds = windows.of_task(queue, bool(row[1]))
        tombstones.set_up(connection, number, task_id, seconds, now)
        results.append(None)
    return results


def force(connection: Connection, queue_name: str, task_id: str, now: int) -> tuple[int, Task]:
    """Ask for a task's dispatch whatever its queue's state; return queue number and task.

    The task is as it will be once dispatched, before its target has received anything.

    Raises:
        ApiError: NOT_FOUND.
    """
    task = get(connection, queue_name, task_id, now)
    number, _ = queue_operations.find(connection, queue_name)
    connection.execute(
        "UPDATE tasks SET forced = ? WHERE queue = ? AND id = ?", (now, number, task_id)
    )
    moment = moments.to_datetime(now)
    return number, replace(
        task,
        schedule_time=moment,
        dispatch_count=task.dispatch_count + 1,
        first_attempt=task.first_attempt or Attempt(dispatch_time=moment),
        last_attempt=Attempt(schedule_time=moment, dispatch_time=moment),
    )
