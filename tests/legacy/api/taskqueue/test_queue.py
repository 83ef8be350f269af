"""Adding, deleting, purging, fetching: what reaches the backend, and what comes back."""

from __future__ import annotations

import copy
import datetime
import pickle
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from google.appengine.api import apiproxy_stub_map, taskqueue
from hypothesis import given
from hypothesis import strategies as st

from appengine_compat import errors
from appengine_compat.backends import choice
from appengine_compat.backends.base import BackendError, Reason
from appengine_compat.core.model import QueueStats, RetryOverrides
from appengine_compat.settings import configure

if TYPE_CHECKING:
    from tests.legacy.api.taskqueue.conftest import Recorder

UTC = datetime.timezone.utc


# --- what reaches the backend ----------------------------------------------------------------


def test_a_task_reaches_the_backend_whole(backend: Recorder) -> None:
    eta = datetime.datetime(2020, 1, 2, 3, 4, 5, 250000, UTC)
    taskqueue.add(
        b"body",
        url="/work",
        headers={"X-A": ["1", "2"], "X-Ü": "é"},
        name="n",
        eta=eta,
        target="v1.worker",
        queue_name="mail",
        dispatch_deadline_usec=20_500_000,
        retry_options=taskqueue.TaskRetryOptions(
            task_retry_limit=3,
            task_age_limit=59.5,
            min_backoff_seconds=1,
            max_backoff_seconds=2.5,
            max_doublings=4,
        ),
    )
    assert backend.created[0][0] == "mail"
    request = backend.only
    assert (request.relative_url, request.method, request.payload) == ("/work", "POST", b"body")
    assert (request.name, request.target, request.schedule_time) == ("n", "v1.worker", eta)
    assert request.dispatch_deadline_seconds == 20.5
    assert request.headers == (
        ("X-A", "1"),
        ("X-A", "2"),
        ("X-Ü", "é"),
        ("X-AppEngine-Current-Namespace", ""),
    )
    assert request.retry == RetryOverrides(
        max_attempts=4,
        max_retry_duration_seconds=60,
        min_backoff_seconds=1,
        max_backoff_seconds=2.5,
        max_doublings=4,
    )


def test_what_is_not_given_is_left_to_the_service(backend: Recorder) -> None:
    taskqueue.add()
    request = backend.only
    assert request.relative_url == "/_ah/queue/default"
    assert (request.name, request.target, request.payload) == ("", "", b"")
    assert (request.schedule_time, request.retry) == (None, None)
    assert request.dispatch_deadline_seconds == 0


def test_no_retries_are_one_attempt(backend: Recorder) -> None:
    taskqueue.add(retry_options=taskqueue.TaskRetryOptions(task_retry_limit=0))
    assert backend.only.retry == RetryOverrides(max_attempts=1)


def test_a_form_and_a_query_reach_the_backend(backend: Recorder) -> None:
    taskqueue.add(params={"a": "é"}, url="/x")
    taskqueue.add(params={"a": "é"}, method="GET", queue_name="q")
    (_, (form,)), (_, (query,)) = backend.created
    assert form.payload == b"a=%C3%A9"
    assert query.relative_url == "/_ah/queue/q?a=%C3%A9"


def test_a_url_goes_in_the_letters_of_http(backend: Recorder) -> None:
    taskqueue.add(url="/é x?a=%20&b=ü|", method="GET")
    assert backend.only.relative_url == "/%C3%A9%20x?a=%20&b=%C3%BC|"


def test_the_test_stub_is_told_the_url_as_it_was_given(backend: Recorder) -> None:
    backend.kind = "stub"
    taskqueue.add(url="/é x")
    assert backend.only.relative_url == "/é x"


def test_a_countdown_that_is_not_a_number_is_at_once(backend: Recorder) -> None:
    taskqueue.add(countdown=float("nan"))
    schedule_time = backend.only.schedule_time
    assert schedule_time is not None
    assert schedule_time < datetime.datetime.now(UTC)


APP = "app.example.com"


