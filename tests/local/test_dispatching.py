"""When a task is dispatched, what its target is told, and what becomes of it."""

from __future__ import annotations

import logging
import threading
from datetime import timedelta

import pytest

from appengine_compat.core import headers
from appengine_compat.core.headers import Family
from appengine_compat.core.model import (
    UNLIMITED,
    AppEngineRouting,
    HttpRequest,
    Queue,
    QueueState,
    RateLimits,
    RetryConfig,
    RetryOverrides,
    Task,
)
from appengine_compat.core.names import QueueName
from appengine_compat.errors import ApiError
from appengine_compat.local import tokens
from appengine_compat.local.delivery import Outcome, Reply
from appengine_compat.local.service import LocalService
from appengine_compat.local.store import Store
from appengine_compat.local.tombstones import Windows
from tests.local.conftest import PATIENCE_SECONDS, QUEUE, Local

NAME = str(QUEUE)


def configure(local, *, rates=None, retry=None, **fields) -> None:
    local.service.put_queues(
        [
            Queue(
                name=NAME,
                rate_limits=RateLimits(**(rates or {})),
                retry_config=RetryConfig(**(retry or {})),
                **fields,
            )
        ]
    )


def kept(local) -> list[tuple]:
    return local.service.store.read(
        lambda connection: connection.execute(
            "SELECT task, reason, attempts, last_status, url, body FROM kept"
        ).fetchall()
    )


# --- success ---


def test_a_task_is_delivered_once_and_is_gone(local):
    local.start()
    name = local.add("t", uri="/a?b=1", body=b"payload", headers={"X-Own": "1"})
    local.settle()
    (delivery,) = local.targets.deliveries
    claim = delivery.claim
    assert (claim.method, claim.url, claim.body) == ("POST", "/a?b=1", b"payload")
    sent = local.targets.headers()
    assert sent["X-Own"] == "1"
    assert sent["Content-Type"] == "application/octet-stream"
    assert sent["X-AppEngine-QueueName"] == "q"
    assert sent["X-AppEngine-TaskName"] == "t"
    assert sent["X-AppEngine-TaskRetryCount"] == "0"
    assert sent["X-AppEngine-TaskETA"] == "1790000000.25"
    with pytest.raises(ApiError, match="The task no longer exists"):
        local.service.get_task(name)
    (event,) = local.events
    assert (event.outcome, event.status, event.attempt, event.next_try) == (
        Outcome.DONE, 200, 1, None,
    )  # fmt: skip
    assert (event.queue_id, event.task_id, event.path, event.body) == (
        "q", "t", "/a?b=1", b"payload",
    )  # fmt: skip


def test_tasks_stored_before_the_start_are_delivered(local):
    names = [local.add(f"t{number}") for number in range(30)]
    local.start()
    local.settle()
    assert sorted(local.targets.task_ids) == sorted(name.rpartition("/")[2] for name in names)


def test_every_status_from_200_to_299_is_a_success_and_no_other(local):
    answers = [200, 204, 299, 199, 300, 304, 404, 500]
    local.targets.answer = lambda delivery: int(delivery.claim.body)
    local.start()
    for answer in answers:
        local.add(f"t{answer}", body=str(answer).encode())
    local.settle()
    done = {event.task_id for event in local.events if event.outcome is Outcome.DONE}
    assert done == {"t200", "t204", "t299"}


def test_the_token_proves_the_task_to_who_knows_the_secret(local):
    local.start()
    local.add("t", uri="/caf%C3%A9/x?y=1", headers={headers.LOCAL_TOKEN_HEADER: "forged"})
    local.settle()
    sent = [
        value
        for name, value in local.targets.deliveries[0].headers
        if name == headers.LOCAL_TOKEN_HEADER
    ]
    assert len(sent) == 1
    assert tokens.is_genuine(sent[0], queue_id="q", task_id="t", path="/caf\xc3\xa9/x")


