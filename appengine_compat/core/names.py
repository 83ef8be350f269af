"""Resource names: their shapes, taken apart and put together."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import lru_cache

from appengine_compat.core import messages

_PROJECT = r"projects/(?P<project>[A-Za-z0-9:.\-]+)"
_LOCATION = _PROJECT + r"/locations/(?P<location>[A-Za-z0-9\-]+)"
LOCATION_NAME = re.compile(rf"\A{_LOCATION}\Z")
QUEUE_NAME = re.compile(rf"\A{_LOCATION}/queues/(?P<queue>[A-Za-z0-9\-]{{1,100}})\Z")
_ANY_TASK_NAME = re.compile(
    r"\A(?P<parent>projects/[^/]+/locations/[^/]+/queues/[^/]+)/tasks/(?P<id>.*)\Z", re.S
)
QUEUE_ID = re.compile(r"\A[A-Za-z0-9\-]{1,100}\Z")
TASK_ID = re.compile(r"\A[A-Za-z0-9_\-]{1,500}\Z")

_AUTOMATIC_ID_DIGITS = 19


@dataclass(frozen=True, slots=True)
class QueueName:
    """A queue's resource name, taken apart."""

    project: str
    location: str
    queue: str

    def __str__(self) -> str:
        return f"projects/{self.project}/locations/{self.location}/queues/{self.queue}"

    @property
    def parent(self) -> str:
        """The location that holds the queue."""
        return f"projects/{self.project}/locations/{self.location}"

    def task(self, task_id: str) -> str:
        """Return the resource name of a task in this queue."""
        return f"{self}/tasks/{task_id}"


@lru_cache(maxsize=512)
def parse_queue_name(name: str) -> QueueName:
    """Take a queue's resource name apart.

    Raises:
        ApiError: INVALID_ARGUMENT with the service's own text when it has another shape.
    """
    match = QUEUE_NAME.match(name)
    if match is None:
        raise messages.queue_name_malformed()
    return QueueName(match["project"], match["location"], match["queue"])


def parse_task_name(name: str) -> tuple[QueueName, str]:
    """Take a task's resource name apart into its queue and its task id.

    Raises:
        ApiError: INVALID_ARGUMENT with the service's own text when it has another shape.
    """
    match = _ANY_TASK_NAME.match(name)
    if match is None or QUEUE_NAME.match(match["parent"]) is None:
        raise messages.resource_name_malformed()
    if TASK_ID.match(match["id"]) is None:
        raise messages.task_id_malformed(match["id"])
    return parse_queue_name(match["parent"]), match["id"]


def short_id(name: str) -> str:
    """Return the last part of a resource name: the queue id or the task id."""
    return name.rpartition("/")[2]


def automatic_task_id() -> str:
    """Return a fresh task id as the service makes them: decimal digits, leading zeros allowed."""
    number = int.from_bytes(os.urandom(16), "big") % 10**_AUTOMATIC_ID_DIGITS
    return f"{number:0{_AUTOMATIC_ID_DIGITS}d}"
