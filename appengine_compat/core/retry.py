"""When a failed task is tried again.

The wait grows in three phases: it doubles ``max_doublings`` times, then grows in a straight
line by the last doubled step, and stays at ``max_backoff`` from where it reaches it. The wait
starts at the *response time* of the failed attempt, and there is no jitter.

A task has up to two limits: attempts, and age since its first attempt. With one set, that one
decides. With both set the task is dropped only when **both** are passed: it is retried while
either still allows it. With none it is retried until the queue's retention removes it.
"""

from __future__ import annotations

from dataclasses import replace

from appengine_compat.core.model import UNLIMITED, RetryConfig, RetryOverrides

_LARGEST_EXPONENT = 1000  # 2.0 ** 1024 overflows, and max_backoff has long won by then


def backoff_seconds(config: RetryConfig, retry: int) -> float:
    """Return the seconds to wait before retry number ``retry`` (1 is the first retry).

    Raises:
        ValueError: ``retry`` is below 1.
    """
    if retry < 1:
        raise ValueError(f"retries are counted from 1, not {retry}")
    exponent = min(retry - 1, config.max_doublings)
    linear_steps = max(1, retry - exponent)
    doubled = config.min_backoff_seconds * 2.0 ** min(exponent, _LARGEST_EXPONENT)
    return min(config.max_backoff_seconds, doubled * linear_steps)


def is_exhausted(config: RetryConfig, attempts: int, age_seconds: float) -> bool:
    """Tell whether a task that has just failed is dropped rather than retried.

    Args:
        config: the retry settings that hold for the task.
        attempts: attempts made so far, the failed one included.
        age_seconds: seconds since the first attempt was dispatched.
    """
    limited_attempts = config.max_attempts != UNLIMITED
    limited_age = config.max_retry_duration_seconds > 0
    attempts_spent = limited_attempts and attempts >= config.max_attempts
    age_spent = limited_age and age_seconds > config.max_retry_duration_seconds
    if limited_attempts and limited_age:
        return attempts_spent and age_spent
    return attempts_spent or age_spent


def effective_retry_config(queue: RetryConfig, task: RetryOverrides | None) -> RetryConfig:
    """Return the queue's retry settings with those that the task sets itself put over them.

    Where only one backoff bound is overridden and the two would cross, the other follows it.
    """
    if task is None:
        return queue
    changes: dict[str, float | int] = {
        field: value
        for field in RetryOverrides.__slots__
        if (value := getattr(task, field)) is not None
    }
    merged = replace(queue, **changes)  # type: ignore[arg-type]
    if merged.min_backoff_seconds > merged.max_backoff_seconds:
        if task.min_backoff_seconds is not None and task.max_backoff_seconds is None:
            return replace(merged, max_backoff_seconds=merged.min_backoff_seconds)
        return replace(merged, min_backoff_seconds=merged.max_backoff_seconds)
    return merged
