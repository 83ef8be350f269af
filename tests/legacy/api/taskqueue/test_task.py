"""``Task(...)``: what it accepts, refuses and makes. The parity suite asks Google's SDK as well."""

from __future__ import annotations

import datetime
import time
from typing import Any

import pytest
from google.appengine.api import namespace_manager, taskqueue
from hypothesis import given
from hypothesis import strategies as st

REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"name": "a b"}, taskqueue.InvalidTaskNameError, "does not match expression"),
    ({"name": "a" * 501}, taskqueue.InvalidTaskNameError, "{1,500}"),
    ({"url": None}, TypeError, "has no len"),
    ({"url": "x"}, taskqueue.InvalidUrlError, 'must start with "/"'),
    ({"url": "http://h/x"}, taskqueue.InvalidUrlError, "cannot have a scheme or location"),
    ({"url": "//h/x"}, taskqueue.InvalidUrlError, "cannot have a scheme or location"),
    ({"url": "/x#y"}, taskqueue.InvalidUrlError, "cannot specify a fragment"),
    ({"url": "/" + "a" * 2083}, taskqueue.InvalidUrlError, "found 2084"),
    (
        {"url": "/x?a=1", "params": {"b": 1}, "method": "GET"},
        taskqueue.InvalidTaskError,
        "Query string and parameters both present",
    ),
    ({"url": "/x?a=1"}, taskqueue.InvalidTaskError, "POST method cannot have a query string"),
    ({"payload": "p", "params": {"a": 1}}, taskqueue.InvalidTaskError, "both present for POST"),
    ({"payload": "p", "method": "GET"}, taskqueue.InvalidTaskError, "only be specified for"),
    ({"payload": 5}, taskqueue.InvalidTaskError, "must be strings; invalid payload: 5"),
    ({"payload": bytearray(b"x")}, taskqueue.InvalidTaskError, "must be strings"),
    ({"method": "PATCH"}, taskqueue.InvalidTaskError, "Invalid method: PATCH"),
    ({"method": "PULL"}, taskqueue.InvalidTaskError, "payload must be specified"),
    ({"method": "PULL", "payload": "p", "url": "/x"}, taskqueue.InvalidTaskError, "url must not"),
    ({"tag": "t"}, taskqueue.InvalidTaskError, "only be specified for pull tasks"),
    (
        {"method": "PULL", "payload": "p", "tag": "t" * 501},
        taskqueue.InvalidTagError,
        "Got a 501 byte tag",
    ),
    (
        {"target": "v", "headers": {"Host": "h"}},
        taskqueue.InvalidTaskError,
        "host header cannot be set",
    ),
    ({"eta": 5}, taskqueue.InvalidTaskError, "datetime.datetime instance"),
    (
        {"eta": datetime.datetime.now(), "countdown": 1},
        taskqueue.InvalidTaskError,
        "countdown and ETA together",
    ),
    ({"countdown": "abc"}, taskqueue.InvalidTaskError, "must be a number"),
    ({"countdown": 10**400}, taskqueue.InvalidTaskError, "out of range"),
    ({"countdown": datetime.timedelta(1)}, TypeError, ""),
    ({"countdown": 30 * 86400 + 5}, taskqueue.InvalidEtaError, "too far in the future"),
    ({"payload": "x" * 102401}, taskqueue.TaskTooLargeError, "less than 102400; found 1024"),
    ({"dispatch_deadline_usec": 1.5}, TypeError, "must be an integer"),
    (
        {"dispatch_deadline_usec": 14_999_999},
        taskqueue.InvalidDispatchDeadlineError,
        "cannot be less than 0:00:15",
    ),
    (
        {"dispatch_deadline_usec": 86_400_000_001},
        taskqueue.InvalidDispatchDeadlineError,
        "cannot be more than 1 day",
    ),
    ({"queue_name": "q", "rpc": 1}, TypeError, "Invalid arguments: queue_name, rpc"),
]


@pytest.mark.parametrize(("options", "error", "words"), REFUSED)
def test_what_does_not_fit_is_refused(
    options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error) as raised:
        taskqueue.Task(**options)
    assert type(raised.value) is error
    assert words in str(raised.value)


def test_text_goes_as_utf_8_and_says_so() -> None:
    task = taskqueue.Task("café")
    assert task.payload == b"caf\xc3\xa9"
    assert task.headers["content-type"] == "text/plain; charset=utf-8"


def test_bytes_go_as_they_are_without_a_content_type() -> None:
    task = taskqueue.Task(b"\x80\x05")
    assert task.payload == b"\x80\x05"
    assert list(task.headers) == ["X-AppEngine-Current-Namespace"]


def test_params_become_a_form() -> None:
    task = taskqueue.Task(url="/x", params={"a": 1, "b": ["x", "y"], "c": "café"})
    assert task.payload == "a=1&b=x&b=y&c=caf%C3%A9"
    assert task.headers["content-type"] == "application/x-www-form-urlencoded"


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "PUT"])
def test_params_of_other_methods_become_the_query(method: str) -> None:
    task = taskqueue.Task(url="/x", method=method.lower(), params={"a": [1, 2]})
    assert (task.method, task.url, task.payload) == (method, "/x?a=1&a=2", None)


def test_headers_are_a_copy() -> None:
    task = taskqueue.Task(headers={"X-A": "1", "x-a": "2"})
    task.headers["X-B"] = "3"
    assert task.headers == {"x-a": "2", "X-AppEngine-Current-Namespace": ""}