def test_an_address_anywhere_is_not_told_the_token(local):
    local.start()
    request = HttpRequest(url="https://example.com/x", headers={"X-Own": "1"})
    local.service.create_task(NAME, Task(name="", request=request))
    local.settle()
    sent = local.targets.headers()
    assert headers.LOCAL_TOKEN_HEADER not in sent
    assert sent["User-Agent"] == "Google-Cloud-Tasks"
    assert sent["X-CloudTasks-QueueName"] == "q"
    assert local.targets.deliveries[0].deadline_seconds == 600
    assert local.events[0].path == "https://example.com/x"


# --- time ---


def test_a_task_waits_for_its_schedule_time(local):
    local.start()
    local.add("later", delay=60)
    local.add("now")
    local.settle()
    assert local.targets.task_ids == ["now"]
    local.advance(59.9)
    assert local.targets.task_ids == ["now"]
    local.advance(0.1)
    assert local.targets.task_ids == ["now", "later"]


def test_tasks_run_in_the_order_of_their_schedule_times(local):
    configure(local, rates={"max_concurrent_dispatches": 1})
    local.add("second", delay=2)
    local.add("third", delay=3)
    local.add("first", delay=1)
    local.start()
    local.advance(5)
    assert local.targets.task_ids == ["first", "second", "third"]


# --- retries ---


def test_a_failed_task_is_tried_again_after_its_backoff_from_the_response(local):
    waits = [10, 20, 40, 80, 160, 240, 300, 300]
    configure(
        local,
        retry={"min_backoff_seconds": 10, "max_backoff_seconds": 300, "max_doublings": 3},
    )

    def fail_after_three_seconds(delivery):
        local.clock.advance(3)
        return 500

    local.targets.answer = fail_after_three_seconds
    local.start()
    name = local.add("t")
    local.settle()
    for attempt, wait in enumerate(waits, 1):
        assert len(local.targets.deliveries) == attempt
        assert local.service.get_task(name).schedule_time == local.now + timedelta(seconds=wait)
        assert local.events[-1].next_try == local.clock.now() + wait
        local.advance(wait - 0.001)
        assert len(local.targets.deliveries) == attempt
        local.advance(0.001)


@pytest.mark.parametrize(
    ("make", "family", "executions", "reason"),
    [
        (lambda local: local.add("t"), Family.APP_ENGINE, "012345", "App Error"),
        (
            lambda local: local.service.create_task(
                NAME, Task(name=QUEUE.task("t"), request=HttpRequest(url="https://x/"))
            ),
            Family.HTTP,
            "001223",
            "",
        ),
    ],
    ids=["app engine", "http"],
)
def test_the_recorded_header_sequence(local, make, family, executions, reason):
    replies = [503, 404, 429, 500, 302, 200]
    local.targets.answer = lambda delivery: replies[delivery.claim.attempt - 1]
    local.start()
    make(local)
    local.settle()
    for _ in range(5):
        local.advance(3600)
    assert len(local.targets.deliveries) == 6
    prefix = family.value
    for place in range(6):
        sent = local.targets.headers(place)
        assert sent[prefix + "TaskRetryCount"] == str(place)
        assert sent[prefix + "TaskExecutionCount"] == executions[place]
        previous = (sent.get(prefix + "TaskPreviousResponse"), sent.get(prefix + "TaskRetryReason"))
        assert previous == ((str(replies[place - 1]), reason) if place else (None, None))


def test_attempts_are_on_the_record(local):
    local.targets.answer = lambda delivery: 500
    local.start()
    name = local.add("t")
    first = local.now
    local.settle()
    local.advance(3600)
    task = local.service.get_task(name)
    assert (task.dispatch_count, task.response_count) == (2, 2)
    assert task.first_attempt.dispatch_time == first
    assert task.last_attempt.dispatch_time == local.now
    assert task.last_attempt.response_time == local.now
    assert task.last_attempt.response_code == 13
    assert "HTTP status code 500" in task.last_attempt.response_message


