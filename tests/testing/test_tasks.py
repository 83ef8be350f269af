"""The ``tasks`` fixture: running, stepping time, failures and duplicates, and what was deferred."""

from __future__ import annotations

import datetime
import threading
from collections.abc import Iterable
from typing import Any
from unittest import mock

import pytest
from flask import Flask, request
from google.appengine.api import taskqueue, wrap_wsgi_app
from google.appengine.ext import deferred

from appengine_compat.testing.attempts import TaskRunError
from appengine_compat.testing.tasks import MOST_ATTEMPTS, Tasks

ran: list[Any] = []


def work(*args: Any, **kwargs: Any) -> None:
    ran.append((*args, kwargs) if kwargs else args)


def chain(depth: int, countdown: int = 0) -> None:
    ran.append(depth)
    if depth:
        deferred.defer(chain, depth - 1, countdown, _countdown=countdown)


def forever() -> None:
    deferred.defer(forever)


def fails_until(successes_at: int) -> None:
    ran.append(successes_at)
    if len(ran) < successes_at:
        raise RuntimeError(f"attempt {len(ran)}")


def fails() -> None:
    ran.append("fails")
    raise ValueError("a bug")


def gives_up() -> None:
    raise deferred.PermanentTaskFailure("no use")


def asks_again() -> None:
    ran.append("again")
    if len(ran) == 1:
        raise deferred.SingularTaskFailure


async def asynchronous() -> None:
    ran.append("async")


class Account:
    def __init__(self, name: str) -> None:
        self.name = name

    def close(self, reason: str) -> None:
        ran.append((self.name, reason))


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    ran.clear()


# --- running ---


def test_run_all_runs_tasks_and_what_they_enqueue(tasks: Tasks) -> None:
    deferred.defer(chain, 3)
    attempts = tasks.run_all()
    assert ran == [3, 2, 1, 0]
    assert [attempt.status for attempt in attempts] == [200] * 4
    assert tasks.stub.get_filtered_tasks() == []
    assert tasks.attempts == attempts


def test_run_all_steps_to_tasks_that_are_far_off(tasks: Tasks) -> None:
    before = tasks.now()
    deferred.defer(work, "late", _countdown=86400)
    deferred.defer(work, "soon", _countdown=60)
    tasks.run_all()
    assert ran == [("soon",), ("late",)]
    assert tasks.now() - before == pytest.approx(86400)


def test_run_until_idle_leaves_what_is_not_due(tasks: Tasks) -> None:
    deferred.defer(work, "now")
    deferred.defer(work, "later", _countdown=60)
    tasks.run_until_idle()
    assert ran == [("now",)]
    assert [task.name for task in tasks.stub.get_filtered_tasks()] == ["task2"]


def test_tasks_due_at_one_time_run_in_the_order_they_were_added(tasks: Tasks) -> None:
    for number in range(12):
        deferred.defer(work, number)
    tasks.run_until_idle()
    assert ran == [(number,) for number in range(12)]


def test_advance_runs_what_becomes_due_each_at_its_time(tasks: Tasks) -> None:
    deferred.defer(chain, 9, 60)
    tasks.advance(minutes=5)
    assert ran == [9, 8, 7, 6, 5, 4]
    tasks.advance(seconds=59)
    assert len(ran) == 6
    tasks.advance(seconds=1)
    assert len(ran) == 7


def test_an_advance_by_exactly_the_countdown_is_enough(tasks: Tasks) -> None:
    for countdown in (1, 60, 3600):
        deferred.defer(work, countdown, _countdown=countdown)
        tasks.advance(seconds=countdown)
    assert ran == [(1,), (60,), (3600,)]


def test_tasks_of_one_countdown_run_in_the_order_they_were_added(tasks: Tasks) -> None:
    for number in range(50):
        deferred.defer(work, number, _countdown=60)
    tasks.advance(minutes=1)
    assert ran == [(number,) for number in range(50)]


def test_after_an_advance_etas_count_from_the_stepped_time(tasks: Tasks) -> None:
    tasks.advance(days=1)
    deferred.defer(work, _countdown=60)
    tasks.run_until_idle()
    assert ran == []
    tasks.advance(minutes=1)
    assert ran == [()]


def test_time_does_not_go_back(tasks: Tasks) -> None:
    with pytest.raises(ValueError, match="time does not go back"):
        tasks.advance(minutes=-1)


