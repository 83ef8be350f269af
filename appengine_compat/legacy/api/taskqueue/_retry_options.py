"""``TaskRetryOptions``: how one task is retried, where that differs from its queue."""

from __future__ import annotations

import math
from typing import Any

from google.appengine.api.taskqueue._errors import InvalidTaskRetryOptionsError

_NAMES = frozenset(
    {
        "min_backoff_seconds",
        "max_backoff_seconds",
        "task_age_limit",
        "max_doublings",
        "task_retry_limit",
    }
)


class TaskRetryOptions:
    """When a failed task is tried again, and when it is given up.

    With both ``task_retry_limit`` and ``task_age_limit`` set, a task is given up only when both
    are passed.
    """

    def __init__(self, **kwargs: Any) -> None:
        """Make retry options; what is not given is the queue's.

        Args:
            **kwargs: ``min_backoff_seconds`` and ``max_backoff_seconds``, the shortest and the
                longest wait between tries, in seconds; ``max_doublings``, how often the wait is
                doubled before it grows in a straight line; ``task_retry_limit``, tries after the
                first one; ``task_age_limit``, seconds since the first try, rounded up.

        Raises:
            TypeError: another name is given.
            InvalidTaskRetryOptionsError: a value is negative, or the longest wait is shorter than
                the shortest.
        """
        unknown = kwargs.keys() - _NAMES
        if unknown:
            raise TypeError(f"Invalid arguments: {', '.join(sorted(unknown))}")
        self.__min_backoff_seconds = kwargs.get("min_backoff_seconds")
        if self.__min_backoff_seconds is not None and self.__min_backoff_seconds < 0:
            raise InvalidTaskRetryOptionsError("The minimum retry interval cannot be negative")
        self.__max_backoff_seconds = kwargs.get("max_backoff_seconds")
        if self.__max_backoff_seconds is not None and self.__max_backoff_seconds < 0:
            raise InvalidTaskRetryOptionsError("The maximum retry interval cannot be negative")
        if (
            self.__min_backoff_seconds is not None
            and self.__max_backoff_seconds is not None
            and self.__max_backoff_seconds < self.__min_backoff_seconds
        ):
            raise InvalidTaskRetryOptionsError(
                "The maximum retry interval cannot be less than the minimum retry interval"
            )
        self.__max_doublings = kwargs.get("max_doublings")
        if self.__max_doublings is not None and self.__max_doublings < 0:
            raise InvalidTaskRetryOptionsError(
                "The maximum number of retry interval doublings cannot be negative"
            )
        self.__task_retry_limit = kwargs.get("task_retry_limit")
        if self.__task_retry_limit is not None and self.__task_retry_limit < 0:
            raise InvalidTaskRetryOptionsError("The maximum number of retries cannot be negative")
        self.__task_age_limit = kwargs.get("task_age_limit")
        if self.__task_age_limit is not None:
            if self.__task_age_limit < 0:
                raise InvalidTaskRetryOptionsError("The expiry countdown cannot be negative")
            self.__task_age_limit = math.ceil(self.__task_age_limit)

    @property
    def min_backoff_seconds(self) -> Any:
        """The shortest wait between tries, in seconds, or None."""
        return self.__min_backoff_seconds

    @property
    def max_backoff_seconds(self) -> Any:
        """The longest wait between tries, in seconds, or None."""
        return self.__max_backoff_seconds

    @property
    def task_age_limit(self) -> Any:
        """Whole seconds since the first try after which the task is given up, or None."""
        return self.__task_age_limit

    @property
    def max_doublings(self) -> Any:
        """How often the wait is doubled, or None."""
        return self.__max_doublings

    @property
    def task_retry_limit(self) -> Any:
        """Tries after the first one (0: the task runs once), or None."""
        return self.__task_retry_limit

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in sorted(_NAMES))
        return f"TaskRetryOptions({fields})"