def test_no_reply_counts_as_a_retry_but_not_as_a_response(local):
    local.targets.answer = lambda delivery: Reply(0, error="connection refused")
    local.start()
    name = local.add("t")
    local.settle()
    task = local.service.get_task(name)
    assert (task.dispatch_count, task.response_count) == (1, 0)
    assert task.last_attempt.response_time is None
    assert local.events[0].error == "connection refused"
    local.advance(3600)
    sent = local.targets.headers()
    assert sent["X-AppEngine-TaskPreviousResponse"] == "0"
    assert sent["X-AppEngine-TaskRetryReason"] == "Instance Unavailable"
    assert sent["X-AppEngine-TaskExecutionCount"] == "0"


def test_a_task_whose_attempts_are_spent_is_dropped_said_and_kept_aside(local, caplog):
    configure(local, retry={"max_attempts": 2})
    local.targets.answer = lambda delivery: 503
    local.start()
    name = local.add("t", uri="/x", body=b"b" * 5000)
    local.settle()
    with caplog.at_level(logging.ERROR):
        local.advance(3600)
    assert [event.outcome for event in local.events] == [Outcome.RETRY, Outcome.FAILED]
    assert "Task t of queue q failed for good: status 503, and this was attempt 2" in caplog.text
    with pytest.raises(ApiError, match="The task no longer exists"):
        local.service.get_task(name)
    with pytest.raises(ApiError, match="TOMBSTONED_TASK"):
        local.add("t")
    assert kept(local) == [("t", "exhausted", 2, 503, "/x", b"b" * 5000)]


def test_with_both_limits_a_task_is_tried_while_either_allows_it(local):
    configure(
        local,
        retry={
            "max_attempts": 2,
            "max_retry_duration_seconds": 25,
            "min_backoff_seconds": 10,
            "max_backoff_seconds": 10,
        },
    )
    local.targets.answer = lambda delivery: 500
    local.start()
    local.add("t")
    local.settle()
    for _ in range(5):
        local.advance(10)
    # At 0, 10, 20 s by age; the one at 30 s is the first that both limits condemn.
    assert len(local.targets.deliveries) == 4
    assert local.events[-1].outcome is Outcome.FAILED


def test_16_the_age_of_a_task_counts_from_its_first_attempt(local):
    configure(
        local,
        retry={
            "max_attempts": -1,
            "max_retry_duration_seconds": 25,
            "min_backoff_seconds": 10,
            "max_backoff_seconds": 10,
        },
    )
    local.targets.answer = lambda delivery: 500
    local.start()
    local.add("t", delay=3600)
    local.advance(3600)
    for _ in range(4):
        local.advance(10)
    assert len(local.targets.deliveries) == 4
    assert local.events[-1].outcome is Outcome.FAILED


def test_a_tasks_own_retry_settings_win(local):
    configure(local, retry={"max_attempts": UNLIMITED})
    local.targets.answer = lambda delivery: 500
    local.start()
    local.add("t", retry_config=RetryOverrides(max_attempts=1))
    local.settle()
    assert local.events[0].outcome is Outcome.FAILED


# --- gates ---


def test_no_more_run_at_once_than_the_queue_allows(local):
    configure(local, rates={"max_concurrent_dispatches": 2})
    go_on = threading.Semaphore(0)
    started = threading.Semaphore(0)

    def wait(delivery):
        started.release()
        assert go_on.acquire(timeout=PATIENCE_SECONDS)
        return 200

    local.targets.answer = wait
    local.start(threads=8)
    for _ in range(7):
        local.add()
    for _ in range(7):
        assert started.acquire(timeout=PATIENCE_SECONDS)
        assert local.service.queue_stats(NAME).concurrent_dispatches_count <= 2
        go_on.release()
    local.settle()
    assert len(local.targets.deliveries) == 7
    assert local.targets.most_running <= 2


