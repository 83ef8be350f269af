"""Times, durations and enums between protobuf's forms and the model's."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from google.cloud import tasks_v2

from appengine_compat.core import messages, moments
from appengine_compat.core.model import HTTP_METHODS

_METHOD_NAMES: dict[int, str] = {
    0: "",
    **{getattr(tasks_v2.HttpMethod, name).value: name for name in HTTP_METHODS},
}
_METHOD_NUMBERS = {name: number for number, name in _METHOD_NAMES.items()}

_LONGEST_SECONDS = 315_576_000_000
"""Protobuf's own bound of a Duration: about 10,000 years."""


def moment(timestamp: Any, field: str) -> datetime:
    """Return a Timestamp as an aware datetime, truncated to the microsecond.

    Raises:
        ApiError: INVALID_ARGUMENT: it is outside the years 1 to 9999.
    """
    try:
        if not 0 <= timestamp.nanos < 1_000_000_000:
            raise OverflowError
        return moments.EPOCH + timedelta(
            seconds=timestamp.seconds, microseconds=timestamp.nanos // 1000
        )
    except OverflowError:
        raise messages.setting_invalid(f"{field} is not a valid timestamp.") from None


def write_moment(timestamp: Any, value: datetime) -> None:
    """Put an aware datetime into a Timestamp."""
    micros = moments.from_datetime(value)
    timestamp.seconds, rest = divmod(micros, moments.SECOND)
    timestamp.nanos = rest * 1000


def seconds(duration: Any, field: str) -> float:
    """Return a Duration's seconds.

    Raises:
        ApiError: INVALID_ARGUMENT: its parts are out of range or of different signs.
    """
    whole, nanos = duration.seconds, duration.nanos
    if (
        abs(whole) > _LONGEST_SECONDS
        or abs(nanos) >= 1_000_000_000
        or (whole < 0 < nanos)
        or (nanos < 0 < whole)
    ):
        raise messages.setting_invalid(f"{field} is not a valid duration.")
    # One division of integers: a sum of floats would not give back the seconds that were written.
    return float((whole * 1_000_000_000 + nanos) / 1_000_000_000)


def write_seconds(duration: Any, value: float) -> None:
    """Put seconds into a Duration, to the microsecond."""
    # Through microseconds: 0.1 as a float would give 100000000.00000001 nanoseconds' rest.
    micros = round(value * 1_000_000)
    whole = int(micros / 1_000_000) if micros < 0 else micros // 1_000_000
    duration.seconds = whole
    duration.nanos = (micros - whole * 1_000_000) * 1000
    duration.SetInParent()


def method_name(number: int, field: str) -> str:
    """Return an HttpMethod's name, "" for an unspecified one.

    Raises:
        ApiError: INVALID_ARGUMENT: there is no such method.
    """
    try:
        return _METHOD_NAMES[number]
    except KeyError:
        raise messages.setting_invalid(
            f"{field} has no method {number}: it is one of {', '.join(HTTP_METHODS)}."
        ) from None


def method_number(name: str) -> int:
    """Return the number of a method; 0 for ""."""
    return _METHOD_NUMBERS[name]
