"""Opening the database file: new, old, too new, another program's, or broken."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from appengine_compat.errors import StoreError, StoreTooNewError
from appengine_compat.local.locks import FileLock

SCHEMA_VERSION = 4
APPLICATION_ID = 0x41454354  # "AECT", in the file's header

# Version → the script that makes the next one of it.
_MIGRATIONS: dict[int, str] = {
    1: """
        CREATE TABLE documents (
            key TEXT PRIMARY KEY, value BLOB NOT NULL, expires INTEGER
        ) WITHOUT ROWID;
        CREATE INDEX documents_by_expiry ON documents (expires) WHERE expires IS NOT NULL;
    """,
    2: "ALTER TABLE kept ADD COLUMN deadline_ms INTEGER;",
    3: """
        CREATE TABLE throttles (
            queue INTEGER PRIMARY KEY, rate REAL NOT NULL, since INTEGER NOT NULL,
            held_until INTEGER NOT NULL
        );
    """,
}

_CHECKED_BYTES = 32 * 1024 * 1024
"""Up to here the whole file is checked when it is opened; larger ones would delay the start."""
_OPENING_SECONDS = 30.0
_CACHE_SIZE = -16_000  # in KiB, as the sign says
_LOG_BYTES = 4 * 1024 * 1024  # a thousand pages, after which SQLite makes a checkpoint

_logger = logging.getLogger(__name__)


def open_database(path: str, busy_seconds: float) -> sqlite3.Connection:
    """Open the database of the current schema at a path ("" for memory), making what is missing.

    A file that is not a sound database is renamed, never written over, and a new one made: its
    tasks can still be salvaged from the renamed file, and those to come have a place.

    Raises:
        StoreTooNewError: a newer appengine-compat wrote it.
        StoreError: it cannot be opened or made, or is another program's.
    """
    if not path:
        connection = _connect(":memory:", busy_seconds)
        _bring_up_to_date(connection, path)
        return connection
    _make_private(path)
    with _alone(path):
        try:
            return _open_file(path, busy_seconds)
        except sqlite3.DatabaseError as error:
            if not _is_corruption(error):
                raise store_error(path, error) from error
            _set_aside(path, error)
        try:
            _make_private(path)
            return _open_file(path, busy_seconds)
        except sqlite3.Error as error:
            raise store_error(path, error) from error


def reserve_log(connection: sqlite3.Connection) -> None:
    """Make the write-ahead log as long as it becomes between two checkpoints.

    What a transaction cannot keep in memory goes into the log before its end; and the log keeps
    its length when the transaction comes to nothing.
    """
    connection.execute("PRAGMA cache_size=-64")
    try:
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.execute("CREATE TABLE reserved (bytes)")
            connection.execute("INSERT INTO reserved VALUES (zeroblob(?))", (_LOG_BYTES,))
        finally:
            if connection.in_transaction:  # which a full disk has ended already
                connection.execute("ROLLBACK")
    finally:
        connection.execute(f"PRAGMA cache_size={_CACHE_SIZE}")


def store_error(path: str, error: sqlite3.Error) -> StoreError:
    """Return the error that tells a caller what SQLite's error means for the tasks."""
    shown = path or "the database in memory"
    words = str(error)
    if _is_corruption(error):
        advice = (
            "The file is damaged. Stop every program that uses it and start again: a damaged file "
            "is then kept aside, and a new one made"
        )
    elif "full" in words:
        advice = "Nothing was stored: free space on its disk, then try again"
    elif "locked" in words or "busy" in words:
        advice = "Another process holds it: end that one, or give each its own APPENGINE_COMPAT_DB"
    elif "readonly" in words or "unable to open" in words:
        advice = (
            "Make its folder writable for this user, or set APPENGINE_COMPAT_DB to another path"
        )
    else:
        advice = "Nothing was stored"
    return StoreError(f"Tasks cannot be kept in {shown}: {words}. {advice}.", path=path)


def _open_file(path: str, busy_seconds: float) -> sqlite3.Connection:
    connection = _connect(path, busy_seconds)
    try:
        _refuse_foreign(connection, path)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        _bring_up_to_date(connection, path)
        if Path(path).stat().st_size <= _CHECKED_BYTES:
            found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if found != "ok":
                raise sqlite3.DatabaseError(f"malformed: {found}")
    except BaseException:
        connection.close()
        raise
    return connection


