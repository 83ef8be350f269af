"""The local service's database: one SQLite file, and commits that concurrent callers share.

An operation is a function of the connection. It raises ``ApiError`` before it has written
anything, or not at all; and it may be called twice, since a commit that fails is tried again
operation by operation, so that one caller's fault is not everybody's.

Whoever calls first leads: it runs the operations that wait, commits once for all of them, and
hands the lead to the first that has come meanwhile. Waiting for a thread of the store's own
would cost two switches between threads per call, which is as much as the commit.
"""

from __future__ import annotations

import logging
import os
import secrets
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from appengine_compat.errors import ApiError, StoreError
from appengine_compat.local import forks, store_file

T = TypeVar("T")
Connection = sqlite3.Connection

_BUSY_SECONDS = 30.0
_SECRET_BYTES = 32

_logger = logging.getLogger(__name__)
_leaked_by_fork: list[Store] = []
"""Closing another process's connection could end its write-ahead log under it."""


class _Call(Generic[T]):
    """One operation, and the caller that waits for it."""

    __slots__ = ("error", "is_done", "is_durable", "is_write", "operation", "result", "turn")

    def __init__(
        self, operation: Callable[[Connection], T], is_write: bool, is_durable: bool
    ) -> None:
        self.operation = operation
        self.is_write = is_write
        self.is_durable = is_durable
        self.is_done = False
        self.error: BaseException | None = None
        self.result: T | None = None
        self.turn: threading.Lock | None = None
        """What its caller waits for; None when it leads, or waits for a call beside this one."""

    def taken(self) -> T:
        if self.error is not None:
            raise self.error
        return self.result  # type: ignore[return-value]

    def outcome(self) -> T | Exception:
        error = self.error
        if error is None or isinstance(error, Exception):
            return self.result if error is None else error  # type: ignore[return-value]
        raise error


