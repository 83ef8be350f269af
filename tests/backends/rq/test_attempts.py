"""Attempts as RQ's own worker makes them, against a real Redis and a real target."""

from __future__ import annotations

import pickle
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from rq.job import JobStatus

from appengine_compat.backends.base import BackendError, Reason, TaskRequest
from appengine_compat.core import limits, throttle
from appengine_compat.core.model import RateLimits, RetryConfig, RetryOverrides
from appengine_compat.handler import door
from tests.backends.rq.rig import Rig, add

POST = TaskRequest(
    relative_url="/work?a=1&b=%20",
    payload=b"\x00body",
    name="the-task",
    headers=(("X-Reason", "test"), ("X-AppEngine-Current-Namespace", "tenant")),
)
AT_ONCE = RetryConfig(max_attempts=4, min_backoff_seconds=0.0, max_backoff_seconds=0.0)


def test_the_target_gets_the_request_that_cloud_tasks_would_send(rig: Rig) -> None:
    add(rig.backend(), POST)
    rig.work_off()
    (request,) = rig.target.arrived
    assert (request.method, request.path, request.body) == ("POST", "/work?a=1&b=%20", b"\x00body")
    headers = request.headers
    assert headers["user-agent"] == "Google-Cloud-Tasks"
    assert headers["x-reason"] == "test"
    assert headers["x-aec-carried-x-appengine-current-namespace"] == "tenant"
    for family in ("x-cloudtasks-", "x-appengine-"):
        assert headers[family + "queuename"] == "default"
        assert headers[family + "taskname"] == "the-task"
        assert headers[family + "taskretrycount"] == "0"
        assert headers[family + "taskexecutioncount"] == "0"
        assert float(headers[family + "tasketa"]) <= request.at
        assert family + "taskpreviousresponse" not in headers
    assert "x-aec-local-token" not in headers


def test_the_door_lets_it_in_by_its_signature_and_no_changed_one(rig: Rig) -> None:
    add(rig.backend(), POST)
    rig.work_off()
    (request,) = rig.target.arrived
    path, _, query = request.path.partition("?")

    def verdict(body: bytes, path: str = path) -> door.Verdict:
        import io

        environ = {
            "REQUEST_METHOD": request.method,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REMOTE_ADDR": "203.0.113.9",
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.input": io.BytesIO(body),
            **{
                "HTTP_" + name.upper().replace("-", "_"): value
                for name, value in request.headers.items()
            },
        }
        return door.verdict(environ)

    assert verdict(request.body).known_by is door.Trust.SIGNATURE
    assert not verdict(request.body + b"!").trusted
    assert not verdict(request.body, "/other").trusted


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "PUT"])
def test_methods(rig: Rig, method: str) -> None:
    add(rig.backend(), TaskRequest(relative_url="/x", method=method))
    rig.work_off()
    assert [(each.method, each.path) for each in rig.target.arrived] == [(method, "/x")]


def test_a_table_of_services_says_where_each_goes(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "APPENGINE_COMPAT_TARGETS", f"default={rig.target.address}/base,worker=http://[::1]:1"
    )
    backend = rig.backend()
    add(backend, POST, replace(POST, name="other", target="worker"))
    assert rig.job("the-task").kwargs["url"] == f"{rig.target.address}/base/work?a=1&b=%20"
    assert rig.job("other").kwargs["url"] == "http://[::1]:1/work?a=1&b=%20"
    (outcome,) = backend.create_tasks("default", [replace(POST, name="x", target="nowhere")])
    assert isinstance(outcome.error, BackendError)
    assert outcome.error.reason is Reason.INVALID_TARGET
    assert "worker" in str(outcome.error)