def test_the_size_is_counted_as_app_engine_did_and_the_limit_is_inclusive() -> None:
    overhead = len("POST") + len("/x") + len("X-AppEngine-Current-Namespace") + 4
    most = taskqueue.MAX_TASK_SIZE_BYTES - overhead
    assert taskqueue.Task(b"x" * most, url="/x").size == taskqueue.MAX_TASK_SIZE_BYTES
    with pytest.raises(taskqueue.TaskTooLargeError):
        taskqueue.Task(b"x" * (most + 1), url="/x")


def test_the_size_check_can_be_left_to_the_backend() -> None:
    assert taskqueue.Task(b"x" * 500_000, _size_check=False).size > 500_000


# --- time ------------------------------------------------------------------------------------


def test_without_eta_a_task_is_due_now() -> None:
    before = time.time()
    assert before <= taskqueue.Task().eta_posix <= time.time()


def test_a_countdown_counts_from_now() -> None:
    before = time.time()
    task = taskqueue.Task(countdown="90")
    assert before + 90 <= task.eta_posix <= time.time() + 90


def test_a_naive_eta_is_local_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        task = taskqueue.Task(eta=datetime.datetime(2020, 7, 1, 12, 0, 0, 500))
    finally:
        monkeypatch.undo()
        time.tzset()
    assert task.eta == datetime.datetime(2020, 7, 1, 16, 0, 0, 500, datetime.timezone.utc)
    assert repr(task.eta.tzinfo) == "_UTCTimeZone()"


@given(
    eta=st.datetimes(
        min_value=datetime.datetime(1980, 1, 1),
        max_value=datetime.datetime(2025, 1, 1),
        timezones=st.integers(-23, 23).map(
            lambda hours: datetime.timezone(datetime.timedelta(hours=hours))
        ),
    )
)
def test_an_aware_eta_is_the_moment_it_says(eta: datetime.datetime) -> None:
    assert abs(taskqueue.Task(eta=eta).eta - eta) < datetime.timedelta(microseconds=2)


# --- where it runs ---------------------------------------------------------------------------


def test_nothing_is_warned_about_outside_of_a_request(caplog: pytest.LogCaptureFixture) -> None:
    assert repr(taskqueue.Task().target) == "<UnknownApplicationVersion>"
    assert not caplog.records


def test_the_requests_host_is_the_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_HOST", "v1.app.example.com")
    monkeypatch.setenv("DEFAULT_VERSION_HOSTNAME", "app.example.com")
    task = taskqueue.Task()
    assert (task.headers["Host"], task.target) == ("v1.app.example.com", "v1")


def test_the_namespace_goes_along_even_when_empty() -> None:
    assert taskqueue.Task().headers["X-AppEngine-Current-Namespace"] == ""
    namespace_manager.set_namespace("ns1")
    try:
        assert taskqueue.Task().headers["X-AppEngine-Current-Namespace"] == "ns1"
        own = taskqueue.Task(headers={"x-appengine-current-namespace": "own"})
        assert own.headers == {"x-appengine-current-namespace": "own"}
    finally:
        namespace_manager.set_namespace(None)


def test_the_google_apps_domain_goes_along(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_X_APPENGINE_DEFAULT_NAMESPACE", "example.com")
    assert taskqueue.Task().headers["X-AppEngine-Default-Namespace"] == "example.com"


# --- what it tells ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "params"),
    [
        (taskqueue.Task(params={"a": 1, "b": ["x", "y"]}), {"a": b"1", "b": [b"x", b"y"]}),
        (taskqueue.Task(b"a=1&b="), {b"a": b"1", b"b": b""}),
        (taskqueue.Task(url="/x?a=1", method="GET"), {"a": b"1"}),
        (taskqueue.Task(), {}),
    ],
)
def test_parameters_are_told(task: taskqueue.Task, params: dict[Any, Any]) -> None:
    assert task.extract_params() == params


def test_what_is_no_form_is_an_error() -> None:
    with pytest.raises(ValueError, match="bad query field"):
        taskqueue.Task("no form").extract_params()


@pytest.mark.parametrize("name", ["name", "headers", "payload", "eta", "was_enqueued", "url"])
def test_a_task_is_read_only(name: str) -> None:
    with pytest.raises(AttributeError):
        setattr(taskqueue.Task(), name, "x")


def test_a_task_shows_itself() -> None:
    shown = repr(taskqueue.Task(name="n", url="/x"))
    assert shown.startswith("Task<eta=datetime.datetime(")
    assert "name='n'" in shown
    assert shown.endswith("was_enqueued=False>")


def test_retry_options_keep_what_they_are_given() -> None:
    options = taskqueue.TaskRetryOptions(task_retry_limit=0, task_age_limit=1.2)
    assert (options.task_retry_limit, options.task_age_limit) == (0, 2)
    assert options.min_backoff_seconds is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"min_backoff_seconds": -1}, "minimum retry interval cannot be negative"),
        ({"max_backoff_seconds": -1}, "maximum retry interval cannot be negative"),
        ({"max_doublings": -1}, "retry interval doublings cannot be negative"),
        ({"task_retry_limit": -1}, "number of retries cannot be negative"),
        ({"task_age_limit": -1}, "expiry countdown cannot be negative"),
        ({"min_backoff_seconds": 5, "max_backoff_seconds": 4}, "less than the minimum"),
    ],
)
def test_retry_options_out_of_range_are_refused(options: dict[str, int], words: str) -> None:
    with pytest.raises(taskqueue.InvalidTaskRetryOptionsError, match=words):
        taskqueue.TaskRetryOptions(**options)


def test_retry_options_of_other_names_are_refused() -> None:
    with pytest.raises(TypeError, match="Invalid arguments: retries"):
        taskqueue.TaskRetryOptions(retries=1)
