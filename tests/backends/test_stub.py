"""The backend of tests: what it takes, keeps and refuses."""

from __future__ import annotations

import os
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from appengine_compat.backends.base import Backend, BackendError, Reason, TaskRequest
from appengine_compat.backends.stub import StubBackend
from appengine_compat.backends.stub_queues import StubTask
from appengine_compat.core.limits import MAX_STORED_TASK_BYTES
from appengine_compat.errors import QueueYamlError

NOW = datetime(2026, 11, 21, 12, tzinfo=timezone.utc)


def stub(**options: object) -> StubBackend:
    return StubBackend(now=NOW.timestamp, **options)  # type: ignore[arg-type]


def request(name: str = "", **fields: object) -> TaskRequest:
    return TaskRequest(relative_url="/work", name=name, **fields)  # type: ignore[arg-type]


def added(backend: StubBackend, *requests: TaskRequest, queue: str = "default") -> list[str]:
    outcomes = backend.create_tasks(queue, requests)
    assert [outcome.error for outcome in outcomes] == [None] * len(requests)
    return [outcome.task_id for outcome in outcomes]


def refused(backend: StubBackend, *requests: TaskRequest, queue: str = "default") -> BackendError:
    with pytest.raises(BackendError) as caught:
        backend.create_tasks(queue, requests)
    return caught.value


def test_it_is_a_backend() -> None:
    assert isinstance(stub(), Backend)
    assert stub().kind == "stub"


def test_names_are_drawn_from_one_counter_over_all_queues() -> None:
    backend = stub(all_queues_valid=True)
    assert added(backend, request(), request()) == ["task1", "task2"]
    assert added(backend, request("mine"), queue="other") == ["mine"]
    assert added(backend, request(), queue="other") == ["task3"]


def test_a_task_is_kept_as_it_was_asked_for() -> None:
    backend = stub()
    asked = request(payload=b"\xff", headers=(("X-A", "1"), ("X-A", "2")), target="worker")
    added(backend, asked)
    (task,) = backend.tasks()
    assert task.request is asked
    assert task.eta_microseconds == round(NOW.timestamp() * 1e6)
    assert task.created_at == NOW.timestamp()


def test_tasks_are_in_order_of_due_time_then_creation() -> None:
    backend = stub()
    later = NOW + timedelta(seconds=5)
    added(backend, request("late", schedule_time=later), request("b"), request("a"))
    assert [task.id for task in backend.tasks()] == ["b", "a", "late"]
    assert [task.id for task in backend.queue("default").ordered_tasks()] == ["a", "b", "late"]


def test_a_name_in_the_queue_is_refused_and_the_rest_of_the_call_is_added() -> None:
    backend = stub()
    added(backend, request("a"))
    outcomes = backend.create_tasks("default", [request(), request("a"), request()])
    assert [outcome.task_id for outcome in outcomes] == ["task1", "a", "task2"]
    error = outcomes[1].error
    assert error is not None
    assert error.reason is Reason.TASK_ALREADY_EXISTS
    assert (error.queue, error.task) == ("default", "a")
    assert [task.id for task in backend.tasks()] == ["a", "task1", "task2"]


def test_a_deleted_name_stays_reserved() -> None:
    backend = stub()
    added(backend, request("a"))
    assert backend.delete_tasks("default", ["a"])[0].error is None
    (outcome,) = backend.create_tasks("default", [request("a")])
    assert outcome.error is not None
    assert outcome.error.reason is Reason.TOMBSTONED_TASK


def test_deleting_what_is_not_there_says_whether_it_once_was() -> None:
    backend = stub()
    added(backend, request("a"))
    backend.delete_tasks("default", ["a"])
    outcomes = backend.delete_tasks("default", ["a", "b"])
    reasons = [outcome.error.reason for outcome in outcomes if outcome.error]
    assert reasons == [Reason.TOMBSTONED_TASK, Reason.UNKNOWN_TASK]


