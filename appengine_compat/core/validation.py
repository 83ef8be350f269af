"""What Create and Update accept, and the form in which it is stored."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TypeVar
from urllib.parse import urlsplit

from appengine_compat.core import headers, limits, messages, names
from appengine_compat.core.model import (
    UNLIMITED,
    AppEngineRequest,
    AppEngineRouting,
    HttpRequest,
    HttpTarget,
    OAuthToken,
    OidcToken,
    Queue,
    RateLimits,
    RetryConfig,
    Task,
    UriOverride,
)
from appengine_compat.core.names import QueueName
from appengine_compat.core.rate import burst_for_rate

_Message = TypeVar("_Message")

_HORIZON = timedelta(seconds=limits.MAX_SCHEDULE_AHEAD_SECONDS)
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


# --- tasks -----------------------------------------------------------------------------------


def canonical_task(queue: QueueName, task: Task, now: datetime) -> Task:
    """Return a task that is to be created, as it will be stored.

    A missing name is chosen; a schedule time that is missing or past becomes now; output-only
    fields are dropped; the headers that the service adds are there.

    Raises:
        ApiError: INVALID_ARGUMENT with the service's own text: a field is not allowed, or the
            task as stored passes ``limits.MAX_STORED_TASK_BYTES``.
    """
    request = task.request
    if isinstance(request, HttpRequest):
        request = _stored_http(request)
        deadline = task.dispatch_deadline_seconds or limits.DEFAULT_DISPATCH_DEADLINE_SECONDS
        longest, words = limits.MAX_HTTP_DISPATCH_DEADLINE_SECONDS, "30m"
    elif request is not None:
        request = _stored_app_engine(request, queue)
        deadline = task.dispatch_deadline_seconds
        longest, words = limits.MAX_APP_ENGINE_DISPATCH_DEADLINE_SECONDS, "24h15s"
    else:
        raise messages.request_missing()
    if deadline and not limits.MIN_DISPATCH_DEADLINE_SECONDS <= deadline <= longest:
        raise messages.deadline_out_of_range("15s", words)
    stored = Task(
        name=_task_name(queue, task.name),
        request=request,
        schedule_time=_schedule_time(task.schedule_time, now),
        create_time=now.replace(microsecond=0),
        dispatch_deadline_seconds=math.floor(deadline * 1000) / 1000,
        retry_config=task.retry_config,
    )
    if not limits.is_surely_small(stored):
        size = limits.stored_size(stored)
        if size > limits.MAX_STORED_TASK_BYTES:
            raise messages.task_too_large(size)
    return stored


def _task_name(queue: QueueName, name: str) -> str:
    if not name:
        return queue.task(names.automatic_task_id())
    named_queue, _ = names.parse_task_name(name)
    if named_queue != queue:
        raise messages.task_of_other_queue(str(queue), str(named_queue))
    return name


def _schedule_time(wanted: datetime | None, now: datetime) -> datetime:
    if wanted is None or wanted <= now:
        return now
    if wanted - now > _HORIZON:
        raise messages.schedule_too_far(wanted)
    return wanted


def _stored_http(request: HttpRequest) -> HttpRequest:
    if not request.url:
        raise messages.url_missing()
    if not request.url.lower().startswith(("http://", "https://")):
        raise messages.url_scheme_unknown()
    if len(request.url) > limits.MAX_URL_CHARACTERS:
        raise messages.url_too_long(limits.MAX_URL_CHARACTERS)
    if request.token is not None and not _may_carry_token(request.url):
        raise messages.url_not_https()
    method = request.method or "POST"
    if request.body and method not in limits.HTTP_BODY_METHODS:
        raise messages.body_not_allowed("HttpRequest", limits.HTTP_BODY_METHODS)
    _check_headers(request.headers)
    stored = headers.stored_http_headers(request.headers)
    weight = 0
    for name, value in stored.items():
        weight += len(name.encode()) + len(value.encode())
    if weight >= limits.MAX_HTTP_HEADERS_BYTES:
        raise messages.headers_too_large(limits.MAX_HTTP_HEADERS_BYTES)
    return HttpRequest(
        url=request.url, method=method, headers=stored, body=request.body, token=request.token
    )


def _check_headers(given: Mapping[str, str]) -> None:
    for name, value in given.items():
        if not headers.is_one_header(name, value):
            raise messages.header_malformed(name)


def _may_carry_token(url: str) -> bool:
    # Production refuses every http:// address; a local service that could not send a token to
    # the program beside it would leave the verifying side untested.
    if url.lower().startswith("https://"):
        return True
    try:
        return urlsplit(url).hostname in _LOOPBACK
    except ValueError:
        return False


def _stored_app_engine(request: AppEngineRequest, queue: QueueName) -> AppEngineRequest:
    uri = request.relative_uri or "/"
    if not uri.startswith("/") or " " in uri:
        raise messages.relative_uri_malformed()
    if len(uri) > limits.MAX_URL_CHARACTERS:
        raise messages.relative_uri_too_long(limits.MAX_URL_CHARACTERS)
    method = request.method or "POST"
    if request.body and method not in limits.APP_ENGINE_BODY_METHODS:
        raise messages.body_not_allowed("AppEngineHttpRequest", limits.APP_ENGINE_BODY_METHODS)
    _check_headers(request.headers)
    return AppEngineRequest(
        relative_uri=uri,
        method=method,
        headers=headers.stored_app_engine_headers(request.headers, request.body),
        body=request.body,
        routing=routing_with_host(request.routing, queue),
    )


def routing_with_host(routing: AppEngineRouting, queue: QueueName) -> AppEngineRouting:
    """Return a routing with the host that it stands for."""
    parts = (routing.instance, routing.version, routing.service)
    own = f"{queue.project}.{queue.location}.r.appspot.com"
    host = ".".join([*(part for part in parts if part), own])
    return replace(routing, host=host)


# --- queues ----------------------------------------------------------------------------------


def canonical_queue(queue: Queue, *, keeps_burst: bool = False) -> Queue:
    """Return a queue's settings as they are stored: what is 0 takes its default.

    Args:
        queue: the settings as given.
        keeps_burst: whether ``max_burst_size`` is the caller's to set, as it is for queue.yaml;
            in v2 it follows from the rate.

    Raises:
        ApiError: INVALID_ARGUMENT with the service's own text: a setting is out of range.
    """
    rates, retry = queue.rate_limits, queue.retry_config
    if keeps_burst and not 0 <= rates.max_burst_size <= limits.MAX_BURST_SIZE:
        raise messages.setting_invalid(
            f"RateLimits.maxBurstSize must be between 0 and {limits.MAX_BURST_SIZE}."
        )
    for is_wrong, text in _QUEUE_RULES:
        if is_wrong(rates, retry):
            raise messages.setting_invalid(text)
    default_rates, default_retry = RateLimits(), RetryConfig()
    rate = rates.max_dispatches_per_second or default_rates.max_dispatches_per_second
    return replace(
        queue,
        rate_limits=RateLimits(
            max_dispatches_per_second=rate,
            max_burst_size=(rates.max_burst_size if keeps_burst else 0) or burst_for_rate(rate),
            max_concurrent_dispatches=rates.max_concurrent_dispatches
            or default_rates.max_concurrent_dispatches,
        ),
        retry_config=replace(
            retry,
            max_attempts=retry.max_attempts or default_retry.max_attempts,
            max_retry_duration_seconds=float(math.floor(retry.max_retry_duration_seconds)),
        ),
        http_target=_checked_http_target(queue.http_target),
    )


_QUEUE_RULES: tuple[tuple[Callable[[RateLimits, RetryConfig], bool], str], ...] = (
    (
        lambda rates, _: rates.max_dispatches_per_second < 0,
        "RateLimits.maxDispatchesPerSecond cannot be negative.",
    ),
    (
        lambda rates, _: not rates.max_dispatches_per_second <= limits.MAX_RATE,
        "RateLimits.maxDispatchesPerSecond must be less than or equal to 500.",
    ),
    (
        lambda rates, _: rates.max_concurrent_dispatches < 0,
        "RateLimits.maxConcurrentDispatches cannot be negative.",
    ),
    (
        lambda rates, _: rates.max_concurrent_dispatches > limits.MAX_CONCURRENT_DISPATCHES,
        "RateLimits.maxConcurrentDispatches must be less than or equal to 5000.",
    ),
    (
        lambda _, retry: retry.max_attempts < UNLIMITED,
        "RetryConfig.maxAttempts must be greater or equal to -1.",
    ),
    (
        lambda _, retry: retry.max_doublings < 0,
        "RetryConfig.maxDoublings cannot be negative.",
    ),
    (
        lambda _, retry: retry.min_backoff_seconds < 0,
        "RetryConfig.minBackoff cannot be negative.",
    ),
    (
        lambda _, retry: not retry.min_backoff_seconds <= retry.max_backoff_seconds,
        "RetryConfig.minBackoff must be less than or equal to RetryConfig.maxBackoff.",
    ),
    (
        lambda _, retry: retry.max_retry_duration_seconds < 0,
        "RetryConfig.maxRetryDuration cannot be negative.",
    ),
)


def _checked_http_target(target: HttpTarget | None) -> HttpTarget | None:
    if target is not None and target.uri_override is not None and target.uri_override.host == "":
        raise messages.setting_invalid("UriOverride.host cannot be empty.")
    return target


# Mask paths, as a FieldMask writes them, to the field of the model that they stand for.
_WHOLE = {
    "rate_limits": "rate_limits",
    "retry_config": "retry_config",
    "app_engine_routing_override": "app_engine_routing_override",
    "app_engine_http_queue": "app_engine_routing_override",
    "app_engine_http_queue.app_engine_routing_override": "app_engine_routing_override",
    "http_target": "http_target",
    "stackdriver_logging_config": "log_sampling_ratio",
    "stackdriver_logging_config.sampling_ratio": "log_sampling_ratio",
}
_PARTS = {
    "rate_limits.max_dispatches_per_second": "max_dispatches_per_second",
    "rate_limits.max_burst_size": "max_burst_size",
    "rate_limits.max_concurrent_dispatches": "max_concurrent_dispatches",
    "retry_config.max_attempts": "max_attempts",
    "retry_config.max_retry_duration": "max_retry_duration_seconds",
    "retry_config.min_backoff": "min_backoff_seconds",
    "retry_config.max_backoff": "max_backoff_seconds",
    "retry_config.max_doublings": "max_doublings",
}
_HTTP_TARGET_PARTS = {
    "http_target.uri_override": "uri_override",
    "http_target.http_method": "method",
    "http_target.header_overrides": "header_overrides",
}
_URI_PARTS = {
    "scheme": "scheme",
    "host": "host",
    "port": "port",
    "path_override": "path",
    "path_override.path": "path",
    "query_override": "query",
    "query_override.query_params": "query",
    "uri_override_enforce_mode": "mode",
}
_TOKEN_PARTS: dict[str, tuple[type[OidcToken] | type[OAuthToken], str]] = {
    "oidc_token": (OidcToken, ""),
    "oauth_token": (OAuthToken, ""),
    "oidc_token.service_account_email": (OidcToken, "service_account_email"),
    "oidc_token.audience": (OidcToken, "audience"),
    "oauth_token.service_account_email": (OAuthToken, "service_account_email"),
    "oauth_token.scope": (OAuthToken, "scope"),
}
_ROUTING_PREFIXES = (
    "app_engine_http_queue.app_engine_routing_override.",
    "app_engine_routing_override.",
)
_ROUTING_PARTS = frozenset({"service", "version", "instance", "host"})
_NOT_UPDATABLE = frozenset({"name", "state", "purge_time", "type", "stats"})
EVERYTHING = tuple(dict.fromkeys(path for path in _WHOLE if "." not in path))
"""What an update without a mask changes."""


def updated_queue(current: Queue, given: Queue, mask: Iterable[str] = ()) -> Queue:
    """Return a queue's settings after an update, not yet canonical.

    Args:
        current: the settings as they are.
        given: the settings that the caller sends; a field that it leaves out has its default.
        mask: snake_case paths of what is to change, messages or leaves; empty for everything.
            Output-only fields are passed over.

    Raises:
        ApiError: INVALID_ARGUMENT: a path names no field of a queue.
    """
    changed = current
    for path in tuple(mask) or EVERYTHING:
        if path in _WHOLE:
            changed = _with(changed, _WHOLE[path], getattr(given, _WHOLE[path]))
        elif path in _PARTS:
            message = path.partition(".")[0]
            value = getattr(getattr(given, message), _PARTS[path])
            changed = _with(changed, message, _with(getattr(changed, message), _PARTS[path], value))
        elif path.startswith("http_target."):
            changed = _with_http_target(changed, given, path)
        elif path.startswith(_ROUTING_PREFIXES):
            changed = _with_routing(changed, given, path)
        elif path == "task_ttl":
            changed = _with(changed, "task_ttl_seconds", given.task_ttl_seconds)
        elif path == "tombstone_ttl":
            changed = _with(changed, "tombstone_ttl_seconds", given.tombstone_ttl_seconds)
        elif path not in _NOT_UPDATABLE:
            raise messages.mask_path_unknown(path)
    return changed


def _with_routing(changed: Queue, given: Queue, path: str) -> Queue:
    part = path.rpartition(".")[2]
    if part not in _ROUTING_PARTS or f"{path.removesuffix(part)}" not in _ROUTING_PREFIXES:
        raise messages.mask_path_unknown(path)
    routing = changed.app_engine_routing_override or AppEngineRouting()
    value = getattr(given.app_engine_routing_override or AppEngineRouting(), part)
    routing = _with(routing, part, value)
    return replace(
        changed, app_engine_routing_override=routing if routing != AppEngineRouting() else None
    )


def _with_token(target: HttpTarget, source: HttpTarget, part: str) -> HttpTarget:
    kind, name = _TOKEN_PARTS[part]
    nothing = kind(service_account_email="")
    given = source.token if isinstance(source.token, kind) else nothing
    current = target.token if isinstance(target.token, kind) else nothing
    token = _with(current, name, getattr(given, name)) if name else given
    if token != nothing:
        return replace(target, token=token)
    # Clearing a token of one kind leaves one of the other.
    return replace(target, token=None) if isinstance(target.token, kind) else target


def _with_http_target(changed: Queue, given: Queue, path: str) -> Queue:
    target = changed.http_target or HttpTarget()
    source = given.http_target or HttpTarget()
    part = path.removeprefix("http_target.")
    if path in _HTTP_TARGET_PARTS:
        name = _HTTP_TARGET_PARTS[path]
        target = _with(target, name, getattr(source, name))
    elif part in _TOKEN_PARTS:
        target = _with_token(target, source, part)
    else:
        uri_part = _URI_PARTS.get(part.removeprefix("uri_override."))
        if uri_part is None or not part.startswith("uri_override."):
            raise messages.mask_path_unknown(path)
        uri = target.uri_override or UriOverride()
        value = getattr(source.uri_override or UriOverride(), uri_part)
        uri = _with(uri, uri_part, value)
        target = replace(target, uri_override=uri if uri != UriOverride() else None)
    return replace(changed, http_target=target if target != HttpTarget() else None)


def _with(message: _Message, field: str, value: object) -> _Message:
    return replace(message, **{field: value})  # type: ignore[type-var]


def headers_with_overrides(own: Mapping[str, str], overrides: Mapping[str, str]) -> dict[str, str]:
    """Return a task's headers with a queue's put over them; names compare without case."""
    replaced = {name.lower() for name in overrides}
    kept = {name: value for name, value in own.items() if name.lower() not in replaced}
    return {**kept, **overrides}
