"""``defer``: the options, the task that comes of them, and what is said at the caller's line."""

from __future__ import annotations

import datetime
import functools
import pickle
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from google.appengine.api import taskqueue
from google.appengine.ext import deferred, testbed
from google.appengine.ext.deferred import deferred as submodule

from appengine_compat.backends import choice
from appengine_compat.backends.stub import StubBackend
from appengine_compat.errors import DeferWarning


def work(*args: Any, **kwargs: Any) -> Any:
    return (args, kwargs)


def two(first: Any, second: Any) -> None: ...


def with_defaults(first: Any, second: Any = 2, *, third: Any, fourth: Any = 4) -> None: ...


def positional_only(first: Any, /, second: Any = 2, **rest: Any) -> None: ...


def generator() -> Iterator[int]:
    yield 1


async def coroutine(first: Any) -> None: ...


def wrapped(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function("first", *args, **kwargs)

    return wrapper


@wrapped
def one_is_filled_in(first: Any, second: Any) -> None: ...


class Account:
    def __init__(self, name: str = "") -> None: ...

    def greet(self, word: str) -> None: ...

    @classmethod
    def make(cls, name: str) -> None: ...

    def __call__(self, word: str) -> None: ...


def renamed(function: Any) -> Any:
    def wrapper(self: Any) -> Any:
        return function(self)

    return wrapper


class Proxy:
    def __init__(self) -> None:
        self.attached = renamed(two).__get__(self)


@pytest.fixture(autouse=True)
def stub() -> Iterator[Any]:
    bed = testbed.Testbed()
    bed.activate()
    bed.init_taskqueue_stub(_all_queues_valid=True)
    yield bed.get_stub(testbed.TASKQUEUE_SERVICE_NAME)
    bed.deactivate()


def the_task(stub: Any) -> taskqueue.Task:
    (task,) = stub.get_filtered_tasks()
    return task


class TestTask:
    def test_carries_the_call(self, stub: Any) -> None:
        added = deferred.defer(work, 1, k=2)
        assert isinstance(added, taskqueue.Task)
        assert added.was_enqueued
        assert (added.name, added.queue_name) == ("task1", "default")
        assert deferred.run(the_task(stub).payload) == ((1,), {"k": 2})

    def test_goes_by_post_as_octets_to_the_deferred_path(self, stub: Any) -> None:
        deferred.defer(work)
        task = the_task(stub)
        assert (task.method, task.url) == ("POST", "/_ah/queue/deferred")
        assert task.headers["Content-Type"] == "application/octet-stream"

    def test_takes_every_option_of_a_task(self, stub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DEFAULT_VERSION_HOSTNAME", "app.example.com")
        before = datetime.datetime.now(datetime.timezone.utc)
        options = taskqueue.TaskRetryOptions(task_retry_limit=3)
        added = deferred.defer(
            work, "a", b="c", _countdown=10, _name="foo", _target="backend", _queue="mail",
            _url="/custom/path", _retry_options=options,
        )  # fmt: skip
        assert (added.name, added.queue_name, added.target) == ("foo", "mail", "backend")
        assert added.retry_options is options
        assert added.headers["Host"] == "backend.app.example.com"
        assert added.url == "/custom/path"
        assert 9 < (added.eta - before).total_seconds() < 70
        assert deferred.run(added.payload) == (("a",), {"b": "c"})

    def test_takes_an_eta(self) -> None:
        eta = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)
        assert deferred.defer(work, _eta=eta).eta == eta

    def test_headers_go_over_the_content_type(self) -> None:
        task = deferred.defer(work, _headers={"Content-Type": "text/plain", "X-Reason": "test"})
        assert task.headers["Content-Type"] == "text/plain"
        assert task.headers["X-Reason"] == "test"
        assert submodule._TASKQUEUE_HEADERS == {"Content-Type": "application/octet-stream"}
        assert deferred.defer(work, _headers=None).headers["Content-Type"] == (
            "application/octet-stream"
        )

    @pytest.mark.parametrize("url", [None, ""])
    def test_no_url_is_the_queues_own(self, stub: Any, url: str | None) -> None:
        """App Engine raised TypeError for None, which its documentation told to use."""
        deferred.defer(work, _url=url, _queue="mail")
        assert the_task(stub).url == "/_ah/queue/mail"

    def test_the_url_may_have_a_query(self, stub: Any) -> None:
        task = deferred.defer(work, 5, _url="/custom?a=1&b=2")
        (found,) = stub.get_filtered_tasks(url="/custom?a=1&b=2")
        assert task.url == found.url == "/custom?a=1&b=2"
        assert pickle.loads(found.payload) == (work, (5,), {})

    def test_a_task_made_by_hand_keeps_app_engines_rule(self) -> None:
        with pytest.raises(taskqueue.InvalidTaskError, match="cannot have a query string"):
            taskqueue.Task(url="/custom?a=1", payload=b"x")

    def test_what_is_no_option_goes_to_the_callable(self, stub: Any) -> None:
        deferred.defer(work, _method="GET", _params=1)
        assert deferred.run(the_task(stub).payload) == ((), {"_method": "GET", "_params": 1})

    def test_goes_to_the_client_that_is_given(self, stub: Any) -> None:
        client = StubBackend()
        deferred.defer(work, 5, _client=client)
        assert stub.get_filtered_tasks() == []
        (kept,) = client.tasks()
        assert deferred.run(kept.request.payload) == ((5,), {})


class TestErrors:
    def test_a_name_that_is_taken(self) -> None:
        deferred.defer(work, _name="once")
        with pytest.raises(taskqueue.TaskAlreadyExistsError):
            deferred.defer(work, _name="once")

    @pytest.mark.parametrize(
        ("options", "error"),
        [
            ({"_countdown": 1, "_eta": datetime.datetime(2020, 1, 1)}, taskqueue.InvalidTaskError),
            ({"_eta": 1}, taskqueue.InvalidTaskError),
            ({"_queue": "no_underscores"}, taskqueue.InvalidQueueNameError),
            ({"_name": "no spaces"}, taskqueue.InvalidTaskNameError),
            ({"_transactional": True}, taskqueue.BadTransactionStateError),
            ({"_url": "http://elsewhere/"}, taskqueue.InvalidUrlError),
        ],
    )
    def test_options_that_cannot_be(self, options: Any, error: type[Exception]) -> None:
        with pytest.raises(error):
            deferred.defer(work, **options)

    def test_nothing_is_added_when_the_call_cannot_be_pickled(self, stub: Any) -> None:
        with pytest.raises(pickle.PicklingError):
            deferred.defer(work, lambda: 1)
        with pytest.raises(ValueError, match="obj must be callable"):
            deferred.defer("work")
        assert stub.get_filtered_tasks() == []


class TestWarnings:
    @pytest.mark.parametrize(
        ("call", "args", "kwargs"),
        [
            (two, (1,), {}),
            (two, (1, 2, 3), {}),
            (two, (1,), {"third": 3}),
            (two, (1, 2), {"_method": "GET"}),
            (two, (1, 2), {"second": 2}),
            (with_defaults, (1,), {}),
            (with_defaults, (), {"third": 3}),
            (with_defaults, (1, 2, 3), {"third": 3}),
            (positional_only, (), {"first": 1}),
            (Account, (1, 2), {}),
            (Account().greet, (), {}),
            (Account.make, (), {}),
            (Account(), (), {}),
            (functools.partial(two, 1), (), {}),
            (coroutine, (), {}),
            (len, (), {}),
        ],
    )
    def test_arguments_that_cannot_fit_are_told_at_the_callers_line(
        self, call: Any, args: Any, kwargs: Any, stub: Any
    ) -> None:
        with pytest.warns(DeferWarning, match="do not fit") as caught:
            deferred.defer(call, *args, **kwargs)
        assert caught[0].filename == __file__
        assert len(stub.get_filtered_tasks()) == 1

    def test_the_warning_names_the_function_and_the_problem(self) -> None:
        with pytest.warns(DeferWarning) as caught:
            deferred.defer(two, 1)
        assert str(caught[0].message) == (
            f"The arguments do not fit {__name__}.two(first: 'Any', second: 'Any') -> 'None': "
            "missing a required argument: 'second'. "
            "The task will fail with TypeError when it runs."
        )

    @pytest.mark.parametrize(
        ("call", "args", "kwargs"),
        [
            (work, (1, 2, 3), {"k": 1}),
            (two, (1, 2), {}),
            (two, (1,), {"second": 2}),
            (two, (), {"first": 1, "second": 2}),
            (with_defaults, (1,), {"third": 3}),
            (with_defaults, (1, 2), {"third": 3, "fourth": 4}),
            (with_defaults, (), {"first": 1, "third": 3}),
            (positional_only, (1,), {"first": 1}),
            (positional_only, (1, 2), {"other": 1}),
            (one_is_filled_in, (2,), {}),
            (Account, ("a",), {}),
            (Account().greet, ("a",), {}),
            (Account.make, ("a",), {}),
            (Account(), ("a",), {}),
            (functools.partial(two, 1), (2,), {}),
            (coroutine, (1,), {}),
            (len, ("a",), {}),
            (print, (1,), {"sep": ""}),
            (dict, (), {"a": 1}),
        ],
    )
    def test_arguments_that_fit_are_not_mentioned(self, call: Any, args: Any, kwargs: Any) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            deferred.defer(call, *args, **kwargs)

    def test_a_generator_function_would_do_nothing(self) -> None:
        with pytest.warns(DeferWarning, match="generator function"):
            deferred.defer(generator)

    def test_a_method_that_its_object_does_not_have_by_that_name(self) -> None:
        method = renamed(two).__get__(Account())
        with pytest.warns(DeferWarning, match=r"Account has no attribute of that name"):
            deferred.defer(method)


class TestPatching:
    def test_serialize_is_looked_up_when_it_is_used(
        self, stub: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(submodule, "serialize", lambda *args, **kwargs: b"mine")
        deferred.defer(work)
        assert the_task(stub).payload == b"mine"

    def test_constants_are(self, stub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(submodule, "_DEFAULT_URL", "/elsewhere")
        monkeypatch.setattr(submodule, "_DEFAULT_QUEUE", "other")
        monkeypatch.setattr(submodule, "_TASKQUEUE_HEADERS", {"Content-Type": "text/x"})
        task = deferred.defer(work)
        assert (task.url, task.queue_name) == ("/elsewhere", "other")
        assert task.headers["Content-Type"] == "text/x"

    def test_taskqueue_is(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made: list[Any] = []

        class Recording(taskqueue.Task):
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                made.append(kwargs["url"])
                super().__init__(*args, **kwargs)

        monkeypatch.setattr(taskqueue, "Task", Recording)
        deferred.defer(work, _url="/x")
        assert made == ["/x"]

    def test_currying_is(self, stub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(submodule, "_curry_callable", lambda *args, **kw: (work, (9,), {}))
        deferred.defer(two, 1, 2)
        assert deferred.run(the_task(stub).payload) == ((9,), {})


class TestLargePayloads:
    def test_alone_need_no_datastore(self, stub: Any) -> None:
        added = deferred.defer(work, "x" * taskqueue.MAX_TASK_SIZE_BYTES, _name="large")
        assert added.was_enqueued
        (args, _) = deferred.run(the_task(stub).payload)
        assert args == ("x" * taskqueue.MAX_TASK_SIZE_BYTES,)

    def test_have_a_limit_that_the_error_names(self, stub: Any) -> None:
        with pytest.raises(taskqueue.TaskTooLargeError, match=r"1,?048,?569"):
            deferred.defer(work, "x" * 1_100_000)
        assert stub.get_filtered_tasks() == []

    def test_stored_in_a_datastore_that_is_not_there_are_a_permanent_failure(self) -> None:
        with pytest.raises(
            deferred.PermanentTaskFailure, match=r"key 'abc'.*appengine-python-standard"
        ):
            deferred.run_from_datastore("abc")


def test_the_stub_is_what_takes_the_tasks_here() -> None:
    assert choice.current().kind == "stub"