def test_a_service_on_app_engine_is_out_of_reach(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APPENGINE_COMPAT_TARGETS", "default=appengine")
    (outcome,) = rig.backend().create_tasks("default", [POST])
    assert outcome.error is not None
    assert outcome.error.reason is Reason.INVALID_TARGET


@pytest.mark.parametrize("value", ["a\r\nX-Forged: 1", "a\nb", "a\rb"])
def test_a_header_that_would_become_two_is_refused_before_it_is_stored(
    rig: Rig, value: str
) -> None:
    (outcome,) = rig.backend().create_tasks(
        "default", [replace(POST, headers=(("X-Reason", value),))]
    )
    assert outcome.error is not None
    assert outcome.error.reason is Reason.INVALID_REQUEST
    assert "X-Reason" in str(outcome.error)
    assert rig.queue().count == 0


class TestSuccess:
    def test_a_finished_task_stays_to_be_seen_for_a_while(self, rig: Rig) -> None:
        add(rig.backend(), POST)
        rig.work_off()
        job = rig.job("the-task")
        assert job.get_status() is JobStatus.FINISHED
        assert 0 < rig.client.ttl(job.key) <= 500
        assert "200 in" in str(job.latest_result().return_value)

    def test_a_job_that_rq_runs_again_though_it_was_done_is_not_sent_again(self, rig: Rig) -> None:
        # As when the worker dies between the reply and RQ's own bookkeeping.
        add(rig.backend(), POST)
        rig.work_off()
        rig.queue().push_job_id("default_the-task")
        rig.work_off()
        assert len(rig.target.arrived) == 1


class TestFailure:
    def test_headers_tell_of_earlier_attempts_as_recorded_on_the_real_service(
        self, rig: Rig
    ) -> None:
        rig.target.answers = [503, 404, 429, 500, 302, 200]
        add(rig.backend(retry=replace(AT_ONCE, max_attempts=10)), POST)
        for _ in range(6):
            rig.work_off()

        def told(header: str) -> list[str | None]:
            return [request.headers.get(header) for request in rig.target.arrived]

        previous = [None, "503", "404", "429", "500", "302"]
        assert told("x-cloudtasks-taskretrycount") == list("012345")
        assert told("x-appengine-taskretrycount") == list("012345")
        assert told("x-cloudtasks-taskexecutioncount") == list("001223")
        assert told("x-appengine-taskexecutioncount") == list("012345")
        assert told("x-cloudtasks-taskpreviousresponse") == previous
        assert told("x-appengine-taskpreviousresponse") == previous
        assert told("x-cloudtasks-taskretryreason")[1:] == [""] * 5
        assert told("x-appengine-taskretryreason")[1:] == ["App Error"] * 5

    def test_no_connection_is_an_attempt_without_a_reply(
        self, rig: Rig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("APPENGINE_COMPAT_TARGETS", "http://127.0.0.1:1")
        add(rig.backend(retry=AT_ONCE), POST)
        rig.work_off()
        job = rig.job("the-task")
        kept = rig.client.hgetall(job.key)
        assert (kept[b"aec_attempts"], kept[b"aec_replies"], kept[b"aec_status"]) == (
            b"1",
            b"0",
            b"0",
        )
        assert job.get_status() is JobStatus.QUEUED

    def test_the_wait_is_the_queues_not_rqs(self, rig: Rig) -> None:
        rig.target.answers = [500] * 3
        retry = RetryConfig(min_backoff_seconds=100, max_backoff_seconds=350, max_doublings=1)
        add(rig.backend(retry=retry), POST)
        job = rig.job("the-task")
        for wait in (100, 200, 350):
            rig.work_off()
            failed_at = rig.target.arrived[-1].at
            due = float(rig.client.hget(job.key, "aec_due") or 0)
            assert failed_at + wait <= due < failed_at + wait + 10
            scheduled = rig.client.zscore("rq:scheduled:default", job.id)
            assert scheduled is not None
            # RQ keeps whole seconds.
            assert abs(scheduled - due) <= 2
            # Time passes.
            rig.client.hset(job.key, "aec_due", "0")
            rig.client.zrem("rq:scheduled:default", job.id)
            rig.queue().push_job_id(job.id)

    def test_a_tasks_own_retry_options_go_before_the_queues(self, rig: Rig) -> None:
        rig.target.answers = [500, 500]
        add(rig.backend(retry=AT_ONCE), replace(POST, retry=RetryOverrides(max_attempts=2)))
        rig.work_off()
        rig.work_off()
        assert rig.job("the-task").get_status() is JobStatus.FAILED

    def test_retry_after_is_waited_for(self, rig: Rig) -> None:
        rig.target.answers, rig.target.reply_headers = [503], {"Retry-After": "200"}
        add(rig.backend(retry=AT_ONCE), POST)
        rig.work_off()
        due = float(rig.client.hget("rq:job:default_the-task", "aec_due") or 0)
        assert due >= rig.target.arrived[0].at + 200

    def test_retry_after_holds_the_whole_queue_and_no_other(self, rig: Rig) -> None:
        rig.target.answers, rig.target.reply_headers = [429], {"Retry-After": "200"}
        backend = rig.backend()
        add(backend, POST)
        rig.work_off()
        add(backend, replace(POST, name="second"))
        add(backend, replace(POST, payload=b"other"), queue="other")
        rig.work_off()
        rig.work_off("other")
        assert rig.target.bodies() == [POST.payload, b"other"]
        score = rig.client.zscore("rq:scheduled:default", "default_second")
        assert score is not None
        assert score >= rig.target.arrived[0].at + 198

    def test_no_target_holds_a_queue_for_more_than_an_hour(self, rig: Rig) -> None:
        rig.target.answers, rig.target.reply_headers = [503], {"Retry-After": "86400"}
        add(rig.backend(), POST)
        rig.work_off()
        held = float(rig.client.hget("appengine-compat:queue:default", "held_until") or 0)
        assert 3590 <= held - rig.target.arrived[0].at <= 3610

    @pytest.mark.parametrize(
        ("status", "rate"), [(429, b"4.000000"), (503, b"4.000000"), (500, None)]
    )
    def test_an_overloaded_target_halves_the_queues_rate(
        self, rig: Rig, status: int, rate: bytes | None
    ) -> None:
        rig.target.answers = [status]
        add(rig.backend(rates=RateLimits(max_dispatches_per_second=8.0)), POST)
        rig.work_off()
        assert rig.client.hget("appengine-compat:queue:default", "slowed") == rate

    def test_a_rate_recovers_by_the_rule_of_the_local_service(self, rig: Rig) -> None:
        backend = rig.backend(rates=RateLimits(max_dispatches_per_second=100.0))
        add(backend, POST)
        key = "appengine-compat:queue:default"
        for ago, expected in ((0, 10.0), (10, 20.0), (20, 40.0), (40, 100.0), (10_000, 100.0)):
            seconds, micros = rig.client.time()
            now = seconds + micros / 1e6
            rig.client.hset(key, mapping={"slowed": "10", "slowed_at": f"{now - ago:.6f}"})
            rate = backend.queue_stats(["default"])[0].effective_execution_rate
            assert throttle.rate_at(throttle.Throttle(10.0, 0.0), 100.0, ago) == expected
            assert expected <= rate <= min(100.0, expected * 2), "one doubling takes ten seconds"

    def test_a_spent_task_is_in_the_failed_registry_with_the_story(self, rig: Rig) -> None:
        rig.target.answers = [500] * 4
        backend = rig.backend(retry=AT_ONCE)
        add(backend, POST)
        for _ in range(6):
            rig.work_off()
        assert len(rig.target.arrived) == 4
        assert rig.queue().failed_job_registry.get_job_ids() == ["default_the-task"]
        job = rig.job("the-task")
        story = job.latest_result().exc_string
        assert "500 in" in story
        assert "attempt 4. Its attempts are spent" in story
        assert "answer" in story  # what the target said
        assert rig.client.ttl(job.key) == -1, "kept until somebody looks"
        (outcome,) = backend.create_tasks("default", [POST])
        assert outcome.error is not None
        assert outcome.error.reason is Reason.TOMBSTONED_TASK

    def test_put_back_by_hand_it_begins_anew(self, rig: Rig) -> None:
        rig.target.answers = [500] * 5
        add(rig.backend(retry=AT_ONCE), POST)
        for _ in range(4):
            rig.work_off()
        rig.queue().failed_job_registry.requeue("default_the-task")
        rig.work_off()
        assert rig.job("the-task").get_status() is JobStatus.QUEUED, "one more failure is not all"
        rig.work_off()
        assert rig.job("the-task").get_status() is JobStatus.FINISHED
        counts = [each.headers["x-cloudtasks-taskretrycount"] for each in rig.target.arrived]
        assert counts == ["0", "1", "2", "3", "0", "1"]

    def test_a_target_that_does_not_answer_in_time_has_not_answered(
        self, rig: Rig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import threading

        monkeypatch.setattr(limits, "MIN_DISPATCH_DEADLINE_SECONDS", 0.1)
        ended = threading.Event()

        def hang(_: object) -> int:
            ended.wait(20)
            return 200

        rig.target.answers = [hang]
        add(rig.backend(retry=AT_ONCE), replace(POST, dispatch_deadline_seconds=0.3))
        rig.work_off()
        ended.set()
        rig.work_off()
        last = rig.target.arrived[-1].headers
        assert last["x-cloudtasks-taskpreviousresponse"] == "504"
        assert last["x-appengine-taskpreviousresponse"] == "0"
        assert last["x-appengine-taskretryreason"] == "Instance Unavailable"
        assert last["x-cloudtasks-taskexecutioncount"] == "0"


class TestTurns:
    def test_before_its_time_a_task_is_put_off_not_sent(self, rig: Rig) -> None:
        later = datetime.now(timezone.utc) + timedelta(hours=1)
        add(rig.backend(), replace(POST, schedule_time=later))
        assert rig.queue().scheduled_job_registry.get_job_ids() == ["default_the-task"]
        # As if a scheduler's clock were ahead.
        rig.client.zrem("rq:scheduled:default", "default_the-task")
        rig.queue().push_job_id("default_the-task")
        rig.work_off()
        assert rig.target.arrived == []
        assert rig.queue().scheduled_job_registry.get_job_ids() == ["default_the-task"]
        assert rig.client.hget("rq:job:default_the-task", "aec_attempts") is None

    def test_a_task_without_a_token_waits_its_turn_without_an_attempt(self, rig: Rig) -> None:
        backend = rig.backend(rates=RateLimits(max_dispatches_per_second=0.01, max_burst_size=2))
        ids = add(backend, *[replace(POST, name=f"t{number}") for number in range(5)])
        rig.work_off()
        assert [each.headers["x-cloudtasks-taskname"] for each in rig.target.arrived] == [
            "t0",
            "t1",
        ]
        scores = [rig.client.zscore("rq:scheduled:default", f"default_{each}") for each in ids[2:]]
        now = rig.target.arrived[0].at
        for number, score in enumerate(scores, 1):
            assert score is not None
            assert now + number * 100 - 5 <= score <= now + number * 100 + 30

    def test_a_paused_queue_sends_nothing(self, rig: Rig) -> None:
        (rig.folder / "queue.yaml").write_text("queue:\n- name: default\n  rate: 0/s\n")
        from appengine_compat.backends.rq.backend import RqBackend

        backend = RqBackend(rig.server.url)
        add(backend, POST)
        rig.work_off()
        assert rig.target.arrived == []
        assert backend.queue_stats(["default"])[0].tasks_count == 1

    def test_places_of_killed_attempts_are_free(self, rig: Rig) -> None:
        backend = rig.backend(rates=RateLimits(max_concurrent_dispatches=1))
        rig.client.zadd("appengine-compat:running:default", {"default_gone": 1.0})
        add(backend, POST)
        rig.work_off()
        assert len(rig.target.arrived) == 1


class TestDeleting:
    def test_a_running_task_ends_and_is_gone(self, rig: Rig) -> None:
        backend = rig.backend(retry=AT_ONCE)

        def delete(_: object) -> int:
            (outcome,) = backend.delete_tasks("default", ["the-task"])
            assert outcome.error is None
            return 500

        rig.target.answers = [delete]
        add(backend, POST)
        rig.work_off()
        rig.work_off()
        assert len(rig.target.arrived) == 1
        assert not rig.client.exists("rq:job:default_the-task")
        assert rig.queue().failed_job_registry.count == 0
        (outcome,) = backend.create_tasks("default", [POST])
        assert outcome.error is not None
        assert outcome.error.reason is Reason.TOMBSTONED_TASK

    def test_one_that_a_worker_has_just_taken_is_not_sent(self, rig: Rig) -> None:
        from tests.backends.rq.rig import SimpleWorker

        backend = rig.backend()
        add(backend, POST)
        queue = rig.queue()
        (job,) = queue.jobs
        queue.remove(job)
        backend.delete_tasks("default", ["the-task"])
        SimpleWorker([queue], connection=rig.client).execute_job(job, queue)
        assert rig.target.arrived == []
        assert not rig.client.exists("rq:job:default_the-task")

    def test_a_purge_takes_what_runs_along(self, rig: Rig) -> None:
        backend = rig.backend(retry=AT_ONCE)

        def purge(_: object) -> int:
            backend.purge_queue("default")
            return 500

        rig.target.answers = [purge]
        later = datetime.now(timezone.utc) + timedelta(hours=1)
        add(backend, POST)
        add(backend, replace(POST, name="later", schedule_time=later))
        rig.work_off()
        rig.work_off()
        assert len(rig.target.arrived) == 1
        assert rig.client.keys("rq:job:*") == []


class TestStatistics:
    def test_tell_of_what_waits_runs_and_has_run(self, rig: Rig) -> None:
        backend = rig.backend()
        seen = []
        rig.target.answers = [
            200,
            lambda _: seen.extend(backend.queue_stats(["default"])) or 200,  # type: ignore[func-returns-value]
        ]
        later = datetime.now(timezone.utc) + timedelta(hours=1)
        add(
            backend,
            replace(POST, name="a"),
            replace(POST, name="b"),
            replace(POST, name="c", schedule_time=later),
        )
        before = backend.queue_stats(["default"])[0]
        assert (before.tasks_count, before.executed_last_minute_count) == (3, 0)
        assert before.oldest_arrival_time is not None
        assert before.oldest_arrival_time <= datetime.now(timezone.utc)
        assert before.effective_execution_rate == 500.0
        rig.work_off()
        (during,) = seen
        assert (during.tasks_count, during.concurrent_dispatches_count) == (2, 1)
        assert during.executed_last_minute_count == 1
        after = backend.queue_stats(["default"])[0]
        assert (after.tasks_count, after.executed_last_minute_count) == (1, 2)
        assert after.oldest_arrival_time is None


class TestDescription:
    def test_a_deferred_call_reads_as_one(self, rig: Rig) -> None:
        call = pickle.dumps((print, ("a",), {"end": "b"}))
        add(rig.backend(), replace(POST, payload=call))
        assert rig.job("the-task").description == "print('a', end='b')"

    def test_anything_else_reads_as_the_request(self, rig: Rig) -> None:
        add(rig.backend(), POST)
        assert rig.job("the-task").description == "POST /work?a=1&b=%20"
