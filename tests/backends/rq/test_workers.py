"""Workers as processes: ours and RQ's own keep to the queues' rules, and nothing is lost."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import rq
from rq.job import JobStatus

from appengine_compat.backends.base import BackendError, Reason, TaskRequest
from appengine_compat.core.model import RateLimits, RetryConfig
from tests import http_target
from tests.backends.rq.rig import Rig, add, descendants, eventually

POST = TaskRequest(relative_url="/work", payload=b"body")
SOON = RetryConfig(max_attempts=-1, min_backoff_seconds=0.1, max_backoff_seconds=0.2)

Start = Callable[..., object]


@pytest.fixture(params=["rq-worker", "rq worker"])
def start(rig: Rig, request: pytest.FixtureRequest) -> Start:
    """Start a worker of ours, or a plain one."""
    return rig.start_worker if request.param == "rq-worker" else rig.start_plain_worker


def named(count: int) -> list[TaskRequest]:
    return [replace(POST, payload=b"%d" % number) for number in range(count)]


def test_tasks_are_delivered_failed_ones_again_and_later_ones_later(rig: Rig, start: Start) -> None:
    start("default", "other")
    backend = rig.backend(retry=SOON)
    rig.target.answers = [500]
    due = datetime.now(timezone.utc) + timedelta(seconds=2.3)
    add(backend, replace(POST, payload=b"first"))
    rig.target.await_requests(2)
    add(backend, replace(POST, payload=b"later", schedule_time=due), queue="other")
    *_, later = rig.target.await_requests(3)
    assert rig.target.bodies() == [b"first", b"first", b"later"]
    assert later.at >= due.timestamp()
    eventually(
        lambda: [each.tasks_count for each in backend.queue_stats(["default", "other"])] == [0, 0]
    )


def test_two_workers_share_the_tasks(rig: Rig, start: Start) -> None:
    start("default")
    start("default")
    add(rig.backend(), *named(40))
    rig.target.await_requests(40)
    eventually(lambda: rig.backend().queue_stats(["default"])[0].tasks_count == 0)
    assert Counter(rig.target.bodies()) == Counter(b"%d" % number for number in range(40))


def test_the_rate_holds_for_all_workers_together(rig: Rig, start: Start) -> None:
    rates = RateLimits(max_dispatches_per_second=4.0, max_burst_size=1)
    add(rig.backend(rates=rates), *named(9))
    start("default")
    start("default")
    requests = rig.target.await_requests(9)
    # Eight tokens had to come; a tenth is for what a request takes to arrive.
    assert requests[-1].at - requests[0].at >= 8 / 4 - 0.4


def test_concurrency_holds_for_all_workers_together(rig: Rig, start: Start) -> None:
    def slow(_: object) -> int:
        threading.Event().wait(0.15)
        return 200

    rig.target.answers = [slow] * 8
    add(rig.backend(rates=RateLimits(max_concurrent_dispatches=1)), *named(8))
    for _ in range(3):
        start("default")
    rig.target.await_requests(8)
    assert rig.target.most_at_once == 1


def test_several_may_run_at_once_where_the_queue_allows(rig: Rig) -> None:
    together = threading.Barrier(3, timeout=30)

    def meet(_: object) -> int:
        together.wait()
        return 200

    rig.target.answers = [meet] * 3
    add(rig.backend(rates=RateLimits(max_concurrent_dispatches=3)), *named(3))
    rig.start_worker("--workers", "3", "default")
    rig.target.await_requests(3)
    eventually(lambda: rig.backend().queue_stats(["default"])[0].tasks_count == 0)


def test_a_queue_that_must_wait_keeps_no_other_waiting(rig: Rig) -> None:
    backend = rig.backend(rates=RateLimits(max_dispatches_per_second=0.001, max_burst_size=1))
    add(backend, *named(5))
    add(backend, replace(POST, payload=b"other"), queue="other")
    rig.start_worker()
    rig.target.await_requests(2)
    assert set(rig.target.bodies()) == {b"0", b"other"}
    assert rig.queue().count == 4, "the rest waits in its order"


def test_without_names_all_queues_are_worked(rig: Rig) -> None:
    backend = rig.backend()
    add(backend, POST)
    add(backend, POST, queue="other")
    rig.start_worker("--burst").wait()
    assert len(rig.target.arrived) == 2


def test_a_queue_that_nobody_knows_is_told(rig: Rig) -> None:
    add(rig.backend(), POST)
    rig.start_worker("--burst", "defualt").wait()
    assert "Queue defualt is in no queue.yaml" in rig.logs()
    assert "there are: default, other." in rig.logs()
    assert rig.queue().count == 1


def test_a_stopped_worker_ends_its_task_first(rig: Rig) -> None:
    begun, may_end = threading.Event(), threading.Event()

    def wait(_: object) -> int:
        begun.set()
        may_end.wait(30)
        return 200

    rig.target.answers = [wait]
    add(rig.backend(), replace(POST, name="the-task"), POST)
    worker = rig.start_worker("default")
    assert begun.wait(30)
    worker.send_signal(signal.SIGTERM)
    may_end.set()
    assert worker.wait(30) == 0
    assert rig.job("the-task").get_status() is JobStatus.FINISHED
    assert len(rig.target.arrived) == 1


def test_rq_worker_runs_nothing_but_tasks(rig: Rig) -> None:
    job = rig.queue().enqueue(os.system, f"touch {rig.folder / 'touched'}")
    rig.start_worker("default")
    eventually(lambda: job.get_status() is JobStatus.FAILED)
    assert "rq worker" in job.latest_result().exc_string
    assert not (rig.folder / "touched").exists()


class TestFaults:
    @pytest.mark.parametrize("whom", ["worker and attempt", "attempt"])
    def test_a_worker_killed_in_the_middle_of_a_task(self, rig: Rig, whom: str) -> None:
        begun = threading.Event()

        def hang(_: object) -> int:
            begun.set()
            threading.Event().wait(10)
            return 200

        rig.target.answers = [hang]
        # One attempt only: that the worker died is not the task's failure.
        backend = rig.backend(
            retry=RetryConfig(max_attempts=1), rates=RateLimits(max_concurrent_dispatches=1)
        )
        add(backend, replace(POST, name="the-task"))
        worker = rig.start_worker("default")
        assert begun.wait(30)
        if whom == "attempt":
            for pid in descendants(worker.pid)[1:]:
                os.kill(pid, signal.SIGKILL)
        else:
            rig.kill(worker)
            rig.start_worker("default")
        _, again = rig.target.await_requests(2)
        eventually(lambda: rig.job("the-task").get_status() is JobStatus.FINISHED)
        assert again.headers["x-cloudtasks-taskretrycount"] == "1"
        assert again.headers["x-cloudtasks-taskpreviousresponse"] == "504"
        assert len(rig.target.arrived) == 2

    def test_workers_whose_starter_was_killed_end(self, rig: Rig) -> None:
        starter = rig.start_worker("--workers", "2", "default")
        eventually(lambda: rq.Worker.count(connection=rig.client) == 2)
        workers = descendants(starter.pid)[1:]
        assert len(workers) == 2
        os.kill(starter.pid, signal.SIGKILL)
        starter.wait()
        eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))

    def test_redis_gone_before_a_task_is_added(self, rig: Rig) -> None:
        from google.appengine.api import taskqueue
        from google.appengine.ext import deferred

        rig.server.stop()
        with pytest.raises(taskqueue.TransientError) as caught:
            deferred.defer(print, "a")
        assert rig.server.url in str(caught.value)
        assert "APPENGINE_COMPAT_REDIS_URL" in str(caught.value)
        rig.server.start()
        assert rig.client.keys("*") == []
        deferred.defer(print, "a")
        (job,) = rig.queue().jobs
        assert job.description == "print('a')"

    def test_redis_gone_and_back_between_two_tasks(self, rig: Rig) -> None:
        backend = rig.backend()
        add(backend, POST)
        rig.server.stop()
        with pytest.raises(BackendError) as caught:
            backend.create_tasks("default", [POST])
        assert caught.value.reason is Reason.TRANSIENT
        rig.server.start()
        add(backend, POST)
        assert rig.queue().count == 2

    def test_redis_gone_while_a_task_runs(self, rig: Rig) -> None:
        begun, may_end = threading.Event(), threading.Event()

        def wait(_: object) -> int:
            begun.set()
            may_end.wait(30)
            return 200

        rig.target.answers = [wait]
        backend = rig.backend()
        add(backend, replace(POST, name="first"), replace(POST, name="second"))
        worker = rig.start_worker("default")
        assert begun.wait(30)
        rig.server.stop()
        may_end.set()
        # The attempt has its answer, and nobody to tell it.
        eventually(lambda: "is waited for" in rig.logs())
        assert worker.poll() is None
        rig.server.start()
        eventually(lambda: rig.job("second").get_status() is JobStatus.FINISHED)
        assert rig.job("first").get_status() is JobStatus.FINISHED
        assert len(rig.target.arrived) == 2, "what was answered is not sent again"
        assert worker.poll() is None

    @pytest.mark.parametrize("state", ["starting", "idle"])
    def test_redis_gone_while_a_worker_has_nothing_to_do(self, rig: Rig, state: str) -> None:
        worker = rig.start_worker("default")
        eventually(
            lambda: (
                rig.client.smembers("rq:workers")
                if state == "starting"
                else [each.get_state() for each in rq.Worker.all(connection=rig.client)] == ["idle"]
            )
        )
        rig.server.stop()
        eventually(lambda: "could not connect" in rig.logs() or "is waited for" in rig.logs())
        rig.server.start()
        add(rig.backend(), POST)
        rig.target.await_requests(1)
        assert worker.poll() is None

    def test_the_app_is_down_for_a_while(self, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
        with http_target.serving() as gone:
            port = int(gone.address.rpartition(":")[2])
        monkeypatch.setenv("APPENGINE_COMPAT_TARGETS", gone.address)
        add(rig.backend(retry=SOON), *named(5))
        rig.start_worker("default")
        eventually(lambda: rig.logs().count("no reply") >= 8)
        with http_target.serving(port) as back:
            back.await_requests(5)
            eventually(lambda: rig.backend().queue_stats(["default"])[0].tasks_count == 0)
            assert sorted(back.bodies()) == [b"%d" % number for number in range(5)]