def test_a_purge_reserves_the_names_it_takes() -> None:
    backend = stub()
    added(backend, request("deleted"), request("waiting"))
    backend.delete_tasks("default", ["deleted"])
    backend.purge_queue("default")
    assert backend.tasks() == []
    for name in ("waiting", "deleted"):
        (outcome,) = backend.create_tasks("default", [request(name)])
        assert outcome.error is not None
        assert outcome.error.reason is Reason.TOMBSTONED_TASK


def test_flush_frees_names_and_remove_reserves_none() -> None:
    backend = stub()
    added(backend, request("deleted"), request("removed"))
    backend.delete_tasks("default", ["deleted"])
    backend.remove("default", "removed")
    assert added(backend, request("removed")) == ["removed"]
    backend.flush("default")
    assert added(backend, request("deleted"), request("removed")) == ["deleted", "removed"]


def test_flush_and_remove_of_what_is_not_there_do_nothing() -> None:
    backend = stub()
    backend.flush("nope")
    backend.remove("nope", "a")
    backend.remove("default", "a")


def test_a_task_that_has_run_reserves_its_name() -> None:
    backend = stub()
    added(backend, request("a"))
    backend.finish(backend.tasks()[0])
    (outcome,) = backend.create_tasks("default", [request("a")])
    assert outcome.error is not None
    assert outcome.error.reason is Reason.TOMBSTONED_TASK


@pytest.mark.parametrize("call", ["create_tasks", "delete_tasks", "purge_queue"])
def test_an_unknown_queue_is_an_error_with_the_names_there_are(call: str) -> None:
    arguments = {"create_tasks": [[request()]], "delete_tasks": [["a"]], "purge_queue": []}
    with pytest.raises(BackendError) as caught:
        getattr(stub(), call)("defualt", *arguments[call])
    assert caught.value.reason is Reason.UNKNOWN_QUEUE
    assert str(caught.value) == (
        "There is no queue 'defualt' without a queue.yaml (root_path= says where it is); there "
        "are default. Did you mean 'default'?"
    )


def test_a_malformed_queue_name_is_told_as_one() -> None:
    assert refused(stub(), request(), queue="a_b").reason is Reason.INVALID_QUEUE_NAME


def test_all_queues_valid_makes_a_queue_on_first_use() -> None:
    backend = stub(all_queues_valid=True)
    assert [queue.name for queue in backend.queues()] == ["default"]
    added(backend, request(), queue="anything")
    assert [queue.name for queue in backend.queues()] == ["anything", "default"]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"schedule_time": NOW + timedelta(days=30, seconds=1)}, Reason.INVALID_ETA),
        ({"payload": b"x" * MAX_STORED_TASK_BYTES}, Reason.TASK_TOO_LARGE),
        ({"name": "a b"}, Reason.INVALID_TASK_NAME),
    ],
)
def test_one_task_that_cannot_be_verified_fails_the_call(
    bad: dict[str, object], reason: Reason
) -> None:
    backend = stub()
    error = refused(backend, request(), request(**bad), request())  # type: ignore[arg-type]
    assert error.reason is reason
    assert error.queue == "default"
    assert backend.tasks() == []
    # As in App Engine's stub the tasks beside it have drawn their numbers, and it has not.
    assert added(backend, request()) == ["task3"]


def test_the_limits_themselves_are_allowed() -> None:
    backend = stub()
    added(backend, request(schedule_time=NOW + timedelta(days=30)))
    small = added(backend, request(payload=b""))
    assert small == ["task2"]
    too_big = refused(backend, request(payload=b"x" * 1_048_500))
    spare = int(str(too_big).split()[3].replace(",", "")) - MAX_STORED_TASK_BYTES
    added(backend, request(payload=b"x" * (1_048_500 - spare)))
    assert refused(backend, request(payload=b"x" * (1_048_501 - spare))).reason is (
        Reason.TASK_TOO_LARGE
    )