class Store:
    """An open database. Thread-safe; to be opened anew after a fork.

    Attributes:
        path: the file, or "" for a database in memory.
        secret: random bytes that belong to this database alone.
    """

    def __init__(self, path: str | os.PathLike[str] | None) -> None:
        """Open a database, making it when it is not there.

        Args:
            path: the file; None for one in memory that ends with this object.

        Raises:
            StoreTooNewError: a newer appengine-compat wrote it.
            StoreError: it cannot be opened or made, or is another program's.
        """
        self.path = "" if path is None else str(Path(path).absolute())
        self._process = os.getpid()
        self._mutex = threading.Lock()
        self._waiting: list[_Call[Any]] = []
        self._is_led = False
        self._is_closing = False
        self._is_closed = False
        self._work = forks.Work()
        with self._work:
            self._connection = store_file.open_database(self.path, _BUSY_SECONDS)
        try:
            self.secret = self.write(_secret)
        except BaseException:
            self._connection.close()
            raise

    def write(self, operation: Callable[[Connection], T], *, is_durable: bool = True) -> T:
        """Run an operation in a transaction and return its result once that is on disk.

        Args:
            operation: what to do; it may be called again if its transaction fails.
            is_durable: False for what a loss of power may undo; a killed process may not.

        Raises:
            ApiError: the operation refused.
            StoreError: the database could not be written; nothing of the operation was kept.
        """
        call = _Call(operation, True, is_durable)
        self._run([call])
        return call.taken()

    def write_each(self, operations: Sequence[Callable[[Connection], T]]) -> list[T | Exception]:
        """Run operations that have nothing to do with each other, in one commit if it can be.

        Returns:
            For each, in order: what ``write`` returns, or the exception that it raises.
        """
        calls = [_Call(operation, True, True) for operation in operations]
        if calls:
            self._run(calls)
        return [call.outcome() for call in calls]

    def read(self, operation: Callable[[Connection], T]) -> T:
        """Run an operation that writes nothing.

        Raises:
            ApiError: the operation refused.
            StoreError: the database could not be read.
        """
        call = _Call(operation, False, False)
        self._run([call])
        return call.taken()

    def reserve_log(self) -> None:
        """Give the write-ahead log at once the size that it will have.

        Each commit that makes it longer costs a third more than one that does not. For a program
        that stays; it takes some milliseconds.

        Raises:
            StoreError: the database could not be written.
        """
        if self.path:
            self.read(store_file.reserve_log)

    @property
    def is_busy(self) -> bool:
        """Whether a caller would wait for what another does."""
        return self._is_led

    def data_version(self) -> int:
        """Return a number that changes when another process has written."""
        return self.read(_data_version)

    def close(self) -> None:
        """Close the file; later calls raise ``StoreError``."""
        if os.getpid() != self._process:
            _leaked_by_fork.append(self)
            return

        def close(_connection: Connection) -> None:
            # Not at once: those who came together with this have still to be committed.
            self._is_closing = True

        if not self._is_closed:
            self.read(close)

    def _run(self, calls: Sequence[_Call[Any]]) -> None:
        if os.getpid() != self._process:
            raise StoreError(
                "This database was opened before a fork and cannot be used after it: open it "
                "again in the new process.",
                path=self.path,
            )
        # They wait together, so that who does the first does them all.
        first, turn = calls[0], None
        with self._mutex:
            self._waiting += calls
            if self._is_led:
                turn = first.turn = threading.Lock()
                turn.acquire()
            self._is_led = True
        if turn is not None:
            turn.acquire()
        if not first.is_done:
            self._lead(first)

    def _lead(self, own: _Call[Any]) -> None:
        with self._mutex:
            batch, self._waiting = self._waiting, []
        try:
            with self._work:
                self._execute(batch)
                if self._is_closing and not self._is_closed:
                    self._is_closed = True
                    self._connection.close()
        except BaseException as error:
            for call in batch:
                if not call.is_done:
                    call.error = self._translated(error)
            raise
        finally:
            for call in batch:
                call.is_done = True
            with self._mutex:
                successor = self._waiting[0] if self._waiting else None
                self._is_led = successor is not None
            for call in batch:
                if call is not own and call.turn is not None:
                    call.turn.release()
            if successor is not None and successor.turn is not None:
                successor.turn.release()

    def _execute(self, batch: list[_Call[Any]]) -> None:
        connection = self._connection
        if self._is_closed:
            for call in batch:
                call.error = StoreError("The database is closed.", path=self.path)
            return
        is_write = is_durable = False
        for call in batch:
            is_write |= call.is_write
            is_durable |= call.is_durable
        try:
            if is_write:
                if not is_durable:
                    connection.execute("PRAGMA synchronous=NORMAL")
                connection.execute("BEGIN IMMEDIATE")
            for call in batch:
                call.error = None
                try:
                    call.result = call.operation(connection)
                except ApiError as refusal:
                    call.error = refusal
            if is_write:
                connection.execute("COMMIT")
        except Exception as error:
            self._roll_back()
            if len(batch) == 1:
                batch[0].error = self._translated(error)
                return
            for call in batch:
                self._execute([call])
        except BaseException:
            self._roll_back()
            raise
        finally:
            if is_write and not is_durable and not self._is_closed:
                connection.execute("PRAGMA synchronous=FULL")

    def _roll_back(self) -> None:
        # A full disk or an I/O error may have ended the transaction already.
        if not self._is_closed and self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _translated(self, error: BaseException) -> BaseException:
        if isinstance(error, sqlite3.Error):
            translated: BaseException = store_file.store_error(self.path, error)
            translated.__cause__ = error
            return translated
        return error


def _secret(connection: Connection) -> bytes:
    row = connection.execute("SELECT value FROM meta WHERE key = 'secret'").fetchone()
    if row is not None:
        return bytes(row[0])
    secret = secrets.token_bytes(_SECRET_BYTES)
    connection.execute("INSERT INTO meta VALUES ('secret', ?)", (secret,))
    return secret


def _data_version(connection: Connection) -> int:
    return int(connection.execute("PRAGMA data_version").fetchone()[0])
