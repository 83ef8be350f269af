"""What the database keeps by name: for good or for a time, and with the call that it tells of."""

from __future__ import annotations

import pytest

from appengine_compat.core.model import HttpRequest, Task
from appengine_compat.errors import ApiError
from appengine_compat.local import documents
from appengine_compat.local.documents import Record
from tests.local.conftest import QUEUE

NAME = str(QUEUE)


def told(results, now: int) -> bytes:
    return ",".join(
        result.code if isinstance(result, ApiError) else "ok" for result in results
    ).encode()


def work(task_id: str) -> Task:
    return Task(name=QUEUE.task(task_id), request=HttpRequest(url="http://localhost:9/"))


def test_a_document_is_kept_in_place_of_the_one_before(local) -> None:
    assert local.service.document("kind a") is None
    local.service.set_document("kind a", b"one")
    local.service.set_document("kind a", b"two")
    assert local.service.document("kind a") == b"two"
    local.service.store.write(lambda connection: documents.forget(connection, "kind a"))
    local.service.store.write(lambda connection: documents.forget(connection, "kind a"))
    assert local.service.document("kind a") is None


def test_a_call_leaves_its_record_and_is_not_done_twice(local) -> None:
    record = Record("operation 1", 60, told)
    tasks = [work("a"), work("a"), ApiError("INVALID_ARGUMENT", "no task")]
    first = local.service.create_tasks_once(NAME, tasks, record)
    assert first == b"ok,ALREADY_EXISTS,INVALID_ARGUMENT"
    local.service.delete_task(QUEUE.task("a"))
    assert local.service.create_tasks_once(NAME, [work("b")], record) == first
    assert not local.service.list_tasks(NAME).items


def test_a_delete_leaves_its_record_too(local) -> None:
    record = Record("operation 1", 60, told)
    local.add("a")
    names = [QUEUE.task("a"), QUEUE.task("never")]
    assert local.service.delete_tasks_once(NAME, names, record) == b"ok,NOT_FOUND"
    local.add("b")
    assert local.service.delete_tasks_once(NAME, [QUEUE.task("b")], record) == b"ok,NOT_FOUND"
    assert len(local.service.list_tasks(NAME).items) == 1


def test_a_record_is_over_after_its_time_and_makes_place(local) -> None:
    for number in range(3):
        record = Record(f"operation {number}", 60, told)
        local.service.create_tasks_once(NAME, [work(f"t{number}")], record)
    local.clock.advance(61)
    assert local.service.document("operation 0") is None
    local.service.create_tasks_once(NAME, [work("new")], Record("operation new", 60, told))
    kept = local.service.store.read(
        lambda connection: connection.execute("SELECT key FROM documents").fetchall()
    )
    assert kept == [("operation new",)]


def test_a_call_that_is_refused_as_a_whole_leaves_nothing(local) -> None:
    record = Record("operation 1", 60, told)
    with pytest.raises(ApiError):
        local.service.create_tasks_once(str(QUEUE) + "-other", [], record)
    assert local.service.document("operation 1") is None