def _connect(path: str, busy_seconds: float) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, timeout=busy_seconds, isolation_level=None, check_same_thread=False
    )
    try:
        connection.execute(f"PRAGMA cache_size={_CACHE_SIZE}")
        connection.execute("PRAGMA temp_store=MEMORY")
    except BaseException:
        connection.close()
        raise
    return connection


def _refuse_foreign(connection: sqlite3.Connection, path: str) -> None:
    """Refuse a database that is not ours to write, before anything in it is changed."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    if application != APPLICATION_ID and not _is_empty(connection):
        raise StoreError(
            f"{path} is a database of another program: nothing was changed in it. Set "
            "APPENGINE_COMPAT_DB to a path of its own.",
            path=path,
        )
    version = _version(connection)
    if version > SCHEMA_VERSION:
        raise StoreTooNewError(
            f"{path} was written by a newer appengine-compat (its schema is {version}, this one "
            f"reads up to {SCHEMA_VERSION}): nothing was changed in it. Upgrade appengine-compat, "
            "or set APPENGINE_COMPAT_DB to another path.",
            path=path,
        )


def _bring_up_to_date(connection: sqlite3.Connection, path: str) -> None:
    if _is_empty(connection):
        script = Path(__file__).with_name("schema.sql").read_text("utf-8")
        _apply(connection, script, SCHEMA_VERSION)
        return
    for old in range(_version(connection), SCHEMA_VERSION):
        _apply(connection, _MIGRATIONS[old], old + 1)
        _logger.info("%s: schema %d made from %d.", path, old + 1, old)


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _is_empty(connection: sqlite3.Connection) -> bool:
    return not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]


def _apply(connection: sqlite3.Connection, script: str, version: int) -> None:
    connection.executescript(
        f"BEGIN IMMEDIATE;\n{script}\n"
        f"PRAGMA application_id={APPLICATION_ID};\nPRAGMA user_version={version};\nCOMMIT;"
    )


def _make_private(path: str) -> None:
    """Make folder and file, for this user only: the file holds the key that tasks prove
    themselves with."""
    file = Path(path)
    try:
        if not file.parent.exists():
            file.parent.mkdir(parents=True)
            if file.parent.name.startswith("."):
                (file.parent / ".gitignore").write_text("*\n", "ascii")
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise StoreError(
            f"Tasks cannot be kept in {path}: {error.strerror or error}. Set APPENGINE_COMPAT_DB "
            "to a path that this user may write.",
            path=path,
        ) from error


@contextmanager
def _alone(path: str) -> Iterator[None]:
    """Let one process at a time make, migrate or set aside a file."""
    lock = FileLock(path + "-opening")
    until = time.monotonic() + _OPENING_SECONDS
    while lock.is_supported and not lock.acquire():
        if time.monotonic() > until:
            raise StoreError(
                f"Another process has been opening {path} for {_OPENING_SECONDS:g} seconds: end "
                "that one, then try again.",
                path=path,
            )
        time.sleep(0.01)
    try:
        yield
    finally:
        lock.release()


def _is_corruption(error: sqlite3.Error) -> bool:
    # A full disk or a lock is an OperationalError, a subclass; damage is the class itself.
    return type(error) is sqlite3.DatabaseError and (
        "malformed" in str(error) or "not a database" in str(error)
    )


def _set_aside(path: str, error: sqlite3.Error) -> None:
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    aside = f"{path}.corrupt-{stamp}"
    number = 1
    while Path(aside).exists():
        number += 1
        aside = f"{path}.corrupt-{stamp}-{number}"
    # The log first: beside a new file of the same name it would be taken for that file's own.
    for suffix in ("-wal", "-shm", ""):
        part = Path(path + suffix)
        if part.exists():
            part.rename(aside + suffix)
    _logger.error(
        "%s is damaged (%s). It is kept as %s, and a new, empty database takes its place: tasks "
        "that were waiting in it do not run until they are salvaged, for instance with "
        "sqlite3 %s .recover",
        path,
        error,
        aside,
        aside,
    )
