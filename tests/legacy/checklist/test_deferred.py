"""What migrated code does with ``deferred``: G.1 to G.36 of the list of cases.

The rules behind each are tested where they live; here they are asked for in one place, by
number, as code in the wild would.
"""

from __future__ import annotations

import base64
import datetime
import functools
import http
import io
import logging
import operator
import pickle
import pickletools
from typing import Any

import pytest
from google.appengine.api import taskqueue
from google.appengine.ext import deferred
from google.appengine.ext.deferred import deferred as submodule

import appengine_compat

TEXT = [("Content-Type", "text/plain")]


def double(value: int, k: int = 1) -> int:
    return 2 * value * k


def fail(kind: str) -> None:
    raise {
        "permanent": deferred.PermanentTaskFailure,
        "singular": deferred.SingularTaskFailure,
        "other": KeyError,
    }[kind]("on purpose")


def drain(stub: Any, queue: str = "default") -> list[Any]:
    tasks = stub.get_filtered_tasks(queue_names=queue)
    stub.FlushQueue(queue)
    return [deferred.run(task.payload) for task in tasks]


class Worker:
    def __init__(self, base: int = 1) -> None:
        self.base = base

    def add(self, value: int) -> int:
        return self.base + value

    @classmethod
    def make(cls, base: int) -> int:
        return cls(base).base

    @staticmethod
    def plain(value: int) -> int:
        return value

    def __call__(self, value: int) -> int:
        return -value


# --- imports and names -----------------------------------------------------------------------


def test_g01_the_submodule_is_what_the_package_shows() -> None:
    import google.appengine.ext.deferred.deferred as imported

    assert deferred.deferred is imported is submodule
    assert deferred.run is deferred.deferred.run


def test_g02_private_names_are_on_the_submodule_only() -> None:
    for name in ("_DEFAULT_QUEUE", "_curry_callable"):
        assert not hasattr(deferred, name)
        assert hasattr(submodule, name)
    assert not hasattr(deferred, "_DeferredTaskEntity")
    # Alone there is no datastore: the name says what to install. Beside the SDK it is there.
    with pytest.raises(AttributeError, match="appengine-python-standard"):
        submodule._DeferredTaskEntity  # noqa: B018


def test_g03_package_and_submodule_of_taskqueue_share_their_classes() -> None:
    assert taskqueue.Task is taskqueue.taskqueue.Task
    assert taskqueue.BadTransactionState is taskqueue.BadTransactionStateError


def test_g04_the_tree_of_exceptions() -> None:
    assert issubclass(taskqueue.TaskTooLargeError, taskqueue.InvalidTaskError)
    assert issubclass(taskqueue.TransactionalRequestTooLargeError, taskqueue.TaskTooLargeError)
    assert issubclass(taskqueue.InvalidQueueNameError, taskqueue.InvalidQueueError)
    assert not issubclass(taskqueue.TaskAlreadyExistsError, taskqueue.TombstonedTaskError)
    assert not issubclass(taskqueue.TombstonedTaskError, taskqueue.TaskAlreadyExistsError)


# --- defer, serialize, run -------------------------------------------------------------------


def test_g05_run_returns_what_the_function_returns() -> None:
    assert deferred.run(deferred.serialize(double, 1, k=2)) == 4


@pytest.mark.parametrize(
    ("call", "args", "result"),
    [
        (Worker(3).add, (4,), 7),
        (Worker.make, (5,), 5),
        (Worker(), (6,), -6),
        (Worker.plain, (7,), 7),
        (len, ("abc",), 3),
        (operator.add, (1, 2), 3),
        (functools.partial(double, 2), (), 4),
        (datetime.datetime(2020, 1, 2).isoformat, (), "2020-01-02T00:00:00"),
        ("-".join, (["a", "b"],), "a-b"),
    ],
)
def test_g06_every_kind_of_callable_makes_the_round_trip(call: Any, args: Any, result: Any) -> None:
    assert deferred.run(deferred.serialize(call, *args)) == result


def test_g06_a_class_makes_the_round_trip() -> None:
    assert deferred.run(deferred.serialize(Worker, 8)).base == 8


def test_g07_the_payload_of_a_method_names_the_submodule() -> None:
    names = [
        argument
        for opcode, argument, _ in pickletools.genops(deferred.serialize(Worker().add, 1))
        if isinstance(argument, str)
    ]
    assert "google.appengine.ext.deferred.deferred" in names
    assert "invoke_member" in names


