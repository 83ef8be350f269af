"""Queues between the model and protobuf, v2's and v2beta3's."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from appengine_compat.core import messages, names, validation
from appengine_compat.core.model import (
    EnforceMode,
    HttpTarget,
    Queue,
    QueueStats,
    RateLimits,
    RetryConfig,
    UriOverride,
)
from appengine_compat.local.fronts import task_messages, values
from appengine_compat.local.fronts.versions import Version

_SCHEMES: dict[int, str] = {0: "", 1: "HTTP", 2: "HTTPS"}
_SCHEME_NUMBERS = {name: number for number, name in _SCHEMES.items()}
_MODES = {0: EnforceMode.UNSPECIFIED, 1: EnforceMode.IF_NOT_EXISTS, 2: EnforceMode.ALWAYS}
_MODE_NUMBERS = {mode: number for number, mode in _MODES.items()}
_PULL = 1
_PUSH = 2


def read_queue(version: Version, message: Any, mask: Collection[str] = ()) -> Queue:
    """Return the queue that a message describes. What only the service may set is passed over.

    Args:
        version: whose message it is.
        message: the message.
        mask: the paths of an update, which tell a count of 0 that is meant from one left out.

    Raises:
        ApiError: INVALID_ARGUMENT: a value is out of range, or it is a pull queue.
    """
    ttls: dict[str, Any] = {}
    routing = None
    if version.is_beta:
        if message.type_ == _PULL:
            raise messages.pull_queue_refused()
        if message.app_engine_http_queue.HasField("app_engine_routing_override"):
            routing = message.app_engine_http_queue.app_engine_routing_override
        for field in ("task_ttl", "tombstone_ttl"):
            if message.HasField(field):
                duration = getattr(message, field)
                ttls[f"{field}_seconds"] = values.seconds(duration, f"Queue.{field}")
    elif message.HasField("app_engine_routing_override"):
        routing = message.app_engine_routing_override
    ratio = None
    if message.HasField("stackdriver_logging_config"):
        ratio = message.stackdriver_logging_config.sampling_ratio
    return Queue(
        name=message.name,
        rate_limits=_read_rates(message.rate_limits),
        retry_config=_read_retry(message.retry_config, mask),
        app_engine_routing_override=task_messages.read_routing(routing) if routing else None,
        http_target=_read_target(message.http_target) if message.HasField("http_target") else None,
        log_sampling_ratio=ratio,
        **ttls,
    )


def _read_rates(message: Any) -> RateLimits:
    return RateLimits(
        max_dispatches_per_second=message.max_dispatches_per_second,
        max_burst_size=message.max_burst_size,
        max_concurrent_dispatches=message.max_concurrent_dispatches,
    )


def _read_retry(message: Any, mask: Collection[str]) -> RetryConfig:
    default = RetryConfig()
    # Counts have no presence in proto3: 0 is left out, unless the mask names this very field.
    names_doublings = "retry_config.max_doublings" in mask
    durations = {
        f"{field}_seconds": values.seconds(getattr(message, field), f"RetryConfig.{field}")
        for field in ("max_retry_duration", "min_backoff", "max_backoff")
        if message.HasField(field)
    }
    return RetryConfig(
        max_attempts=message.max_attempts,
        max_doublings=message.max_doublings
        if message.max_doublings or names_doublings
        else default.max_doublings,
        **durations,
    )


def _read_target(message: Any) -> HttpTarget:
    override = None
    if message.HasField("uri_override"):
        override = _read_override(message.uri_override)
    return HttpTarget(
        uri_override=override,
        method=values.method_name(message.http_method, "HttpTarget.httpMethod"),
        header_overrides={each.header.key: each.header.value for each in message.header_overrides},
        token=task_messages.read_token(message),
    )


def _read_override(message: Any) -> UriOverride:
    scheme = _SCHEMES.get(message.scheme)
    mode = _MODES.get(message.uri_override_enforce_mode)
    if scheme is None or mode is None:
        raise messages.setting_invalid("UriOverride has an unknown scheme or enforce mode.")
    return UriOverride(
        scheme=(scheme or "HTTPS") if message.HasField("scheme") else None,
        host=message.host if message.HasField("host") else None,
        port=message.port if message.HasField("port") else None,
        path=message.path_override.path if message.HasField("path_override") else None,
        query=message.query_override.query_params if message.HasField("query_override") else None,
        mode=mode,
    )


def write_queue(version: Version, queue: Queue, stats: QueueStats | None = None) -> Any:
    """Return a queue's message.

    Args:
        version: whose message it shall be.
        queue: the queue.
        stats: what it is doing; only v2beta3 has a place for it.
    """
    message = version.queue(name=queue.name, state=queue.state.value)
    rates, retry = queue.rate_limits, queue.retry_config
    message.rate_limits.max_dispatches_per_second = rates.max_dispatches_per_second
    message.rate_limits.max_burst_size = rates.max_burst_size
    message.rate_limits.max_concurrent_dispatches = rates.max_concurrent_dispatches
    message.retry_config.max_attempts = retry.max_attempts
    message.retry_config.max_doublings = retry.max_doublings
    if retry.max_retry_duration_seconds:
        values.write_seconds(
            message.retry_config.max_retry_duration, retry.max_retry_duration_seconds
        )
    values.write_seconds(message.retry_config.min_backoff, retry.min_backoff_seconds)
    values.write_seconds(message.retry_config.max_backoff, retry.max_backoff_seconds)
    if queue.purge_time is not None:
        values.write_moment(message.purge_time, queue.purge_time)
    if queue.log_sampling_ratio is not None:
        message.stackdriver_logging_config.sampling_ratio = queue.log_sampling_ratio
        message.stackdriver_logging_config.SetInParent()
    if queue.http_target is not None:
        _write_target(message.http_target, queue.http_target)
    routing = queue.app_engine_routing_override
    if routing is not None and names.QUEUE_NAME.match(queue.name):
        # By its host, gcloud tells whether a queue.yaml changes a queue's target.
        routing = validation.routing_with_host(routing, names.parse_queue_name(queue.name))
    if version.is_beta:
        message.type_ = _PUSH
        message.app_engine_http_queue.SetInParent()
        if routing is not None:
            override = message.app_engine_http_queue.app_engine_routing_override
            task_messages.write_routing(override, routing)
        values.write_seconds(message.task_ttl, queue.task_ttl_seconds)
        values.write_seconds(message.tombstone_ttl, queue.tombstone_ttl_seconds)
        if stats is not None:
            _write_stats(message.stats, stats)
    elif routing is not None:
        task_messages.write_routing(message.app_engine_routing_override, routing)
        message.app_engine_routing_override.SetInParent()
    return message


def _write_target(message: Any, target: HttpTarget) -> None:
    message.SetInParent()
    message.http_method = values.method_number(target.method)
    for key, value in target.header_overrides.items():
        header = message.header_overrides.add().header
        header.key, header.value = key, value
    task_messages.write_token(message, target.token)
    override = target.uri_override
    if override is None:
        return
    uri = message.uri_override
    uri.SetInParent()
    # What is None must stay unset: an empty path clears a task's, an absent one leaves it.
    if override.scheme is not None:
        uri.scheme = _SCHEME_NUMBERS[override.scheme]
    if override.host is not None:
        uri.host = override.host
    if override.port is not None:
        uri.port = override.port
    if override.path is not None:
        uri.path_override.path = override.path
        uri.path_override.SetInParent()
    if override.query is not None:
        uri.query_override.query_params = override.query
        uri.query_override.SetInParent()
    uri.uri_override_enforce_mode = _MODE_NUMBERS[override.mode]


def _write_stats(message: Any, stats: QueueStats) -> None:
    message.SetInParent()
    message.tasks_count = stats.tasks_count
    if stats.oldest_arrival_time is not None:
        values.write_moment(message.oldest_estimated_arrival_time, stats.oldest_arrival_time)
    message.executed_last_minute_count = stats.executed_last_minute_count
    message.concurrent_dispatches_count = stats.concurrent_dispatches_count
    message.effective_execution_rate = stats.effective_execution_rate
