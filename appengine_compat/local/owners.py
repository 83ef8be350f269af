"""Which processes dispatch from a database, and which of them are dead.

An owner holds a lock on a file of its own beside the database. The operating system lets go of
it when the process ends, however it ends, so that its claims can be released at once. Where the
file system has no locks, an owner writes down every few seconds that it lives.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from appengine_compat.core import moments
from appengine_compat.local import claims
from appengine_compat.local.locks import FileLock

if TYPE_CHECKING:
    from appengine_compat.local.store import Connection, Store

LEASE_SECONDS = 30.0
"""Without locks: an owner not heard of for so long is dead."""
RENEW_SECONDS = 5.0


class Owner:
    """This process's right to claim tasks of one database."""

    def __init__(self, store: Store, services: Iterable[str], now: int) -> None:
        self.number = secrets.randbelow(2**31 - 2) + 1
        self._store = store
        self._lock = FileLock(_lock_path(store.path, self.number)) if store.path else None
        self.is_locked = self._lock is not None and self._lock.acquire()
        self._services = _services_text(services)
        self.renewed_at = now
        self._enter(now)

    def _enter(self, now: int, *, is_durable: bool = False) -> None:
        row = (self.number, os.getpid(), self._services, self.is_locked, now)
        self._store.write(
            lambda connection: connection.execute(
                "INSERT OR REPLACE INTO owners VALUES (?, ?, ?, ?, ?)", row
            ),
            is_durable=is_durable,
        )

    def renew(self, services: Iterable[str], now: int, *, is_durable: bool = False) -> None:
        """Write down that this owner lives, and which services it serves."""
        self._services = _services_text(services)
        self.renewed_at = now
        self._enter(now, is_durable=is_durable)

    def leave(self) -> None:
        """Give the right up, and release what is still claimed."""
        self._store.write(partial(_remove, number=self.number))
        self.let_go()

    def let_go(self) -> None:
        """Let go of the lock alone."""
        if self._lock is not None:
            self._lock.release()
            _unlink(self._lock.path)


def release_dead(store: Store, own: int, now: int) -> int:
    """Release the claims of owners that are no more; return how many tasks that were."""
    rows = store.read(
        lambda connection: connection.execute(
            "SELECT id, is_locked, seen_at FROM owners WHERE id <> ?", (own,)
        ).fetchall()
    )
    released = 0
    for number, is_locked, seen_at in rows:
        lock = FileLock(_lock_path(store.path, number))
        if is_locked:
            if not lock.acquire():
                continue
        elif now - seen_at < moments.from_seconds(LEASE_SECONDS):
            continue
        released += store.write(partial(_remove, number=number))
        lock.release()
        _unlink(lock.path)
    return released


def services_of_all(connection: Connection) -> set[str]:
    """Return the services that any owner serves."""
    rows = connection.execute("SELECT services FROM owners").fetchall()
    return {service for (text,) in rows for service in json.loads(text)}


def _remove(connection: Connection, number: int) -> int:
    connection.execute("DELETE FROM owners WHERE id = ?", (number,))
    return claims.release_owner(connection, number)


def _services_text(services: Iterable[str]) -> str:
    return json.dumps(sorted(services))


def _lock_path(path: str, number: int) -> str:
    return f"{path}-owner-{number}"


def _unlink(path: str) -> None:
    try:
        Path(path).unlink()
    except OSError:  # another process has cleared it away
        pass
