"""Which HTTP method and path stand for which RPC, and where its fields come from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from appengine_compat.local.fronts.versions import V2, V2BETA3

_PROJECT = "projects/*"
_LOCATION = f"{_PROJECT}/locations/*"
_QUEUE = f"{_LOCATION}/queues/*"
_TASK = f"{_QUEUE}/tasks/*"

WHOLE = "*"
"""As a route's body: the JSON body is the request itself."""

# RPC, HTTP method, path field, pattern of its value, what follows it, what the body is.
_TABLE: tuple[tuple[str, str, str, str, str, str], ...] = (
    ("ListQueues", "GET", "parent", _LOCATION, "/queues", ""),
    ("GetQueue", "GET", "name", _QUEUE, "", ""),
    ("CreateQueue", "POST", "parent", _LOCATION, "/queues", "queue"),
    ("UpdateQueue", "PATCH", "queue.name", _QUEUE, "", "queue"),
    ("DeleteQueue", "DELETE", "name", _QUEUE, "", ""),
    ("PurgeQueue", "POST", "name", _QUEUE, ":purge", WHOLE),
    ("PauseQueue", "POST", "name", _QUEUE, ":pause", WHOLE),
    ("ResumeQueue", "POST", "name", _QUEUE, ":resume", WHOLE),
    ("GetIamPolicy", "POST", "resource", _QUEUE, ":getIamPolicy", WHOLE),
    ("SetIamPolicy", "POST", "resource", _QUEUE, ":setIamPolicy", WHOLE),
    ("TestIamPermissions", "POST", "resource", _QUEUE, ":testIamPermissions", WHOLE),
    ("ListTasks", "GET", "parent", _QUEUE, "/tasks", ""),
    ("GetTask", "GET", "name", _TASK, "", ""),
    ("CreateTask", "POST", "parent", _QUEUE, "/tasks", WHOLE),
    ("BatchCreateTasks", "POST", "parent", _QUEUE, "/tasks:batchCreate", WHOLE),
    ("DeleteTask", "DELETE", "name", _TASK, "", ""),
    ("BatchDeleteTasks", "POST", "parent", _QUEUE, "/tasks:batchDelete", WHOLE),
    ("RunTask", "POST", "name", _TASK, ":run", WHOLE),
    ("UpdateCmekConfig", "PATCH", "cmek_config.name", f"{_LOCATION}/cmekConfig", "", "cmek_config"),
    ("GetCmekConfig", "GET", "name", f"{_LOCATION}/cmekConfig", "", ""),
    ("google.cloud.location.Locations/ListLocations", "GET", "name", _PROJECT, "/locations", ""),
    ("google.cloud.location.Locations/GetLocation", "GET", "name", _LOCATION, "", ""),
    (
        "google.longrunning.Operations/GetOperation",
        "GET",
        "name",
        f"{_LOCATION}/operations/*",
        "",
        "",
    ),
)

_BUFFER = re.compile(
    r"/(v2|v2beta3)/(projects/[^/]+/locations/[^/]+/queues/[^/]+)/tasks(?:/([^/]*))?:buffer"
)


@dataclass(frozen=True)
class Route:
    """One HTTP method and path pattern, and the RPC that they stand for.

    Attributes:
        rpc: the RPC's full name.
        path_field: the request's field that the path fills, dotted when it is deeper.
        body: the field that the JSON body fills, ``WHOLE`` for the request, "" for none.
    """

    rpc: str
    http_method: str
    path_field: str
    pattern: re.Pattern[str]
    body: str


@dataclass(frozen=True)
class BufferCall:
    """What the path of a BufferTask says; only REST has it."""

    version: str
    queue: str
    task_id: str


@lru_cache(maxsize=1)
def _routes() -> dict[tuple[str, str], list[Route]]:
    # By method and verb, so that a path is held against few patterns.
    routes: dict[tuple[str, str], list[Route]] = {}
    for version in (V2, V2BETA3):
        for rpc, http_method, path_field, name, rest, body in _TABLE:
            shape = f"/{version.label}/({name}){rest}".replace("*", "[^/:]+" if rest else "[^/]+")
            # A project of a domain has a colon in its name; a verb follows the last segment only.
            shape = shape.replace("projects/[^/:]+", "projects/[^/]+")
            full_name = rpc if "/" in rpc else f"{version.service}/{rpc}"
            route = Route(full_name, http_method, path_field, re.compile(shape, re.S), body)
            routes.setdefault((http_method, rest.partition(":")[2]), []).append(route)
    return routes


def find(http_method: str, path: str) -> tuple[Route, str] | None:
    """Return the route of a request and the resource that its path names, or None."""
    last = path.rpartition("/")[2]
    for verb in {last.rpartition(":")[2] if ":" in last else "", ""}:
        for route in _routes().get((http_method, verb), ()):
            match = route.pattern.fullmatch(path)
            if match is not None:
                return route, match[1]
    return None


def find_buffer(http_method: str, path: str) -> BufferCall | None:
    """Return what a BufferTask's path says, None when it is another call."""
    match = _BUFFER.fullmatch(path) if http_method == "POST" else None
    return None if match is None else BufferCall(match[1], match[2], match[3] or "")