def test_a_task_that_enqueues_itself_without_end_is_told(tasks: Tasks) -> None:
    deferred.defer(forever)
    with pytest.raises(TaskRunError, match=r"1000 attempts .* Does a task enqueue itself"):
        tasks.run_until_idle()
    assert len(tasks.attempts) == MOST_ATTEMPTS


def test_no_thread_is_left(tasks: Tasks) -> None:
    before = threading.enumerate()
    deferred.defer(asynchronous)
    tasks.run_all()
    assert ran == ["async"]
    assert threading.enumerate() == before


def test_names_of_tasks_that_ran_stay_reserved(tasks: Tasks) -> None:
    deferred.defer(work, _name="once")
    tasks.run_all()
    with pytest.raises(taskqueue.TombstonedTaskError):
        deferred.defer(work, _name="once")


# --- retries ---


def test_a_task_that_fails_is_tried_again_by_its_queues_backoff(tasks: Tasks) -> None:
    options = taskqueue.TaskRetryOptions(min_backoff_seconds=10, max_doublings=1)
    deferred.defer(fails_until, 4, _queue="retried", _retry_options=options)
    start = tasks.now()
    tasks.run_until_idle()
    assert len(ran) == 1
    tasks.advance(seconds=10)
    assert len(ran) == 2
    tasks.advance(seconds=19)
    assert len(ran) == 2
    tasks.run_all()
    assert len(ran) == 4
    assert tasks.now() - start == pytest.approx(10 + 20 + 40)
    assert [attempt.status for attempt in tasks.attempts] == [500, 500, 500, 200]
    assert [attempt.number for attempt in tasks.attempts] == [1, 2, 3, 4]
    assert str(tasks.attempts[0].error) == "attempt 1"


def test_a_task_that_is_given_up_raises_after_the_others_ran(tasks: Tasks) -> None:
    deferred.defer(fails, _retry_options=taskqueue.TaskRetryOptions(task_retry_limit=1))
    deferred.defer(work, "other")
    with pytest.raises(TaskRunError) as caught:
        tasks.run_all()
    assert sorted(map(str, ran)) == sorted(map(str, ["fails", ("other",), "fails"]))
    assert isinstance(caught.value.__cause__, ValueError)
    assert "task 'task1' of queue 'default'" in str(caught.value)
    assert "fails()" in str(caught.value)
    assert "attempt 2 gave 500 (ValueError: a bug); it is given up" in str(caught.value)
    assert tasks.stub.get_filtered_tasks() == []


def test_given_up_tasks_can_be_what_a_test_expects(tasks: Tasks) -> None:
    deferred.defer(fails, _retry_options=taskqueue.TaskRetryOptions(task_retry_limit=0))
    (attempt,) = tasks.run_all(check=False)
    assert attempt.is_given_up
    assert not attempt.ok


def test_a_task_without_a_limit_is_left_after_25_failures(tasks: Tasks) -> None:
    deferred.defer(fails, _queue="retried")
    with pytest.raises(TaskRunError, match=r"attempt 25 gave 500 .*; it is left in the queue"):
        tasks.run_all()
    assert len(ran) == 25
    assert len(tasks.stub.get_filtered_tasks()) == 1


def test_a_permanent_failure_is_done_and_a_singular_one_is_tried_again(tasks: Tasks) -> None:
    deferred.defer(gives_up)
    deferred.defer(asks_again, _queue="retried")
    tasks.run_all()
    assert [attempt.status for attempt in tasks.attempts] == [200, 408, 200]
    assert ran == ["again", "again"]


def test_what_made_a_task_fail_for_good_is_told(tasks: Tasks) -> None:
    deferred.defer(gives_up)
    (attempt,) = tasks.run_all()
    assert attempt.ok
    assert isinstance(attempt.error, deferred.PermanentTaskFailure)
    assert str(attempt).endswith("attempt 1 gave 200 (PermanentTaskFailure: no use)")


def test_that_is_told_through_an_app_of_ones_own_too(tasks: Tasks) -> None:
    tasks.app = notes_app()
    deferred.defer(gives_up)
    taskqueue.add(url="/_ah/queue/deferred", payload=b"no pickle")
    given_up, unreadable = tasks.run_all()
    assert str(given_up.error) == "no use"
    assert isinstance(unreadable.error, deferred.PermanentTaskFailure)


# --- apps ---


