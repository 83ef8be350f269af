"""The headers of a task: what may be asked for, what is stored, what a handler receives.

Cloud Tasks does not carry ``Host``, ``X-Google-*`` and ``X-AppEngine-*`` of the caller, and old
code needs them (the namespace travels in one). They ride under ``CARRIED_PREFIX`` and are put
back on arrival, once the door has let the request in.

What a handler is told of earlier attempts differs by family. Replies 503, 404, 429, 500, 302,
200 in turn gave, on the real service:

==================== === === === === === ===
attempt                0   1   2   3   4   5
==================== === === === === === ===
RetryCount             0   1   2   3   4   5
ExecutionCount HTTP    0   0   1   2   2   3   (replies, 5xx left out)
ExecutionCount GAE     0   1   2   3   4   5   (replies, all)
PreviousResponse       -  503 404 429 500 302
==================== === === === === === ===

An attempt without a reply counts as a retry but not as an execution; the next one is told
504 (HTTP) or 0 (App Engine).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

CARRIED_PREFIX = "X-AEC-Carried-"
LOCAL_TOKEN_HEADER = "X-AEC-Local-Token"
HTTP_USER_AGENT = "Google-Cloud-Tasks"
APP_ENGINE_USER_AGENT = "AppEngine-Google; (+http://code.google.com/appengine)"
APP_ENGINE_DEFAULT_CONTENT_TYPE = "application/octet-stream"

_ENDS_A_HEADER = re.compile(r"[\r\n\0]")
_NOT_CARRIED = ("x-google-", "x-appengine-")
_REPLACED_HTTP = frozenset({"host", "content-length", "user-agent"})
_REPLACED_APP_ENGINE = frozenset({"host", "content-length"})


class Family(Enum):
    """The two kinds of task headers; the value is their prefix."""

    APP_ENGINE = "X-AppEngine-"
    HTTP = "X-CloudTasks-"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFacts:
    """What the headers of one attempt tell the handler."""

    queue_id: str
    task_id: str
    eta: datetime
    retries: int = 0
    """Attempts that failed before this one, whatever the reason."""
    replies: int = 0
    """Replies received before this one; for HTTP targets without the 5xx ones."""
    previous_response: int | None = None
    """HTTP status of the attempt before; None on the first attempt, 0 when no reply came."""


def task_headers(family: Family, facts: AttemptFacts) -> list[tuple[str, str]]:
    """Return the headers that the service adds at dispatch."""
    prefix = family.value
    headers = [
        (prefix + "QueueName", facts.queue_id),
        (prefix + "TaskName", facts.task_id),
        (prefix + "TaskRetryCount", str(facts.retries)),
        (prefix + "TaskExecutionCount", str(facts.replies)),
        (prefix + "TaskETA", eta_text(facts.eta)),
    ]
    if facts.previous_response is not None:
        no_reply = facts.previous_response == 0
        if family is Family.HTTP:
            previous, reason = ("504" if no_reply else str(facts.previous_response)), ""
        else:
            previous = str(facts.previous_response)
            reason = "Instance Unavailable" if no_reply else "App Error"
        headers.append((prefix + "TaskPreviousResponse", previous))
        headers.append((prefix + "TaskRetryReason", reason))
    return headers


def counts_as_execution(family: Family, status: int) -> bool:
    """Tell whether a reply of this HTTP status raises TaskExecutionCount."""
    if status == 0:
        return False
    return family is Family.APP_ENGINE or not 500 <= status <= 599


def eta_text(moment: datetime) -> str:
    """Return a schedule time as the ETA header writes it: decimal seconds since the epoch."""
    return repr(moment.timestamp())


def is_carried_natively(name: str) -> bool:
    """Tell whether Cloud Tasks passes a caller's header of this name on to the handler."""
    lowered = name.lower()
    return lowered != "host" and not lowered.startswith(_NOT_CARRIED)


def is_one_header(name: str, value: str) -> bool:
    """Tell whether HTTP carries this as one header: a line break in it would begin another."""
    return _ENDS_A_HEADER.search(name) is None and _ENDS_A_HEADER.search(value) is None


def carry(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return a task's headers as a request may carry them.

    Names that Cloud Tasks refuses get ``CARRIED_PREFIX``; values of one name, in any spelling,
    are joined by ", " as HTTP allows, since the service holds one value a name.
    """
    carried: dict[str, str] = {}
    spelling: dict[str, str] = {}
    for name, value in headers:
        name = name if is_carried_natively(name) else CARRIED_PREFIX + name
        first = spelling.setdefault(name.lower(), name)
        carried[first] = f"{carried[first]}, {value}" if first in carried else value
    return carried


def stored_http_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that the service stores for an HTTP target."""
    kept = {
        name: value
        for name, value in headers.items()
        if name.lower() not in _REPLACED_HTTP
        and is_carried_natively(name)
        and not name.lower().startswith("x-cloudtasks-")
    }
    kept["User-Agent"] = HTTP_USER_AGENT
    return kept


def stored_app_engine_headers(headers: Mapping[str, str], body: bytes) -> dict[str, str]:
    """Return the headers that the service stores for an App Engine target."""
    kept = {
        name: value
        for name, value in headers.items()
        if name.lower() not in _REPLACED_APP_ENGINE and is_carried_natively(name)
    }
    lowered = {name.lower(): name for name in kept}
    agent = lowered.get("user-agent", "User-Agent")
    own_agent = kept.get(agent)
    kept[agent] = f"{own_agent} {APP_ENGINE_USER_AGENT}" if own_agent else APP_ENGINE_USER_AGENT
    if body:
        if "content-type" not in lowered:
            kept["Content-Type"] = APP_ENGINE_DEFAULT_CONTENT_TYPE
        kept["Content-Length"] = str(len(body))
    return kept
