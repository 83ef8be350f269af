"""Each road is asked what the table says of it: on real backends, with a real Redis."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from appengine_compat.backends.base import TaskRequest
from appengine_compat.backends.cloud_tasks import CloudTasksBackend
from appengine_compat.core.model import AppEngineRequest, HttpRequest, Queue
from appengine_compat.core.names import QueueName
from appengine_compat.local.fronts.grpc_front import serve_grpc
from appengine_compat.local.service import LocalService
from appengine_compat.local.store import Store
from tests import redis_server
from tests.contract.differences import (
    APP_ENGINE,
    DIFFERENCES,
    HTTP,
    IS_REFUSED,
    IS_TAKEN,
    ROADS,
    RQ,
    SERVICES,
    Difference,
)
from tests.contract.grpc_recorder import LOCATION, PROJECT
from tests.contract.test_backend import POST, EmbeddedRig, RqRig

QUEUE = QueueName(PROJECT, LOCATION, "default")
TABLE = "default=http://localhost:8081,worker=http://localhost:8082"


class CloudTasks:
    """Google's client and a local Cloud Tasks, over gRPC."""

    def __init__(self, service: LocalService) -> None:
        self.service = service
        self.backend = CloudTasksBackend()


Road = Any
"""What has a ``backend``, and something to look behind it."""


@pytest.fixture(params=ROADS)
def road(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[tuple[str, Road]]:
    name = request.param
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("APPENGINE_COMPAT_PROJECT", PROJECT)
    monkeypatch.setenv("APPENGINE_COMPAT_LOCATION", LOCATION)
    monkeypatch.setenv("APPENGINE_COMPAT_SIGNING_KEYS", "k:0123456789abcdef")
    if name in (HTTP, SERVICES, RQ):
        monkeypatch.setenv("APPENGINE_COMPAT_TARGETS", TABLE)
    with ExitStack() as stack:
        if name in (APP_ENGINE, HTTP):
            service = LocalService(Store(None))
            service.put_queues([Queue(name=str(QUEUE))])
            front = serve_grpc(service, port=0, location=LOCATION)
            stack.callback(service.close, 5.0)
            stack.callback(front.stop, 0.2)
            monkeypatch.setenv("CLOUD_TASKS_EMULATOR_HOST", f"127.0.0.1:{front.port}")
            yield name, CloudTasks(service)
        elif name == RQ:
            redis_server.require()
            server = stack.enter_context(redis_server.serving(tmp_path))
            yield name, RqRig(server)
        else:
            rig = EmbeddedRig(tmp_path / "tasks.db")
            stack.callback(rig.embedded.close)
            yield name, rig


def added(road: Road, request: TaskRequest) -> str | None:
    """Return the id of a task that is taken, None for one that is refused."""
    (outcome,) = road.backend.create_tasks("default", [request])
    return None if outcome.error is not None else str(outcome.task_id)


def is_taken(road: Road, request: TaskRequest) -> str:
    return IS_TAKEN if added(road, request) else IS_REFUSED


def longest_deadline(road: Road) -> str:
    limits = {86_415.0: "24 h 15 s", 1800.0: "30 min", 600.0: "10 min"}
    for seconds, words in limits.items():
        if added(road, replace(POST, dispatch_deadline_seconds=seconds)):
            over = replace(POST, dispatch_deadline_seconds=seconds + 1)
            assert added(road, over) is None
            return words
    return "none"


def agent(road: Road) -> str:
    task_id = added(road, POST)
    if isinstance(road, RqRig):
        return road.stored()[str(task_id)].headers["user-agent"]
    service = road.embedded.service() if isinstance(road, EmbeddedRig) else road.service
    request = service.list_tasks(str(QUEUE)).items[0].request
    assert isinstance(request, (AppEngineRequest, HttpRequest))
    return {name.lower(): value for name, value in request.headers.items()}["user-agent"]


def automatic_name(road: Road) -> str:
    name = str(added(road, POST))
    if re.fullmatch("[0-9]+", name):
        return "decimal digits"
    return "32 hexadecimal digits" if re.fullmatch("[0-9a-f]{32}", name) else name


def purged_name(road: Road) -> str:
    assert added(road, replace(POST, name="n"))
    road.backend.purge_queue("default")
    return "is free at once" if added(road, replace(POST, name="n")) else "stays taken"


PROBES: tuple[Callable[[Road], str], ...] = (
    longest_deadline,
    lambda road: is_taken(road, replace(POST, method="PATCH")),
    lambda road: is_taken(road, replace(POST, headers=(("X-Big", "x" * 90_000),))),
    lambda road: is_taken(road, replace(POST, target="nowhere")),
    agent,
    automatic_name,
    purged_name,
)


@pytest.mark.parametrize(
    ("difference", "probe"),
    list(zip(DIFFERENCES, PROBES, strict=True)),
    ids=[each.what for each in DIFFERENCES],
)
def test_a_road_answers_as_the_table_says(
    road: tuple[str, Road], difference: Difference, probe: Callable[[Road], str]
) -> None:
    name, rig = road
    assert probe(rig) == difference.on(name)


def test_only_what_differs_is_in_the_table() -> None:
    assert [each.what for each in DIFFERENCES if len(set(each.answers)) == 1] == []
