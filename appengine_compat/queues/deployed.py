"""What becomes of a queue.yaml when it is deployed: its entries as queues of Cloud Tasks.

``gcloud app deploy queue.yaml`` takes a written 0 for a value that is not there, in all places
but ``task_retry_limit``: ``max_doublings: 0`` is deployed as 16. What runs here is what would
run there, so the same is done, with a warning that names the value.
"""

from __future__ import annotations

import logging

from appengine_compat.core.limits import MAX_CONCURRENT_DISPATCHES
from appengine_compat.core.model import (
    UNLIMITED,
    AppEngineRouting,
    Queue,
    QueueState,
    RateLimits,
    RetryConfig,
)
from appengine_compat.queues.queue_yaml import QueueEntry, QueueFile, RetryParameters

DEFAULT_BUCKET_SIZE = 5
DEFAULT_CONCURRENCY = 1000
TASK_TTL_SECONDS = 3650 * 86400.0
TOMBSTONE_TTL_SECONDS = 9 * 86400.0

_log = logging.getLogger(__name__)
_DEFAULTS = RetryConfig()


def deployed_queues(file: QueueFile, parent: str) -> list[Queue]:
    """Return the file's queues, in its order, as they stand once deployed.

    Pull queues are left out, with a warning.

    Args:
        file: what ``queue_yaml.read`` gave.
        parent: ``projects/P/locations/L``.
    """
    queues = []
    for entry in file.queues:
        if entry.is_pull:
            _log.warning(
                "%s:%d: queue %r is a pull queue; Cloud Tasks has none, so it is left out. "
                "Pub/Sub takes their place.",
                file.path,
                entry.line,
                entry.name,
            )
            continue
        for setting, written, used in _deployed_otherwise(entry):
            _log.warning(
                "%s:%d: queue %r: '%s: %g' is deployed as %g, so %g is used here as well. "
                "Write that, or another value.",
                file.path,
                entry.line,
                entry.name,
                setting,
                written,
                used,
                used,
            )
        queues.append(deployed_queue(entry, parent))
    return queues


def deployed_queue(entry: QueueEntry, parent: str) -> Queue:
    """Return one push entry as the queue that its deployment makes.

    A rate of 0 makes a paused queue.
    """
    return Queue(
        name=f"{parent}/queues/{entry.name}",
        rate_limits=RateLimits(
            max_dispatches_per_second=entry.rate or 0.0,
            max_burst_size=entry.bucket_size or DEFAULT_BUCKET_SIZE,
            max_concurrent_dispatches=_concurrency(entry.max_concurrent_requests),
        ),
        retry_config=_retry_config(entry.retry_parameters),
        state=QueueState.RUNNING if entry.rate else QueueState.PAUSED,
        app_engine_routing_override=_routing(entry.target),
        task_ttl_seconds=TASK_TTL_SECONDS,
        tombstone_ttl_seconds=TOMBSTONE_TTL_SECONDS,
    )


def _concurrency(requests: int | None) -> int:
    return max(1, min(requests or DEFAULT_CONCURRENCY, MAX_CONCURRENT_DISPATCHES))


def _retry_config(retry: RetryParameters) -> RetryConfig:
    minimum = retry.min_backoff_seconds or _DEFAULTS.min_backoff_seconds
    maximum = retry.max_backoff_seconds or _DEFAULTS.max_backoff_seconds
    if minimum > maximum:
        # Only one of the two was given and passes the other's default: the other follows it.
        if retry.min_backoff_seconds:
            maximum = minimum
        else:
            minimum = maximum
    return RetryConfig(
        max_attempts=UNLIMITED if retry.task_retry_limit is None else retry.task_retry_limit + 1,
        max_retry_duration_seconds=float(retry.task_age_limit_seconds or 0),
        min_backoff_seconds=minimum,
        max_backoff_seconds=maximum,
        max_doublings=retry.max_doublings or _DEFAULTS.max_doublings,
    )


def _routing(target: str | None) -> AppEngineRouting | None:
    if target is None:
        return None
    version, _, service = target.rpartition(".")
    return AppEngineRouting(service=service, version=version)


def _deployed_otherwise(entry: QueueEntry) -> list[tuple[str, float, float]]:
    retry = entry.retry_parameters
    zeros: tuple[tuple[str, float | None, float], ...] = (
        ("bucket_size", entry.bucket_size, DEFAULT_BUCKET_SIZE),
        ("max_doublings", retry.max_doublings, _DEFAULTS.max_doublings),
        ("min_backoff_seconds", retry.min_backoff_seconds, _DEFAULTS.min_backoff_seconds),
        ("max_backoff_seconds", retry.max_backoff_seconds, _DEFAULTS.max_backoff_seconds),
    )
    changed = [(name, written, used) for name, written, used in zeros if written == 0]
    requests = entry.max_concurrent_requests
    if requests is not None and requests != _concurrency(requests):
        changed.append(("max_concurrent_requests", requests, _concurrency(requests)))
    return [(name, float(written), used) for name, written, used in changed if written is not None]