def test_a_queue_of_one_at_a_time_keeps_the_order(local):
    configure(local, rates={"max_concurrent_dispatches": 1})
    local.start(threads=8)
    names = [local.add(f"t{number}") for number in range(30)]
    local.settle()
    assert local.targets.task_ids == [name.rpartition("/")[2] for name in names]
    assert local.targets.most_running == 1


def test_the_bucket_lets_a_burst_through_and_then_the_rate(local):
    configure(local, rates={"max_dispatches_per_second": 2, "max_burst_size": 5})
    local.start()
    for _ in range(12):
        local.add()
    local.settle()
    counts = [len(local.targets.deliveries)]
    for _ in range(6):
        local.advance(0.5)
        counts.append(len(local.targets.deliveries))
    assert counts == [5, 6, 7, 8, 9, 10, 11]


def test_a_rate_below_one_a_second(local):
    configure(local, rates={"max_dispatches_per_second": 1 / 60, "max_burst_size": 1})
    local.start()
    for _ in range(3):
        local.add()
    local.settle()
    assert len(local.targets.deliveries) == 1
    local.advance(59)
    assert len(local.targets.deliveries) == 1
    local.advance(1.1)
    assert len(local.targets.deliveries) == 2


def test_a_retry_takes_a_token_too(local):
    configure(
        local,
        rates={"max_dispatches_per_second": 0.1, "max_burst_size": 1},
        retry={"min_backoff_seconds": 0, "max_backoff_seconds": 0},
    )
    local.targets.answer = lambda delivery: 500
    local.start()
    local.add()
    local.settle()
    assert len(local.targets.deliveries) == 1
    local.advance(10.1)
    assert len(local.targets.deliveries) == 2


def test_a_paused_queue_takes_tasks_and_dispatches_none(local):
    local.service.pause_queue(NAME)
    local.start()
    local.add("t")
    local.settle()
    local.advance(3600)
    assert local.targets.deliveries == []
    assert local.service.resume_queue(NAME).state is QueueState.RUNNING
    local.settle()
    assert local.targets.task_ids == ["t"]


def test_one_queues_backlog_does_not_hold_up_another(local):
    other = QueueName("p", "l", "other")
    local.service.create_queue(QUEUE.parent, Queue(name=str(other)))
    for _ in range(200):
        local.add()
    local.add("urgent", queue=other)
    local.start(threads=1)
    local.settle()
    assert local.targets.task_ids.index("urgent") < 10


# --- RunTask, delete ---


def test_run_task_passes_by_schedule_time_pause_and_rate(local):
    configure(local, rates={"max_dispatches_per_second": 0.001, "max_burst_size": 1})
    local.service.pause_queue(NAME)
    local.start()
    names = [local.add(f"t{number}", delay=3600) for number in range(3)]
    for name in names:
        task = local.service.run_task(name)
        assert (task.dispatch_count, task.schedule_time) == (1, local.now)
    local.settle()
    assert sorted(local.targets.task_ids) == ["t0", "t1", "t2"]
    with pytest.raises(ApiError, match="NOT_FOUND"):
        local.service.run_task(names[0])


def test_run_task_is_not_held_up_by_many_others_whose_service_is_nowhere(local):
    local.targets.known = frozenset({"default"})
    local.start(threads=1)
    for _ in range(20):
        local.service.run_task(local.add(service="api", delay=3600))
    for task_id in ("here", "and-here"):
        local.service.run_task(local.add(task_id, delay=3600))
    local.settle()
    assert sorted(local.targets.task_ids) == ["and-here", "here"]


def test_a_failed_run_task_is_scheduled_from_the_moment_of_the_call(local):
    configure(local, retry={"min_backoff_seconds": 10})

    def slow(delivery):
        local.clock.advance(4)
        return 500

    local.targets.answer = slow
    local.service.pause_queue(NAME)
    local.start()
    name = local.add(delay=3600)
    called = local.now
    local.service.run_task(name)
    local.settle()
    assert local.service.get_task(name).schedule_time == called + timedelta(seconds=10)


