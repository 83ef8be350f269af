"""The whole state of a database as a file: taken, put in place of another, or cleared.

The state is the queues, the tasks and all that is remembered of them. The keys of the service are
no part of it: an export can be kept beside tests without letting anyone in.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from appengine_compat.core.model import Queue
from appengine_compat.errors import StoreError
from appengine_compat.local import queue_operations, store_file

if TYPE_CHECKING:
    from appengine_compat.local.store import Connection, Store

_BUSY_SECONDS = 30.0
_MAGIC = b"SQLite format 3\x00"
_OF_THE_SERVER = ("meta", "owners")
"""Tables that belong to the service that has the database, not to its state."""
KEY_PREFIX = "key "
"""Documents whose key begins so are keys of the service."""


def export(store: Store, path: str | os.PathLike[str]) -> None:
    """Write the state into a new file. Tasks that run at this moment are in it as waiting.

    Raises:
        StoreError: the file cannot be written.
    """
    file = Path(path)
    if file.exists() and file.stat().st_size:
        raise StoreError(f"{file} is there already: nothing was written.", path=str(file))
    store.read(lambda connection: _vacuum(connection, file))
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as copy:
        # What is deleted must be gone from the file's bytes too.
        copy.execute("PRAGMA secure_delete=ON")
        copy.execute("BEGIN")
        copy.execute("DELETE FROM meta WHERE key = 'secret'")
        copy.execute("DELETE FROM owners")
        copy.execute("DELETE FROM documents WHERE key LIKE ?", (f"{KEY_PREFIX}%",))
        copy.execute("UPDATE tasks SET claim = 0 WHERE claim > 0")
        # Of purges and deletions that are under way.
        copy.execute("DELETE FROM tasks WHERE queue NOT IN (SELECT id FROM queues)")
        copy.execute("COMMIT")


def replace(store: Store, path: str | os.PathLike[str]) -> None:
    """Put the state of a file in the place of what a database holds, in one commit.

    Attempts that run at this moment count for nothing when they end.

    Args:
        store: the database.
        path: what ``export`` has written, of this or an earlier version; it may be changed to
            the present schema.

    Raises:
        StoreTooNewError: a newer appengine-compat wrote it.
        StoreError: it is no such file, or is damaged; nothing was changed.
    """
    file = Path(path)
    _refuse_foreign(file)
    source = store_file.open_database(str(file), _BUSY_SECONDS)
    try:
        store.write(lambda connection: _copy(source, connection))
    finally:
        source.close()


def clear(store: Store, queues: Sequence[Queue], now: int) -> None:
    """Remove the whole state, and begin anew with these queues, in one commit.

    Args:
        store: the database.
        queues: in canonical form.
        now: microseconds since the epoch.
    """

    def begin_anew(connection: Connection) -> None:
        _empty(connection)
        for queue in queues:
            queue_operations.put(connection, queue, now)

    store.write(begin_anew)


def _vacuum(connection: Connection, file: Path) -> None:
    connection.execute("VACUUM INTO ?", (str(file),))


def _refuse_foreign(file: Path) -> None:
    with file.open("rb") as opened:
        is_database = opened.read(len(_MAGIC)) == _MAGIC
    found = ""
    if is_database:
        with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as connection:
            try:
                application = connection.execute("PRAGMA application_id").fetchone()[0]
                is_database = application == store_file.APPLICATION_ID
                found = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
            except sqlite3.DatabaseError as error:
                found = str(error)
    if not is_database:
        raise StoreError(
            "This is no exported state of appengine-compat: nothing was changed.", path=str(file)
        )
    if found != "ok":
        raise StoreError(
            f"The exported state is damaged ({found}): nothing was changed.", path=str(file)
        )


def _copy(source: Connection, connection: Connection) -> None:
    _empty(connection)
    # New numbers, so that an attempt which began before cannot end a task that is put here now.
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'queues'").fetchone()
    shift = 0 if row is None else row[0]
    for table in _tables(connection):
        columns = [each[1] for each in connection.execute(f"PRAGMA table_info({table})")]
        number = _queue_number(table, columns)
        read = ", ".join(f"{each} + {shift}" if each == number else each for each in columns)
        marks = ", ".join("?" * len(columns))
        rows = source.execute(f"SELECT {read} FROM {table}{_without_keys(table)}")
        connection.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", rows)


def _queue_number(table: str, columns: Sequence[str]) -> str:
    if table == "queues":
        return "id"
    return "queue" if table != "kept" and "queue" in columns else ""


def _empty(connection: Connection) -> None:
    for table in _tables(connection):
        connection.execute(f"DELETE FROM {table}{_without_keys(table)}")
    queue_operations._changed(connection)


def _without_keys(table: str) -> str:
    return f" WHERE key NOT LIKE '{KEY_PREFIX}%'" if table == "documents" else ""


def _tables(connection: Connection) -> Iterator[str]:
    rows = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    ).fetchall()
    return (name for (name,) in rows if name not in _OF_THE_SERVER)
