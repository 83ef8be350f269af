"""Queues and tasks as rows, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from appengine_compat.core import moments, outcome
from appengine_compat.core.headers import Family
from appengine_compat.core.model import (
    AppEngineRequest,
    AppEngineRouting,
    Attempt,
    EnforceMode,
    HttpRequest,
    HttpTarget,
    OAuthToken,
    OidcToken,
    Queue,
    QueueState,
    RateLimits,
    RetryConfig,
    RetryOverrides,
    Task,
    UriOverride,
)

if TYPE_CHECKING:
    from appengine_compat.local.store import Connection

INLINE_BODY_BYTES = 4096
"""Longer bodies are stored apart."""

DEFAULT_SERVICE = "default"
HTTP_SERVICE = ""
"""Stands in the column ``service`` of tasks that go to an address of their own."""

TASK_COLUMNS = (
    "id, service, due, created, method, url, deadline_ms, dispatches, responses, first_dispatch, "
    "last_schedule, last_dispatch, last_response, last_status, headers, extra, "
    "coalesce(body, (SELECT b.body FROM bodies b WHERE b.task = tasks.seq))"
)
_LONG_COLUMNS = (5, 14, 15, 16)
"""Of these: url, headers, extra, body."""
_AROUND_TASK_BYTES = 1024
"""At most for the rest: names, times, attempts."""
BODILESS_TASK_COLUMNS = TASK_COLUMNS.partition("coalesce")[0] + "NULL"
"""The same, for whoever does not look at bodies, which may be long and many."""

_dumps = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


# --- headers -----------------------------------------------------------------------------------


def headers_text(headers: Mapping[str, str]) -> str:
    """Return headers as a column holds them; order and spelling are kept."""
    return _headers_text(tuple(headers.items()))


@lru_cache(maxsize=512)
def _headers_text(headers: tuple[tuple[str, str], ...]) -> str:
    return _dumps(dict(headers))


@lru_cache(maxsize=512)
def headers_of(text: str) -> Mapping[str, str]:
    """Return the headers that a column holds. Most tasks of a queue have the same ones."""
    return MappingProxyType(json.loads(text))


# --- tasks -------------------------------------------------------------------------------------


def service_of(task: Task) -> str:
    """Return the service that a task goes to, or ``HTTP_SERVICE``."""
    if isinstance(task.request, AppEngineRequest):
        return task.request.routing.service or DEFAULT_SERVICE
    return HTTP_SERVICE


def extra_text(task: Task) -> str | None:
    """Return as JSON what only some tasks have, or None when this one has none of it."""
    extra: dict[str, Any] = {}
    if isinstance(task.request, AppEngineRequest):
        routing = task.request.routing
        for key in ("service", "version", "instance"):
            if getattr(routing, key):
                extra[key] = getattr(routing, key)
        if routing.host:
            extra["host"] = routing.host
    elif task.request is not None and task.request.token is not None:
        extra["token"] = _token_fields(task.request.token)
    if task.retry_config is not None:
        extra["retry"] = asdict(task.retry_config)
    return _dumps(extra) if extra else None


@lru_cache(maxsize=512)
def _extra(text: str) -> Mapping[str, Any]:
    return MappingProxyType(json.loads(text))


def extra_of(text: str | None) -> Mapping[str, Any]:
    """Return what ``extra_text`` wrote."""
    return _extra(text) if text else MappingProxyType({})


def retry_of(extra: Mapping[str, Any]) -> RetryOverrides | None:
    """Return the retry settings of the task itself."""
    fields = extra.get("retry")
    return None if fields is None else RetryOverrides(**fields)


def routing_of(extra: Mapping[str, Any]) -> AppEngineRouting:
    """Return the routing that the task asks for."""
    return AppEngineRouting(
        service=extra.get("service", ""),
        version=extra.get("version", ""),
        instance=extra.get("instance", ""),
        host=extra.get("host", ""),
    )


def token_of(extra: Mapping[str, Any]) -> OidcToken | OAuthToken | None:
    """Return the token that the task asks for."""
    fields = extra.get("token")
    if fields is None:
        return None
    if "scope" in fields:
        return OAuthToken(**fields)
    return OidcToken(**fields)


def _token_fields(token: OidcToken | OAuthToken) -> dict[str, str]:
    return asdict(token)


def task_of(row: tuple[Any, ...], queue_name: str) -> Task:
    """Return the task of a row of ``TASK_COLUMNS``, in the FULL view."""
    (
        task_id,
        service,
        due,
        created,
        method,
        url,
        deadline_ms,
        dispatches,
        responses,
        first_dispatch,
        last_schedule,
        last_dispatch,
        last_response,
        last_status,
        headers,
        extra_json,
        body,
    ) = row
    extra = extra_of(extra_json)
    request: HttpRequest | AppEngineRequest
    if service == HTTP_SERVICE:
        family = Family.HTTP
        request = HttpRequest(
            url=url,
            method=method,
            headers=headers_of(headers),
            body=body or b"",
            token=token_of(extra),
        )
    else:
        family = Family.APP_ENGINE
        request = AppEngineRequest(
            relative_uri=url,
            method=method,
            headers=headers_of(headers),
            body=body or b"",
            routing=routing_of(extra),
        )
    task = Task(
        name=f"{queue_name}/tasks/{task_id}",
        request=request,
        schedule_time=moments.to_datetime(due),
        create_time=moments.to_datetime(created),
        dispatch_deadline_seconds=deadline_ms / 1000,
        retry_config=retry_of(extra),
    )
    if not dispatches:
        return task
    return replace(
        task,
        dispatch_count=dispatches,
        response_count=responses,
        first_attempt=Attempt(dispatch_time=moments.to_datetime(first_dispatch)),
        last_attempt=_last_attempt(
            family, last_schedule, last_dispatch, last_response, last_status
        ),
    )


def _last_attempt(
    family: Family, schedule: int, dispatch: int, response: int | None, status: int | None
) -> Attempt:
    attempt = Attempt(
        schedule_time=moments.to_datetime(schedule), dispatch_time=moments.to_datetime(dispatch)
    )
    if status is None:
        return attempt
    return replace(
        attempt,
        response_time=None if response is None else moments.to_datetime(response),
        response_code=outcome.canonical_code(status),
        response_message=outcome.status_message(family, status),
    )


def weight(row: tuple[Any, ...]) -> int:
    """Return about how many bytes the task of a row of ``TASK_COLUMNS`` takes in an answer."""
    size = _AROUND_TASK_BYTES
    for at in _LONG_COLUMNS:
        value = row[at] or b""
        size += len(value.encode()) if isinstance(value, str) else len(value)
    return size


# --- queues ------------------------------------------------------------------------------------


def settings_text(queue: Queue) -> str:
    """Return a queue's settings as JSON: all but its name, state and purge time."""
    fields = asdict(queue)
    for apart in ("name", "state", "purge_time"):
        del fields[apart]
    target = queue.http_target
    if target is not None:
        if target.token is not None:
            fields["http_target"]["token"] = _token_fields(target.token)
        if target.uri_override is not None:
            fields["http_target"]["uri_override"]["mode"] = target.uri_override.mode.value
        fields["http_target"]["header_overrides"] = dict(target.header_overrides)
    return _dumps(fields)


