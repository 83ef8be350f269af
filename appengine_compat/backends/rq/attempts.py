"""What RQ runs for a task: one attempt at delivering it, by the rules of Cloud Tasks."""

from __future__ import annotations

import logging
import math
import time
from typing import Any

from rq import Retry, get_current_job
from rq.timeouts import JobTimeoutException

from appengine_compat.backends.rq import http_attempt
from appengine_compat.backends.rq.ledger import Begun, Ledger, Wait
from appengine_compat.backends.rq.requests import ENDLESS
from appengine_compat.core import outcome
from appengine_compat.core.headers import (
    AttemptFacts,
    Family,
    counts_as_execution,
    task_headers,
)
from appengine_compat.core.model import RetryOverrides
from appengine_compat.core.moments import from_seconds, to_datetime
from appengine_compat.core.retry import backoff_seconds, effective_retry_config, is_exhausted
from appengine_compat.errors import CompatError
from appengine_compat.local.delivery import Reply

IN_PLACE_SECONDS = 1.5
"""Waits up to this are slept in the worker: RQ's scheduler looks once a second."""
MOST_IN_PLACE_SECONDS = 5.0
"""All such waits together; a place among the running is waited for so, to keep the order."""

_SHOWN_BODY_CHARACTERS = 500

_logger = logging.getLogger(__name__)


class AttemptFailed(CompatError):
    """An attempt was not answered with success. RQ counts the run as failed."""


def deliver(
    *,
    queue: str,
    task: str,
    method: str,
    url: str,
    headers: list[tuple[str, str]],
    body: bytes,
    deadline_seconds: float,
    retry: dict[str, Any] | None,
) -> Any:
    """Make one attempt, when it is the task's turn. Called by RQ.

    Returns:
        A line for the dashboard, or ``rq.Retry`` when it was not the task's turn.

    Raises:
        AttemptFailed: it failed; the job says whether and when RQ is to run it again.
    """
    job = get_current_job()
    assert job is not None
    ledger = Ledger(job.connection, queue, task)
    begun = _turn(ledger)
    if begun is None:
        job.result_ttl = 0
        return "Not sent: it was done before, or deleted."
    if isinstance(begun, Wait):
        return Retry(max=ENDLESS, interval=_whole_seconds(begun.seconds))
    started = time.perf_counter()
    try:
        reply = http_attempt.send(
            method,
            url,
            [*headers, *_attempt_headers(queue, task, begun)],
            body,
            deadline_seconds=deadline_seconds,
        )
    except JobTimeoutException:
        reply = Reply(outcome.TIMED_OUT, error="no reply within the deadline")
    seconds = time.perf_counter() - started
    told = f"{method} {url}: {_answer(reply)} in {seconds * 1000:.0f} ms, attempt {begun.attempt}"
    if outcome.is_success(reply.status):
        state, wait = "done", 0.0
    else:
        overrides = RetryOverrides(**retry) if retry else None
        state, wait = _verdict(begun, overrides, reply, begun.at + seconds)
    is_there = ledger.finish(
        begun,
        state,
        reply.status,
        is_reply=outcome.is_reply(reply.status),
        is_execution=counts_as_execution(Family.HTTP, max(0, reply.status)),
        wait_seconds=wait,
        rest_seconds=(
            reply.retry_after_seconds if outcome.throttles(Family.HTTP, reply.status) else None
        ),
    )
    if not is_there:
        job.result_ttl = 0
        return f"{told}; it was deleted meanwhile."
    if state == "done":
        _logger.info("%s: %s: %s", queue, job.description, told)
        return told
    if state == "failed":
        told += ". Its attempts are spent, so it is given up."
        job.retries_left = 0
    else:
        told += f". Next try in {wait:g} s."
        job.retries_left, job.retry_intervals = ENDLESS, [_whole_seconds(wait)]
    _logger.warning("%s: %s: %s", queue, job.description, told)
    answered = reply.body.decode("utf-8", "replace").strip()[:_SHOWN_BODY_CHARACTERS]
    raise AttemptFailed(f"{told}\n{answered}" if answered else told)


def _turn(ledger: Ledger) -> Begun | Wait | None:
    waited = 0.0
    while True:
        turn = ledger.begin()
        if not isinstance(turn, Wait):
            return turn
        longest = MOST_IN_PLACE_SECONDS if turn.why == "concurrency" else IN_PLACE_SECONDS
        if turn.seconds > longest or waited >= MOST_IN_PLACE_SECONDS:
            return turn
        # Concurrency has no moment at which it ends; a short look costs Redis nothing.
        pause = min(turn.seconds, 0.1) if turn.why == "concurrency" else turn.seconds
        time.sleep(pause)
        waited += pause


def _verdict(
    begun: Begun, overrides: RetryOverrides | None, reply: Reply, now: float
) -> tuple[str, float]:
    """What a failed attempt means: the task's state, and the seconds to the next attempt."""
    config = effective_retry_config(begun.retry_config, overrides)
    if is_exhausted(config, begun.attempt, now - begun.first_at):
        return "failed", 0.0
    wait = backoff_seconds(config, begun.attempt)
    # The target wants rest; whether Cloud Tasks keeps to it exactly is not told.
    if outcome.throttles(Family.HTTP, reply.status):
        wait = max(wait, reply.retry_after_seconds)
    return "waiting", wait


def _attempt_headers(queue: str, task: str, begun: Begun) -> list[tuple[str, str]]:
    """The headers of both families: an app that is not wrapped may read either."""
    sent = []
    for family, replies in ((Family.HTTP, begun.executions), (Family.APP_ENGINE, begun.replies)):
        facts = AttemptFacts(
            queue_id=queue,
            task_id=task,
            eta=to_datetime(from_seconds(begun.due)),
            retries=begun.attempt - 1,
            replies=replies,
            previous_response=begun.previous_status,
        )
        sent += task_headers(family, facts)
    return sent


def _whole_seconds(wait: float) -> int:
    """The seconds after which RQ's scheduler is to bring the task back: it cuts fractions off,
    and what is missing is slept in the worker."""
    now = time.time()
    return max(0, math.floor(now + wait) - math.floor(now))


def _answer(reply: Reply) -> str:
    if outcome.is_reply(reply.status):
        return str(reply.status)
    return f"no reply ({reply.error})"