@pytest.mark.parametrize(
    ("default_hostname", "options", "target"),
    [
        ("", {}, ""),
        ("", {"target": "worker"}, "worker"),
        ("", {"target": "v1.worker"}, "v1.worker"),
        ("", {"target": taskqueue.DEFAULT_APP_VERSION}, "default"),
        ("", {"target": ""}, ""),
        (APP, {"target": "worker"}, "worker"),
        (APP, {"headers": {"Host": f"v1.worker.{APP}"}}, "v1.worker"),
        (APP, {"headers": {"Host": f"v1-dot-worker-dot-{APP}"}}, "v1.worker"),
        (APP, {"headers": {"host": APP}}, "default"),
        (APP, {"headers": {"Host": "www.example.org"}}, ""),
        ("", {"headers": {"Host": "v1-dot-worker-dot-app.appspot.com"}}, "v1.worker"),
        ("", {"headers": {"Host": "worker-dot-app.uc.r.appspot.com"}}, "worker"),
        ("", {"headers": {"Host": "app.appspot.com"}}, ""),
        ("", {"headers": {"Host": "worker.example.org"}}, ""),
    ],
)
def test_the_target_is_the_service_that_was_asked_for(
    default_hostname: str,
    options: dict[str, Any],
    target: str,
    backend: Recorder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if default_hostname:
        monkeypatch.setenv("DEFAULT_VERSION_HOSTNAME", default_hostname)
    taskqueue.add(**options)
    assert backend.only.target == target


@pytest.mark.parametrize("again", [copy.deepcopy, lambda task: pickle.loads(pickle.dumps(task))])
def test_a_copied_task_goes_where_the_first_would(again: Any, backend: Recorder) -> None:
    task = taskqueue.Task("p", url="/x", target=taskqueue.DEFAULT_APP_VERSION, countdown=5)
    again(task).add()
    task.add()
    (_, (copied,)), (_, (first,)) = backend.created
    assert copied == first
    assert first.target == "default"


@pytest.mark.parametrize("host", [APP, f"v1.{APP}", "www.example.org", "localhost:8080"])
def test_without_a_target_a_task_stays_on_the_service_that_enqueues(
    host: str, backend: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEFAULT_VERSION_HOSTNAME", APP)
    monkeypatch.setenv("HTTP_HOST", host)
    taskqueue.add()
    assert backend.only.target == ""
    assert ("Host", host) in backend.only.headers


# --- what comes back -------------------------------------------------------------------------


def test_an_added_task_is_told_its_name_and_queue(backend: Recorder) -> None:
    task = taskqueue.Task(url="/x")
    assert taskqueue.Queue("q").add(task) is task
    assert (task.name, task.queue_name, task.was_enqueued) == ("made", "q", True)


@pytest.mark.parametrize("nothing", [None, [], ()])
def test_nothing_to_add_is_nothing_added(nothing: object, backend: Recorder) -> None:
    assert taskqueue.Queue().add(nothing) == []
    assert taskqueue.Queue().add_async(nothing or []).get_result() == []
    assert not backend.created


@pytest.mark.parametrize("kind", [list, tuple, iter])
def test_many_tasks_are_one_call_and_a_list(kind: Any, backend: Recorder) -> None:
    tasks = [taskqueue.Task(url=f"/{number}") for number in range(100)]
    assert taskqueue.Queue().add(kind(tasks)) == tasks
    assert len(backend.created) == 1
    assert all(task.was_enqueued for task in tasks)


def added() -> taskqueue.Task:
    return taskqueue.Queue().add(taskqueue.Task())


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: [taskqueue.Task()] * 101, taskqueue.TooManyTasksError, "No more than 100 tasks"),
        (added, taskqueue.BadTaskStateError, "already been enqueued"),
        (
            lambda: [taskqueue.Task(name="a"), taskqueue.Task(name="a")],
            taskqueue.DuplicateTaskNameError,
            "'a' is used more than once",
        ),
        (
            lambda: [taskqueue.Task(), taskqueue.Task("x", method="PULL")],
            taskqueue.InvalidTaskError,
            "both push and pull",
        ),
        (
            lambda: taskqueue.Task("x", method="PULL"),
            taskqueue.InvalidQueueModeError,
            "Pub/Sub",
        ),
        (lambda: 5, AttributeError, "method"),
    ],
)
def test_what_cannot_be_added_is_refused_before_it_is_sent(
    make: Any, error: type[Exception], words: str, backend: Recorder
) -> None:
    wrong = make()
    sent = len(backend.created)
    with pytest.raises(error, match=words):
        taskqueue.Queue().add(wrong)
    with pytest.raises(error, match=words):
        taskqueue.Queue().add_async(wrong)
    assert len(backend.created) == sent


