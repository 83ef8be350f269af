"""How fast a queue may dispatch: a token bucket, as values.

One dispatch, first try or retry, takes one token. Tokens come back continuously at
``max_dispatches_per_second`` (fractions count: a rate of 1/60 gives a token a minute) up to
``max_burst_size``. The limit on concurrent dispatches is a second, independent gate, and is
the scheduler's to keep: it needs no arithmetic.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

_ROUNDING = 1e-9  # so that a wait computed from a rate is long enough when it is over


@dataclass(frozen=True, slots=True)
class Bucket:
    """The tokens of one queue at one moment.

    Times are float seconds on any clock that does not run backwards; the caller's choice.
    """

    tokens: float
    updated_at: float


def full_bucket(burst: int, now: float) -> Bucket:
    """Return the bucket of a queue that has not dispatched for long."""
    return Bucket(float(max(1, burst)), now)


def refilled(bucket: Bucket, rate: float, burst: int, now: float) -> Bucket:
    """Return the bucket as it stands at ``now``; a clock that stepped back adds nothing."""
    gained = max(0.0, now - bucket.updated_at) * rate
    return Bucket(min(float(max(1, burst)), bucket.tokens + gained), now)


def available(bucket: Bucket) -> int:
    """Return how many dispatches the bucket allows at once."""
    return math.floor(bucket.tokens + _ROUNDING)


def taken(bucket: Bucket, count: int) -> Bucket:
    """Return the bucket after ``count`` dispatches.

    Raises:
        ValueError: it does not hold that many.
    """
    if count > available(bucket):
        raise ValueError(f"{count} tokens asked for, {bucket.tokens:.3f} there")
    return Bucket(max(0.0, bucket.tokens - count), bucket.updated_at)


def seconds_until_token(bucket: Bucket, rate: float) -> float:
    """Return the seconds until one dispatch is allowed: 0 now, infinity when the rate is 0."""
    if available(bucket) >= 1:
        return 0.0
    if rate <= 0:
        return math.inf
    return (1.0 - bucket.tokens) / rate


def burst_for_rate(rate: float) -> int:
    """Return the burst size that the service derives from a rate when none is given.

    Fits what the real service shows: 500/s gives 100; 5/s and 1/s give 10.
    """
    return max(10, math.ceil(rate / 5))
