"""What the guestbook remembers: its entries, and what was deferred and has run."""

import contextlib
import os
import sqlite3
import time

SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    id INTEGER PRIMARY KEY, name TEXT, message TEXT, thanked INTEGER DEFAULT 0);
CREATE TABLE IF NOT EXISTS journal (
    id INTEGER PRIMARY KEY, at REAL, what TEXT, place TEXT, attempt TEXT, outcome TEXT);
"""


@contextlib.contextmanager
def database():
    connection = sqlite3.connect(os.environ.get("GUESTBOOK_DB", "guestbook.db"), timeout=10)
    try:
        connection.executescript(SCHEMA)
        with connection:
            yield connection
    finally:
        connection.close()


def sign(name, message):
    with database() as db:
        return db.execute(
            "INSERT INTO entries (name, message) VALUES (?, ?)", (name, message)
        ).lastrowid


def mark_thanked(entry_id):
    with database() as db:
        db.execute("UPDATE entries SET thanked = 1 WHERE id = ?", (entry_id,))


def entries(limit=3):
    with database() as db:
        return db.execute(
            "SELECT name, message, thanked FROM entries ORDER BY id DESC LIMIT ?", (limit,)
        ).fetchall()


def deferred(what, due="now"):
    _write(what, "", "", "deferred, due " + due)


def ran(what, service, outcome="done"):
    """Note what a task did; queue and attempt are where App Engine puts them."""
    queue = os.environ.get("HTTP_X_APPENGINE_QUEUENAME", "?")
    retries = int(os.environ.get("HTTP_X_APPENGINE_TASKRETRYCOUNT", "0"))
    _write(what, service + " / " + queue, str(retries + 1), outcome)


def recent(limit=14):
    with database() as db:
        rows = db.execute(
            "SELECT at, what, place, attempt, outcome FROM journal ORDER BY id DESC LIMIT ?",
            (limit,),
        ).fetchall()
    return [(time.strftime("%H:%M:%S", time.localtime(at)), *rest) for at, *rest in rows]


def _write(what, place, attempt, outcome):
    with database() as db:
        db.execute(
            "INSERT INTO journal (at, what, place, attempt, outcome) VALUES (?, ?, ?, ?, ?)",
            (time.time(), what, place, attempt, outcome),
        )