def test_stats_count_what_waits_and_an_unknown_queue_holds_nothing() -> None:
    backend = stub()
    added(backend, request(schedule_time=NOW + timedelta(seconds=9)), request())
    stats, none = backend.queue_stats(["default", "nope"])
    assert stats.tasks_count == 2
    assert stats.oldest_arrival_time == NOW
    assert none.tasks_count == 0
    assert none.oldest_arrival_time is None


def test_clear_drops_everything_until_the_next_call() -> None:
    backend = stub(all_queues_valid=True)
    added(backend, request("a"), queue="other")
    backend.clear()
    assert backend.queues() == []
    with pytest.raises(KeyError):
        backend.queue("default")
    assert added(backend, request(), request("a")) == ["task1", "a"]
    assert [queue.name for queue in backend.queues()] == ["default"]


def test_every_created_task_is_reported_in_order() -> None:
    seen: list[StubTask] = []
    backend = stub(on_create=seen.append)
    backend.create_tasks("default", [request("a"), request("a"), request()])
    assert [task.id for task in seen] == ["a", "task1"]


# --- queue.yaml ---


def write(path: Path, *names: str, extra: str = "") -> None:
    entries = "".join(f"- name: {name}\n  rate: 1/s\n" for name in names)
    path.write_text(f"queue:\n{entries}{extra}")
    # Two writes within one tick of the file system's clock would look alike.
    state = path.stat()
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + len(entries) + len(extra)))


def test_the_queues_are_those_of_the_file_and_default(tmp_path: Path) -> None:
    path = tmp_path / "queue.yaml"
    write(path, "mail", "index")
    backend = stub(queue_config=path)
    assert [queue.name for queue in backend.queues()] == ["default", "index", "mail"]
    error = refused(backend, request(), queue="mial")
    assert str(path) in str(error)
    assert "Did you mean 'mail'?" in str(error)


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "queue.yaml"
    write(path, "mail", "index")
    backend = stub(queue_config=path)
    added(backend, request("kept"), queue="mail")
    write(path, "mail", "new")
    assert [queue.name for queue in backend.queues()] == ["default", "mail", "new"]
    assert [task.id for task in backend.queue("mail").ordered_tasks()] == ["kept"]
    assert refused(backend, request(), queue="index").reason is Reason.UNKNOWN_QUEUE


def test_a_file_that_appears_later_is_found(tmp_path: Path) -> None:
    path = tmp_path / "queue.yaml"
    backend = stub(queue_config=lambda: path if path.exists() else None)
    assert refused(backend, request(), queue="mail").reason is Reason.UNKNOWN_QUEUE
    write(path, "mail")
    assert added(backend, request(), queue="mail") == ["task1"]


def test_a_broken_file_is_an_error_at_every_use_until_it_is_mended(tmp_path: Path) -> None:
    path = tmp_path / "queue.yaml"
    path.write_text("queue:\n- name: mail\n  rate: fast\n")
    backend = stub(queue_config=path)
    for _ in range(2):
        with pytest.raises(QueueYamlError, match=r"queue\.yaml:3:9: queue 'mail': rate is 'fast'"):
            backend.create_tasks("default", [request()])
    write(path, "mail")
    assert added(backend, request(), queue="mail") == ["task1"]


def test_a_pull_queue_takes_no_push_task(tmp_path: Path) -> None:
    path = tmp_path / "queue.yaml"
    write(path, extra="- name: pulled\n  mode: pull\n")
    error = refused(stub(queue_config=path), request(), queue="pulled")
    assert error.reason is Reason.INVALID_QUEUE_MODE
    assert "Pub/Sub" in str(error)


def test_retry_settings_come_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "queue.yaml"
    write(
        path,
        extra="- name: once\n  rate: 1/s\n  retry_parameters:\n    task_retry_limit: 0\n",
    )
    backend = stub(queue_config=path)
    assert backend.queue("once").retry_config.max_attempts == 1
    assert backend.queue("default").retry_config.max_attempts == 100
