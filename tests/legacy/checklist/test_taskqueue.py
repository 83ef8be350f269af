"""What migrated code does with ``taskqueue``: G.37 to G.69 of the list of cases."""

from __future__ import annotations

import datetime
import threading
import time
from typing import Any

import pytest
from google.appengine.api import apiproxy_stub_map, namespace_manager, taskqueue, wrap_wsgi_app
from google.appengine.api.taskqueue import Queue, Task

from appengine_compat.backends import choice
from appengine_compat.backends.base import Outcome
from appengine_compat.core import retry
from appengine_compat.core.model import RetryConfig

UTC = datetime.timezone.utc
DAY = 86400


# --- Task ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"name": "no spaces"}, taskqueue.InvalidTaskNameError, "does not match expression"),
        ({"name": 5}, TypeError, ""),
        ({"url": None}, TypeError, ""),
        ({"url": "http://x/"}, taskqueue.InvalidUrlError, "scheme or location"),
        ({"url": "//x"}, taskqueue.InvalidUrlError, "scheme or location"),
        ({"url": "/x#a"}, taskqueue.InvalidUrlError, "fragment"),
        ({"url": "x"}, taskqueue.InvalidUrlError, 'must start with "/"'),
        ({"url": "?a=1"}, taskqueue.InvalidUrlError, 'must start with "/"'),
        ({"url": "/" + "x" * 2083}, taskqueue.InvalidUrlError, "less than 2083"),
        ({"url": "/x?a=1", "params": {"b": 1}}, taskqueue.InvalidTaskError, "Query string"),
        ({"url": "/x?a=1"}, taskqueue.InvalidTaskError, "cannot have a query string"),
        ({"tag": "t"}, taskqueue.InvalidTaskError, "tag can only be specified for pull"),
        ({"payload": "x", "params": {"a": 1}}, taskqueue.InvalidTaskError, "both present"),
        ({"payload": "x", "method": "GET"}, taskqueue.InvalidTaskError, "Payload can only"),
        ({"method": "PATCH"}, taskqueue.InvalidTaskError, "Invalid method: PATCH"),
        ({"method": "PULL"}, taskqueue.InvalidTaskError, "payload must be specified"),
        (
            {"method": "PULL", "payload": "x", "url": "/x"},
            taskqueue.InvalidTaskError,
            "url must not be specified for pull tasks",
        ),
        ({"payload": {"a": 1}}, taskqueue.InvalidTaskError, "payloads must be strings"),
        ({"payload": bytearray(b"x")}, taskqueue.InvalidTaskError, "payloads must be strings"),
        (
            {"target": "v1", "headers": {"Host": "x"}},
            taskqueue.InvalidTaskError,
            "host header cannot be set",
        ),
        (
            {"eta": datetime.datetime.now(), "countdown": 1},
            taskqueue.InvalidTaskError,
            "countdown and ETA",
        ),
        ({"eta": 1}, taskqueue.InvalidTaskError, "ETA must be a datetime"),
        ({"countdown": "abc"}, taskqueue.InvalidTaskError, "must be a number"),
        ({"countdown": 10**400}, taskqueue.InvalidTaskError, "out of range"),
        ({"countdown": []}, TypeError, ""),
        ({"payload": "x" * 102401}, taskqueue.TaskTooLargeError, "less than 102400"),
        (
            {"method": "PULL", "payload": "x", "tag": "t" * 501},
            taskqueue.InvalidTagError,
            "<= 500 bytes",
        ),
        ({"dispatch_deadline_usec": 1.5}, TypeError, "must be an integer"),
        (
            {"dispatch_deadline_usec": 0},
            taskqueue.InvalidDispatchDeadlineError,
            "cannot be less than 0:00:15",
        ),
        (
            {"dispatch_deadline_usec": (DAY + 1) * 10**6},
            taskqueue.InvalidDispatchDeadlineError,
            "more than 1 day",
        ),
        ({"params": [("a", 1)]}, AttributeError, ""),
        ({"queue_name": "q"}, TypeError, "Invalid arguments: queue_name"),
    ],
)
def test_g37_what_a_task_refuses(
    arguments: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error) as raised:
        Task(**arguments)
    assert words in str(raised.value)


