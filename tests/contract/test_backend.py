"""What every backend promises, held on each of them by the same tests.

Cloud Tasks' client talks to a gRPC server in this process that keeps the service's rules.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import pytest
import redis
import rq
import rq.timeouts
from google.cloud import tasks_v2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appengine_compat.backends.base import Backend, BackendError, Reason, TaskRequest
from appengine_compat.backends.cloud_tasks import CloudTasksBackend
from appengine_compat.backends.embedded import EmbeddedBackend
from appengine_compat.backends.stub import StubBackend
from appengine_compat.core.headers import CARRIED_PREFIX
from appengine_compat.core.model import AppEngineRequest, Queue, RetryOverrides, Task
from appengine_compat.core.names import QueueName, short_id
from appengine_compat.local.wsgi_transport import WsgiTransport
from tests import http_target, redis_server
from tests.contract.grpc_recorder import LOCATION, PARENT, PROJECT, Recorder, serving
from tests.redis_server import RedisServer

POST = TaskRequest(relative_url="/work?a=1&b=%20", payload=b"\x80\x05\x00\xff payload")


@dataclass(frozen=True)
class Seen:
    """A stored task, as its handler will be asked."""

    method: str
    relative_url: str
    headers: dict[str, str]
    body: bytes
    schedule_time: datetime
    retry: RetryOverrides | None
    dispatch_deadline_seconds: float


class Rig(Protocol):
    """A backend with the queues ``default`` and ``other``, and a look behind it."""

    backend: Backend

    def stored(self, queue: str = "default") -> dict[str, Seen]:
        """Return the tasks that wait, by their ids."""
        ...

    def finish(self, queue: str, task_id: str) -> None:
        """Let a task have run."""
        ...


class StubRig:
    def __init__(self, queue_yaml: Path) -> None:
        queue_yaml.write_text("queue:\n- name: other\n  rate: 5/s\n")
        self.stub = StubBackend(queue_config=queue_yaml)
        self.backend: Backend = self.stub

    def stored(self, queue: str = "default") -> dict[str, Seen]:
        return {
            task.id: Seen(
                method=task.request.method,
                relative_url=task.request.relative_url,
                headers=_joined(task.request.headers),
                body=task.request.payload,
                schedule_time=datetime.fromtimestamp(task.eta_microseconds / 1e6, timezone.utc),
                retry=task.request.retry,
                dispatch_deadline_seconds=task.request.dispatch_deadline_seconds,
            )
            for task in self.stub.tasks()
            if task.queue == queue
        }

    def finish(self, queue: str, task_id: str) -> None:
        self.stub.finish(self.stub.queue(queue).tasks[task_id])


class EmbeddedRig:
    def __init__(self, database: Path) -> None:
        self.embedded = EmbeddedBackend(
            str(database),
            queues=[Queue(name=str(self.queue_name(queue))) for queue in ("default", "other")],
        )
        self.backend: Backend = self.embedded
        self.ended = threading.Event()
        self.embedded.observe(lambda attempt: self.ended.set())

    @staticmethod
    def queue_name(queue: str) -> QueueName:
        return QueueName(PROJECT, LOCATION, queue)

    def stored(self, queue: str = "default") -> dict[str, Seen]:
        page = self.embedded.service().list_tasks(str(self.queue_name(queue)))
        assert not page.next_page_token
        return {short_id(task.name): _from_task(task) for task in page.items}

    def finish(self, queue: str, task_id: str) -> None:
        service = self.embedded.service()
        # The others are to wait on; RunTask passes a pause by.
        for other in ("default", "other"):
            service.pause_queue(str(self.queue_name(other)))
        transport = WsgiTransport()
        transport.register(_answer_200, "default")
        service.start(transport, threads=1)
        self.ended.clear()
        service.run_task(self.queue_name(queue).task(task_id))
        assert self.ended.wait(10)


def _answer_200(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return []


def _from_task(task: Task) -> Seen:
    request, schedule_time = task.request, task.schedule_time
    assert isinstance(request, AppEngineRequest)
    assert schedule_time is not None
    return Seen(
        method=request.method,
        relative_url=request.relative_uri,
        headers=_joined(request.headers.items()),
        body=request.body,
        schedule_time=schedule_time,
        retry=task.retry_config,
        dispatch_deadline_seconds=task.dispatch_deadline_seconds,
    )


class CloudTasksRig:
    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.backend: Backend = CloudTasksBackend()

    def stored(self, queue: str = "default") -> dict[str, Seen]:
        prefix = f"{PARENT}/queues/{queue}/tasks/"
        return {
            name.removeprefix(prefix): _from_message(task)
            for name, task in self.recorder.tasks.items()
            if name.startswith(prefix)
        }

    def finish(self, queue: str, task_id: str) -> None:
        self.recorder.finish(queue, task_id)


class RqRig:
    def __init__(self, server: RedisServer) -> None:
        from appengine_compat.backends.rq.backend import RqBackend

        self.client = redis.Redis.from_url(server.url)
        self.backend: Backend = RqBackend(
            server.url,
            queues={
                queue: Queue(name=str(QueueName(PROJECT, LOCATION, queue)))
                for queue in ("default", "other")
            },
        )

    def stored(self, queue: str = "default") -> dict[str, Seen]:
        rq_queue = rq.Queue(queue, connection=self.client)
        ids = [*rq_queue.job_ids, *rq_queue.scheduled_job_registry.get_job_ids()]
        jobs = [rq.job.Job.fetch(job_id, connection=self.client) for job_id in ids]
        return {job.kwargs["task"]: self._seen(job) for job in jobs}

    def _seen(self, job: rq.job.Job) -> Seen:
        kept, retry = job.kwargs, job.kwargs["retry"]
        due = self.client.hget(job.key, "aec_due")
        return Seen(
            method=kept["method"],
            relative_url=_relative(kept["url"]),
            headers=_joined(kept["headers"]),
            body=kept["body"],
            schedule_time=datetime.fromtimestamp(float(due), timezone.utc),
            retry=None if retry is None else RetryOverrides(**retry),
            dispatch_deadline_seconds=kept["deadline_seconds"],
        )

    def finish(self, queue: str, task_id: str) -> None:
        """By RQ's own worker, as it runs one job."""
        rq_queue = rq.Queue(queue, connection=self.client)
        job = rq.job.Job.fetch(f"{queue}_{task_id}", connection=self.client)
        rq_queue.remove(job)
        worker = _SimpleWorker([rq_queue], connection=self.client)
        worker.execute_job(job, rq_queue)
        assert job.is_finished


