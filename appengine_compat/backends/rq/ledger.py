"""What is written down of a task's attempts: whose turn it is, and how each ended."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from redis import Redis

from appengine_compat.backends.rq import connection, keys, queues, scripts
from appengine_compat.core.model import RetryConfig

PATIENCE_SECONDS = 60.0
"""How long a worker that has an attempt's outcome waits for Redis to write it down."""

_Answer = TypeVar("_Answer")
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Wait:
    """It is not the task's turn yet."""

    seconds: float
    why: str
    """``due``, ``rate``, ``concurrency``, ``held`` (or paused), or ``running`` elsewhere."""


@dataclass(frozen=True, slots=True)
class Begun:
    """An attempt that may be made now, and has been counted."""

    attempt: int
    """1 for the first."""
    at: float
    """Seconds since the epoch, by Redis' clock; so are the others."""
    first_at: float
    due: float
    replies: int
    """Replies received before."""
    executions: int
    """The same, without those of status 5xx."""
    previous_status: int | None
    """0 when no reply came; None on the first attempt."""
    retry_config: RetryConfig
    """The queue's."""
    tombstone_seconds: int


@dataclass(frozen=True, slots=True)
class Record:
    """How far a task has come."""

    state: str
    """``waiting``, ``running``, ``done``, ``failed`` for good, or ``deleted``."""
    attempts: int
    status: str
    """What the last attempt was answered; "" before the first."""


class Ledger:
    """The records of one task."""

    def __init__(self, client: Redis, queue: str, task_id: str) -> None:
        self._client = client
        self._queue = queue
        self._job_id = keys.job_id(queue, task_id)

    def begin(self) -> Begun | Wait | None:
        """Begin an attempt, or tell how long to wait; None if the task is done or deleted."""
        answer = self._run(
            scripts.BEGIN,
            [
                keys.job(self._job_id),
                keys.queue(self._queue),
                keys.running(self._queue),
                keys.tombstone(self._job_id),
            ],
            [],
        )
        verdict, *facts = [connection.text(each) for each in answer]
        if verdict == "gone":
            return None
        if verdict == "wait":
            return Wait(float(facts[0]), facts[1])
        attempt, at, first, replies, executions, status, due, retry, tombstone = facts
        return Begun(
            attempt=int(attempt),
            at=float(at),
            first_at=float(first),
            due=float(due),
            replies=int(replies),
            executions=int(executions),
            previous_status=max(0, int(status)) if status else None,
            retry_config=queues.retry_config(retry),
            tombstone_seconds=int(tombstone or 3600),
        )

    def finish(
        self,
        begun: Begun,
        state: str,
        status: int,
        *,
        is_reply: bool,
        is_execution: bool,
        wait_seconds: float = 0.0,
        rest_seconds: float | None = None,
    ) -> bool:
        """Write down how an attempt ended; tell whether the task is still there.

        Args:
            begun: the attempt.
            state: ``done``, ``failed`` for good, or ``waiting`` for the next.
            status: HTTP status, or what stands for it.
            is_reply: whether there was a reply.
            is_execution: whether it counts for HTTP targets.
            wait_seconds: from now to the next attempt.
            rest_seconds: for how long an overloaded target wants nothing; None if it is not.
        """
        answer = self._run(
            scripts.FINISH,
            [
                keys.job(self._job_id),
                keys.running(self._queue),
                keys.tombstone(self._job_id),
                keys.executed(self._queue),
                keys.queue(self._queue),
            ],
            [
                state,
                status,
                int(is_reply),
                int(is_execution),
                f"{wait_seconds:.6f}",
                begun.tombstone_seconds,
                "" if rest_seconds is None else f"{rest_seconds:.6f}",
            ],
        )
        return connection.text(answer[0]) == "ok"

    def record(self) -> Record | None:
        """Return how far the task has come; None once it is forgotten.

        Raises:
            redis.RedisError: Redis does not tell.
        """
        facts: Any = self._client.hmget(
            keys.job(self._job_id), ["aec_state", "aec_attempts", "aec_status"]
        )
        state, attempts, status = ("" if fact is None else connection.text(fact) for fact in facts)
        return Record(state, int(attempts or 0), status) if state else None

    def _run(self, script: str, names: list[str], arguments: list[Any]) -> Any:
        registered = self._client.register_script(scripts.with_library(script))
        return patiently(lambda: registered(keys=names, args=[self._job_id, *arguments]))


def patiently(call: Callable[[], _Answer], seconds: float = PATIENCE_SECONDS) -> _Answer:
    """Call again while Redis cannot be reached.

    Raises:
        redis.RedisError: it could not be for so long, or refuses.
    """
    ends_at = time.monotonic() + seconds
    is_told = False
    while True:
        try:
            return call()
        except connection.GONE as error:  # noqa: PERF203
            if time.monotonic() >= ends_at:
                raise
            if not is_told:
                _logger.warning("Redis cannot be reached, and is waited for: %s", error)
                is_told = True
            time.sleep(0.25)