@pytest.mark.parametrize(
    "arguments",
    [
        {"name": ""}, {"url": ""}, {"url": "/x?"}, {"headers": None}, {"payload": ""},
        {"countdown": "5"}, {"countdown": -5}, {"countdown": float("nan")},
        {"eta": datetime.datetime(2001, 1, 1)}, {"params": {"a": {"k": 1}}},
        {"payload": "x", "method": "PULL", "tag": "t"}, {"method": "put", "payload": "x"},
    ],
)  # fmt: skip
def test_g37_what_a_task_takes(arguments: dict[str, Any]) -> None:
    Task(**arguments)


def test_g38_text_is_utf_8_and_bytes_are_bytes() -> None:
    text, data = Task("café"), Task(b"caf\xc3\xa9")
    assert text.payload == data.payload == b"caf\xc3\xa9"
    headers = {name.lower(): value for name, value in text.headers.items()}
    assert headers["content-type"] == "text/plain; charset=utf-8"
    assert not [name for name in data.headers if name.lower() == "content-type"]


def test_g39_parameters_are_a_form() -> None:
    task = Task(url="/x", params={"a": 1, "b": ["x", "y"], "c": "café"})
    assert task.payload == "a=1&b=x&b=y&c=caf%C3%A9"


def test_g40_parameters_of_get_and_put_are_a_query() -> None:
    assert Task(url="/x", method="GET", params={"a": 1}).url == "/x?a=1"
    put = Task("body", url="/x", method="PUT", params={"a": 1})
    assert (put.url, put.payload) == ("/x?a=1", b"body")


def test_g41_headers_are_a_copy() -> None:
    task = Task(headers={"X-A": "b"})
    task.headers["X-A"] = "changed"
    assert type(task.headers) is dict
    assert task.headers["X-A"] == "b"


