"""The settings of queues, written down in Redis by whoever enqueues, for all workers to keep."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from appengine_compat.backends import known_queues
from appengine_compat.backends.known_queues import DEFAULT_QUEUE
from appengine_compat.backends.rq import keys
from appengine_compat.core.model import Queue, QueueState, RetryConfig

if TYPE_CHECKING:
    from redis import Redis


def publish(connection: Redis, queues: Mapping[str, Queue]) -> None:
    """Write the settings of these queues down; those of others stay as they are.

    The settings of ``default`` are kept where they stand if nobody here says what they are.
    """
    with connection.pipeline() as pipeline:
        if DEFAULT_QUEUE not in queues:
            pipeline.sadd(keys.QUEUES, DEFAULT_QUEUE)
            default = known_queues.with_default({})[DEFAULT_QUEUE]
            for field, value in _fields(default).items():
                pipeline.hsetnx(keys.queue(DEFAULT_QUEUE), field, value)
        for name, queue in queues.items():
            pipeline.sadd(keys.QUEUES, name)
            pipeline.hset(keys.queue(name), mapping=_fields(queue))
        pipeline.execute()


def _fields(queue: Queue) -> dict[Any, Any]:
    rates = queue.rate_limits
    return {
        "rate": repr(rates.max_dispatches_per_second),
        "burst": max(1, rates.max_burst_size),
        "concurrency": max(1, rates.max_concurrent_dispatches),
        "paused": int(queue.state is not QueueState.RUNNING),
        "retry": json.dumps(asdict(queue.retry_config)),
        "tombstone_ttl": int(queue.tombstone_ttl_seconds),
    }


def published(connection: Redis) -> list[str]:
    """Return the ids of all queues that were written down, in order."""
    return sorted(
        name.decode() if isinstance(name, bytes) else str(name)
        for name in connection.smembers(keys.QUEUES)
    )


def retry_config(text: str) -> RetryConfig:
    """Return the retry settings as ``publish`` wrote them; the defaults for ""."""
    return RetryConfig(**json.loads(text)) if text else RetryConfig()
