"""What migrated code has around it: G.70 to G.88 of the list of cases.

``wrap_wsgi_app``, the testbed and ``queueinfo``.
"""

from __future__ import annotations

import base64
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from google.appengine.api import namespace_manager, queueinfo, runtime, taskqueue, wrap_wsgi_app
from google.appengine.api.yaml_errors import EventError
from google.appengine.ext import deferred, testbed


def answer(app: Any, environ: dict[str, Any]) -> tuple[str, bytes]:
    seen: list[str] = []
    body = app(environ, lambda status, headers, *rest: seen.append(status))
    try:
        return "".join(seen), b"".join(body)
    finally:
        if hasattr(body, "close"):
            body.close()


def serving(function: Callable[[dict[str, Any]], object], **options: Any) -> Any:
    """Return a wrapped app that answers what a function returns."""

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        text = repr(function(environ))
        start_response("200 OK", [])
        return [text.encode()]

    return wrap_wsgi_app(app, **options)


# --- wrap_wsgi_app ---------------------------------------------------------------------------


def test_g70_headers_are_variables_of_their_request_only(bed: Any, post: Any) -> None:
    names = ("HTTP_X_APPENGINE_TASKNAME", "PATH_INFO", "USER_EMAIL", "AUTH_DOMAIN")
    app = serving(lambda environ: [os.environ.get(name) for name in names])
    first = post(PATH_INFO="/a", HTTP_X_APPENGINE_USER_EMAIL="ann@example.com")
    assert answer(app, first)[1] == repr(["t1", "/a", "ann@example.com", "gmail.com"]).encode()
    second = post(PATH_INFO="/b", HTTP_X_APPENGINE_TASKNAME="t2")
    assert b"ann@example.com" not in answer(app, second)[1]
    assert "HTTP_X_APPENGINE_TASKNAME" not in os.environ


def test_g71_the_namespace_holds_in_app_and_body_and_ends(bed: Any, post: Any) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield namespace_manager.get_namespace().encode()
        yield namespace_manager.get_namespace().encode()

    environ = post(HTTP_X_APPENGINE_CURRENT_NAMESPACE="ns1")
    assert answer(wrap_wsgi_app(app), environ)[1] == b"ns1ns1"
    assert namespace_manager.get_namespace() == ""


def test_g72_a_namespace_that_is_none_is_no_success(bed: Any, post: Any) -> None:
    app = serving(lambda environ: None)
    with pytest.raises(namespace_manager.BadValueError):
        answer(app, post(HTTP_X_APPENGINE_CURRENT_NAMESPACE="not a namespace!"))


@pytest.mark.parametrize(
    ("path", "address", "expected"),
    [
        ("/_ah/start", "0.1.0.3", b"'app'"),
        ("/_ah/stop", "0.1.0.3", b"ok"),
        ("/_ah/stop", "10.0.0.1", b"'app'"),
    ],
)
def test_g73_starting_and_stopping(
    path: str, address: str, expected: bytes, post: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "_is_shutting_down", False)
    app = serving(lambda environ: "app")
    environ = post(PATH_INFO=path, REMOTE_ADDR=address, HTTP_X_APPENGINE_TASKNAME=None)
    assert answer(app, environ)[1] == expected
    assert runtime.is_shutting_down() is (expected == b"ok")


