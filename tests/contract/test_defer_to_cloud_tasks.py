"""Old code, unchanged, whose tasks go to Cloud Tasks: from ``defer`` to the wire and back."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import grpc
import pytest
from google.appengine.api import taskqueue
from google.appengine.ext import deferred
from google.cloud import tasks_v2

from appengine_compat.backends import cloud_tasks_calls
from appengine_compat.handler import door
from tests.contract.grpc_recorder import LOCATION, PARENT, PROJECT, Recorder, serving

DEFAULT = f"{PARENT}/queues/default/tasks/"


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    """Cloud Tasks, for a program that believes itself on App Engine."""
    monkeypatch.setattr(cloud_tasks_calls, "FIRST_PAUSE_SECONDS", 0.001)
    with serving("default", "push-notifications") as recorder:
        for variable, value in {
            "CLOUD_TASKS_EMULATOR_HOST": recorder.address,
            "GOOGLE_CLOUD_PROJECT": f"e~{PROJECT}",
            "LOCATION_ID": LOCATION,
            "GAE_ENV": "standard",
            "GAE_SERVICE": "py3-web",
            "GAE_VERSION": "v7",
        }.items():
            monkeypatch.setenv(variable, value)
        yield recorder


def only(recorder: Recorder) -> Any:
    (task,) = recorder.tasks.values()
    return task


def test_defer_as_it_stands_in_old_code(recorder: Recorder) -> None:
    deferred.defer(os.path.join, "a", "b")
    request = only(recorder).app_engine_http_request
    assert request.relative_uri == "/_ah/queue/deferred"
    assert (request.app_engine_routing.service, request.app_engine_routing.version) == (
        "py3-web",
        "v7",
    )
    function, args, kwargs = pickle.loads(request.body)
    assert (function, args, kwargs) == (os.path.join, ("a", "b"), {})
    assert request.headers["Content-Type"] == "application/octet-stream"


def test_defer_with_all_its_options(recorder: Recorder) -> None:
    before = datetime.now(timezone.utc)
    task = deferred.defer(
        os.path.join,
        "a",
        _queue="push-notifications",
        _countdown=60,
        _name="once",
        _target="py3-tasks-io",
        _url="/_ah/queue/deferred_notification_send",
        _headers={"X-Reason": "test"},
        _retry_options=taskqueue.TaskRetryOptions(task_retry_limit=4, min_backoff_seconds=2),
    )
    assert (task.name, task.was_enqueued) == ("once", True)
    stored = only(recorder)
    assert stored.name == f"{PARENT}/queues/push-notifications/tasks/once"
    request = stored.app_engine_http_request
    assert request.relative_uri == "/_ah/queue/deferred_notification_send"
    assert (request.app_engine_routing.service, request.app_engine_routing.version) == (
        "py3-tasks-io",
        "",
    )
    assert request.headers["X-Reason"] == "test"
    due = stored.schedule_time.ToDatetime(timezone.utc)
    assert timedelta(seconds=59) < due - before < timedelta(seconds=90)
    assert stored.retry_config.max_attempts == 5
    assert stored.retry_config.min_backoff.ToTimedelta() == timedelta(seconds=2)


def test_a_get_task_to_another_service(recorder: Recorder) -> None:
    taskqueue.add(
        url="/tasks/math/do/points/2019nyny",
        method="GET",
        target="py3-tasks-io",
        queue_name="default",
        countdown=300,
    )
    request = only(recorder).app_engine_http_request
    assert tasks_v2.HttpMethod(request.http_method) is tasks_v2.HttpMethod.GET
    assert request.relative_uri == "/tasks/math/do/points/2019nyny"
    assert request.app_engine_routing.service == "py3-tasks-io"


def test_elsewhere_the_task_is_an_http_request(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GAE_ENV")
    monkeypatch.setenv(
        "APPENGINE_COMPAT_TARGETS", "py3-web=https://web.example.com,api=https://api.example.com"
    )
    monkeypatch.setenv("APPENGINE_COMPAT_SERVICE_ACCOUNT", "tasks@p.iam.gserviceaccount.com")
    deferred.defer(os.path.join, "a", _target="api", _url="/custom/path")
    request = only(recorder).http_request
    assert request.url == "https://api.example.com/custom/path"
    assert request.oidc_token.service_account_email == "tasks@p.iam.gserviceaccount.com"
    assert request.oidc_token.audience == "https://api.example.com"


def test_an_explicit_client_goes_before_the_environment(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport = tasks_v2.CloudTasksClient.get_transport_class("grpc")
    channel = grpc.insecure_channel(recorder.address)
    client = tasks_v2.CloudTasksClient(transport=transport(channel=channel))
    monkeypatch.setenv("CLOUD_TASKS_EMULATOR_HOST", "127.0.0.1:1")
    deferred.defer(os.path.join, "a", _client=client)
    assert len(recorder.tasks) == 1


def test_many_tasks_go_in_one_call(recorder: Recorder) -> None:
    queue = taskqueue.Queue("default")
    tasks = queue.add([taskqueue.Task(url="/x", payload=b"%d" % n) for n in range(100)])
    assert [call.rpc for call in recorder.calls] == ["BatchCreateTasks"]
    assert [recorder.tasks[DEFAULT + task.name].app_engine_http_request.body for task in tasks] == [
        b"%d" % n for n in range(100)
    ]
    queue.delete_tasks(tasks[:50])
    assert all(task.was_deleted for task in tasks[:50])
    queue.purge()
    assert not recorder.tasks


@pytest.mark.parametrize(
    ("code", "text", "exception", "said"),
    [
        ("NOT_FOUND", "Queue does not exist.", taskqueue.UnknownQueueError, "queues create"),
        ("INVALID_ARGUMENT", "Task size too large", taskqueue.TaskTooLargeError, "too large"),
        ("PERMISSION_DENIED", "no", taskqueue.PermissionDeniedError, "cloudtasks.enqueuer"),
        ("UNAVAILABLE", "busy", taskqueue.TransientError, "busy"),
        ("INTERNAL", "oops", taskqueue.InternalError, "oops"),
    ],
)
def test_refusals_are_the_exceptions_that_old_code_catches(
    recorder: Recorder, code: str, text: str, exception: type[Exception], said: str
) -> None:
    recorder.fail("CreateTask", code, text, times=9)
    with pytest.raises(exception, match=said) as caught:
        deferred.defer(os.path.join, "a")
    assert f"{PARENT}/queues/default" in str(caught.value)


def test_names_are_for_one_task(recorder: Recorder) -> None:
    deferred.defer(os.path.join, "a", _name="once")
    with pytest.raises(taskqueue.TaskAlreadyExistsError, match="once"):
        deferred.defer(os.path.join, "a", _name="once")
    recorder.finish("default", "once")
    with pytest.raises(taskqueue.TombstonedTaskError, match="once"):
        deferred.defer(os.path.join, "a", _name="once")


def test_tasks_are_signed_where_there_are_keys(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the wire to the door: what was recorded is what App Engine would deliver."""
    monkeypatch.setenv("APPENGINE_COMPAT_SIGNING_KEYS", "k:0123456789abcdef")
    monkeypatch.setenv("APPENGINE_COMPAT_SIGNATURES", "require")
    taskqueue.add(url="/tasks/do%20it?a=1%262", method="PUT", payload=b"body", countdown=60)
    task = only(recorder)
    request = task.app_engine_http_request
    arrived = {
        "REQUEST_METHOD": "PUT",
        "PATH_INFO": "/tasks/do it",
        "QUERY_STRING": "a=1%262",
        "REMOTE_ADDR": "127.0.0.1",
        "CONTENT_LENGTH": "4",
        "wsgi.input": io.BytesIO(request.body),
        "HTTP_X_APPENGINE_QUEUENAME": "default",
        "HTTP_X_APPENGINE_TASKNAME": task.name.rpartition("/")[2],
        "HTTP_X_APPENGINE_USER_IP": "0.1.0.2",
        "HTTP_X_AEC_SIGNATURE": request.headers["X-AEC-Signature"],
    }
    assert door.verdict(dict(arrived)).trusted
    unsigned = {name: value for name, value in arrived.items() if "SIGNATURE" not in name}
    assert door.verdict(unsigned).code == "AEC-SIGNATURE-MISSING"