@pytest.fixture
def new_york(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_g42_etas(new_york: None) -> None:
    naive = Task(eta=datetime.datetime(2026, 7, 1, 12))
    assert naive.eta == datetime.datetime(2026, 7, 1, 16, tzinfo=UTC)
    east = datetime.timezone(datetime.timedelta(hours=2))
    aware = Task(eta=datetime.datetime(2026, 7, 1, 12, 0, 0, 5, tzinfo=east))
    assert aware.eta == datetime.datetime(2026, 7, 1, 10, 0, 0, 5, tzinfo=UTC)
    now = datetime.datetime.now(UTC)
    assert abs((Task().eta - now).total_seconds()) < 5
    assert Task().eta.utcoffset() == datetime.timedelta(0)


def test_g43_countdowns() -> None:
    assert abs(Task(countdown="5").eta_posix - time.time() - 5) < 5
    Task(countdown=30 * DAY)
    with pytest.raises(taskqueue.InvalidEtaError):
        Task(countdown=30 * DAY + 60)
    with pytest.raises(TypeError):
        Task(countdown=datetime.timedelta(seconds=5))


def test_g44_size_and_its_limit() -> None:
    task = Task("body", url="/x", headers={"A": "bc"})
    headers = sum(len(name) + len(value) + 4 for name, value in task.headers.items())
    assert task.size == len("POST") + len("body") + len("/x") + headers
    room = taskqueue.MAX_TASK_SIZE_BYTES - Task(b"", url="/x").size
    assert Task(b"x" * room, url="/x").size == taskqueue.MAX_TASK_SIZE_BYTES
    with pytest.raises(taskqueue.TaskTooLargeError):
        Task(b"x" * (room + 1), url="/x")


@pytest.mark.parametrize("namespace", ["ns1", ""])
def test_g45_the_namespace_travels(stub: Any, post: Any, namespace: str) -> None:
    outer = namespace_manager.get_namespace()
    namespace_manager.set_namespace(namespace)
    try:
        task = taskqueue.add(url="/work")
    finally:
        namespace_manager.set_namespace(outer)
    header = task.headers["X-AppEngine-Current-Namespace"]
    assert header == namespace
    seen: list[str] = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        seen.append(namespace_manager.get_namespace())
        start_response("200 OK", [])
        return []

    namespace_manager.set_namespace("servers")
    try:
        wrap_wsgi_app(app)(
            post(HTTP_X_APPENGINE_CURRENT_NAMESPACE=header), lambda *args: lambda data: None
        )
    finally:
        namespace_manager.set_namespace(outer)
    assert seen == [namespace]


def test_g46_parameters_are_read_back(stub: Any) -> None:
    assert Task(params={"a": 1, "b": ["x", "y"]}).extract_params() == {"a": b"1", "b": [b"x", b"y"]}
    assert Task(url="/x", method="GET", params={"a": 1}).extract_params() == {"a": b"1"}
    assert Task().extract_params() == {}
    with pytest.raises(ValueError, match="bad query field"):
        Task("no form").extract_params()
    taskqueue.add(params={"a": 1})
    assert stub.get_filtered_tasks()[0].extract_params() == {b"a": b"1"}


H = "app.appspot.com"


@pytest.mark.parametrize(
    ("arguments", "http_host", "host", "target"),
    [
        ({"target": "v1"}, None, f"v1.{H}", "v1"),
        ({"target": taskqueue.DEFAULT_APP_VERSION}, None, H, taskqueue.DEFAULT_APP_VERSION),
        ({"target": "0.v1.mod"}, None, f"0.v1.mod.{H}", "0.v1.mod"),
        ({"headers": {"Host": f"v1.{H}"}}, None, f"v1.{H}", "v1"),
        ({"headers": {"Host": H}}, None, H, taskqueue.DEFAULT_APP_VERSION),
        (
            {"headers": {"Host": f"v1-dot-m-dot-{H}"}},
            None,
            f"v1-dot-m-dot-{H}",
            "v1-dot-m-dot",
        ),
        (
            {"headers": {"Host": "other.example"}},
            None,
            "other.example",
            taskqueue.DEFAULT_APP_VERSION,
        ),
        ({}, f"v2.{H}", f"v2.{H}", "v2"),
    ],
)
def test_g47_host_and_target(
    arguments: Any, http_host: str | None, host: str, target: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEFAULT_VERSION_HOSTNAME", H)
    monkeypatch.delenv("HTTP_HOST", raising=False)
    if http_host is not None:
        monkeypatch.setenv("HTTP_HOST", http_host)
    task = Task(**arguments)
    assert task.headers["Host"] == host
    assert task.target == target


def test_g47_nothing_is_known_and_nothing_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("DEFAULT_VERSION_HOSTNAME", raising=False)
    monkeypatch.delenv("HTTP_HOST", raising=False)
    assert "Host" not in Task(target="v1").headers
    assert repr(Task().target) == "<UnknownApplicationVersion>"
    assert not caplog.records


# --- Queue -----------------------------------------------------------------------------------


def test_g48_what_add_takes(stub: Any) -> None:
    queue = Queue()
    single = Task(name="single")
    assert queue.add(single) is single
    for several in ([Task(), Task()], (Task(),), (Task() for _ in range(2))):
        assert type(queue.add(several)) is list
    for nothing in (None, [], ()):
        assert queue.add(nothing) == []
    assert len(queue.add([Task() for _ in range(100)])) == 100
    with pytest.raises(taskqueue.TooManyTasksError):
        queue.add([Task() for _ in range(101)])


def test_g49_twice(stub: Any) -> None:
    task = Queue().add(Task())
    with pytest.raises(taskqueue.BadTaskStateError):
        Queue().add(task)
    with pytest.raises(taskqueue.DuplicateTaskNameError):
        Queue().add([Task(name="a"), Task(name="a")])


def test_g50_one_taken_name_does_not_stop_the_others(stub: Any) -> None:
    taskqueue.add(name="taken")
    batch = [Task(name="a"), Task(name="taken"), Task(name="b")]
    with pytest.raises(taskqueue.TaskAlreadyExistsError):
        Queue().add(batch)
    assert [task.was_enqueued for task in batch] == [True, False, True]
    assert {task["name"] for task in stub.GetTasks("default")} == {"taken", "a", "b"}


def test_g51_a_queue_that_is_not_there(stub: Any) -> None:
    with pytest.raises(taskqueue.UnknownQueueError, match="nope"):
        taskqueue.add(queue_name="nope")


def test_g52_deleting(stub: Any) -> None:
    task = taskqueue.add(name="a")
    Queue().delete_tasks(task)
    assert task.was_deleted
    with pytest.raises(taskqueue.BadTaskStateError):
        Queue().delete_tasks(task)
    unknown = Task(name="unknown")
    Queue().delete_tasks(unknown)
    assert not unknown.was_deleted
    with pytest.raises(taskqueue.BadTaskStateError):
        Queue().delete_tasks(Task())


def test_g53_deleting_by_name(stub: Any) -> None:
    taskqueue.add(name="a")
    assert Queue().delete_tasks_by_name("a").was_deleted
    deleted = Queue().delete_tasks_by_name(["a", "b"])
    assert [(type(task), task.name) for task in deleted] == [(Task, "a"), (Task, "b")]


def test_g54_purging(stub: Any) -> None:
    taskqueue.add()
    assert Queue().purge() is None
    assert stub.get_filtered_tasks() == []
    with pytest.raises(taskqueue.UnknownQueueError):
        Queue("nope").purge()


def test_g55_statistics(stub: Any) -> None:
    taskqueue.add(countdown=5)
    statistics = Queue().fetch_statistics()
    assert (statistics.queue, statistics.tasks) == (Queue(), 1)
    assert statistics.oldest_eta_usec > time.time() * 1e6 - 60e6
    assert taskqueue.QueueStatistics.fetch([]) == []
    assert [each.tasks for each in taskqueue.QueueStatistics.fetch(["default"])] == [1]
    with pytest.raises(TypeError):
        taskqueue.QueueStatistics.fetch(["default", Queue()])
    with pytest.raises(taskqueue.InvalidDeadlineError):
        Queue().fetch_statistics(deadline=0)
    with pytest.raises(TypeError):
        Queue().fetch_statistics(deadline="x")


def test_g56_pull_queues_are_refused_with_the_word_for_what_to_use(stub: Any) -> None:
    task = Task("x", method="PULL")
    with pytest.raises(taskqueue.InvalidQueueModeError, match="Pub/Sub"):
        Queue().add(task)
    with pytest.raises(taskqueue.InvalidQueueModeError, match="Pub/Sub"):
        Queue().lease_tasks(60, 10)
    for arguments, error in (
        (("x", 1), TypeError),
        ((-1, 1), taskqueue.InvalidLeaseTimeError),
        ((1, 0), taskqueue.InvalidMaxTasksError),
        ((1, 1, 0), taskqueue.InvalidDeadlineError),
    ):
        with pytest.raises(error):
            Queue().lease_tasks(*arguments)


def test_g57_push_and_pull_in_one_call(stub: Any) -> None:
    with pytest.raises(taskqueue.InvalidTaskError, match="both push and pull"):
        Queue().add([Task(), Task("x", method="PULL")])


# --- RPC objects -----------------------------------------------------------------------------


def test_g58_an_rpc_has_what_old_code_reads(stub: Any) -> None:
    task = Task()
    rpc = task.add_async()
    assert (rpc.service, rpc.method, rpc.deadline, rpc.callback) == (
        "taskqueue", "BulkAdd", None, None,
    )  # fmt: skip
    rpc.wait()
    rpc.check_success()
    assert rpc.get_result() is rpc.get_result() is task
    assert rpc.state == 2


@pytest.mark.parametrize("queue", ["default", "nope"])
def test_g59_a_callback_runs_once(stub: Any, queue: str) -> None:
    calls: list[int] = []
    rpc = taskqueue.create_rpc(callback=lambda: calls.append(1))
    Queue(queue).add_async(Task(), rpc=rpc)
    rpc.wait()
    rpc.wait()
    assert calls == [1]


def test_g60_an_rpc_that_is_given_is_used_once(stub: Any) -> None:
    rpc = taskqueue.create_rpc()
    assert Queue().add_async(Task(), rpc=rpc) is rpc
    with pytest.raises(AssertionError):
        Queue().add_async(Task(), rpc=rpc)
    other = taskqueue.create_rpc()
    other._service = "memcache"
    with pytest.raises(AssertionError):
        Queue().add_async(Task(), rpc=other)


def test_g61_waiting_for_several(stub: Any) -> None:
    rpcs = [Task().add_async(), Task().add_async()]
    assert apiproxy_stub_map.UserRPC.wait_any(rpcs) in rpcs
    apiproxy_stub_map.UserRPC.wait_all(rpcs)
    assert len(stub.get_filtered_tasks()) == 2


# G.62, a tasklet that waits: tests/parity/test_beside_sdk.py, with the real ndb.


def test_g63_an_add_that_nobody_waits_for_is_sent() -> None:
    is_sent = threading.Event()

    class Elsewhere:
        kind = "elsewhere"

        def create_tasks(self, queue: str, requests: Any, **_: Any) -> list[Outcome]:
            is_sent.set()
            return [Outcome("made") for _ in requests]

        delete_tasks = purge_queue = queue_stats = create_tasks

    backend: Any = Elsewhere()
    choice.activate(backend)
    try:
        Task().add_async()
        assert is_sent.wait(30)
    finally:
        choice.deactivate(backend)


# --- transactions: G.64 to G.67 with the real ndb and db in tests/parity ------------------------


def test_g64_outside_of_a_transaction(stub: Any) -> None:
    with pytest.raises(taskqueue.BadTransactionStateError):
        taskqueue.add(transactional=True)
    assert issubclass(taskqueue.DatastoreError, taskqueue.Error)


# --- retry options ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"min_backoff_seconds": -1}, "minimum retry interval cannot be negative"),
        ({"max_backoff_seconds": -1}, "maximum retry interval cannot be negative"),
        ({"max_doublings": -1}, "doublings cannot be negative"),
        ({"task_retry_limit": -1}, "number of retries cannot be negative"),
        ({"task_age_limit": -1}, "expiry countdown cannot be negative"),
        (
            {"min_backoff_seconds": 2, "max_backoff_seconds": 1},
            "cannot be less than the minimum retry interval",
        ),
    ],
)
def test_g68_retry_options_that_cannot_be(options: Any, words: str) -> None:
    with pytest.raises(taskqueue.InvalidTaskRetryOptionsError, match=words):
        taskqueue.TaskRetryOptions(**options)


@pytest.mark.parametrize(("retries", "attempts"), [(3, 4), (0, 1)])
def test_g68_retries_are_attempts_after_the_first(
    bed: Any, stub: Any, retries: int, attempts: int
) -> None:
    assert taskqueue.TaskRetryOptions(task_age_limit=1.2).task_age_limit == 2
    taskqueue.add(retry_options=taskqueue.TaskRetryOptions(task_retry_limit=retries))
    (task,) = stub.tasks()
    assert task.request.retry.max_attempts == attempts


def test_g69_the_delays_of_retries() -> None:
    config = RetryConfig(min_backoff_seconds=10, max_backoff_seconds=300, max_doublings=3)
    delays = [retry.backoff_seconds(config, attempt) for attempt in range(1, 9)]
    assert delays == [10, 20, 40, 80, 160, 240, 300, 300]
