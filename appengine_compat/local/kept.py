"""Tasks that failed for good, kept aside: how they come there, and how they go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from appengine_compat.core import moments, names
from appengine_compat.local import records, task_operations

if TYPE_CHECKING:
    from appengine_compat.local.store import Connection, Store

PERMANENT = "permanent"
"""The reason in the database: the task itself gave up, or its payload cannot be read."""
EXHAUSTED = "exhausted"
"""Its attempts are spent."""
EXPIRED = "expired"
"""It is older than its queue retains tasks."""

_COLUMNS = (
    "id, queue, task, reason, kept_at, attempts, last_status, service, method, url, headers, "
    "extra, deadline_ms, body, traceback"
)
_COPY = (
    "INSERT INTO kept (queue, task, reason, kept_at, attempts, last_status, service, method, url, "
    "headers, extra, deadline_ms, body, traceback) SELECT ?, id, ?, ?, dispatches, ?, service, "
    "method, url, headers, extra, deadline_ms, "
    "coalesce(body, (SELECT b.body FROM bodies b WHERE b.task = tasks.seq)), ? FROM tasks WHERE "
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A task that is kept."""

    number: int
    """By which it is asked for."""
    queue: str
    """The queue's resource name."""
    task_id: str
    reason: str
    kept_at: datetime
    attempts: int
    last_status: int | None
    """HTTP status of the last attempt; 0 when no reply came, None without an attempt."""
    service: str
    """Where it went; ``records.HTTP_SERVICE`` for an address of its own."""
    method: str
    url: str
    """Path with query, or the whole url of an HTTP target."""
    headers: Mapping[str, str]
    """As stored."""
    extra: str | None
    deadline_ms: int
    body: bytes
    traceback: str


def keep_dropped(
    connection: Connection,
    queue_name: str,
    seq: int,
    claim: int,
    reason: str,
    status: int | None,
    now: int,
) -> None:
    """Copy a task that is about to be dropped, so that it is not gone without a trace."""
    connection.execute(
        _COPY + "seq = ? AND claim = ?", (queue_name, reason, now, status, None, seq, claim)
    )


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
        now = moments.from_seconds(now_seconds)
        cursor = connection.execute(
            _COPY + "queue = ? AND id = ? AND claim > 0",
            (queue_name, PERMANENT, now, 200, traceback, found[0], task_id),
        )
        return cursor.rowcount > 0

    return store.write(copy)


def entries(connection: Connection, after: int = 0, limit: int = 1000) -> list[Entry]:
    """Return what is kept, in the order in which it came, from after a number."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM kept WHERE id > ? ORDER BY id LIMIT ?", (after, limit)
    )
    return [_entry(row) for row in rows]


def find(connection: Connection, number: int) -> Entry | None:
    """Return what is kept under a number, or None."""
    row = connection.execute(f"SELECT {_COLUMNS} FROM kept WHERE id = ?", (number,)).fetchone()
    return None if row is None else _entry(row)


def latest(connection: Connection, task_id: str, limit: int = 10) -> list[Entry]:
    """Return what is kept of tasks of this id, in whatever queue, the last first."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM kept WHERE task = ? ORDER BY id DESC LIMIT ?", (task_id, limit)
    )
    return [_entry(row) for row in rows]


def drop(connection: Connection, numbers: Sequence[int]) -> int:
    """Forget what is kept under these numbers; return how many were there."""
    count = 0
    for number in numbers:
        count += connection.execute("DELETE FROM kept WHERE id = ?", (number,)).rowcount
    return count


@dataclass(frozen=True, slots=True)
class Replayed:
    """A task that was put back."""

    queue: int
    """The queue's number in this database."""
    service: str
    task_id: str


def replay(connection: Connection, number: int, now: int) -> Replayed | None:
    """Put a task back into its queue, due at once, and keep it no longer.

    It gets a new name, since its old one may be reserved; all else is as it was when it was
    created, its count of attempts included: there were none.

    Args:
        connection: in a transaction.
        number: of what is kept.
        now: the moment.

    Returns:
        The new task; None when nothing is kept under the number.

    Raises:
        ApiError: NOT_FOUND: its queue is no more.
    """
    entry = find(connection, number)
    if entry is None:
        return None
    task_id = names.automatic_task_id()
    row: tuple[Any, ...] = (
        task_id, entry.service, now, now, entry.method, entry.url, entry.deadline_ms,
        0, 0, None, None, None, None, None,
        records.headers_text(dict(entry.headers)), entry.extra, entry.body,
    )  # fmt: skip
    task = task_operations.prepare(records.task_of(row, entry.queue), is_named=False)
    queue, (refusal,) = task_operations.create(connection, entry.queue, [task], now)
    if refusal is not None:
        raise refusal
    drop(connection, [number])
    return Replayed(queue, task.service, task_id)


def _entry(row: tuple[Any, ...]) -> Entry:
    (
        number, queue, task_id, reason, kept_at, attempts, last_status, service, method, url,
        headers, extra, deadline_ms, body, traceback,
    ) = row  # fmt: skip
    return Entry(
        number=number,
        queue=queue,
        task_id=task_id,
        reason=reason,
        kept_at=moments.to_datetime(kept_at),
        attempts=attempts,
        last_status=last_status,
        service=service,
        method=method,
        url=url,
        headers=records.headers_of(headers),
        extra=extra,
        deadline_ms=deadline_ms or 0,
        body=body or b"",
        traceback=traceback or "",
    )