def test_g74_what_the_app_raises_is_logged_and_raised(
    post: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(environ: dict[str, Any]) -> None:
        raise LookupError("the app's own")

    with pytest.raises(LookupError):
        answer(serving(fails), post())
    (record,) = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert record.exc_info is not None


@pytest.mark.parametrize("is_legacy", [True, False])
def test_g75_threads_see_the_variables_of_the_process(
    is_legacy: bool, post: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MYVAR", "mine")
    before = threading
    app = serving(lambda environ: os.environ.get("MYVAR"), use_legacy_context_mode=is_legacy)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(answer, app, post()).result()[1] == b"'mine'"
    import threading as after

    assert after is before


def test_g76_twice_in_one_process(bed: Any, post: Any) -> None:
    inner = serving(lambda environ: os.environ["PATH_INFO"])
    other = serving(lambda environ: "other")
    assert answer(inner, post(PATH_INFO="/a"))[1] == b"'/a'"
    assert answer(other, post())[1] == b"'other'"
    assert answer(wrap_wsgi_app(inner), post(PATH_INFO="/b"))[1] == b"'/b'"


def test_g77_forged_headers_do_not_reach_pickle(post: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("GAE_ENV", "GAE_APPLICATION", "GAE_SERVICE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(deferred.deferred, "run", lambda data: pytest.fail("ran"))
    app = wrap_wsgi_app(lambda environ, start: [], use_deferred=True)
    forged = post(
        b"bad", REMOTE_ADDR="203.0.113.9", SERVER_SOFTWARE="gunicorn",
        HTTP_X_APPENGINE_USER_IP="0.1.0.2",
    )  # fmt: skip
    assert answer(app, forged)[0][:3] in ("401", "403")


# --- the testbed -----------------------------------------------------------------------------


def test_g78_its_life() -> None:
    bed = testbed.Testbed()
    for call in (bed.deactivate, bed.init_taskqueue_stub, lambda: bed.get_stub("taskqueue")):
        with pytest.raises(testbed.NotActivatedError):
            call()
    bed.activate()
    try:
        assert bed.get_stub("taskqueue") is None
        with pytest.raises(testbed.StubNotSupportedError):
            bed.get_stub("nope")
        for _ in range(2):
            bed.init_taskqueue_stub()
            assert taskqueue.add().name == "task1"
        bed.init_taskqueue_stub(enable=False)
        with pytest.raises(AssertionError, match='No api proxy found for service "taskqueue"'):
            taskqueue.add()
    finally:
        bed.deactivate()


def test_g79_the_dicts_of_get_tasks(stub: Any) -> None:
    taskqueue.add(payload=b"\x00body", headers={"X-A": "b"}, name="n")
    (task,) = stub.GetTasks("default")
    assert task["url"] == "/_ah/queue/default"
    assert (task["name"], task["queue_name"], task["method"]) == ("n", "default", "POST")
    assert task["body"] == base64.b64encode(b"\x00body")
    assert ("X-A", "b") in task["headers"]
    headers = dict(task["headers"])
    assert headers["X-AppEngine-TaskName"] == "n"
    assert headers["X-AppEngine-Development-Payload"] == "1"
    assert {"eta", "eta_usec", "eta_delta", "creation_time_usec"} <= set(task)


def test_g80_filters_and_what_they_return(stub: Any) -> None:
    taskqueue.add(url="/a", name="one")
    taskqueue.add(url="/b", name="two", payload=b"x")
    found = stub.get_filtered_tasks
    assert [task.name for task in found(url="/a")] == ["one"]
    assert [task.url for task in found(name="two")] == ["/b"]
    assert len(found(queue_names="default")) == len(found(queue_names=["default", "no"])) == 2
    assert found(queue_names=[]) == found(queue_names="no") == found(url="/c") == []
    task = found(name="two")[0]
    assert (task.queue_name, task.was_enqueued, task.payload) == (None, False, b"x")
    assert task.eta.microsecond == 0


def test_g81_flushing_and_deleting(stub: Any) -> None:
    taskqueue.Queue().delete_tasks(taskqueue.add(name="a"))
    with pytest.raises(taskqueue.TombstonedTaskError):
        taskqueue.add(name="a")
    stub.FlushQueue("default")
    taskqueue.add(name="a")
    stub.DeleteTask("default", "a")
    taskqueue.add(name="a")
    stub.FlushQueue("nope")
    stub.DeleteTask("nope", "a")
    with pytest.raises(KeyError):
        stub.GetTasks("nope")


def test_g82_queues_of_a_file(bed: Any, tmp_path: Path) -> None:
    (tmp_path / "queue.yaml").write_text("queue:\n- name: mail\n  rate: 7/s\n")
    bed.init_taskqueue_stub(root_path=str(tmp_path))
    taskqueue.add(queue_name="mail")
    with pytest.raises(taskqueue.UnknownQueueError):
        taskqueue.add(queue_name="other")
    queues = bed.get_stub("taskqueue").GetQueues()
    assert [queue["name"] for queue in queues] == ["default", "mail"]
    bed.init_taskqueue_stub(_all_queues_valid=True)
    taskqueue.add(queue_name="other")


def test_g83_the_order_over_queues(bed: Any) -> None:
    bed.init_taskqueue_stub(_all_queues_valid=True)
    taskqueue.add(queue_name="b", name="1")
    taskqueue.add(queue_name="a", name="2", countdown=9)
    taskqueue.add(queue_name="a", name="3")
    names = [task.name for task in bed.get_stub("taskqueue").get_filtered_tasks()]
    assert names == ["3", "2", "1"]


SEEN: list[int] = []


def count_down(number: int) -> None:
    SEEN.append(number)
    if number:
        deferred.defer(count_down, number - 1)


def test_g84_the_loop_that_runs_until_nothing_is_left(stub: Any) -> None:
    SEEN.clear()
    deferred.defer(count_down, 3)
    while tasks := stub.GetTasks("default"):
        stub.FlushQueue("default")
        for task in tasks:
            deferred.run(base64.b64decode(task["body"]))
    assert SEEN == [3, 2, 1, 0]


def test_g85_variables_are_set_and_put_back() -> None:
    before = dict(os.environ)
    bed = testbed.Testbed()
    bed.activate()
    bed.setup_env(app_id="my-project", overwrite=True, my_own="x")
    assert os.environ["APPLICATION_ID"] == os.environ["GOOGLE_CLOUD_PROJECT"] == "my-project"
    assert os.environ["MY_OWN"] == "x"
    bed.deactivate()
    assert dict(os.environ) == before


def test_g86_no_network_whatever_is_set(bed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APPENGINE_COMPAT_BACKEND", "cloudtasks")
    monkeypatch.setenv("CLOUD_TASKS_EMULATOR_HOST", "127.0.0.1:9")
    monkeypatch.setenv("APPENGINE_USE_CLOUDTASK_PUSH_QUEUE", "true")
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("connected"))
    task = taskqueue.add()
    taskqueue.Queue().fetch_statistics()
    taskqueue.Queue().delete_tasks(task)
    taskqueue.Queue().purge()


# --- queueinfo -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "rate"), [("0", 0.0), ("5/s", 5.0), ("60/m", 1.0), ("36/h", 0.01), ("5/", None)]
)
def test_g87_rates(text: str, rate: float | None) -> None:
    assert queueinfo.ParseRate(text) == rate


@pytest.mark.parametrize("text", ["5", "x/s", "5/x"])
def test_g87_what_is_no_rate(text: str) -> None:
    with pytest.raises(queueinfo.MalformedQueueConfiguration):
        queueinfo.ParseRate(text)


def test_g87_ages_and_sizes() -> None:
    assert queueinfo.ParseTaskAgeLimit("1.5h") == 5400
    assert queueinfo.ParseTaskAgeLimit("-1s") == -1
    assert queueinfo.ParseTotalStorageLimit("120M") == 120 * 1024**2
    assert queueinfo.ParseTotalStorageLimit("5") == 5
    for parse, text in (
        (queueinfo.ParseTaskAgeLimit, "5"),
        (queueinfo.ParseTotalStorageLimit, "x"),
    ):
        with pytest.raises(queueinfo.MalformedQueueConfiguration):
            parse(text)


@pytest.mark.parametrize(
    "row", ["rate: 5", "rate: 5/x", "mode: neither", "no_such_key: 1", "task_age_limit: 5"]
)
def test_g88_a_row_that_is_wrong_is_told_with_its_line(row: str) -> None:
    with pytest.raises(EventError, match="line 3"):
        queueinfo.LoadSingleQueue(f"queue:\n- name: a\n  {row}\n")


def test_g88_documents_that_are_wrong() -> None:
    with pytest.raises(queueinfo.MalformedQueueConfiguration, match="Empty queue"):
        queueinfo.LoadSingleQueue("")
    with pytest.raises(queueinfo.MalformedQueueConfiguration, match="Multiple"):
        queueinfo.LoadSingleQueue("queue:\n- name: a\n  rate: 1/s\n---\nqueue:\n")
    assert queueinfo.LoadSingleQueue("queue:\n").queue is None
