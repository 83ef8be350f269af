"""The numbers of Cloud Tasks, and what a stored task weighs.

The size limit is on the *stored, canonical, FULL* task in protobuf's encoding, whatever the
kind of target: 1,048,569 bytes, measured on the real service in August 2026. ``stored_size``
computes it without loading protobuf, which the embedded service never needs.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from appengine_compat.core.model import (
    AppEngineRequest,
    HttpRequest,
    OidcToken,
    RetryOverrides,
    Task,
)

MAX_STORED_TASK_BYTES = 1_048_569
MAX_SCHEDULE_AHEAD_SECONDS = 30 * 86400
MAX_URL_CHARACTERS = 2083
MAX_HTTP_HEADERS_BYTES = 80 * 1024
MAX_BATCH_CREATE = 100
MAX_BATCH_DELETE = 1000

MIN_DISPATCH_DEADLINE_SECONDS = 15.0
MAX_HTTP_DISPATCH_DEADLINE_SECONDS = 1800.0
MAX_APP_ENGINE_DISPATCH_DEADLINE_SECONDS = 24 * 3600.0 + 15.0
DEFAULT_DISPATCH_DEADLINE_SECONDS = 600.0

MAX_RATE = 500.0
MAX_CONCURRENT_DISPATCHES = 5000
MAX_BURST_SIZE = 500
MAX_PAGE_TASKS = 1000
MAX_PAGE_QUEUES = 9800

HTTP_BODY_METHODS = ("POST", "PUT", "PATCH")
APP_ENGINE_BODY_METHODS = ("POST", "PUT")

_MOST_BYTES_OF_CHARACTER = 4
_AROUND_HEADER, _AROUND_TASK = 4, 256


def is_surely_small(task: Task) -> bool:
    """Tell whether a task is so far below the limit that its exact size does not matter.

    Most are, and it takes a tenth of what ``stored_size`` does.
    """
    request = task.request
    if request is None or task.retry_config is not None:
        return False
    if isinstance(request, HttpRequest):
        if request.token is not None:
            return False
        characters = len(request.url)
    else:
        characters = len(request.relative_uri) + len(request.routing.host)
    for name, value in request.headers.items():
        characters += len(name) + len(value) + _AROUND_HEADER
    most = _MOST_BYTES_OF_CHARACTER * (characters + len(task.name)) + _AROUND_TASK
    return most + len(request.body) <= MAX_STORED_TASK_BYTES


def stored_size(task: Task) -> int:
    """Return the bytes that a new task takes as the service stores it.

    The task is one that has passed ``canonical`` form: name, schedule time and create time set,
    the headers that the service adds included.
    """
    size = _text(task.name)
    size += _message(_timestamp(task.schedule_time)) if task.schedule_time else 0
    size += _message(_timestamp(task.create_time)) if task.create_time else 0
    if task.dispatch_deadline_seconds:
        size += _message(_duration(task.dispatch_deadline_seconds))
    if isinstance(task.request, HttpRequest):
        size += _message(_http(task.request))
    elif task.request is not None:
        size += _message(_app_engine(task.request))
    if task.retry_config is not None:
        size += _message(_retry(task.retry_config))
    return size + 2  # view: FULL


def _http(request: HttpRequest) -> int:
    size = _text(request.url) + 2 + _headers(request.headers.items()) + _text(request.body)
    if request.token is not None:
        detail = (
            request.token.audience if isinstance(request.token, OidcToken) else request.token.scope
        )
        size += _message(_text(request.token.service_account_email) + _text(detail))
    return size


def _app_engine(request: AppEngineRequest) -> int:
    return (
        2
        + _text(request.relative_uri)
        + _headers(request.headers.items())
        + _text(request.body)
        # The routing weighs what its host does: service and version are folded into it.
        + _message(_text(request.routing.host))
    )


def _retry(retry: RetryOverrides) -> int:
    size = 0
    for count in (retry.max_attempts, retry.max_doublings):
        if count:
            size += 11 if count < 0 else 1 + _varint(count)
    for seconds in (
        retry.max_retry_duration_seconds,
        retry.min_backoff_seconds,
        retry.max_backoff_seconds,
    ):
        if seconds is not None:
            size += _message(_duration(seconds))
    return size


def _headers(headers: Iterable[tuple[str, str]]) -> int:
    # A map entry always writes its key and its value, empty or not.
    total = 0
    for key, value in headers:
        entry = 0
        for part in (key, value):
            length = len(part.encode())
            entry += 1 + _varint(length) + length
        total += _message(entry)
    return total


def _text(value: str | bytes) -> int:
    if not value:
        return 0
    length = len(value.encode() if isinstance(value, str) else value)
    return 1 + _varint(length) + length


def _message(length: int) -> int:
    return 1 + _varint(length) + length


def _timestamp(moment: datetime) -> int:
    seconds = int(moment.timestamp() // 1)
    nanoseconds = moment.microsecond * 1000
    return _integer(seconds) + _integer(nanoseconds)


def _duration(seconds: float) -> int:
    whole = int(seconds)
    return _integer(whole) + _integer(round((seconds - whole) * 1e9))


def _integer(value: int) -> int:
    return 1 + _varint(value) if value else 0


def _varint(value: int) -> int:
    return max(1, (value.bit_length() + 6) // 7)