def queue_of(name: str, state: str, settings: str, purge_time: int | None) -> Queue:
    """Return the queue of a row."""
    fields = json.loads(settings)
    routing = fields.pop("app_engine_routing_override")
    return Queue(
        name=name,
        state=QueueState(state),
        purge_time=None if purge_time is None else moments.to_datetime(purge_time),
        rate_limits=RateLimits(**fields.pop("rate_limits")),
        retry_config=RetryConfig(**fields.pop("retry_config")),
        app_engine_routing_override=None if routing is None else AppEngineRouting(**routing),
        http_target=_http_target(fields.pop("http_target")),
        **fields,
    )


def _http_target(fields: dict[str, Any] | None) -> HttpTarget | None:
    if fields is None:
        return None
    uri = fields["uri_override"]
    if uri is not None:
        uri = UriOverride(**{**uri, "mode": EnforceMode(uri["mode"])})
    return HttpTarget(
        uri_override=uri,
        method=fields["method"],
        header_overrides=fields["header_overrides"],
        token=token_of(fields) if fields["token"] else None,
    )


def load_queue(connection: Connection, name: str) -> tuple[int, Queue] | None:
    """Return a queue's number in this database and its settings, or None."""
    row = connection.execute(
        "SELECT id, name, state, settings, purge_time FROM queues WHERE name = ?", (name,)
    ).fetchone()
    return None if row is None else (row[0], queue_of(*row[1:]))