def test_g08_what_cannot_be_deferred() -> None:
    with pytest.raises(ValueError, match="obj must be callable"):
        deferred.serialize(5)
    with pytest.raises((pickle.PicklingError, AttributeError)):
        deferred.serialize(lambda: None)


@pytest.mark.parametrize(("value", "first"), [("False", b"("), ("1", b"("), (None, b"\x80")])
def test_g09_any_value_of_the_variable_asks_for_protocol_0(
    value: str | None, first: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "DEFERRED_USE_CROSS_COMPATIBLE_PICKLE_PROTOCOL"
    if value is None:
        monkeypatch.delenv(name, raising=False)
    else:
        monkeypatch.setenv(name, value)
    assert deferred.serialize(double, 1)[:1] == first


@pytest.mark.parametrize(
    "payload",
    [b"xx", b"", b"cno_such_module\nname\n.", pickle.dumps((double, (1,)))],
)
def test_g10_what_cannot_be_read_is_a_permanent_failure(payload: bytes) -> None:
    with pytest.raises(deferred.PermanentTaskFailure):
        deferred.run(payload)


def test_g10_what_the_function_raises_is_not() -> None:
    with pytest.raises(KeyError):
        deferred.run(deferred.serialize(fail, "other"))


def test_g11_the_options_of_defer(stub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEFAULT_VERSION_HOSTNAME", "app.appspot.com")
    before = datetime.datetime.now(datetime.timezone.utc)
    task = deferred.defer(double, 1, _countdown=10, _name="foo", _target="backend")
    assert (task.name, task.url) == ("foo", "/_ah/queue/deferred")
    assert abs((task.eta - before).total_seconds() - 10) < 5
    assert task.headers["Host"] == "backend.app.appspot.com"


def test_g12_headers_go_over_the_content_type(stub: Any) -> None:
    task = deferred.defer(double, 1, _headers={"Content-Type": "text/plain", "X-A": "b"})
    assert (task.headers["Content-Type"], task.headers["X-A"]) == ("text/plain", "b")


@pytest.mark.parametrize("url", ["", None])
def test_g13_no_url_is_the_queues_own(url: str | None, stub: Any) -> None:
    stub._queues.all_valid = True
    deferred.defer(double, 1, _url=url, _queue="foo")
    assert [task.url for task in stub.get_filtered_tasks()] == ["/_ah/queue/foo"]


def takes_method(_method: str) -> str:
    return _method


def test_g14_what_is_no_option_reaches_the_callable(stub: Any) -> None:
    deferred.defer(takes_method, _method="GET")
    assert drain(stub) == ["GET"]


@pytest.mark.parametrize("expected", ["TaskAlreadyExistsError", "TombstonedTaskError"])
def test_g15_either_handler_catches_a_name_that_is_taken(stub: Any, expected: str) -> None:
    task = deferred.defer(double, 1, _name="once")
    with pytest.raises(getattr(taskqueue, expected)) as first:
        deferred.defer(double, 1, _name="once")
    assert type(first.value).__name__ == "TaskAlreadyExistsError"
    taskqueue.Queue().delete_tasks(task)
    with pytest.raises(getattr(taskqueue, expected)) as second:
        deferred.defer(double, 1, _name="once")
    assert type(second.value).__name__ == "TombstonedTaskError"


def test_g16_functions_are_looked_up_where_old_code_patches_them(
    stub: Any, post: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deferred.deferred, "serialize", lambda *_, **__: b"patched")
    assert deferred.defer(double, 1).payload == b"patched"
    ran: list[bytes] = []
    monkeypatch.setattr(deferred.deferred, "run", ran.append)
    deferred.application.post(post(b"body"))
    assert ran == [b"body"]


def test_g17_a_large_argument_is_one_task_that_runs(stub: Any) -> None:
    # Alone it travels whole; beside the SDK through its datastore (tests/parity).
    deferred.defer(len, "x" * taskqueue.MAX_TASK_SIZE_BYTES)
    assert drain(stub) == [taskqueue.MAX_TASK_SIZE_BYTES]


def test_g18_a_stored_payload_without_a_datastore_is_a_permanent_failure() -> None:
    # With one: tests/parity/test_deferred_beside_sdk.py.
    with pytest.raises(deferred.PermanentTaskFailure, match="appengine-python-standard"):
        deferred.run_from_datastore("agx0ZXN0YmVkLXRlc3Ry")


def test_g19_a_task_just_under_the_limit_of_the_client(stub: Any) -> None:
    empty = taskqueue.Task(payload=b"", url="/_ah/queue/deferred").size
    taskqueue.add(payload=b"x" * (102389 - empty), url="/_ah/queue/deferred")
    assert len(stub.get_filtered_tasks()) == 1


def test_g20_a_large_call_in_no_transaction_is_refused_as_a_small_one(stub: Any) -> None:
    # Inside of one, with rollback: tests/parity/test_deferred_beside_sdk.py.
    for size in (1, taskqueue.MAX_TASK_SIZE_BYTES):
        with pytest.raises(taskqueue.BadTransactionStateError):
            deferred.defer(len, "x" * size, _transactional=True)
    assert stub.get_filtered_tasks() == []


# --- payloads of Python 2 (all classes of value: tests/payload/test_python2.py) ---------------


def protocol2(*parts: bytes) -> bytes:
    """A call of the builtin ``repr``, as Python 2 pickled it."""
    return b"\x80\x02c__builtin__\nrepr\n" + b"".join(parts) + b"\x85}\x87."


@pytest.mark.parametrize(
    ("argument", "shown"),
    [
        (b"U\x03abc", "'abc'"),  # G.21
        (b"\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\x40", repr(2**70)),
        (
            b"cdatetime\ndatetime\nU\x0a\x07\xe4\x01\x02\x03\x04\x05\x00\x02\xa6\x85R",
            "datetime.datetime(2020, 1, 2, 3, 4, 5, 678)",
        ),  # G.22
        (b"U\x05caf\xc3\xa9", "'café'"),  # G.23
        (b"cdatetime\ndate\nU\x04\x07\xe4\x01\x02\x85R", "datetime.date(2020, 1, 2)"),  # G.24
        (b"}U\x05caf\xc3\xa9K\x01s", "{'café': 1}"),
        (b"cexceptions\nValueError\nU\x05caf\xc3\xa9\x85R", "ValueError('café')"),
        (b"U\x02\xff\xfe", r"b'\xff\xfe'"),
    ],
)
def test_g21_to_g24_values_of_python_2_arrive(argument: bytes, shown: str) -> None:
    assert deferred.run(protocol2(argument)) == shown


def test_g25_g26_a_payload_that_needs_the_sdk_is_kept_and_said(
    bed: Any, post: Any, caplog: pytest.LogCaptureFixture
) -> None:
    payload = protocol2(b"cgoogle.appengine.datastore.entity_pb\nReference\n")
    text, status, _ = deferred.application.post(post(payload))
    assert (text, status) == ("PermanentTaskFailure", http.HTTPStatus.OK)
    assert "entity_pb" in caplog.text
    assert any(record.levelno == logging.ERROR for record in caplog.records)
    assert "appengine_compat_kept_task" in caplog.text


def test_g27_protocol_0_and_base64_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEFERRED_USE_CROSS_COMPATIBLE_PICKLE_PROTOCOL", "1")
    assert deferred.run(deferred.serialize(len, "café")) == 4
    assert deferred.run(base64.b64encode(pickle.dumps((len, ("abc",), {}), protocol=2))) == 3


# --- the handler -----------------------------------------------------------------------------


def test_g28_success_and_its_line_in_the_log(
    bed: Any, post: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    answer = deferred.application.post(post(deferred.serialize(double, 1)))
    assert answer == ("Success", http.HTTPStatus.OK, TEXT)
    assert "X_APPENGINE_TASKNAME:t1, X_APPENGINE_QUEUENAME:default" in caplog.text


@pytest.mark.parametrize(
    "changes",
    [
        {"HTTP_X_APPENGINE_TASKNAME": None},
        {"SERVER_SOFTWARE": "gunicorn", "REMOTE_ADDR": "10.0.0.1"},
    ],
)
def test_g29_strangers_are_refused_in_the_old_words(bed: Any, post: Any, changes: Any) -> None:
    text, status, _ = deferred.application.post(post(b"never read", **changes))
    assert status == http.HTTPStatus.FORBIDDEN
    assert text.startswith("Detected an attempted XSRF attack.")


def test_g29_without_a_stub_nothing_is_unpickled(
    post: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pickle, "loads", lambda *_: pytest.fail("unpickled"))
    text, status, _ = deferred.application.post(post(deferred.serialize(double, 1)))
    assert status in (http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN)
    assert text.startswith("AEC-")


def test_g30_what_a_task_raises(bed: Any, post: Any, caplog: pytest.LogCaptureFixture) -> None:
    singular = deferred.application.post(post(deferred.serialize(fail, "singular")))
    assert singular == ("SingularTaskFailure", http.HTTPStatus.REQUEST_TIMEOUT, TEXT)
    permanent = deferred.application.post(post(deferred.serialize(fail, "permanent")))
    assert permanent == ("PermanentTaskFailure", http.HTTPStatus.OK, TEXT)
    assert "Permanent failure attempting to execute task" in caplog.text
    with pytest.raises(KeyError):
        deferred.application.post(post(deferred.serialize(fail, "other")))


def call(app: Any, environ: dict[str, Any]) -> tuple[str, dict[str, str], bytes]:
    seen: list[Any] = []
    body = b"".join(app(environ, lambda status, headers: seen.extend((status, dict(headers)))))
    return seen[0], seen[1], body


def test_g31_other_methods(bed: Any, post: Any) -> None:
    status, headers, _ = call(deferred.application, post(REQUEST_METHOD="GET"))
    assert status == "405 Method Not Allowed"
    assert headers["Allow"] == "POST"


def test_g32_a_server_that_does_not_name_itself(bed: Any, post: Any) -> None:
    environ = post(deferred.serialize(double, 1), SERVER_SOFTWARE=None)
    assert deferred.application.post(environ)[1] == http.HTTPStatus.OK


class Endless:
    """A stream of which nobody knows where it ends: reading on would block."""

    def read(self, size: int = -1) -> bytes:
        pytest.fail("read without a length")


@pytest.mark.parametrize("length", [None, "", "many"])
def test_g33_a_body_without_a_length_is_not_lost(bed: Any, post: Any, length: Any) -> None:
    environ = post(CONTENT_LENGTH=length, **{"wsgi.input": Endless()})
    assert deferred.application.post(environ)[1] in (400, 411)


@pytest.mark.parametrize("length", [None, ""])
def test_g33_one_that_ends_by_itself_is_read(bed: Any, post: Any, length: Any) -> None:
    payload = deferred.serialize(double, 1)
    environ = post(payload, CONTENT_LENGTH=length, **{"wsgi.input_terminated": True})
    assert deferred.application.post(environ)[0] == "Success"


def test_g34_the_answer_in_the_forms_of_flask_django_and_wsgi(bed: Any, post: Any) -> None:
    text, status, headers = deferred.Handler().post(post(deferred.serialize(double, 1)))
    assert (text, status.value, dict(headers)) == ("Success", 200, dict(TEXT))

    class Own(deferred.Handler):
        def post(self, environ: Any) -> Any:
            return super().post(environ)

    class Runs(deferred.Handler):
        def run_from_request(self, environ: Any) -> None:
            deferred.run(environ["wsgi.input"].read())

    for app in (Own(), Runs()):
        environ = post(deferred.serialize(double, 1))
        assert call(app, environ) == ("200 OK", dict(TEXT), b"Success")


@pytest.mark.parametrize(
    "path", ["/_ah/queue/deferred", "/_ah/queue/deferred_label", "/_ah/queue/deferred/a/b"]
)
def test_g35_labels_behind_the_path(bed: Any, post: Any, path: str) -> None:
    app = appengine_compat.defer_middleware(lambda environ, start: pytest.fail("not deferred"))
    environ = post(deferred.serialize(double, 1), PATH_INFO=path)
    assert call(app, environ)[0] == "200 OK"


@pytest.mark.parametrize(
    ("kind", "expected"), [(None, "200 OK"), ("permanent", "200 OK"), ("singular", "408 ")]
)
def test_g36_the_handler_of_python_2(bed: Any, post: Any, kind: Any, expected: str) -> None:
    payload = deferred.serialize(fail, kind) if kind else deferred.serialize(double, 1)
    app = deferred.TaskHandler.as_application()
    assert call(app, post(payload))[0].startswith(expected)


def test_g36_refuses_and_does_not_know_get(bed: Any, post: Any) -> None:
    app = deferred.TaskHandler.as_application()
    assert call(app, post(HTTP_X_APPENGINE_TASKNAME=None))[0].startswith("403 ")
    status, headers, _ = call(app, post(REQUEST_METHOD="GET", **{"wsgi.input": io.BytesIO()}))
    assert status.startswith("405 ")
    assert headers["Allow"] == "POST"