def test_tasks_of_a_batch_are_independent(backend: Recorder) -> None:
    backend.refusals["b"] = BackendError(Reason.TASK_TOO_LARGE, "1 MB and more.")
    tasks = [taskqueue.Task(name=name) for name in "abc"]
    with pytest.raises(taskqueue.TaskTooLargeError, match="task 'b' to queue 'default': 1 MB"):
        taskqueue.Queue().add(tasks)
    assert [task.was_enqueued for task in tasks] == [True, False, True]
    assert [task.queue_name for task in tasks] == ["default", None, "default"]


@given(
    reasons=st.lists(
        st.sampled_from([None, Reason.TASK_ALREADY_EXISTS, Reason.TOMBSTONED_TASK, Reason.INTERNAL,
                         Reason.INVALID_URL]),
        min_size=1, max_size=6,
    )
)  # fmt: skip
def test_one_error_stands_for_a_batch(reasons: list[Reason | None]) -> None:
    """The first that is not a name that is taken, else the last of those."""
    from tests.legacy.api.taskqueue.conftest import Recorder

    recorder = Recorder()
    for number, reason in enumerate(reasons):
        if reason is not None:
            recorder.refusals[str(number)] = BackendError(reason, f"refused {number}")
    tasks = [taskqueue.Task(name=str(number)) for number in range(len(reasons))]
    taken = (Reason.TASK_ALREADY_EXISTS, Reason.TOMBSTONED_TASK)
    others = [index for index, reason in enumerate(reasons) if reason and reason not in taken]
    names = [index for index, reason in enumerate(reasons) if reason in taken]
    expected = others[0] if others else names[-1] if names else None
    said = None
    try:
        taskqueue.Queue().add(tasks, _client=recorder)
    except taskqueue.Error as error:
        said = str(error).rpartition(": ")[2]
    assert said == (None if expected is None else f"refused {expected}")
    assert [task.was_enqueued for task in tasks] == [reason is None for reason in reasons]


CLASSES = {
    Reason.UNKNOWN_QUEUE: taskqueue.UnknownQueueError,
    Reason.UNKNOWN_TASK: taskqueue.Error,
    Reason.TASK_ALREADY_EXISTS: taskqueue.TaskAlreadyExistsError,
    Reason.TOMBSTONED_TASK: taskqueue.TombstonedTaskError,
    Reason.TASK_TOO_LARGE: taskqueue.TaskTooLargeError,
    Reason.INVALID_TASK_NAME: taskqueue.InvalidTaskNameError,
    Reason.INVALID_QUEUE_NAME: taskqueue.InvalidQueueNameError,
    Reason.INVALID_URL: taskqueue.InvalidUrlError,
    Reason.INVALID_ETA: taskqueue.InvalidEtaError,
    Reason.INVALID_DISPATCH_DEADLINE: taskqueue.InvalidDispatchDeadlineError,
    Reason.INVALID_QUEUE_MODE: taskqueue.InvalidQueueModeError,
    Reason.INVALID_REQUEST: taskqueue.InvalidTaskError,
    Reason.INVALID_TARGET: taskqueue.InvalidTaskError,
    Reason.PERMISSION_DENIED: taskqueue.PermissionDeniedError,
    Reason.TRANSIENT: taskqueue.TransientError,
    Reason.INTERNAL: taskqueue.InternalError,
}


@pytest.mark.parametrize("reason", Reason)
@pytest.mark.parametrize("whole_call", [True, False])
def test_each_refusal_has_its_class_and_a_message(
    reason: Reason, whole_call: bool, backend: Recorder
) -> None:
    refusal = BackendError(reason, "Because.")
    if whole_call:
        backend.failure = refusal
    else:
        backend.refusals["n"] = refusal
    with pytest.raises(CLASSES[reason]) as raised:
        taskqueue.add(name="n", queue_name="q")
    assert str(raised.value) == "Could not add task 'n' to queue 'q': Because."
    assert raised.value.__cause__ is refusal
    assert raised.value.__class__.__name__ == CLASSES[reason].__name__


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Task 'n' of queue 'q' is there.", "Task 'n' of queue 'q' is there."),
        ("Refused 'n' in projects/p/locations/l/queues/q.", "Refused 'n' in projects/p/"),
        ("It is there.", "Could not add task 'n' to queue 'q': It is there."),
        ("Queue 'q' is full.", "Could not add task 'n' to queue 'q': Queue 'q' is full."),
    ],
)
def test_a_message_names_queue_and_task_and_does_so_once(
    text: str, expected: str, backend: Recorder
) -> None:
    backend.failure = BackendError(Reason.TASK_ALREADY_EXISTS, text, queue="q", task="n")
    with pytest.raises(taskqueue.TaskAlreadyExistsError) as raised:
        taskqueue.add(name="n", queue_name="q")
    assert str(raised.value).startswith(expected)


