"""The example's own pages, under the test stub: each button adds the task that it says."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "guestbook"


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of the default service, whose modules are forgotten afterwards."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    monkeypatch.setenv("GUESTBOOK_DB", str(tmp_path / "guestbook.db"))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    import main  # type: ignore[import-not-found]

    yield main.app.test_client()
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) in map(str, EXAMPLE.glob("*.py")):
            del sys.modules[name]


@pytest.mark.parametrize(
    ("button", "queue", "method", "url"),
    [
        ("/flaky", "default", "POST", "/_ah/queue/deferred"),
        ("/broken", "default", "POST", "/_ah/queue/deferred"),
        ("/later", "run-in-order", "POST", "/_ah/queue/deferred"),
        ("/do_the_thing", "default", "POST", "/custom/path"),
        ("/points", "default", "GET", "/tasks/math/do/points/2019nyny"),
        ("/notify", "push-notifications", "POST", "/_ah/queue/deferred_notification_send"),
    ],
)
def test_each_button_adds_its_task(
    page: Any, taskqueue_stub: Any, button: str, queue: str, method: str, url: str
) -> None:
    answer = page.post(button)

    assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    (task,) = taskqueue_stub.get_filtered_tasks(queue_names=queue)
    assert (task.method, task.url) == (method, url)
    assert "deferred, due" in page.get("/").text


def test_signing_adds_one_task_here_and_one_for_the_wall(page: Any, taskqueue_stub: Any) -> None:
    from google.appengine.ext import deferred

    page.post("/sign", data={"name": "Ann <b>", "message": "hi"})

    thanks, wall = taskqueue_stub.get_filtered_tasks()
    assert (wall.url, wall.payload) == ("/tasks/wall", b"entry=1")
    assert "<small>thanked" not in page.get("/").text
    deferred.run(thanks.payload)
    text = page.get("/").text
    assert "<small>thanked" in text
    assert "Ann &lt;b&gt;" in text


def test_its_requirements_name_only_the_replacement() -> None:
    lines = (EXAMPLE / "requirements.txt").read_text("utf-8").splitlines()

    assert [line for line in lines if not line.startswith("#")] == [
        "Flask>=2.3",
        "appengine-compat",
    ]


def test_nothing_in_its_code_knows_of_appengine_compat() -> None:
    for path in EXAMPLE.glob("*.py"):
        assert "appengine_compat" not in path.read_text("utf-8")