def notes_app() -> Flask:
    app = Flask(__name__)
    app.wsgi_app = wrap_wsgi_app(app.wsgi_app, use_deferred=True)  # type: ignore[method-assign]

    @app.route("/note", methods=["GET", "POST"])
    def note() -> str:
        ran.append(
            (
                request.method,
                request.args.get("q"),
                request.form.get("text"),
                request.headers["X-AppEngine-TaskName"],
                request.headers["X-AppEngine-TaskRetryCount"],
            )
        )
        return "noted"

    @app.route("/custom/path", methods=["POST"])
    def custom() -> Any:
        ran.append("custom route")
        return deferred.application.post(request.environ)

    return app


def test_tasks_of_other_urls_run_through_the_app(tasks: Tasks) -> None:
    tasks.app = notes_app()
    taskqueue.add(url="/note", params={"text": "hé"})
    taskqueue.add(url="/note?q=1", method="GET", name="mine")
    deferred.defer(work, 1)
    deferred.defer(work, 2, _url="/custom/path")
    attempts = tasks.run_all()
    assert ran == [
        ("POST", None, "hé", "task1", "0"),
        ("GET", "1", None, "mine", "0"),
        (1,),
        "custom route",
        (2,),
    ]
    assert attempts[0].body == b"noted"


def test_a_missing_route_is_a_failure_as_in_production(tasks: Tasks) -> None:
    tasks.app = notes_app()
    taskqueue.add(url="/nope", retry_options=taskqueue.TaskRetryOptions(task_retry_limit=0))
    with pytest.raises(TaskRunError, match="POST /nope: attempt 1 gave 404; it is given up"):
        tasks.run_all()


def test_targets_have_their_own_apps(tasks: Tasks) -> None:
    def answering(name: str) -> Any:
        def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            ran.append((name, environ["PATH_INFO"]))
            start_response("204 No Content", [])
            return []

        return app

    tasks.app = answering("default")
    tasks.apps["worker"] = answering("worker")
    taskqueue.add(url="/a", target="v2.worker")
    taskqueue.add(url="/b", target="elsewhere")
    tasks.run_all()
    assert ran == [("worker", "/a"), ("default", "/b")]


def test_without_an_app_a_task_that_is_no_deferred_call_is_refused(tasks: Tasks) -> None:
    taskqueue.add(url="/note", params={"text": "x"})
    with pytest.raises(TaskRunError, match=r"POST /note is no deferred call.* set tasks\.app"):
        tasks.run_all()
    assert len(tasks.stub.get_filtered_tasks()) == 1


def test_a_response_is_closed_and_a_raising_one_is_a_500(tasks: Tasks) -> None:
    class Body:
        def __iter__(self) -> Any:
            raise OSError("broken off")

        def close(self) -> None:
            ran.append("closed")

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return Body()

    tasks.app = app
    taskqueue.add(url="/a", retry_options=taskqueue.TaskRetryOptions(task_retry_limit=0))
    (attempt,) = tasks.run_all(check=False)
    assert attempt.status == 500
    assert isinstance(attempt.error, OSError)
    assert "closed" in ran


def test_headers_tell_of_earlier_attempts(tasks: Tasks) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        ran.append({k[17:]: v for k, v in environ.items() if k.startswith("HTTP_X_APPENGINE_")})
        start_response("503 Busy" if len(ran) == 1 else "200 OK", [])
        return []

    tasks.app = app
    taskqueue.add(url="/a", headers={"X-AppEngine-Other": "no"}, queue_name="mail")
    tasks.run_all()
    first, second = ran
    assert first["QUEUENAME"] == "mail"
    assert first["TASKRETRYCOUNT"] == "0"
    assert "TASKPREVIOUSRESPONSE" not in first
    assert "OTHER" not in first
    assert second["TASKRETRYCOUNT"] == "1"
    assert second["TASKEXECUTIONCOUNT"] == "1"
    assert second["TASKPREVIOUSRESPONSE"] == "503"


# --- failures and duplicates on request ---


def test_an_injected_failure_does_not_reach_the_app(tasks: Tasks) -> None:
    deferred.defer(work, 1, _queue="retried")
    tasks.fail_next(2, status=503)
    tasks.run_all()
    assert ran == [(1,)]
    assert [attempt.status for attempt in tasks.attempts] == [503, 503, 200]


def test_failures_can_be_for_one_function_or_queue(tasks: Tasks) -> None:
    tasks.fail_next(function=chain, error=ConnectionError("down"))
    tasks.fail_next(queue="mail", status=0)
    deferred.defer(work, 1)
    deferred.defer(chain, 0, _queue="retried")
    deferred.defer(work, 2, _queue="mail")
    tasks.run_until_idle()
    assert [attempt.status for attempt in tasks.attempts] == [200, 500, 0]
    assert isinstance(tasks.attempts[1].error, ConnectionError)
    assert ran == [(1,)]