def test_no_message_is_empty(backend: Recorder) -> None:
    backend.failure = BackendError(Reason.TRANSIENT, "")
    with pytest.raises(taskqueue.TransientError, match=r"a task for '/x' to queue 'q': TRANSIENT"):
        taskqueue.add(url="/x", queue_name="q")


def test_the_task_at_fault_is_named_where_it_is_known(backend: Recorder) -> None:
    backend.failure = BackendError(Reason.INVALID_TASK_NAME, "Odd.", task="b")
    with pytest.raises(taskqueue.InvalidTaskNameError, match="Could not add task 'b'"):
        taskqueue.Queue().add([taskqueue.Task(name="a"), taskqueue.Task(name="b")])


@pytest.mark.parametrize("reason", [Reason.TASK_ALREADY_EXISTS, Reason.TOMBSTONED_TASK])
@pytest.mark.parametrize(
    "handler", [taskqueue.TaskAlreadyExistsError, taskqueue.TombstonedTaskError]
)
def test_a_name_that_is_taken_is_caught_by_either_handler(
    reason: Reason, handler: type[Exception], backend: Recorder
) -> None:
    backend.refusals["n"] = BackendError(reason, "Taken.")
    with pytest.raises(handler):
        taskqueue.add(name="n")


def test_the_two_classes_themselves_stay_siblings() -> None:
    assert not issubclass(taskqueue.TaskAlreadyExistsError, taskqueue.TombstonedTaskError)
    assert not issubclass(taskqueue.TombstonedTaskError, taskqueue.TaskAlreadyExistsError)


@pytest.mark.parametrize("reason", Reason)
def test_errors_can_be_pickled(reason: Reason, backend: Recorder) -> None:
    backend.refuse(reason)
    with pytest.raises(taskqueue.Error) as raised:
        taskqueue.add(name="n")
    again = pickle.loads(pickle.dumps(raised.value))
    assert (type(again), str(again)) == (type(raised.value), str(raised.value))


# --- where tasks go --------------------------------------------------------------------------


def test_an_explicit_client_takes_the_task(backend: Recorder) -> None:
    other = copy.deepcopy(backend)
    taskqueue.Task(url="/x").add("q", _client=other)
    taskqueue.Queue("q").add(taskqueue.Task(url="/y"), _client=other)
    taskqueue.Task(url="/z").add_async("q", _client=other).get_result()
    urls = [request.relative_url for _, requests in other.created for request in requests]
    assert urls == ["/x", "/y", "/z"]
    assert not backend.created


def test_a_stub_that_is_registered_takes_the_task(
    backend: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    registered = copy.deepcopy(backend)
    stubs = apiproxy_stub_map.APIProxyStubMap()
    stubs.RegisterStub("taskqueue", registered)
    monkeypatch.setattr(apiproxy_stub_map, "apiproxy", stubs)
    taskqueue.add(url="/x")
    assert registered.only.relative_url == "/x"
    assert not backend.created


@pytest.fixture
def no_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "_active", [])
    monkeypatch.setattr(choice, "_choice", None)
    for name in ("CLOUD_TASKS_EMULATOR_HOST", "APPENGINE_COMPAT_BACKEND", "GAE_ENV"):
        monkeypatch.delenv(name, raising=False)


