"""What ``appengine-compat tasks`` prints of tasks that failed for good."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence

from appengine_compat.cli import lines
from appengine_compat.cli.lines import plain
from appengine_compat.core.names import short_id
from appengine_compat.handler.kept import KeptTask
from appengine_compat.local import kept
from appengine_compat.local.kept import Entry
from appengine_compat.payload import description

_TIME = "%Y-%m-%d %H:%M:%S"
_HEADINGS = ("ID", "KEPT (UTC)", "QUEUE", "WHAT", "ATTEMPTS", "WHY")
_WIDEST = 60
_MODULE = re.compile(r"\A(?:\w+\.)+(?=\w+(?::|\Z))")


def table(entries: Sequence[Entry]) -> Iterator[str]:
    """Yield a heading and a line for each entry; nothing without entries."""
    if not entries:
        return
    rows = [_HEADINGS] + [
        (
            str(entry.number),
            entry.kept_at.strftime(_TIME),
            short_id(entry.queue),
            _cut(what(entry)),
            str(entry.attempts),
            why(entry),
        )
        for entry in entries
    ]
    widths = [max(len(row[place]) for row in rows) for place in range(len(_HEADINGS) - 1)]
    for row in rows:
        cells = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)]
        yield "  ".join([*cells, row[-1]])


def whole(entry: Entry) -> Iterator[str]:
    """Yield all that is known of an entry, a line each."""
    facts = {
        "ID": entry.number,
        "What": what(entry),
        "Why": why(entry),
        "Queue": entry.queue,
        "Task": entry.task_id,
        "Kept (UTC)": entry.kept_at.strftime(_TIME),
        "Attempts": entry.attempts,
        "Service": entry.service or "(an address of its own)",
        "Request": f"{entry.method} {plain(entry.url)}",
        "Payload": f"{len(entry.body):,} bytes",
    }
    width = max(len(name) for name in facts) + 1
    for name, fact in facts.items():
        yield f"{name + ':':<{width}}  {fact}"
    yield "Headers:"
    for name, value in entry.headers.items():
        yield f"  {plain(name)}: {plain(value)}"
    if entry.traceback:
        yield from map(plain, entry.traceback.rstrip("\n").split("\n"))


def what(entry: Entry) -> str:
    """Return the call that an entry is, or its method and path."""
    return lines.what_runs(entry.method, entry.url, entry.body)


def why(entry: Entry) -> str:
    """Return in a few words why it failed."""
    if entry.reason == kept.PERMANENT:
        return _cut(plain(_error(entry)) or "failed for good")
    if entry.reason == kept.EXHAUSTED:
        last = f"status {entry.last_status}" if entry.last_status else "no reply"
        return f"attempts spent, at last {last}"
    if entry.reason == kept.EXPIRED:
        return "older than its queue keeps tasks"
    return entry.reason


def as_task(entry: Entry) -> KeptTask:
    """Return an entry as a log record would tell it."""
    described = description.describe(entry.body)
    return KeptTask(
        function="" if described is None else str(described),
        queue=short_id(entry.queue),
        task_name=entry.task_id,
        service=entry.service,
        method=entry.method,
        url=entry.url,
        headers=entry.headers,
        payload=entry.body,
        payload_sha256=hashlib.sha256(entry.body).hexdigest(),
        payload_bytes=len(entry.body),
        error=_error(entry),
        traceback=entry.traceback,
        attempts=entry.attempts,
        kept_at=entry.kept_at,
    )


def _error(entry: Entry) -> str:
    last = entry.traceback.rstrip("\n").rpartition("\n")[2]
    # The class with its module, as tracebacks have it, would leave no room for the rest.
    return _MODULE.sub("", last)


def _cut(text: str) -> str:
    return text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…"