def test_a_success_is_no_failure(tasks: Tasks) -> None:
    with pytest.raises(ValueError, match="status 200 is no failure"):
        tasks.fail_next(status=200)


def test_a_duplicate_is_delivered_twice(tasks: Tasks) -> None:
    deferred.defer(work, "once")
    deferred.defer(work, "twice", _queue="mail")
    tasks.duplicate_next(queue="mail")
    tasks.run_all()
    assert ran == [("once",), ("twice",), ("twice",)]
    assert [attempt.number for attempt in tasks.attempts] == [1, 1, 1]


def test_a_duplicate_that_fails_is_tried_again(tasks: Tasks) -> None:
    deferred.defer(fails_on_second, _queue="retried")
    tasks.duplicate_next(function=fails_on_second)
    tasks.run_all()
    assert [attempt.status for attempt in tasks.attempts] == [200, 500, 200]


def fails_on_second() -> None:
    ran.append(1)
    if len(ran) == 2:
        raise KeyError("already there")


# --- what was deferred ---


def test_what_was_deferred_can_be_asserted(tasks: Tasks) -> None:
    deferred.defer(work, 1, key=[2], _queue="mail", _countdown=60, _url="/custom", _name="n")
    call = tasks.assert_deferred(
        work, 1, key=[2], _queue="mail", _countdown=60, _url="/custom", _name="n", _target=""
    )
    assert (call.function, call.args, call.kwargs) == (work, (1,), {"key": [2]})
    assert (call.queue, call.name, call.url) == ("mail", "n", "/custom")
    tasks.assert_deferred(work, mock.ANY, key=mock.ANY)


@pytest.mark.parametrize(
    ("function", "args", "kwargs"),
    [
        (chain, (1,), {"key": [2]}),
        (work, (2,), {"key": [2]}),
        (work, (), {"key": [2]}),
        (work, (1, 1), {"key": [2]}),
        (work, (1,), {}),
        (work, (1,), {"key": [3]}),
        (work, (1,), {"key": [2], "other": 1}),
        (work, (1,), {"key": [2], "_queue": "default"}),
        (work, (1,), {"key": [2], "_countdown": 90}),
        (work, (1,), {"key": [2], "_target": "worker"}),
    ],
)
def test_another_call_was_not_deferred(
    tasks: Tasks, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    deferred.defer(work, 1, key=[2], _queue="mail", _countdown=60)
    with pytest.raises(AssertionError) as caught:
        tasks.assert_deferred(function, *args, **kwargs)
    assert "was not deferred. Deferred were:" in str(caught.value)
    assert "work(1, key=[2]) in queue 'mail'" in str(caught.value)


def test_methods_are_told_by_what_their_objects_hold(tasks: Tasks) -> None:
    deferred.defer(Account("a").close, "bored")
    call = tasks.assert_deferred(Account("a").close, "bored")
    assert call.function.__name__ == "close"
    assert call.args == ("bored",)
    with pytest.raises(AssertionError):
        tasks.assert_deferred(Account("b").close, "bored")


def test_what_ran_and_what_it_deferred_counts_too(tasks: Tasks) -> None:
    deferred.defer(chain, 1)
    tasks.run_all()
    assert [call.args for call in tasks.deferred] == [(1,), (0, 0)]
    tasks.assert_deferred(chain, 0, 0)


def test_plain_tasks_are_no_deferred_calls(tasks: Tasks) -> None:
    taskqueue.add(url="/x", payload=b"\x80 no pickle")
    taskqueue.add(url="/x", method="GET")
    assert tasks.deferred == []
    tasks.assert_nothing_deferred()


def test_nothing_deferred_says_what_was(tasks: Tasks) -> None:
    tasks.assert_nothing_deferred()
    with pytest.raises(AssertionError, match=r"Nothing was deferred\."):
        tasks.assert_deferred(work)
    deferred.defer(work, 5)
    with pytest.raises(AssertionError, match=r"work\(5\) in queue 'default'"):
        tasks.assert_nothing_deferred()


def test_the_stub_and_the_tasks_of_a_test_are_one(tasks: Tasks, taskqueue_stub: Any) -> None:
    assert tasks.stub is taskqueue_stub
    eta = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=29)
    deferred.defer(work, _eta=eta)
    assert len(taskqueue_stub.get_filtered_tasks()) == 1
