"""A task that failed for good, kept while the attempt that says so still runs."""

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
from appengine_compat.core.model import Queue, RateLimits

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
    kept: list[bool] = []
    has_ended = threading.Event()

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        attempt = attempt_of(environ)
        assert attempt is not None
        kept.append(attempt.keep("Traceback of the task"))
        start_response("200 OK", [])
        return [b""]

    backend.register_app(app, "default")
    backend.observe(lambda event: has_ended.set())
    backend.create_tasks(QUEUE, [TaskRequest(relative_url="/x", payload=payload, name="one")])
    assert has_ended.wait(30)
    remaining = backend.queue_stats([QUEUE])[0].tasks_count
    backend.close()

    assert kept == [True]
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