def test_no_place_for_tasks_is_an_error_of_both_trees(
    no_backend: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("K_SERVICE", "web")
    with pytest.raises(taskqueue.Error, match="APPENGINE_COMPAT_TARGETS") as raised:
        taskqueue.add()
    assert isinstance(raised.value, errors.BackendChoiceError)
    assert raised.value.setting == "APPENGINE_COMPAT_TARGETS"
    again = pickle.loads(pickle.dumps(raised.value))
    assert isinstance(again, errors.BackendChoiceError)
    assert isinstance(again, taskqueue.Error)
    assert (str(again), again.setting) == (str(raised.value), raised.value.setting)


def test_a_setting_that_is_not_allowed_is_an_error_of_both_trees(
    no_backend: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APPENGINE_COMPAT_THREADS", "many")
    for call in (
        taskqueue.add,
        taskqueue.Queue().purge,
        taskqueue.Queue().fetch_statistics,
        lambda: taskqueue.Queue().delete_tasks_by_name("a"),
        lambda: taskqueue.Queue().add_async(taskqueue.Task()),
    ):
        with pytest.raises(taskqueue.Error, match="APPENGINE_COMPAT_THREADS is 'many'") as raised:
            call()
        assert isinstance(raised.value, errors.ConfigError)
    configure()


# --- deleting, purging, fetching -------------------------------------------------------------


def test_a_task_is_deleted_by_name(backend: Recorder) -> None:
    task = taskqueue.add(name="n", queue_name="q")
    assert taskqueue.Queue("q").delete_tasks(task) is task
    assert task.was_deleted
    assert backend.deleted == [("q", ["n"])]


@pytest.mark.parametrize("reason", [Reason.UNKNOWN_TASK, Reason.TOMBSTONED_TASK])
def test_a_task_that_is_not_there_is_no_error(reason: Reason, backend: Recorder) -> None:
    backend.refusals["n"] = BackendError(reason, "Not there.")
    assert taskqueue.Queue().delete_tasks(taskqueue.Task(name="n")).was_deleted is False


def test_tasks_are_deleted_a_thousand_a_call(backend: Recorder) -> None:
    tasks = taskqueue.Queue().delete_tasks_by_name(f"n{number}" for number in range(2500))
    assert [len(names) for _, names in backend.deleted] == [1000, 1000, 500]
    assert all(task.was_deleted for task in tasks)


def test_what_was_deleted_before_a_failure_is_told(backend: Recorder) -> None:
    backend.refusals["n7"] = BackendError(Reason.PERMISSION_DENIED, "Not yours.")
    tasks = [taskqueue.Task(name=f"n{number}") for number in range(10)]
    with pytest.raises(
        taskqueue.PermissionDeniedError, match="delete task 'n7' of queue 'default': Not yours"
    ):
        taskqueue.Queue().delete_tasks(tasks)
    assert [task.was_deleted for task in tasks] == [number != 7 for number in range(10)]


@pytest.mark.parametrize(
    ("tasks", "error", "words"),
    [
        ([taskqueue.Task()], taskqueue.BadTaskStateError, "name must be specified"),
        ([taskqueue.Task(name="a")] * 2, taskqueue.DuplicateTaskNameError, "more than once"),
    ],
)
def test_what_cannot_be_deleted_is_refused(
    tasks: list[taskqueue.Task], error: type[Exception], words: str, backend: Recorder
) -> None:
    with pytest.raises(error, match=words):
        taskqueue.Queue().delete_tasks(tasks)
    assert not backend.deleted


def test_a_task_is_deleted_once(backend: Recorder) -> None:
    task = taskqueue.Queue().delete_tasks_by_name("a")
    with pytest.raises(taskqueue.BadTaskStateError, match="The task a has already been deleted"):
        taskqueue.Queue().delete_tasks(task)


def test_a_queue_is_purged(backend: Recorder) -> None:
    assert taskqueue.Queue("q").purge() is None
    assert backend.purged == ["q"]


def test_a_failed_purge_names_the_queue(backend: Recorder) -> None:
    backend.refuse(Reason.UNKNOWN_QUEUE, "There is none.")
    with pytest.raises(taskqueue.UnknownQueueError, match="purge queue 'q': There is none"):
        taskqueue.Queue("q").purge()


def test_statistics_are_the_backends(backend: Recorder) -> None:
    backend.stats = QueueStats(
        tasks_count=7,
        oldest_arrival_time=datetime.datetime(2020, 1, 1, tzinfo=UTC),
        executed_last_minute_count=6,
        concurrent_dispatches_count=5,
        effective_execution_rate=4.5,
    )
    stats = taskqueue.Queue("q").fetch_statistics(deadline=3)
    assert stats == taskqueue.QueueStatistics(
        taskqueue.Queue("q"), 7, 1_577_836_800_000_000, 6, 5, 4.5
    )
    assert backend.timeouts == [3]
    assert repr(stats).startswith("QueueStatistics(queue=Queue<name='q'>, tasks=7, ")


def test_statistics_of_several_queues_come_in_order(backend: Recorder) -> None:
    found = taskqueue.QueueStatistics.fetch(["a", "b"])
    assert [stats.queue.name for stats in found] == ["a", "b"]
    assert taskqueue.QueueStatistics.fetch([]) == []


def test_names_and_queues_are_not_mixed(backend: Recorder) -> None:
    with pytest.raises(TypeError, match="either strings or queue instances, not both"):
        taskqueue.QueueStatistics.fetch(["a", taskqueue.Queue("b")])


def test_failed_statistics_name_the_queue(backend: Recorder) -> None:
    backend.refuse(Reason.TRANSIENT, "Busy.")
    with pytest.raises(taskqueue.TransientError, match="statistics of queue 'q': Busy"):
        taskqueue.Queue("q").fetch_statistics()


@pytest.mark.parametrize(
    ("deadline", "error"),
    [(0, taskqueue.InvalidDeadlineError), (-1, taskqueue.InvalidDeadlineError), ("x", TypeError)],
)
def test_deadlines_are_positive_numbers(
    deadline: Any, error: type[Exception], backend: Recorder
) -> None:
    for call in (
        taskqueue.Queue().fetch_statistics,
        lambda deadline: taskqueue.QueueStatistics.fetch("q", deadline),
        lambda deadline: taskqueue.Queue().lease_tasks(1, 1, deadline),
        lambda deadline: taskqueue.Queue().lease_tasks_by_tag(1, 1, None, deadline),
    ):
        with pytest.raises(error):
            call(deadline)


# --- pull queues -----------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["lease_tasks", "lease_tasks_by_tag", "lease_tasks_async"])
def test_leasing_points_to_pub_sub_once_the_arguments_are_right(method: str) -> None:
    lease = getattr(taskqueue.Queue(), method)
    for arguments, error in (
        (("x", 1), TypeError),
        ((-1, 1), taskqueue.InvalidLeaseTimeError),
        ((604801, 1), taskqueue.InvalidLeaseTimeError),
        ((1, 1.5), TypeError),
        ((1, 0), taskqueue.InvalidMaxTasksError),
        ((1, 1001), taskqueue.InvalidMaxTasksError),
    ):
        with pytest.raises(error):
            lease(*arguments)
    with pytest.raises(taskqueue.InvalidQueueModeError, match="Pub/Sub"):
        lease(60, 10)


def test_modifying_a_lease_points_to_pub_sub() -> None:
    with pytest.raises(taskqueue.InvalidLeaseTimeError):
        taskqueue.Queue().modify_task_lease(taskqueue.Task(name="n"), -1)
    with pytest.raises(taskqueue.InvalidQueueModeError, match=r"'n'.*Pub/Sub"):
        taskqueue.Queue().modify_task_lease(taskqueue.Task(name="n"), 1)


# --- queues as values, and what tests replace ------------------------------------------------


def test_a_queue_is_its_name() -> None:
    assert taskqueue.Queue("a") == taskqueue.Queue("a") != taskqueue.Queue("b")
    assert repr(taskqueue.Queue("a")) == "Queue<name='a'>"
    assert taskqueue.Queue().name == "default"


@pytest.mark.parametrize("name", ["", "a_b", "a" * 101, "a b"])
def test_a_queue_name_has_its_shape(name: str) -> None:
    with pytest.raises(taskqueue.InvalidQueueNameError, match="Queue name does not match pattern"):
        taskqueue.Queue(name)


@pytest.mark.parametrize(
    "name",
    [
        "google.appengine.api.taskqueue.Queue.add_async",
        "google.appengine.api.taskqueue.Task.add_async",
        "google.appengine.api.taskqueue.Task.add",
        "google.appengine.api.taskqueue.taskqueue.Task",
        "google.appengine.api.taskqueue.taskqueue.Queue",
    ],
)
def test_what_a_test_replaces_is_used(name: str, backend: Recorder) -> None:
    with mock.patch(name) as replaced:
        taskqueue.add(url="/x")
    assert replaced.called
    assert not backend.created


def test_a_pickled_class_is_found_where_old_code_knows_it() -> None:
    for one in (taskqueue.Task, taskqueue.Queue, taskqueue.TaskRetryOptions, taskqueue.Error):
        assert one.__module__ == "google.appengine.api.taskqueue.taskqueue"
        assert pickle.loads(pickle.dumps(one)) is one
