"""Taking due tasks out, and writing down what became of them: SQL, no threads.

A claim is a number in the task's row, the owner's in its upper half. It says that one process
makes an attempt; a finish that names another claim than the row's comes too late and changes
nothing, unless it brings a success.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from appengine_compat.core import moments, outcome, rate, retry
from appengine_compat.core.headers import Family, counts_as_execution
from appengine_compat.core.model import Queue
from appengine_compat.local import kept, records, throttling, tombstones
from appengine_compat.local.delivery import Claim, Outcome

if TYPE_CHECKING:
    from appengine_compat.local.store import Connection

OWNER_SHIFT = 32

_CLAIMED = (
    "seq, service, due, forced, is_named, id, method, url, headers, extra, "
    "coalesce(body, (SELECT b.body FROM bodies b WHERE b.task = tasks.seq)), deadline_ms, "
    "dispatches, executions, first_dispatch, last_status"
)
_MARK = (
    "UPDATE tasks SET claim = ?, forced = 0, dispatches = dispatches + 1, "
    "first_dispatch = coalesce(first_dispatch, ?), last_schedule = due, last_dispatch = ?, "
    "last_response = NULL, last_status = NULL WHERE seq = ?"
)


@dataclass(frozen=True, slots=True)
class Finish:
    """An attempt that has ended."""

    claim: Claim
    status: int
    at: int
    """When the reply came, or was given up."""
    retry_after_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Finished:
    """What a finish meant."""

    outcome: Outcome
    next_due: int | None = None


class Numbers:
    """The claims of one owner: rising numbers that no other owner uses.

    Attributes:
        owner: whose they are.
    """

    def __init__(self, owner: int) -> None:
        self.owner = owner
        self._next = owner << OWNER_SHIFT

    def next(self) -> int:
        """Return a number that was not used before."""
        self._next += 1
        return self._next


def due_tasks(
    connection: Connection, queue: int, service: str, now: int, limit: int
) -> list[tuple[Any, ...]]:
    """Return rows of waiting tasks, those due longest first."""
    return connection.execute(
        f"SELECT {_CLAIMED} FROM tasks WHERE claim = 0 AND queue = ? AND service = ? AND due <= ? "
        "ORDER BY due, seq LIMIT ?",
        (queue, service, now, limit),
    ).fetchall()


def next_due(connection: Connection, queue: int, service: str) -> int | None:
    """Return when the next waiting task is due."""
    row = connection.execute(
        "SELECT min(due) FROM tasks WHERE claim = 0 AND queue = ? AND service = ?",
        (queue, service),
    ).fetchone()
    return None if row[0] is None else int(row[0])


def forced_lanes(connection: Connection) -> list[tuple[int, str]]:
    """Return (queue, service) of the tasks that RunTask asked for."""
    return connection.execute(
        "SELECT DISTINCT queue, service FROM tasks INDEXED BY tasks_forced WHERE forced > 0"
    ).fetchall()


def forced_tasks(
    connection: Connection, queue: int, service: str, limit: int
) -> list[tuple[Any, ...]]:
    """Return rows of the tasks of a lane that RunTask asked for, running ones too."""
    return connection.execute(
        f"SELECT {_CLAIMED} FROM tasks INDEXED BY tasks_forced "
        "WHERE forced > 0 AND queue = ? AND service = ? ORDER BY seq LIMIT ?",
        (queue, service, limit),
    ).fetchall()


def mark(
    connection: Connection,
    rows: Iterable[Sequence[Any]],
    queue: int,
    queue_id: str,
    service: str,
    numbers: Numbers,
    now: int,
) -> list[Claim]:
    """Claim tasks for an attempt each.

    Args:
        connection: the database.
        rows: of ``due_tasks`` or ``forced_tasks``.
        queue: the queue's number.
        queue_id: the last part of its name.
        service: where these tasks go after the queue's override.
        numbers: the owner's claims.
        now: when they are dispatched.
    """
    claims = [_claim(row, queue, queue_id, service, numbers.next(), now) for row in rows]
    connection.executemany(_MARK, [(each.claim, now, now, each.seq) for each in claims])
    return claims


def _claim(
    row: Sequence[Any], queue: int, queue_id: str, service: str, number: int, now: int
) -> Claim:
    (
        seq,
        lane,
        due,
        forced,
        is_named,
        task_id,
        method,
        url,
        headers,
        extra,
        body,
        deadline_ms,
        dispatches,
        executions,
        first_dispatch,
        last_status,
    ) = row
    return Claim(
        seq,
        number,
        queue,
        queue_id,
        task_id,
        lane,
        service,
        due,
        forced,
        bool(is_named),
        method,
        url,
        records.headers_of(headers),
        records.extra_of(extra),
        body or b"",
        deadline_ms,
        dispatches + 1,
        executions,
        # An attempt that was cut off has left no status: the next is told that no reply came.
        max(0, last_status or 0) if dispatches else None,
        first_dispatch or now,
    )


def running_elsewhere(connection: Connection, queue: int, owner: int) -> int:
    """Return how many of a queue's tasks other owners have claimed."""
    first, last = owner << OWNER_SHIFT, (owner + 1) << OWNER_SHIFT
    row = connection.execute(
        "SELECT (SELECT count(*) FROM tasks WHERE queue = ? AND claim > 0 AND claim < ?) + "
        "(SELECT count(*) FROM tasks WHERE queue = ? AND claim > 0 AND claim > ?)",
        (queue, first, queue, last),
    ).fetchone()
    return int(row[0])


