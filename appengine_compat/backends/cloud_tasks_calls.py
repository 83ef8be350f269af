"""Calls that are made again when they failed for a passing reason, and what batches answer."""

from __future__ import annotations

import logging
import random
import time
from typing import Any

from appengine_compat.backends import cloud_tasks_connection as wire
from appengine_compat.backends import cloud_tasks_errors as errors
from appengine_compat.errors import ApiError

MAX_CALL_SECONDS = 20.0
"""The service refuses calls whose deadline is more than 30 seconds away."""
_TRY_SECONDS = 10.0
_MOST_TRIES = 5
FIRST_PAUSE_SECONDS = 0.1

_logger = logging.getLogger(__name__)


class Budget:
    """The time and the tries that one call of the backend may take."""

    def __init__(self, timeout_seconds: float | None) -> None:
        """Begin to count; None allows ``MAX_CALL_SECONDS``, and nothing allows more."""
        allowed = MAX_CALL_SECONDS if timeout_seconds is None else timeout_seconds
        self._end = time.monotonic() + min(allowed, MAX_CALL_SECONDS)
        self._next_pause = FIRST_PAUSE_SECONDS
        self.tries = 0

    def try_seconds(self) -> float:
        """Return how long the next try may take."""
        return max(0.001, min(_TRY_SECONDS, self._end - time.monotonic()))

    def may_try_again(self) -> bool:
        """Tell whether tries and time are left."""
        return self.tries < _MOST_TRIES and self.may_poll()

    def may_poll(self) -> bool:
        """Tell whether the time allows another pause."""
        return time.monotonic() + self._next_pause < self._end

    def pause(self) -> None:
        """Wait before the next try, longer each time."""
        # Scattered, so that programs that failed together do not come back together.
        time.sleep(self._next_pause * random.uniform(0.5, 1.0))
        self._next_pause = min(2.0, self._next_pause * 2)


def persist(
    connection: wire.Connection,
    rpc: wire.Rpc,
    request: Any,
    metadata: wire.Metadata,
    budget: Budget,
) -> Any:
    """Make a call until it succeeds, is refused for good, or the budget is spent.

    Raises:
        ApiError: the last refusal.
    """
    while True:
        budget.tries += 1
        try:
            return connection.call(rpc, request, budget.try_seconds(), metadata)
        except ApiError as error:
            if not errors.is_passing(error) or not budget.may_try_again():
                raise
            _logger.info("%s failed, and is tried again: %s", rpc.path, error)
            budget.pause()


def finished(connection: wire.Connection, operation: Any, budget: Budget) -> Any:
    """Return a batch's operation when it is done; the service usually answers a done one.

    Raises:
        ApiError: it was not done in time, or asking for it failed.
    """
    while not operation.done:
        if not budget.may_poll():
            raise ApiError(
                "DEADLINE_EXCEEDED",
                f"the batch was accepted but has not finished ({operation.name})",
            )
        budget.pause()
        request = wire.GetOperationRequest(name=operation.name)
        metadata = wire.routing("name", operation.name)
        operation = connection.call(wire.GET_OPERATION, request, budget.try_seconds(), metadata)
    return operation


def failures(
    operation: Any, metadata_class: Any, count: int, response_class: Any = None
) -> dict[int, ApiError]:
    """Return the failed items of a batch by their place in it.

    Args:
        operation: the batch's, done.
        metadata_class: the message that its metadata is.
        count: how many items there were.
        response_class: the message that its response is, where that tells of what succeeded.

    Raises:
        ApiError: the batch as a whole failed, or what it says does not add up.
    """
    # By bytes, not by type name: the alpha and beta services' messages have the same fields.
    metadata = metadata_class.FromString(operation.metadata.value)
    failures = {
        int(index): ApiError(wire.code_name(status.code), status.message)
        for index, status in metadata.failed_requests.items()
    }
    if operation.HasField("error") and len(failures) < count:
        raise ApiError(wire.code_name(operation.error.code), operation.error.message)
    if response_class is not None and len(failures) < count:
        created = len(response_class.FromString(operation.response.value).tasks)
        if created + len(failures) != count:
            raise ApiError(
                "DATA_LOSS",
                f"of {count} tasks the answer tells of {created} created and {len(failures)} "
                "failed, so that it is not known what became of the rest",
            )
    return failures
