"""The example of task handlers of one's own: open to tasks, closed to everybody else."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from appengine_compat.local import tokens

FILE = Path(__file__).parents[2] / "examples" / "task_handlers" / "main.py"
SECRET = b"the secret of the example's test"
TASK = {"X-CloudTasks-QueueName": "default", "X-CloudTasks-TaskName": "t1"}


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Any:
    for variable in ("GAE_ENV", "GAE_APPLICATION", "GAE_INSTANCE", "APPENGINE_COMPAT_BACKEND"):
        monkeypatch.delenv(variable, raising=False)
    spec = importlib.util.spec_from_file_location("example_task_handlers", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.app.test_client()


def test_a_task_is_let_in(client: Any) -> None:
    tokens.register_secret(SECRET)
    token = tokens.make(SECRET, queue_id="default", task_id="t1", path="/tasks/count")
    headers = {**TASK, "X-AEC-Local-Token": token}
    answer = client.post("/tasks/count", data={"word": "hello"}, headers=headers)
    assert (answer.status_code, answer.text) == (200, "t1")
    assert client.get("/").text == "<p>hello: 1</p>"


@pytest.mark.parametrize("path", ["/tasks/count", "/_ah/queue/deferred"])
def test_nobody_else_is(client: Any, path: str) -> None:
    answer = client.post(path, data={"word": "hello"}, headers=TASK)
    assert answer.status_code == 401
    assert answer.text.startswith("AEC-NO-CREDENTIALS")
    assert client.get("/").text == ""


def test_its_page_adds_the_task(client: Any, taskqueue_stub: Any) -> None:
    assert client.get("/say/hello").status_code == 302
    (task,) = taskqueue_stub.get_filtered_tasks()
    assert task.url == "/tasks/count"
