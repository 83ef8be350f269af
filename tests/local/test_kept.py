"""Tasks that failed for good: kept while the attempt that says so still runs, and put back."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from appengine_compat.backends.base import TaskRequest
from appengine_compat.backends.embedded import EmbeddedBackend
from appengine_compat.core.in_process import attempt_of
from appengine_compat.core.model import Queue, RateLimits, RetryOverrides
from appengine_compat.errors import ApiError
from appengine_compat.local import kept
from appengine_compat.local.store import Store
from tests.local.conftest import QUEUE as LOCAL_QUEUE
from tests.local.conftest import Local

QUEUE = "mail"


@pytest.mark.parametrize("payload", [b"short", b"long" * 100_000])
def test_it_is_kept_whole_and_then_gone_from_the_queue(tmp_path: Path, payload: bytes) -> None:
    path = tmp_path / "tasks.db"
    backend = EmbeddedBackend(
        str(path),
        queues=[
            Queue(name=f"projects/local/locations/local/queues/{QUEUE}", rate_limits=RateLimits())
        ],
    )
    answers: list[bool] = []
    has_ended = threading.Event()

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        attempt = attempt_of(environ)
        assert attempt is not None
        answers.append(attempt.keep("Traceback of the task"))
        start_response("200 OK", [])
        return [b""]

    backend.register_app(app, "default")
    backend.observe(lambda event: has_ended.set())
    backend.create_tasks(QUEUE, [TaskRequest(relative_url="/x", payload=payload, name="one")])
    assert has_ended.wait(30)
    remaining = backend.queue_stats([QUEUE])[0].tasks_count
    backend.close()

    assert answers == [True]
    assert remaining == 0
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT task, reason, attempts, body, traceback FROM kept")
        assert rows.fetchall() == [("one", "permanent", 1, payload, "Traceback of the task")]
    connection.close()


def test_one_that_no_attempt_runs_is_not_kept(tmp_path: Path) -> None:
    backend = EmbeddedBackend(str(tmp_path / "tasks.db"))
    backend.create_tasks("default", [TaskRequest(relative_url="/x", name="waits")])

    found = [backend.keep("default", name, "") for name in ("waits", "nobody")]
    found.append(backend.keep("no-such-queue", "waits", ""))
    backend.close()

    assert found == [False, False, False]


# --- what is kept, put back or dropped -----------------------------------------------------------

HEADERS = {"X-Reason": "test", "Content-Type": "application/octet-stream"}


def put_aside(local: Local, task_id: str = "one", **fields: Any) -> int:
    """Let a task spend its attempts, and return the number under which it is kept."""
    local.targets.answer = lambda delivery: 503
    local.add(
        task_id,
        body=fields.pop("body", b"short"),
        headers=HEADERS,
        service="worker",
        retry_config=RetryOverrides(max_attempts=1),
        **fields,
    )
    local.start()
    local.settle()
    local.targets.answer = lambda delivery: 200
    return entries(local)[-1].number


def entries(local: Local) -> list[kept.Entry]:
    return local.service.store.read(kept.entries)


def test_an_entry_tells_all_of_the_task(local: Local) -> None:
    number = put_aside(local, dispatch_deadline_seconds=42.0)
    (entry,) = entries(local)
    assert (entry.number, entry.queue, entry.task_id) == (number, str(LOCAL_QUEUE), "one")
    assert (entry.reason, entry.attempts, entry.last_status) == (kept.EXHAUSTED, 1, 503)
    assert (entry.service, entry.method, entry.url) == ("worker", "POST", "/work")
    assert (entry.body, entry.deadline_ms, entry.traceback) == (b"short", 42000, "")
    assert entry.headers["X-Reason"] == "test"
    assert local.service.store.read(lambda connection: kept.find(connection, number)) == entry
    assert local.service.store.read(lambda connection: kept.find(connection, 999)) is None


@pytest.mark.parametrize("body", [b"short", b"long" * 100_000])
def test_what_is_put_back_is_sent_as_it_was(local: Local, body: bytes) -> None:
    number = put_aside(local, body=body, dispatch_deadline_seconds=42.0)
    first = local.targets.deliveries[-1]
    task_id = local.service.replay(number)
    local.settle()
    again = local.targets.deliveries[-1]
    assert task_id is not None
    assert again.claim.task_id == task_id != first.claim.task_id
    for field in ("service", "method", "url", "headers", "body", "extra", "deadline_ms"):
        assert getattr(again.claim, field) == getattr(first.claim, field), field
    assert again.claim.attempt == 1
    assert entries(local) == []


def test_what_is_not_kept_cannot_be_put_back(local: Local) -> None:
    assert local.service.replay(999) is None


def test_what_has_no_queue_any_more_stays_kept(local: Local) -> None:
    number = put_aside(local)
    local.service.delete_queue(str(LOCAL_QUEUE))
    with pytest.raises(ApiError, match="NOT_FOUND"):
        local.service.replay(number)
    assert len(entries(local)) == 1


def test_what_is_dropped_is_gone(local: Local) -> None:
    numbers = [put_aside(local, "a"), put_aside(local, "b")]
    drop = local.service.store.write(lambda connection: kept.drop(connection, [numbers[0], 999]))
    assert drop == 1
    assert [entry.number for entry in entries(local)] == [numbers[1]]


def test_entries_come_in_pages(local: Local) -> None:
    numbers = [put_aside(local, name) for name in "abc"]
    page = local.service.store.read(lambda connection: kept.entries(connection, numbers[0], 1))
    assert [entry.number for entry in page] == [numbers[1]]


def test_what_an_older_version_has_kept_is_read(tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    Store(path).close()
    connection = sqlite3.connect(path)
    connection.executescript(
        "DROP TABLE throttles; ALTER TABLE kept DROP COLUMN deadline_ms; PRAGMA user_version = 2;"
        "INSERT INTO kept (queue, task, reason, kept_at, attempts, service, method, url, headers) "
        "VALUES ('q', 't', 'expired', 1, 0, '', 'GET', 'http://x/', '{}');"
    )
    connection.close()
    store = Store(path)
    (entry,) = store.read(kept.entries)
    store.close()
    assert (entry.task_id, entry.deadline_ms, entry.last_status) == ("t", 0, None)
