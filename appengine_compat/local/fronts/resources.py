"""Who serves a call, and the shapes of the names that calls carry."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from appengine_compat.core import messages, names
from appengine_compat.local.fronts.versions import Version
from appengine_compat.local.service import LocalService

_QUEUE_SHAPE = re.compile(r"projects/[^/]+/locations/[^/]+/queues/[^/]+", re.S)
_TASK_SHAPE = re.compile(r"projects/[^/]+/locations/[^/]+/queues/[^/]+/tasks/[^/]+", re.S)
_PROJECT = re.compile(r"projects/([A-Za-z0-9:.\-]+)")
WILDCARD = "-"


@dataclass(frozen=True)
class Api:
    """One version of the API over one service.

    Attributes:
        service: does the work.
        version: whose messages are spoken.
        location: the location that is listed though it has no queue yet.
    """

    service: LocalService
    version: Version
    location: str = "us-central1"


def location(parent: str) -> str:
    """Return a location's name as it is.

    Raises:
        ApiError: INVALID_ARGUMENT: it has another shape, or is the wildcard.
    """
    match = names.LOCATION_NAME.match(parent)
    if match is None:
        raise messages.resource_name_malformed()
    if match["location"] == WILDCARD:
        raise messages.location_unknown(WILDCARD)
    return parent


@lru_cache(maxsize=512)
def queue(name: str) -> str:
    """Return a queue's name as it is.

    Raises:
        ApiError: INVALID_ARGUMENT: it has another shape.
    """
    # The text about queue names is for those that have all their parts.
    if not _QUEUE_SHAPE.fullmatch(name):
        raise messages.resource_name_malformed()
    names.parse_queue_name(name)
    return name


def task(name: str) -> str:
    """Return a task's name as it is.

    Raises:
        ApiError: INVALID_ARGUMENT: it has another shape.
    """
    if not _TASK_SHAPE.fullmatch(name):
        raise messages.resource_name_malformed()
    names.parse_task_name(name)
    return name


def project(name: str) -> str:
    """Return the project of a name ``projects/P``.

    Raises:
        ApiError: INVALID_ARGUMENT: it has another shape.
    """
    match = _PROJECT.fullmatch(name)
    if match is None:
        raise messages.resource_name_malformed()
    return match[1]
