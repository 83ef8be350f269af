"""Moments as integers of microseconds since the epoch: what is stored, and compared exactly."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
SECOND = 1_000_000

_MICROSECOND = timedelta(microseconds=1)


def from_seconds(seconds: float) -> int:
    """Return the microseconds of float seconds, rounded to the nearest."""
    return round(seconds * SECOND)


def from_datetime(moment: datetime) -> int:
    """Return the microseconds of an aware datetime, exactly."""
    return (moment - EPOCH) // _MICROSECOND


def to_datetime(micros: int) -> datetime:
    """Return the aware UTC datetime of microseconds, exactly."""
    return EPOCH + timedelta(microseconds=micros)
