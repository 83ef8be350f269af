"""Databases that older versions wrote: brought to the present schema, with what is in them."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from appengine_compat.core.model import Queue
from appengine_compat.local import documents, records, store_file
from appengine_compat.local.service import LocalService
from appengine_compat.local.store import Store

FIRST_SCHEMA = Path(__file__).with_name("schema_1.sql")
"""As the first version wrote it; never to be changed."""
QUEUE = "projects/p/locations/l/queues/q"


def written_by_the_first_version(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.executescript(FIRST_SCHEMA.read_text("utf-8"))
    connection.execute(f"PRAGMA application_id={store_file.APPLICATION_ID}")
    connection.execute("PRAGMA user_version=1")
    connection.execute(
        "INSERT INTO queues (name, state, settings) VALUES (?, 'PAUSED', ?)",
        (QUEUE, records.settings_text(Queue(name=QUEUE))),
    )
    connection.execute(
        "INSERT INTO tasks (queue, id, service, due, is_named, created, method, url, deadline_ms, "
        "headers, body) VALUES (1, 'old', '', 5000000, 1, 5000000, 'POST', 'http://localhost/', "
        "600000, '{}', x'0102')"
    )
    connection.commit()
    connection.close()


def shape(store: Store) -> dict[str, set[tuple[str, str]]]:
    def read(connection: sqlite3.Connection) -> dict[str, set[tuple[str, str]]]:
        found = {}
        for name, kind in connection.execute(
            "SELECT name, type FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'"
        ).fetchall():
            columns = connection.execute(f"PRAGMA table_xinfo({name})").fetchall()
            found[f"{kind} {name}"] = {(row[1], row[2]) for row in columns}
        return found

    return store.read(read)


def test_a_database_of_the_first_version_gets_the_present_schema(tmp_path: Path) -> None:
    written_by_the_first_version(tmp_path / "old.db")
    old, new = Store(tmp_path / "old.db"), Store(tmp_path / "new.db")
    assert shape(old) == shape(new)
    version = "PRAGMA user_version"
    versions = [
        store.read(lambda connection: connection.execute(version).fetchone()[0])
        for store in (old, new)
    ]
    assert versions == [store_file.SCHEMA_VERSION] * 2
    old.close()
    new.close()


def test_its_tasks_are_there_and_what_is_new_works(tmp_path: Path) -> None:
    written_by_the_first_version(tmp_path / "old.db")
    service = LocalService(Store(tmp_path / "old.db"))
    (task,) = service.list_tasks(QUEUE).items
    assert task.name == f"{QUEUE}/tasks/old"
    assert task.request is not None
    assert task.request.body == b"\x01\x02"
    service.store.write(lambda connection: documents.save(connection, "kind a", b"one"))
    assert service.document("kind a") == b"one"
    service.close()
