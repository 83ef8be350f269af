"""The whole state as a file: what is in it, what is not, and what comes back."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from appengine_compat.core.model import AppEngineRequest, HttpRequest, Queue, Task
from appengine_compat.errors import ApiError, StoreError, StoreTooNewError
from appengine_compat.local import documents, queue_operations, store_snapshot
from appengine_compat.local.clock import ManualClock
from appengine_compat.local.service import LocalService
from appengine_compat.local.store import Store

PARENT = "projects/p/locations/l"
MAIL = f"{PARENT}/queues/mail"
BODY = b"\x00\xff" * 5000  # long enough to be stored apart


@pytest.fixture
def service():
    made = LocalService(Store(None), clock=ManualClock())
    yield made
    made.close()


@pytest.fixture
def other(tmp_path):
    made = LocalService(Store(tmp_path / "other.db"), clock=ManualClock())
    yield made
    made.close()


def fill(service: LocalService) -> None:
    service.create_queue(PARENT, Queue(name=MAIL))
    service.pause_queue(MAIL)
    for name, request in (
        ("one", HttpRequest(url="http://localhost/x", body=BODY)),
        ("two", AppEngineRequest(relative_uri="/y")),
        ("ended", AppEngineRequest()),
    ):
        service.create_task(MAIL, Task(name=f"{MAIL}/tasks/{name}", request=request))
    service.delete_task(f"{MAIL}/tasks/ended")


def test_all_of_it_comes_back_in_another_database(service, other, tmp_path):
    fill(service)
    file = tmp_path / "state"

    store_snapshot.export(service.store, file)
    store_snapshot.replace(other.store, file)

    assert other.get_queue(MAIL) == service.get_queue(MAIL)
    assert other.list_tasks(MAIL) == service.list_tasks(MAIL)
    assert other.get_task(f"{MAIL}/tasks/one").request.body == BODY
    with pytest.raises(ApiError, match="no longer exists"):
        other.get_task(f"{MAIL}/tasks/ended")


def test_what_was_there_before_is_gone(service, other, tmp_path):
    other.create_queue(PARENT, Queue(name=f"{PARENT}/queues/old"))
    file = tmp_path / "state"

    store_snapshot.export(service.store, file)
    store_snapshot.replace(other.store, file)

    assert other.list_queues(PARENT).items == []


def test_no_key_of_the_service_is_in_the_file_and_none_is_lost(service, tmp_path):
    secret = service.store.secret
    key = f"{store_snapshot.KEY_PREFIX}of tokens"
    service.store.write(lambda connection: documents.save(connection, key, b"PRIVATE-BYTES"))
    service.store.write(lambda connection: documents.save(connection, "policy", b"PUBLIC-BYTES"))
    file = tmp_path / "state"

    store_snapshot.export(service.store, file)
    written = file.read_bytes()
    store_snapshot.replace(service.store, file)

    assert secret not in written
    assert b"PRIVATE-BYTES" not in written
    assert b"PUBLIC-BYTES" in written
    kept = service.store.read(lambda connection: documents.load(connection, key, 0))
    assert kept == b"PRIVATE-BYTES"


def test_a_task_that_ran_is_exported_as_waiting(service, other, tmp_path):
    fill(service)
    service.store.write(lambda connection: connection.execute("UPDATE tasks SET claim = 77"))
    file = tmp_path / "state"

    store_snapshot.export(service.store, file)
    store_snapshot.replace(other.store, file)

    assert other.queue_stats(MAIL).concurrent_dispatches_count == 0
    assert other.queue_stats(MAIL).tasks_count == 2


def test_a_purge_that_is_under_way_is_no_part_of_it(service, other, tmp_path):
    fill(service)
    service.store.write(lambda connection: queue_operations.mark_purged(connection, MAIL, 0))
    file = tmp_path / "state"

    store_snapshot.export(service.store, file)
    store_snapshot.replace(other.store, file)

    tasks = other.store.read(
        lambda connection: connection.execute("SELECT count(*) FROM tasks").fetchone()[0]
    )
    assert tasks == other.queue_stats(MAIL).tasks_count == 2


def test_queues_get_new_numbers_so_that_old_attempts_cannot_end_their_tasks(service, tmp_path):
    def numbers():
        return service.store.read(
            lambda connection: [row[0] for row in connection.execute("SELECT queue FROM tasks")]
        )

    fill(service)
    before = numbers()
    file = tmp_path / "state"

    store_snapshot.export(service.store, file)
    store_snapshot.replace(service.store, file)

    assert set(numbers()).isdisjoint(before)


def test_clearing_leaves_the_queues_of_the_start_alone(service):
    fill(service)
    web = Queue(name=f"{PARENT}/queues/web")

    store_snapshot.clear(service.store, [web], 0)

    assert service.list_queues(PARENT).items == [web]
    with pytest.raises(ApiError, match="Queue does not exist"):
        service.list_tasks(MAIL)


@pytest.mark.parametrize("content", [b"", b"not a database", b"SQLite format 3\x00 and no more"])
def test_what_is_no_state_is_refused_and_nothing_changes(service, tmp_path, content):
    fill(service)
    file = tmp_path / "state"
    file.write_bytes(content)

    with pytest.raises(StoreError, match="nothing was changed"):
        store_snapshot.replace(service.store, file)

    assert len(service.list_tasks(MAIL).items) == 2


def test_a_damaged_state_is_refused(service, tmp_path):
    fill(service)
    file = tmp_path / "state"
    store_snapshot.export(service.store, file)
    content = bytearray(file.read_bytes())
    content[5000:] = b"\x55" * (len(content) - 5000)
    file.write_bytes(content)

    with pytest.raises(StoreError, match="nothing was changed"):
        store_snapshot.replace(service.store, file)

    assert len(service.list_tasks(MAIL).items) == 2


def test_another_programs_database_is_refused(service, tmp_path):
    file = tmp_path / "theirs.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE tasks (id)")
    connection.close()

    with pytest.raises(StoreError, match="no exported state"):
        store_snapshot.replace(service.store, file)


def test_a_state_of_a_newer_version_is_refused(service, tmp_path):
    file = tmp_path / "state"
    store_snapshot.export(service.store, file)
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA user_version = 999")
    connection.close()

    with pytest.raises(StoreTooNewError, match="Upgrade"):
        store_snapshot.replace(service.store, file)


def test_an_export_writes_over_nothing(service, tmp_path):
    file = Path(tmp_path / "state")
    file.write_bytes(b"precious")

    with pytest.raises(StoreError, match="there already"):
        store_snapshot.export(service.store, file)

    assert file.read_bytes() == b"precious"
