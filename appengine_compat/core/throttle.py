"""How a queue slows down when its target says that it is overloaded, as values.

The configured limits never change; what falls is the rate that is in effect. The rule of the real
service is not published. Here each overloaded second halves the rate, down to one dispatch a
second, and from the last of them on it doubles every ten seconds until the limit holds again.
``Retry-After`` stops the queue altogether until then.
"""

from __future__ import annotations

from dataclasses import dataclass

LEAST_RATE = 1.0
DOUBLING_SECONDS = 10.0
LONGEST_HOLD_SECONDS = 3600.0
"""No target can stop a queue for longer at once."""
WINDOW_SECONDS = 1.0
"""A hundred attempts that ran at once and met the same overload are one piece of news."""

_MOST_DOUBLINGS = 64.0


@dataclass(frozen=True, slots=True)
class Throttle:
    """What overload has left of a queue's rate. Times are float seconds on one clock."""

    rate: float
    """Dispatches a second, at ``since``; where the limit is lower, that holds."""
    since: float
    held_until: float = 0.0
    """Nothing is dispatched before."""


def slowed(
    current: Throttle | None, limit: float, now: float, retry_after_seconds: float = 0.0
) -> Throttle:
    """Return the throttle after a reply of overload.

    Args:
        current: the throttle so far, None for none.
        limit: dispatches a second that the queue is configured for.
        now: when the reply came.
        retry_after_seconds: what its ``Retry-After`` asks for, 0 for nothing.
    """
    hold = now + min(retry_after_seconds, LONGEST_HOLD_SECONDS) if retry_after_seconds > 0 else 0.0
    if current is None:
        return Throttle(_halved(limit), now, hold)
    hold = max(hold, current.held_until)
    if now - current.since < WINDOW_SECONDS:
        return Throttle(current.rate, current.since, hold)
    return Throttle(_halved(rate_at(current, limit, now)), now, hold)


def rate_at(throttle: Throttle | None, limit: float, now: float) -> float:
    """Return the dispatches a second that are in effect."""
    if throttle is None:
        return limit
    doublings = max(0.0, now - throttle.since) / DOUBLING_SECONDS
    return float(min(limit, throttle.rate * 2.0 ** min(doublings, _MOST_DOUBLINGS)))


def burst_at(burst: int, rate: float, limit: float) -> int:
    """Return the burst size that belongs to a rate in effect: the same part of the whole."""
    return burst if rate >= limit else max(1, int(burst * rate / limit))


def is_over(throttle: Throttle, limit: float, now: float) -> bool:
    """Tell whether nothing is left of a throttle."""
    return throttle.held_until <= now and rate_at(throttle, limit, now) >= limit


def _halved(rate: float) -> float:
    # Not less where the limit is: it may be 0, which no doubling would ever raise again.
    return max(LEAST_RATE, rate / 2)
