"""The lines that dev prints: one for each queue, attempt and task in flight."""

from __future__ import annotations

import base64
import pickle
import time

import pytest

from appengine_compat.cli import lines
from appengine_compat.core.model import Queue, QueueState, RateLimits, RetryConfig
from appengine_compat.local.delivery import AttemptEvent, InFlight, Outcome

PARENT = "projects/p/locations/l/queues/"
NOON = time.mktime((2030, 1, 2, 12, 0, 0, 0, 0, -1))


def greet(name: str, *, politely: bool) -> None: ...


PAYLOAD = pickle.dumps((greet, ("Ann",), {"politely": True}))
CALL = f"{__name__}.greet('Ann', politely=True)"


def event(**changes: object) -> AttemptEvent:
    fields: dict[str, object] = {
        "queue_id": "mail",
        "task_id": "1",
        "service": "default",
        "method": "POST",
        "path": "/_ah/queue/deferred",
        "body": PAYLOAD,
        "attempt": 1,
        "status": 200,
        "milliseconds": 12.4,
        "outcome": Outcome.DONE,
    }
    return AttemptEvent(**(fields | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "failure", "said"),
    [
        ({}, "", f"default  {CALL}  attempt 1  200  12 ms"),
        (
            {"status": 500, "outcome": Outcome.RETRY, "next_try": NOON + 1.5, "attempt": 2},
            "",
            f"default  {CALL}  attempt 2  500  12 ms  next try in 1.5 s",
        ),
        (
            {"status": 503, "outcome": Outcome.RETRY, "next_try": NOON + 3600},
            "",
            f"default  {CALL}  attempt 1  503  12 ms  next try in 3600 s",
        ),
        (
            {"status": 500, "outcome": Outcome.FAILED, "attempt": 3},
            "",
            f"default  {CALL}  attempt 3  500  12 ms  given up: its attempts are spent",
        ),
        (
            {"status": 0, "outcome": Outcome.RETRY, "next_try": NOON - 1},
            "",
            f"default  {CALL}  attempt 1  no reply  12 ms  next try in 0.0 s",
        ),
        (
            {"outcome": Outcome.GONE},
            "",
            f"default  {CALL}  attempt 1  200  12 ms  deleted meanwhile",
        ),
        (
            {},
            "no such card",
            f"default  {CALL}  attempt 1  200  12 ms  failed for good: no such card",
        ),
        (
            {"method": "GET", "path": "/tasks/math?n=1", "body": b"", "service": "worker"},
            "",
            "worker  GET /tasks/math?n=1  attempt 1  200  12 ms",
        ),
        (
            {"body": b"comment=hello\nworld\n.", "path": "/tasks/wall"},
            "",
            "default  POST /tasks/wall  attempt 1  200  12 ms",
        ),
    ],
)  # fmt: skip
def test_an_attempt_tells_what_ran_and_how_it_went(
    changes: dict[str, object], failure: str, said: str
) -> None:
    line = lines.attempt_line(event(**changes), NOON, failure)

    assert line == f"12:00:00  mail  {said}"


def test_no_text_of_a_task_leaves_its_line_or_moves_the_cursor() -> None:
    hostile = "\x1b[2J\nfake\r\u202ezz"
    body = pickle.dumps((greet, (hostile,), {hostile: 1}))

    line = lines.attempt_line(event(body=body), NOON, hostile)
    line += lines.attempt_line(event(body=b"", path="/" + hostile), NOON)

    assert line.isprintable()


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_the_call_is_read_from_pickles_of_every_kind(protocol: int, wrapped: bool) -> None:
    payload = pickle.dumps((greet, ("Ann",), {"politely": True}), protocol)
    if wrapped:
        payload = base64.b64encode(payload)

    assert lines.what_runs("POST", "/x", payload) == CALL


@pytest.mark.parametrize(
    ("queue", "said"),
    [
        (Queue(name=PARENT + "mail"), "mail     500/s, 1000 at once, given up after 100 attempts"),
        (
            Queue(
                name=PARENT + "backups",
                rate_limits=RateLimits(max_dispatches_per_second=0.1, max_concurrent_dispatches=1),
                retry_config=RetryConfig(max_attempts=-1),
            ),
            "backups  0.1/s, 1 at once, retried without end",
        ),
        (
            Queue(
                name=PARENT + "mail",
                retry_config=RetryConfig(max_attempts=1, max_retry_duration_seconds=180),
                state=QueueState.PAUSED,
            ),
            "mail     500/s, 1000 at once, given up after 1 attempt and 180 s, paused",
        ),
    ],
)
def test_a_queue_tells_its_limits(queue: Queue, said: str) -> None:
    assert lines.queue_line(queue, len("backups")) == said


def test_a_task_in_flight_tells_how_long_it_has_been_running() -> None:
    task = InFlight(
        queue_id="mail",
        task_id="1",
        service="default",
        method="POST",
        path="/_ah/queue/deferred",
        body=PAYLOAD,
        attempt=2,
        seconds=3.21,
    )

    assert lines.in_flight_line(task) == f"mail  {CALL}  attempt 2  running for 3.2 s"