def bucket(connection: Connection, queue: int, burst: int, now: int) -> rate.Bucket:
    """Return a queue's tokens as last written."""
    row = connection.execute(
        "SELECT tokens, updated_at FROM buckets WHERE queue = ?", (queue,)
    ).fetchone()
    if row is None:
        return rate.full_bucket(burst, now / moments.SECOND)
    return rate.Bucket(row[0], row[1] / moments.SECOND)


def put_bucket(connection: Connection, queue: int, tokens: float, now: int) -> None:
    """Write a queue's tokens down."""
    connection.execute(
        "INSERT INTO buckets VALUES (?, ?, ?) ON CONFLICT (queue) DO UPDATE SET "
        "tokens = excluded.tokens, updated_at = excluded.updated_at",
        (queue, tokens, now),
    )


def release(connection: Connection, claims: Iterable[Claim]) -> None:
    """Put tasks back whose attempt was never begun."""
    connection.executemany(
        "UPDATE tasks SET claim = 0, forced = ?, dispatches = dispatches - 1, last_status = ?, "
        "first_dispatch = CASE dispatches WHEN 1 THEN NULL ELSE first_dispatch END "
        "WHERE seq = ? AND claim = ?",
        [(each.forced, each.previous_status, each.seq, each.claim) for each in claims],
    )


def release_owner(connection: Connection, owner: int) -> int:
    """Put the tasks of an owner that is no more back; they are due as they were.

    Their attempts were cut off: each counts as dispatched, and has no reply.
    """
    first, last = owner << OWNER_SHIFT, (owner + 1) << OWNER_SHIFT
    queues = connection.execute("SELECT id FROM queues").fetchall()
    count = 0
    for (queue,) in queues:
        count += connection.execute(
            # The index of claimed tasks serves only who says in so many words that they are.
            "UPDATE tasks SET claim = 0 WHERE queue = ? AND claim > 0 AND claim > ? AND claim < ?",
            (queue, first, last),
        ).rowcount
    return count