def test_run_task_dispatches_one_that_already_runs_and_the_first_success_counts(local):
    started, go_on = threading.Semaphore(0), threading.Event()

    def answer(delivery):
        started.release()
        if delivery.claim.attempt == 1:
            assert go_on.wait(PATIENCE_SECONDS)
        return 200

    local.targets.answer = answer
    local.start()
    name = local.add("t")
    assert started.acquire(timeout=PATIENCE_SECONDS)
    local.service.run_task(name)
    assert started.acquire(timeout=PATIENCE_SECONDS)
    go_on.set()
    local.settle()
    assert sorted(event.outcome.value for event in local.events) == ["done", "gone"]


def test_a_task_deleted_while_it_runs_is_not_tried_again(local):
    started, go_on = threading.Event(), threading.Event()

    def answer(delivery):
        started.set()
        assert go_on.wait(PATIENCE_SECONDS)
        return 500

    local.targets.answer = answer
    local.start()
    name = local.add("t")
    assert started.wait(PATIENCE_SECONDS)
    local.service.delete_task(name)
    go_on.set()
    local.settle()
    local.advance(3600)
    assert len(local.targets.deliveries) == 1
    assert local.events[0].outcome is Outcome.GONE


def test_a_deleted_tasks_attempt_still_counts_among_those_that_run_at_once(local):
    configure(local, rates={"max_concurrent_dispatches": 1})
    started, go_on = threading.Semaphore(0), threading.Event()

    def answer(delivery):
        started.release()
        assert go_on.wait(PATIENCE_SECONDS)
        return 200

    local.targets.answer = answer
    local.start()
    name = local.add("deleted")
    assert started.acquire(timeout=PATIENCE_SECONDS)
    local.service.delete_task(name)
    local.add("next")
    # Whatever the queue would have begun wrongly, it has begun before this other queue's task.
    other = QueueName("p", "l", "other")
    local.service.create_queue(QUEUE.parent, Queue(name=str(other)))
    local.add("other", queue=other)
    assert started.acquire(timeout=PATIENCE_SECONDS)
    assert local.targets.task_ids == ["deleted", "other"]
    go_on.set()
    local.settle()
    assert local.targets.task_ids == ["deleted", "other", "next"]


def test_a_late_success_does_not_end_another_task_of_the_same_name(store):
    local = Local(store, windows=Windows(task_seconds=0))
    started, go_on = threading.Semaphore(0), threading.Event()

    def answer(delivery):
        started.release()
        assert go_on.wait(PATIENCE_SECONDS)
        return 200

    local.targets.answer = answer
    local.start()
    local.add("t")
    assert started.acquire(timeout=PATIENCE_SECONDS)
    local.clock.advance(1)
    local.service.delete_task(QUEUE.task("t"))
    again = local.add("t", delay=60)
    go_on.set()
    local.settle()
    assert local.events[-1].outcome is Outcome.GONE
    assert local.service.get_task(again).dispatch_count == 0
    assert local.service.close(PATIENCE_SECONDS) == []


# --- deadlines ---


def test_an_attempt_that_outlives_its_deadline_has_failed_and_its_thread_is_replaced(local, caplog):
    started, go_on = threading.Semaphore(0), threading.Event()

    def answer(delivery):
        if delivery.claim.attempt == 1 and delivery.claim.task_id == "slow":
            started.release()
            assert go_on.wait(PATIENCE_SECONDS)
        return 200

    local.targets.answer = answer
    local.start(threads=1)
    local.add("slow", dispatch_deadline_seconds=15)
    assert started.acquire(timeout=PATIENCE_SECONDS)
    local.clock.advance(15)
    local.settle()
    assert "has not answered within its deadline of 15 seconds" in caplog.text
    assert local.events[0].outcome is Outcome.RETRY
    local.add("other")
    local.settle()
    local.advance(1)
    assert local.targets.task_ids == ["slow", "other", "slow"]
    assert local.targets.headers()["X-AppEngine-TaskPreviousResponse"] == "0"
    go_on.set()
    assert [event.outcome for event in local.events[1:]] == [Outcome.DONE, Outcome.DONE]