class _SimpleWorker(rq.SimpleWorker):
    # The signal of RQ's other way to end a job is pytest's own here.
    death_penalty_class = rq.timeouts.TimerDeathPenalty


def _from_message(task: Any) -> Seen:
    is_http = task.WhichOneof("message_type") == "http_request"
    request = task.http_request if is_http else task.app_engine_http_request
    url = request.url if is_http else request.relative_uri
    overrides = None
    if task.HasField("retry_config"):
        config = task.retry_config
        overrides = RetryOverrides(
            max_attempts=config.max_attempts or None,
            max_doublings=config.max_doublings or None,
            **{
                f"{name}_seconds": getattr(config, name).ToTimedelta().total_seconds()
                if config.HasField(name)
                else None
                for name in ("max_retry_duration", "min_backoff", "max_backoff")
            },
        )
    return Seen(
        method=tasks_v2.HttpMethod(request.http_method).name,
        relative_url=_relative(url),
        headers=_joined(request.headers.items()),
        body=request.body,
        schedule_time=task.schedule_time.ToDatetime(timezone.utc),
        retry=overrides,
        dispatch_deadline_seconds=task.dispatch_deadline.ToTimedelta().total_seconds(),
    )


def _relative(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(scheme="", netloc="").geturl()


def _joined(headers: Any) -> dict[str, str]:
    """Headers as a handler sees them: names without regard to case, carried ones put back."""
    joined: dict[str, str] = {}
    for name, value in headers:
        key = name.removeprefix(CARRIED_PREFIX).lower()
        joined[key] = f"{joined[key]}, {value}" if key in joined else value
    return joined


@pytest.fixture(scope="module")
def redis_or_skip(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server.serving(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(params=["stub", "embedded", "cloud tasks, app engine", "cloud tasks, http", "rq"])
def rig(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Rig]:
    if request.param == "stub":
        yield StubRig(tmp_path / "queue.yaml")
        return
    monkeypatch.setenv("APPENGINE_COMPAT_PROJECT", PROJECT)
    monkeypatch.setenv("APPENGINE_COMPAT_LOCATION", LOCATION)
    if request.param == "embedded":
        embedded_rig = EmbeddedRig(tmp_path / "tasks.db")
        yield embedded_rig
        assert embedded_rig.embedded.close() == []
        return
    if request.param == "rq":
        server: RedisServer = request.getfixturevalue("redis_or_skip")
        server.flush()
        with http_target.serving() as target:
            monkeypatch.setenv("APPENGINE_COMPAT_TARGETS", target.address)
            yield RqRig(server)
        return
    with serving("default", "other") as recorder:
        monkeypatch.setenv("CLOUD_TASKS_EMULATOR_HOST", recorder.address)
        if request.param.endswith("http"):
            monkeypatch.setenv("APPENGINE_COMPAT_TARGETS", "http://localhost:8080")
        yield CloudTasksRig(recorder)


def create(rig: Rig, *requests: TaskRequest, queue: str = "default") -> list[str]:
    """Create tasks that none is expected to be refused of, and return their ids."""
    outcomes = rig.backend.create_tasks(queue, requests)
    assert [outcome.error for outcome in outcomes] == [None] * len(requests)
    return [outcome.task_id for outcome in outcomes]


def refusal(backend: Backend, queue: str, requests: Sequence[TaskRequest]) -> BackendError:
    """Return why a call, or its only task, was refused: a backend may say it either way."""
    try:
        outcomes = backend.create_tasks(queue, requests)
    except BackendError as error:
        return error
    (error_or_none,) = {outcome.error for outcome in outcomes}
    assert error_or_none is not None
    return error_or_none


class TestCreating:
    def test_a_task_is_stored_as_it_was_asked_for(self, rig: Rig) -> None:
        before = datetime.now(timezone.utc) - timedelta(seconds=1)
        (task_id,) = create(rig, replace(POST, headers=(("X-Reason", "test"),)))
        seen = rig.stored()[task_id]
        assert (seen.method, seen.relative_url, seen.body) == (
            "POST",
            POST.relative_url,
            POST.payload,
        )
        assert seen.headers["x-reason"] == "test"
        assert before <= seen.schedule_time <= datetime.now(timezone.utc) + timedelta(seconds=1)

    def test_many_are_created_in_order(self, rig: Rig) -> None:
        requests = [replace(POST, payload=b"%d" % number) for number in range(100)]
        ids = create(rig, *requests)
        assert len(set(ids)) == 100
        stored = rig.stored()
        assert [stored[task_id].body for task_id in ids] == [b"%d" % n for n in range(100)]

    def test_none_are_nothing(self, rig: Rig) -> None:
        assert rig.backend.create_tasks("default", []) == []
        assert rig.stored() == {}

    def test_queues_are_apart(self, rig: Rig) -> None:
        create(rig, replace(POST, name="same"))
        create(rig, replace(POST, name="same", payload=b"2"), queue="other")
        assert rig.stored()["same"].body == POST.payload
        assert rig.stored("other")["same"].body == b"2"

    @pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "PUT", "POST"])
    def test_methods(self, rig: Rig, method: str) -> None:
        (task_id,) = create(rig, TaskRequest(relative_url="/x?y=z", method=method))
        seen = rig.stored()[task_id]
        assert (seen.method, seen.relative_url, seen.body) == (method, "/x?y=z", b"")

    def test_app_engines_headers_arrive_though_cloud_tasks_does_not_carry_them(
        self, rig: Rig
    ) -> None:
        headers = (("X-AppEngine-Current-Namespace", "tenant"), ("Host", "v1.worker"))
        (task_id,) = create(rig, replace(POST, headers=headers))
        seen = rig.stored()[task_id]
        assert seen.headers["x-appengine-current-namespace"] == "tenant"
        assert seen.headers["host"] == "v1.worker"

    def test_repeated_headers_are_joined(self, rig: Rig) -> None:
        headers = (("X-Many", "one"), ("x-many", "two"))
        (task_id,) = create(rig, replace(POST, headers=headers))
        assert rig.stored()[task_id].headers["x-many"] == "one, two"

    @settings(
        deadline=None,
        max_examples=30,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(payload=st.binary(max_size=2000))
    def test_payloads_arrive_to_the_byte(self, rig: Rig, payload: bytes) -> None:
        (task_id,) = create(rig, replace(POST, payload=payload))
        assert rig.stored()[task_id].body == payload

    def test_a_payload_may_be_a_megabyte_less_what_the_task_itself_takes(self, rig: Rig) -> None:
        payload = bytes(range(256)) * 4000
        (task_id,) = create(rig, replace(POST, payload=payload))
        assert rig.stored()[task_id].body == payload


class TestOptions:
    def test_a_schedule_time_is_kept_to_the_microsecond(self, rig: Rig) -> None:
        later = datetime.now(timezone.utc).replace(microsecond=123457) + timedelta(hours=1)
        (task_id,) = create(rig, replace(POST, schedule_time=later))
        assert rig.stored()[task_id].schedule_time == later

    def test_thirty_days_ahead_are_the_most(self, rig: Rig) -> None:
        now = datetime.now(timezone.utc)
        create(rig, replace(POST, schedule_time=now + timedelta(days=29, hours=23)))
        too_far = replace(POST, schedule_time=now + timedelta(days=30, hours=1))
        assert refusal(rig.backend, "default", [too_far]).reason is Reason.INVALID_ETA
        assert len(rig.stored()) == 1

    def test_retry_options_and_deadline_go_along(self, rig: Rig) -> None:
        retry = RetryOverrides(
            max_attempts=3,
            max_retry_duration_seconds=60.0,
            min_backoff_seconds=0.25,
            max_backoff_seconds=20.0,
            max_doublings=2,
        )
        request = replace(POST, retry=retry, dispatch_deadline_seconds=90.0)
        (task_id,) = create(rig, request)
        seen = rig.stored()[task_id]
        assert seen.retry == retry
        assert seen.dispatch_deadline_seconds == 90.0

    def test_retry_options_may_be_given_in_part(self, rig: Rig) -> None:
        retry = RetryOverrides(max_attempts=7)
        (task_id,) = create(rig, replace(POST, retry=retry))
        assert rig.stored()[task_id].retry == retry


class TestNames:
    def test_a_name_is_taken_while_its_task_waits(self, rig: Rig) -> None:
        named = replace(POST, name="only-one")
        assert create(rig, named) == ["only-one"]
        error = refusal(rig.backend, "default", [named])
        assert error.reason is Reason.TASK_ALREADY_EXISTS
        assert (error.queue, error.task) == ("default", "only-one")
        assert "only-one" in str(error)
        assert len(rig.stored()) == 1

    @pytest.mark.parametrize("end", ["run", "deleted"])
    def test_a_name_stays_reserved_after_its_task(self, rig: Rig, end: str) -> None:
        named = replace(POST, name="only-one")
        create(rig, named)
        if end == "run":
            rig.finish("default", "only-one")
        else:
            rig.backend.delete_tasks("default", ["only-one"])
        assert refusal(rig.backend, "default", [named]).reason is Reason.TOMBSTONED_TASK
        assert rig.stored() == {}

    @pytest.mark.parametrize("name", ["a b", "a/b", "ä", "x" * 501, "a\n"])
    def test_names_have_a_shape(self, rig: Rig, name: str) -> None:
        error = refusal(rig.backend, "default", [replace(POST, name=name)])
        assert error.reason is Reason.INVALID_TASK_NAME
        assert rig.stored() == {}

    def test_the_longest_name(self, rig: Rig) -> None:
        assert create(rig, replace(POST, name="x" * 500)) == ["x" * 500]


class TestRefusals:
    @pytest.mark.parametrize("count", [1, 3])
    def test_an_unknown_queue(self, rig: Rig, count: int) -> None:
        error = refusal(rig.backend, "no-such-queue", [POST] * count)
        assert error.reason is Reason.UNKNOWN_QUEUE
        assert error.queue == "no-such-queue"
        assert "no-such-queue" in str(error)

    @pytest.mark.parametrize("queue", ["under_score", "a/b", "", "x" * 101])
    def test_no_queue_can_have_that_name(self, rig: Rig, queue: str) -> None:
        assert refusal(rig.backend, queue, [POST]).reason is Reason.INVALID_QUEUE_NAME

    def test_too_large_names_the_size(self, rig: Rig) -> None:
        error = refusal(rig.backend, "default", [replace(POST, payload=b"x" * 1_048_569)])
        assert error.reason is Reason.TASK_TOO_LARGE
        assert "1,048," in str(error)
        assert "1,048,569" in str(error)
        assert rig.stored() == {}

    def test_what_one_task_of_many_is_refused_for_is_its_own(self, rig: Rig) -> None:
        create(rig, replace(POST, name="there"))
        requests = [replace(POST, name=name) for name in ("new-1", "there", "new-2")]
        outcomes = rig.backend.create_tasks("default", requests)
        assert [outcome.task_id for outcome in outcomes] == ["new-1", "there", "new-2"]
        assert [outcome.error and outcome.error.reason for outcome in outcomes] == [
            None,
            Reason.TASK_ALREADY_EXISTS,
            None,
        ]
        assert set(rig.stored()) == {"there", "new-1", "new-2"}


class TestDeleting:
    def test_each_has_its_outcome(self, rig: Rig) -> None:
        create(rig, *(replace(POST, name=name) for name in ("waits", "ran", "stays")))
        rig.finish("default", "ran")
        outcomes = rig.backend.delete_tasks("default", ["waits", "never-there", "ran"])
        assert [outcome.task_id for outcome in outcomes] == ["waits", "never-there", "ran"]
        assert [outcome.error and outcome.error.reason for outcome in outcomes] == [
            None,
            Reason.UNKNOWN_TASK,
            Reason.TOMBSTONED_TASK,
        ]
        assert set(rig.stored()) == {"stays"}

    def test_none_that_is_there_is_no_failure_of_the_call(self, rig: Rig) -> None:
        outcomes = rig.backend.delete_tasks("default", ["a", "b"])
        assert [o.error and o.error.reason for o in outcomes] == [Reason.UNKNOWN_TASK] * 2

    def test_an_unknown_queue(self, rig: Rig) -> None:
        with pytest.raises(BackendError) as caught:
            rig.backend.delete_tasks("no-such-queue", ["a"])
        assert caught.value.reason is Reason.UNKNOWN_QUEUE


class TestPurging:
    def test_removes_all_of_one_queue(self, rig: Rig) -> None:
        create(rig, POST, POST, replace(POST, name="named"))
        create(rig, POST, queue="other")
        rig.backend.purge_queue("default")
        assert rig.stored() == {}
        assert len(rig.stored("other")) == 1

    def test_an_unknown_queue(self, rig: Rig) -> None:
        with pytest.raises(BackendError) as caught:
            rig.backend.purge_queue("no-such-queue")
        assert caught.value.reason is Reason.UNKNOWN_QUEUE


class TestStatistics:
    def test_count_what_waits_in_the_order_asked(self, rig: Rig) -> None:
        create(rig, POST, POST)
        other, default = rig.backend.queue_stats(["other", "default"])
        assert (other.tasks_count, default.tasks_count) == (0, 2)


def test_threads_share_a_backend(rig: Rig) -> None:
    ids: list[str] = []
    start = threading.Barrier(8)

    def enqueue() -> None:
        start.wait()
        for _ in range(5):
            ids.extend(create(rig, POST))
            ids.extend(create(rig, POST, POST))

    threads = [threading.Thread(target=enqueue) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 8 * 15
    assert set(ids) == set(rig.stored())


def test_a_backend_says_what_it_is(rig: Rig) -> None:
    assert isinstance(rig.backend, Backend)
    assert rig.backend.kind in ("cloudtasks", "embedded", "rq", "stub")