def finish(
    connection: Connection,
    finishes: Sequence[Finish],
    queues: dict[int, Queue],
    windows: tombstones.Windows,
) -> list[Finished]:
    """Write down how attempts ended; return what each meant, in the same order."""
    results: list[Finished] = []
    replies: dict[tuple[int, int], int] = {}
    overloads: dict[int, list[tuple[int, float]]] = {}
    for each in finishes:
        claim = each.claim
        if outcome.is_success(each.status):
            results.append(_succeed(connection, each, queues.get(claim.queue), windows))
        else:
            results.append(_fail(connection, each, queues.get(claim.queue), windows))
            if outcome.throttles(_family(claim), each.status):
                overloads.setdefault(claim.queue, []).append((each.at, each.retry_after_seconds))
        if outcome.is_reply(each.status):
            key = (claim.queue, each.at // moments.SECOND)
            replies[key] = replies.get(key, 0) + 1
    for number, overloaded in overloads.items():
        if number in queues:
            throttling.slow_down(connection, number, queues[number], overloaded)
    connection.executemany(
        "INSERT INTO executions VALUES (?, ?, ?) "
        "ON CONFLICT (queue, second) DO UPDATE SET count = count + excluded.count",
        [(queue, second, count) for (queue, second), count in replies.items()],
    )
    return results


def _succeed(
    connection: Connection, each: Finish, queue: Queue | None, windows: tombstones.Windows
) -> Finished:
    claim = each.claim
    cursor = connection.execute(
        # Of a task that RunTask has dispatched a second time, the first success decides. A task
        # that was deleted meanwhile may have left its number and its name to another.
        "DELETE FROM tasks WHERE seq = ? AND id = ? AND queue = ? AND first_dispatch = ?",
        (claim.seq, claim.task_id, claim.queue, claim.first_dispatch),
    )
    if not cursor.rowcount:
        return Finished(Outcome.GONE)
    seconds = windows.of_task(queue, claim.is_named)
    tombstones.set_up(connection, claim.queue, claim.task_id, seconds, each.at)
    return Finished(Outcome.DONE)


def _fail(
    connection: Connection, each: Finish, queue: Queue | None, windows: tombstones.Windows
) -> Finished:
    claim = each.claim
    if queue is None:
        return Finished(Outcome.GONE)
    config = retry.effective_retry_config(queue.retry_config, records.retry_of(claim.extra))
    age_seconds = (each.at - claim.first_dispatch) / moments.SECOND
    if retry.is_exhausted(config, claim.attempt, age_seconds):
        return _drop(connection, each, queue, windows)
    wait = moments.from_seconds(retry.backoff_seconds(config, claim.attempt))
    due = (claim.forced or each.at) + wait
    is_reply = outcome.is_reply(each.status)
    cursor = connection.execute(
        "UPDATE tasks SET claim = 0, due = ?, responses = responses + ?, "
        "executions = executions + ?, last_response = ?, last_status = ? "
        "WHERE seq = ? AND claim = ?",
        (
            due,
            is_reply,
            counts_as_execution(_family(claim), max(0, each.status)),
            each.at if is_reply else None,
            each.status,
            claim.seq,
            claim.claim,
        ),
    )
    return Finished(Outcome.RETRY, due) if cursor.rowcount else Finished(Outcome.GONE)


def _family(claim: Claim) -> Family:
    return Family.APP_ENGINE if claim.service else Family.HTTP


def _drop(
    connection: Connection, each: Finish, queue: Queue, windows: tombstones.Windows
) -> Finished:
    claim = each.claim
    kept.keep_dropped(
        connection, queue.name, claim.seq, claim.claim, kept.EXHAUSTED, each.status, each.at
    )
    cursor = connection.execute(
        "DELETE FROM tasks WHERE seq = ? AND claim = ?", (claim.seq, claim.claim)
    )
    if not cursor.rowcount:
        return Finished(Outcome.GONE)
    seconds = windows.of_task(queue, claim.is_named)
    tombstones.set_up(connection, claim.queue, claim.task_id, seconds, each.at)
    return Finished(Outcome.FAILED)
