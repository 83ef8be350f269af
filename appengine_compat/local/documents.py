"""Small things that the database keeps beside queues and tasks: policies, operations, keys.

A document is bytes under a key. Who writes it knows its form; keys begin with a word for the
kind, so that kinds do not meet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from appengine_compat.core import moments

if TYPE_CHECKING:
    from appengine_compat.local.store import Connection

T = TypeVar("T")

_DROPPED_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class Record(Generic[T]):
    """What a call leaves behind, in the commit of what it did, and what its repetition gets."""

    key: str
    seconds: float
    """How long it is kept."""
    encode: Callable[[Sequence[T], int], bytes]
    """Makes it of the call's results and of the present moment."""


def load(connection: Connection, key: str, now: int) -> bytes | None:
    """Return a document, None when there is none or its time is over."""
    row = connection.execute(
        "SELECT value FROM documents WHERE key = ? AND (expires IS NULL OR expires > ?)",
        (key, now),
    ).fetchone()
    return None if row is None else bytes(row[0])


def save(connection: Connection, key: str, value: bytes, expires: int | None = None) -> None:
    """Keep a document, for good or up to a moment, in place of what was there."""
    connection.execute("INSERT OR REPLACE INTO documents VALUES (?, ?, ?)", (key, value, expires))


def forget(connection: Connection, key: str) -> None:
    """Remove a document; one that is not there is no fault."""
    connection.execute("DELETE FROM documents WHERE key = ?", (key,))


def keep(connection: Connection, record: Record[T], results: Sequence[T], now: int) -> bytes:
    """Keep the record of a call, and return it; some whose time is over make place."""
    connection.execute(
        "DELETE FROM documents WHERE key IN (SELECT key FROM documents WHERE expires <= ? LIMIT ?)",
        (now, _DROPPED_AT_ONCE),
    )
    value = record.encode(results, now)
    save(connection, record.key, value, now + moments.from_seconds(record.seconds))
    return value
