"""Tasks that failed for good are kept: in the local service's database, else in the log.

A payload that cannot be read and a ``PermanentTaskFailure`` are answered 200, so that the queue
does not try again, and the queue forgets the task. Here it is written down first, with all that
is needed to run it again once the cause is mended.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
import threading
import traceback
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any
from urllib.parse import quote

from appengine_compat.core import headers, in_process
from appengine_compat.errors import PayloadError
from appengine_compat.handler import running
from appengine_compat.payload import description

RECORD_KEY = "appengine_compat_kept_task"
PAYLOAD_KEY = "appengine_compat.payload"
"""Where the handler leaves the payload in the WSGI environment."""

ERRORS_KEY = "appengine_compat.permanent_failures"
"""A list in the WSGI environment, of a caller who wants to know what made a task fail for good."""

MAX_RECORD_BYTES = 250_000
"""Cloud Logging refuses entries over 256 KB; the rest is for what its agents add."""

_CARRIED = headers.CARRIED_PREFIX.lower()
_NAMESPACES = frozenset({"x-appengine-current-namespace", "x-appengine-default-namespace"})
# What services, proxies and servers set on their way, and what only they may say.
_OF_THE_TRANSPORT = frozenset(
    {
        "accept-encoding", "connection", "content-length", "forwarded", "function-execution-id",
        "host", "te", "traceparent", "tracestate", "transfer-encoding", "user-agent", "via",
        "x-client-data", "x-cloud-trace-context", "x-real-ip", "x-request-id",
    }
)  # fmt: skip
_OF_THE_TRANSPORT_BEGINNINGS = (
    "x-aec-", "x-appengine-", "x-cloudtasks-", "x-envoy-", "x-forwarded-", "x-goog-", "x-google-",
)  # fmt: skip
_PLAIN_IN_PATHS = "/:@!$&'()*+,;=~"
_MAX_TRACEBACK_CHARACTERS = 16_000
_MAX_HEADERS_CHARACTERS = 16_000
_NEVER_KEPT = frozenset(
    {
        "HTTP_AUTHORIZATION",
        "HTTP_COOKIE",
        "HTTP_PROXY_AUTHORIZATION",
        "HTTP_X_AEC_LOCAL_TOKEN",
        "HTTP_X_AEC_SIGNATURE",
        "HTTP_X_APPENGINE_API_TICKET",
        "HTTP_X_GOOG_IAP_JWT_ASSERTION",
        "HTTP_X_SERVERLESS_AUTHORIZATION",
    }
)

_log = logging.getLogger("appengine_compat.kept")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptTask:
    """A task that failed for good, and what is needed to replay it."""

    function: str
    """What it called, with arguments, read from the payload without executing it; or ""."""
    queue: str
    task_name: str
    url: str
    """Path with query that the task was sent to."""
    service: str = ""
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict)
    """As they arrived; credentials are left out."""
    payload: bytes | None = None
    """None when it was not read, or was too large for the log."""
    payload_sha256: str = ""
    """In hexadecimal digits; "" when it was not read."""
    payload_bytes: int = 0
    """How many bytes the payload has."""
    error: str = ""
    traceback: str = ""
    attempts: int = 0
    """Attempts up to and with the one that failed for good."""
    kept_at: datetime

    @property
    def own_headers(self) -> dict[str, str]:
        """Those of the headers that the task was made with, as far as that can be told."""
        own = {}
        for name, value in self.headers.items():
            lowered = name.lower()
            if lowered.startswith(_CARRIED):
                name, lowered = name[len(_CARRIED) :], lowered[len(_CARRIED) :]
            if lowered in _NAMESPACES or not (
                lowered in _OF_THE_TRANSPORT or lowered.startswith(_OF_THE_TRANSPORT_BEGINNINGS)
            ):
                own[name] = value
        return own

    def to_record(self) -> dict[str, Any]:
        """Return the task as values of JSON; the payload is left out where it does not fit."""
        record: dict[str, Any] = {
            "version": 1,
            "function": self.function,
            "queue": self.queue,
            "task_name": self.task_name,
            "service": self.service,
            "method": self.method,
            "url": self.url,
            "headers": dict(self.headers),
            "error": self.error,
            "traceback": self.traceback,
            "attempts": self.attempts,
            "kept_at": self.kept_at.isoformat(),
            "payload_sha256": self.payload_sha256,
            "payload_bytes": self.payload_bytes,
        }
        if self.payload is not None:
            room = MAX_RECORD_BYTES - len(json.dumps(record)) - 1000
            text = base64.b64encode(self.payload)
            if len(text) <= room:
                record["payload_base64"] = text.decode("ascii")
            else:
                text = base64.b64encode(zlib.compress(self.payload))
                if len(text) <= room:
                    record["payload_zlib_base64"] = text.decode("ascii")
        return record


def from_record(record: Mapping[str, Any]) -> KeptTask:
    """Return the task of a record, as ``to_record`` made it or as a log holds it.

    Args:
        record: the values, or a log entry in which they stand under ``RECORD_KEY``, directly or
            in its ``jsonPayload``, or as text in its ``textPayload`` or ``message``.

    Raises:
        PayloadError: it holds no kept task, or its payload does not fit its hash.
    """
    for outer in ("jsonPayload", "json_payload", "textPayload", "message", RECORD_KEY):
        inner = record.get(outer)
        if isinstance(inner, str) and RECORD_KEY in inner and RECORD_KEY not in record:
            return read_record(inner)
        if isinstance(inner, Mapping):
            record = inner
    if record.get("version") != 1 or "task_name" not in record:
        raise PayloadError(
            "This is no record of a kept task: it has no "
            f"{RECORD_KEY!r} of version 1. Give a log record of appengine-compat, whole."
        )
    payload: bytes | None = None
    try:
        if "payload_base64" in record:
            payload = base64.b64decode(record["payload_base64"], validate=True)
        elif "payload_zlib_base64" in record:
            payload = zlib.decompress(base64.b64decode(record["payload_zlib_base64"]))
    except (ValueError, zlib.error) as error:
        raise PayloadError(f"The payload of this kept task is damaged: {error}.") from error
    digest = str(record.get("payload_sha256", ""))
    if payload is not None and hashlib.sha256(payload).hexdigest() != digest:
        raise PayloadError(
            f"The payload of the kept task {record['task_name']!r} is not the one that was kept: "
            "its SHA-256 differs. The record was changed or cut on its way."
        )
    return KeptTask(
        function=str(record.get("function", "")),
        queue=str(record.get("queue", "")),
        task_name=str(record["task_name"]),
        service=str(record.get("service", "")),
        method=str(record.get("method", "POST")),
        url=str(record.get("url", "")),
        headers=dict(record.get("headers") or {}),
        payload=payload,
        payload_sha256=digest,
        payload_bytes=int(record.get("payload_bytes", 0)),
        error=str(record.get("error", "")),
        traceback=str(record.get("traceback", "")),
        attempts=int(record.get("attempts", 0)),
        kept_at=datetime.fromisoformat(record["kept_at"]),
    )


def read_record(text: str) -> KeptTask:
    """Return the task of a log line, or of a log entry in JSON as ``gcloud logging read`` prints.

    Args:
        text: the line; what stands before its first brace (a level, a logger's name) is ignored.

    Raises:
        PayloadError: it holds no kept task.
    """
    if "{" not in text:
        raise PayloadError(f"This is no record of a kept task: {text[:80]!r} is not JSON.")
    try:
        record, _ = _DECODER.raw_decode(text, text.index("{"))
    except ValueError as error:
        raise PayloadError(f"This is no record of a kept task: {error}.") from error
    return from_record(record)


def read_records(text: str) -> list[KeptTask]:
    """Return the tasks of a log: one record, one a line, or a JSON list of entries.

    Args:
        text: what ``gcloud logging read --format=json`` prints, or lines of any log; lines
            without a record are passed over.

    Raises:
        PayloadError: it holds no record, or one that is damaged.
    """
    try:
        whole = json.loads(text)
    except ValueError:
        lines = [line for line in text.splitlines() if RECORD_KEY in line]
        if not lines:
            return [read_record(text)]
        return [read_record(line) for line in lines]
    entries = whole if isinstance(whole, list) else [whole]
    if not entries or not all(isinstance(entry, Mapping) for entry in entries):
        raise PayloadError("This is no record of a kept task: it is a list without entries.")
    return [from_record(entry) for entry in entries]


_DECODER = json.JSONDecoder()

Callback = Callable[[KeptTask], object]

_callbacks: list[Callback] = []
_lock = threading.Lock()


def on_permanent_failure(callback: Callback) -> Callback:
    """Have a function called with each task that is kept from now on; usable as a decorator.

    It is called in the thread of the request, once the task is safe. What it raises is logged.

    Args:
        callback: takes the ``KeptTask``.

    Returns:
        The function, unchanged.
    """
    with _lock:
        if callback not in _callbacks:
            _callbacks.append(callback)
    return callback


def forget_callback(callback: Callback) -> None:
    """Undo ``on_permanent_failure``; nothing happens when it was not done."""
    with _lock:
        if callback in _callbacks:
            _callbacks.remove(callback)


def keep(environ: Mapping[str, Any], error: BaseException) -> KeptTask:
    """Keep the task of a request that failed for good.

    A task of the embedded service is kept in its database; any other, and one that cannot be
    kept there, goes to the log.

    Args:
        environ: its WSGI environment; the handler has left the payload under ``PAYLOAD_KEY``.
        error: why it failed.

    Returns:
        The task as kept.
    """
    task = _task_of(environ, error)
    running.note_kept(environ)
    told = environ.get(ERRORS_KEY)
    if type(told) is list:
        told.append(error)
    if not _is_in_database(environ, task):
        _log.error("%s", to_log_line(task))
    for callback in tuple(_callbacks):
        _tell(callback, task)
    return task


def _tell(callback: Callback, task: KeptTask) -> None:
    try:
        callback(task)
    except Exception:
        _log.exception(
            "The on_permanent_failure function %r failed for the task %r of the queue %r",
            callback,
            task.task_name,
            task.queue,
        )


def to_log_line(task: KeptTask) -> str:
    """Return one line of JSON that Cloud Logging's agents read as a structured entry."""
    record = task.to_record()
    message = (
        f"Kept the task {task.task_name or '(unnamed)'} of the queue {task.queue or '(unknown)'}, "
        f"which failed for good: {task.function or 'what it calls cannot be read'}: {task.error}"
    )[:2000]
    if task.payload is None or any(key.endswith("base64") for key in record):
        message += " To run it again, give this record to: appengine-compat tasks replay"
    else:
        message += (
            f" Its payload of {task.payload_bytes} bytes is too large for the log, which has its "
            "SHA-256 only: register appengine_compat.on_permanent_failure to store such payloads."
        )
    return json.dumps({"severity": "ERROR", "message": message, RECORD_KEY: record})


def _is_in_database(environ: Mapping[str, Any], task: KeptTask) -> bool:
    attempt = in_process.attempt_of(environ)
    if attempt is None:
        return False
    try:
        if not attempt.keep(task.traceback):
            return False
    except Exception:
        _log.exception(
            "The task %r of the queue %r could not be kept in the database; it goes to the log",
            task.task_name,
            task.queue,
        )
        return False
    _log.info(
        "Kept the task %s of the queue %s, which failed for good: appengine-compat tasks kept",
        task.task_name,
        task.queue,
    )
    return True


def _task_of(environ: Mapping[str, Any], error: BaseException) -> KeptTask:
    payload = environ.get(PAYLOAD_KEY)
    path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    # WSGI holds a path as the bytes that were quoted, one character each.
    path = quote(path.encode("latin-1", "replace"), safe=_PLAIN_IN_PATHS)
    query = environ.get("QUERY_STRING", "")
    described = description.describe(payload) if payload is not None else None
    # What is told of a wrapped error is told of its cause: "invalid load key" and the like.
    cause = error.__cause__ or error
    lines = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    return KeptTask(
        function=str(described) if described is not None else "",
        queue=_task_header(environ, "QUEUENAME"),
        task_name=_task_header(environ, "TASKNAME"),
        service=os.environ.get("GAE_SERVICE") or os.environ.get("K_SERVICE") or "",
        method=environ.get("REQUEST_METHOD", "POST"),
        url=f"{path}?{query}" if query else path,
        headers=_headers(environ),
        payload=payload,
        payload_sha256="" if payload is None else hashlib.sha256(payload).hexdigest(),
        payload_bytes=0 if payload is None else len(payload),
        error=f"{type(cause).__name__}: {cause}"[:2000],
        traceback=lines[-_MAX_TRACEBACK_CHARACTERS:],
        attempts=_attempts(environ),
        kept_at=datetime.now(timezone.utc),
    )


def _task_header(environ: Mapping[str, Any], name: str) -> str:
    value = environ.get("HTTP_X_APPENGINE_" + name) or environ.get("HTTP_X_CLOUDTASKS_" + name)
    return str(value or "")


def _attempts(environ: Mapping[str, Any]) -> int:
    retries = _task_header(environ, "TASKRETRYCOUNT")
    return int(retries) + 1 if retries.isascii() and retries.isdigit() else 1


def _headers(environ: Mapping[str, Any]) -> dict[str, str]:
    room = _MAX_HEADERS_CHARACTERS
    kept = {}
    for key, value in environ.items():
        if key == "CONTENT_TYPE":
            name = "Content-Type"
        elif key.startswith("HTTP_") and key not in _NEVER_KEPT:
            name = key[5:].replace("_", "-").title()
        else:
            continue
        room -= len(name) + len(str(value))
        if room < 0:
            break
        kept[name] = str(value)
    return kept
