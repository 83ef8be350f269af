"""A wrapped app and the embedded service in one process: tasks come back, and nothing else."""

from __future__ import annotations

import logging
import os
import queue
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
from google.appengine.api import namespace_manager, taskqueue, wrap_wsgi_app
from google.appengine.ext import deferred

from appengine_compat import settings
from appengine_compat.backends import embedded

USER: ContextVar[str] = ContextVar("user", default="nobody")
RAN: queue.Queue[Any] = queue.Queue()


@pytest.fixture(autouse=True)
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for variable in ("GAE_ENV", "K_SERVICE", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    path = str(tmp_path / "tasks.db")
    settings.configure(db=path, backend="embedded")
    yield
    settings.configure(db=None, backend=None)
    embedded._shared[path].close(10.0)
    del embedded._shared[path]


def facts() -> tuple[str, str, str | None, str | None]:
    return (
        USER.get(),
        namespace_manager.get_namespace(),
        os.environ.get("HTTP_X_APPENGINE_QUEUENAME"),
        os.environ.get("REMOTE_ADDR"),
    )


def work(what: str) -> None:
    RAN.put((what, facts()))


def fail(how: str) -> None:
    if how == "permanent":
        raise deferred.PermanentTaskFailure("given up")
    raise LookupError("broken")


def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    if path == "/start":
        USER.set("ann")
        namespace_manager.set_namespace("ns1")
        deferred.defer(work, "deferred")
        deferred.defer(work, "custom", _url="/custom")
        namespace_manager.set_namespace("")
        taskqueue.add(url="/plain?a=b", method="GET")
    elif path == "/custom":
        text, status, headers = deferred.application.post(environ)
        start_response(f"{status.value} {status.phrase}", headers)
        return [text.encode()]
    elif path == "/plain":
        work(environ["QUERY_STRING"])
    start_response("200 OK", [])
    return [b""]


@pytest.mark.parametrize("legacy", [True, False])
def test_what_a_request_defers_runs_with_its_own_facts_only(legacy: bool) -> None:
    wrapped = wrap_wsgi_app(app, use_legacy_context_mode=legacy, use_deferred=True)
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/start", "HTTP_HOST": "localhost:8080"}
    wrapped(environ, lambda *args: None)  # type: ignore[arg-type]
    ran = dict(RAN.get(timeout=30) for _ in range(3))
    seen = ("default", "0.1.0.2") if legacy else (None, None)
    assert ran == {
        "deferred": ("nobody", "ns1", *seen),
        "custom": ("nobody", "ns1", *seen),
        "a=b": ("nobody", "", *seen),
    }


def run_one(function: Any, *args: Any) -> None:
    """Defer a call to the wrapped app, and wait for the end of its first attempt."""
    has_ended = threading.Event()
    embedded.shared().observe(lambda event: has_ended.set())
    wrap_wsgi_app(app, use_deferred=True)
    deferred.defer(function, *args, _name="one")
    assert has_ended.wait(30)


def test_a_task_that_failed_for_good_is_kept_in_the_database(
    caplog: pytest.LogCaptureFixture,
) -> None:
    run_one(fail, "permanent")
    connection = sqlite3.connect(settings.DB.get())
    rows = connection.execute("SELECT task, reason, traceback FROM kept").fetchall()
    connection.close()
    ((task, reason, traceback),) = rows
    assert (task, reason) == ("one", "permanent")
    assert "PermanentTaskFailure: given up" in traceback
    assert not [record for record in caplog.records if record.name == "appengine_compat.kept"]


def test_a_task_that_failed_is_logged_once_and_named(caplog: pytest.LogCaptureFixture) -> None:
    run_one(fail, "at first")
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert "Task one of queue default raised an exception" in record.getMessage()
    assert record.exc_info is not None
