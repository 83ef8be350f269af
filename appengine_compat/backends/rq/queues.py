"""The settings of queues, written down in Redis by whoever enqueues, for all workers to keep."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

from appengine_compat.backends.rq import keys
from appengine_compat.core.model import Queue, QueueState, RetryConfig

if TYPE_CHECKING:
    from redis import Redis


def publish(connection: Redis, queues: Mapping[str, Queue]) -> None:
    """Write the settings of these queues down; those of others stay as they are."""
    with connection.pipeline() as pipeline:
        for name, queue in queues.items():
            rates = queue.rate_limits
            pipeline.sadd(keys.QUEUES, name)
            pipeline.hset(
                keys.queue(name),
                mapping={
                    "rate": repr(rates.max_dispatches_per_second),
                    "burst": max(1, rates.max_burst_size),
                    "concurrency": max(1, rates.max_concurrent_dispatches),
                    "paused": int(queue.state is not QueueState.RUNNING),
                    "retry": json.dumps(asdict(queue.retry_config)),
                    "tombstone_ttl": int(queue.tombstone_ttl_seconds),
                },
            )
        pipeline.execute()


def published(connection: Redis) -> list[str]:
    """Return the ids of all queues that were written down, in order."""
    return sorted(
        name.decode() if isinstance(name, bytes) else str(name)
        for name in connection.smembers(keys.QUEUES)
    )


def retry_config(text: str) -> RetryConfig:
    """Return the retry settings as ``publish`` wrote them; the defaults for ""."""
    return RetryConfig(**json.loads(text)) if text else RetryConfig()