# --- services ---


def test_a_task_goes_to_the_service_that_it_names_or_that_its_queue_names(local):
    local.start()
    local.add(service="api")
    local.settle()
    local.add()
    local.settle()
    configure(local, app_engine_routing_override=AppEngineRouting(service="worker"))
    local.add(service="api")
    local.settle()
    assert [each.claim.service for each in local.targets.deliveries] == ["api", "default", "worker"]


def test_tasks_for_a_service_that_is_nowhere_wait_and_that_is_said_once(local, caplog):
    local.targets.known = frozenset({"default"})
    local.start()
    for _ in range(3):
        local.add(service="api")
    local.add("here")
    local.settle()
    local.advance(5)
    local.add(service="api")
    local.settle()
    local.advance(60)
    assert local.targets.task_ids == ["here"]
    assert caplog.text.count("Tasks wait for the service 'api'") == 1
    local.targets.known = frozenset({"default", "api"})
    local.service.services_changed()
    local.settle()
    assert len(local.targets.deliveries) == 5


# --- faults ---


def test_a_target_that_breaks_its_promise_costs_an_attempt_not_a_thread(local, caplog):
    def answer(delivery):
        raise SystemExit(3)

    local.targets.answer = answer
    local.start(threads=1)
    local.add("t")
    local.settle()
    assert "Task t of queue q could not be delivered" in caplog.text
    local.targets.answer = lambda delivery: 200
    local.advance(3600)
    assert [event.outcome for event in local.events] == [Outcome.RETRY, Outcome.DONE]


def test_an_observer_that_raises_stops_nothing(local, caplog):
    def raises(event):
        raise RuntimeError("no")

    local.service.observers.insert(0, raises)
    local.start()
    local.add()
    local.settle()
    assert len(local.events) == 1
    assert "An observer of attempts raised an exception" in caplog.text


def test_a_database_that_cannot_be_written_for_a_while_loses_no_finish(local, caplog):
    store = local.service.store
    started, go_on = threading.Event(), threading.Event()

    def answer(delivery):
        started.set()
        assert go_on.wait(PATIENCE_SECONDS)
        return 200

    local.targets.answer = answer
    local.start()
    local.add("t")
    assert started.wait(PATIENCE_SECONDS)
    store.read(lambda connection: connection.execute("PRAGMA query_only=ON"))
    go_on.set()
    while "Tasks cannot be dispatched for now" not in caplog.text:
        pass
    store.read(lambda connection: connection.execute("PRAGMA query_only=OFF"))
    local.settle()
    assert [event.outcome for event in local.events] == [Outcome.DONE]
    assert len(local.targets.deliveries) == 1


# --- the end ---


def test_closing_waits_for_what_runs_gives_back_the_rest_and_tells(tmp_path):
    local = Local(Store(tmp_path / "tasks.db"))
    started, go_on = threading.Semaphore(0), threading.Event()

    def answer(delivery):
        started.release()
        assert go_on.wait(PATIENCE_SECONDS)
        return 200

    local.targets.answer = answer
    local.start(threads=2)
    for number in range(6):
        local.add(f"t{number}")
    for _ in range(2):
        assert started.acquire(timeout=PATIENCE_SECONDS)
    in_flight = local.service.close(0.05)
    assert {each.task_id for each in in_flight} == {"t0", "t1"}
    assert all(each.attempt == 1 and each.path == "/work" for each in in_flight)
    again = LocalService(Store(tmp_path / "tasks.db"))
    left = again.list_tasks(NAME).items
    again.close()
    assert {task.name.rpartition("/")[2]: task.dispatch_count for task in left} == {
        "t0": 1, "t1": 1, "t2": 0, "t3": 0, "t4": 0, "t5": 0,
    }  # fmt: skip
    go_on.set()
