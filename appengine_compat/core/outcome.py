"""What a reply to an attempt means: done or not, its canonical code, and the text about it."""

from __future__ import annotations

from appengine_compat.core.headers import Family

CODE_NAMES = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)
"""The canonical codes' names, by number."""

NO_REPLY = 0
"""Stands for the HTTP status of an attempt that was never answered."""
TIMED_OUT = -1
"""The same, because ``dispatch_deadline`` passed."""

# 400, 401, 409, 416, 429, 499, 501 and 503 were never recorded: they follow Google's usual table.
_CODES = {
    TIMED_OUT: 4,
    NO_REPLY: 2,
    400: 3,
    401: 16,
    403: 7,
    404: 5,
    409: 10,
    416: 11,
    429: 8,
    499: 1,
    501: 12,
    503: 14,
    504: 4,
}


def is_success(status: int) -> bool:
    """Tell whether a reply of this HTTP status ends the task: 200 to 299 only."""
    return 200 <= status <= 299


def is_reply(status: int) -> bool:
    """Tell whether there was a reply at all."""
    return status > 0


def canonical_code(status: int) -> int:
    """Return the number of the canonical code that an attempt's HTTP status stands for."""
    if is_success(status):
        return 0
    code = _CODES.get(status)
    if code is not None:
        return code
    if 400 <= status <= 499:
        return 9
    return 13 if 500 <= status <= 599 else 2


def status_message(family: Family, status: int) -> str:
    """Return the text of an attempt's ``response_status``; "" for a success."""
    if is_success(status):
        return ""
    code = canonical_code(status)
    reason = "" if family is Family.HTTP else "Instance Unavailable. "
    shown = max(0, status)
    return f"{CODE_NAMES[code]}({code}): {reason}HTTP status code {shown}"


def throttles(family: Family, status: int) -> bool:
    """Tell whether a reply slows the whole queue down: 503 always, 429 for HTTP targets."""
    return status == 503 or (status == 429 and family is Family.HTTP)
