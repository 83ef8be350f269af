"""Pull queues, which Cloud Tasks does not have: arguments are checked, and the calls refused."""

from __future__ import annotations

from google.appengine.api.taskqueue import _limits
from google.appengine.api.taskqueue._errors import (
    InvalidLeaseTimeError,
    InvalidMaxTasksError,
    InvalidQueueModeError,
)


def refusal(what: str) -> InvalidQueueModeError:
    """Return the error of what needs a pull queue; it says what to use instead."""
    return InvalidQueueModeError(
        f"There are no pull queues on Cloud Tasks: {what} needs one. Publish to a Pub/Sub topic "
        "and pull from a subscription instead, or add a push task."
    )


def check_lease(lease_seconds: object, max_tasks: object = 1) -> None:
    """Check the arguments of a lease.

    Raises:
        TypeError: one is no number.
        InvalidLeaseTimeError: the time is negative or over a week.
        InvalidMaxTasksError: the number of tasks is not between 1 and 1000.
    """
    if not isinstance(lease_seconds, (int, float)):
        raise TypeError("lease_seconds must be a float or an integer")
    if lease_seconds < 0:
        raise InvalidLeaseTimeError("lease_seconds must not be negative")
    if lease_seconds > _limits.MAX_LEASE_SECONDS:
        raise InvalidLeaseTimeError(
            f"Lease time must not be greater than {_limits.MAX_LEASE_SECONDS} seconds"
        )
    if not isinstance(max_tasks, int):
        raise TypeError("max_tasks must be an integer")
    if max_tasks <= 0:
        raise InvalidMaxTasksError("Negative or zero tasks requested")
    if max_tasks > _limits.MAX_TASKS_PER_LEASE:
        raise InvalidMaxTasksError(
            f"Only {_limits.MAX_TASKS_PER_LEASE} tasks can be leased at once"
        )
