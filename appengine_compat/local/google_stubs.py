"""The questions that gcloud asks of other services before it comes to Cloud Tasks.

``gcloud app deploy queue.yaml`` wants to know where the App Engine app is and whether the Cloud
Tasks API is on. Both are answered here, since nothing hangs on it: there is always an app, and
the API is always on. All else of those services is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from appengine_compat.core.names import LOCATION_NAME
from appengine_compat.local.http_messages import Request, Response, as_json, error

MOUNTS = ("/v1/apps", "/v1/projects", "/v1/services")
"""Paths of the App Engine, Service Usage and Service Management APIs."""
RUNTIME_BUILDERS = Path(__file__).parent / "gcloud"
"""The folder that gcloud reads how to build runtimes from, before it looks at what to deploy."""

_APP = re.compile(r"/v1/apps/(?P<project>[A-Za-z0-9:.\-]+)")
_SERVICE = re.compile(r"/v1/projects/(?P<project>[A-Za-z0-9:.\-]+)/services/(?P<name>[a-z0-9.\-]+)")
_MANAGED = re.compile(r"/v1/services/(?P<name>[a-z0-9.\-]+)")
# App Engine calls the two oldest regions by shorter names.
_OLD_NAMES = {"us-central1": "us-central", "europe-west1": "europe-west"}


def answers(location: str) -> Callable[[Request], Response]:
    """Return what answers the requests below ``MOUNTS``.

    Args:
        location: the location of the project's queues, and so of its app.
    """
    assert LOCATION_NAME.match(f"projects/p/locations/{location}")

    def answer(request: Request) -> Response:
        path = request.path
        for pattern, make in _ANSWERS:
            match = pattern.fullmatch(path)
            if match is not None and request.method == "GET":
                return as_json(make(match, location))
        return _refused(request)

    return answer


def _app(match: re.Match[str], location: str) -> dict[str, Any]:
    project = match["project"]
    return {
        "name": f"apps/{project}",
        "id": project,
        "locationId": _OLD_NAMES.get(location, location),
        "servingStatus": "SERVING",
        "defaultHostname": f"{project}.localhost",
        "codeBucket": f"staging.{project}.localhost",
        "defaultBucket": f"{project}.localhost",
        "gcrDomain": "gcr.localhost",
    }


def _service(match: re.Match[str], _: str) -> dict[str, Any]:
    name = match["name"]
    return {
        "name": f"projects/{match['project']}/services/{name}",
        "config": {"name": name},
        "state": "ENABLED",
    }


def _managed(match: re.Match[str], _: str) -> dict[str, Any]:
    return {"serviceName": match["name"]}


_ANSWERS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str], str], dict[str, Any]]], ...] = (
    (_APP, _app),
    (_SERVICE, _service),
    (_MANAGED, _managed),
)


def _refused(request: Request) -> Response:
    message = (
        f"{request.method} {request.path} is not served: this is the local Cloud Tasks of "
        "appengine-compat, which stands in for App Engine and Service Usage only as far as "
        "'gcloud app deploy queue.yaml' asks them."
    )
    # gcloud asks again and again after a 5xx.
    return error(404, "NOT_FOUND", message)
