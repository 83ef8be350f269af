"""What the tests of the API ask again and again, and expect."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest
from google.api_core import exceptions
from google.cloud import tasks_v2

from tests.contract.cloud_tasks_doors import QUEUE, Door

HTTP = {"http_request": {"url": "http://localhost:9/work"}}
FULL = tasks_v2.Task.View.FULL
BASIC = tasks_v2.Task.View.BASIC
NO_QUEUE = (
    "Queue does not exist. If you just created the queue, wait at least a minute for the queue "
    "to initialize."
)
NO_ENTITY = "Requested entity was not found."
GONE = (
    "The task no longer exists, though a task with this name existed recently. The task either "
    "successfully completed or was deleted."
)


def refused(code: str, message: str):
    """Expect a refusal. Over REST the client tells only the HTTP status, before the text."""
    kinds: dict[str, Any] = {
        "NOT_FOUND": exceptions.NotFound,
        "ALREADY_EXISTS": exceptions.Conflict,
        "ABORTED": exceptions.Conflict,
        "INVALID_ARGUMENT": exceptions.BadRequest,
        "FAILED_PRECONDITION": exceptions.BadRequest,
    }
    return pytest.raises(kinds[code], check=lambda error: error.message.endswith(message))


def now_of(door: Door) -> datetime:
    return datetime.fromtimestamp(door.clock.now(), timezone.utc)


def add(client: tasks_v2.CloudTasksClient, task_id: str = "", **fields: Any) -> tasks_v2.Task:
    task = {**HTTP, **fields}
    if task_id:
        task["name"] = f"{QUEUE}/tasks/{task_id}"
    return client.create_task(parent=QUEUE, task=task)
