"""Which queues are slowed down by their targets: SQL, no rules of its own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from appengine_compat.core import moments, throttle
from appengine_compat.core.throttle import Throttle

if TYPE_CHECKING:
    from appengine_compat.core.model import Queue
    from appengine_compat.local.store import Connection


def load(connection: Connection, queue: int) -> Throttle | None:
    """Return a queue's throttle, None for a queue at full speed."""
    row = connection.execute(
        "SELECT rate, since, held_until FROM throttles WHERE queue = ?", (queue,)
    ).fetchone()
    if row is None:
        return None
    return Throttle(row[0], row[1] / moments.SECOND, row[2] / moments.SECOND)


def slow_down(
    connection: Connection, number: int, queue: Queue, replies: Iterable[tuple[int, float]]
) -> None:
    """Take over what replies of overload mean for a queue.

    Args:
        connection: the database.
        number: the queue's number.
        queue: its settings.
        replies: when each came, and the seconds of its ``Retry-After``.
    """
    limit = queue.rate_limits.max_dispatches_per_second
    current = load(connection, number)
    for at, retry_after_seconds in replies:
        current = throttle.slowed(current, limit, at / moments.SECOND, retry_after_seconds)
    if current is not None:
        connection.execute(
            "INSERT OR REPLACE INTO throttles VALUES (?, ?, ?, ?)",
            (
                number,
                current.rate,
                moments.from_seconds(current.since),
                moments.from_seconds(current.held_until),
            ),
        )


def forget_over(connection: Connection, queues: dict[int, Queue], now: int) -> None:
    """Forget the throttles of which nothing is left, and those of queues that are gone."""
    numbers = [row[0] for row in connection.execute("SELECT queue FROM throttles").fetchall()]
    for number in numbers:
        current, queue = load(connection, number), queues.get(number)
        if (
            current is None
            or queue is None
            or throttle.is_over(
                current, queue.rate_limits.max_dispatches_per_second, now / moments.SECOND
            )
        ):
            connection.execute("DELETE FROM throttles WHERE queue = ?", (number,))
