"""Google's Node client, over gRPC and over REST, against the doors of the local service."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appengine_compat.local.fronts.grpc_front import serve_grpc
from appengine_compat.local.fronts.rest_server import serve_rest
from appengine_compat.local.service import LocalService
from appengine_compat.local.store import Store

PACKAGE = "@google-cloud/tasks@6"
LOCATION = "projects/p/locations/us-central1"
INSTALL_SECONDS = 90
RUN_SECONDS = 60

pytestmark = pytest.mark.slow


def missing(why: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(f"{why}; in CI this must be there")
    pytest.skip(why)


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    if shutil.which("node") is None or shutil.which("npm") is None:
        missing("Node is not installed: nothing here holds the doors to its client")
    folder = tmp_path_factory.mktemp("node")
    (folder / "package.json").write_text('{"private": true}')
    command = ["npm", "install", "--no-audit", "--no-fund", "--silent", PACKAGE]
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_SECONDS
        )
    except subprocess.TimeoutExpired:
        missing(f"npm did not bring {PACKAGE} within {INSTALL_SECONDS} seconds")
    if done.returncode:
        missing(f"npm cannot bring {PACKAGE}: {done.stderr.strip()[-300:]}")
    script = folder / "client.js"
    script.write_text(Path(__file__).with_name("node_client.js").read_text("utf-8"), "utf-8")
    return script


@pytest.fixture
def service() -> Iterator[LocalService]:
    service = LocalService(Store(None))
    yield service
    service.close()


@pytest.fixture(params=["grpc", "rest"])
def seen(request, program: Path, service: LocalService) -> Iterator[dict[str, Any]]:
    """What the client saw."""
    serve = serve_grpc if request.param == "grpc" else serve_rest
    server = serve(service, port=0)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(program.parent),
        # No look for a cloud around this machine.
        "METADATA_SERVER_DETECTION": "none",
        "GOOGLE_CLOUD_PROJECT": "p",
    }
    try:
        done = subprocess.run(
            ["node", program, request.param, str(server.port), LOCATION, "q"],
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
            env=environment,
        )
        assert done.returncode == 0, done.stderr
        yield json.loads(done.stdout)
    finally:
        server.stop()


def test_its_calls_say_what_they_say_of_the_real_service(seen, service) -> None:
    name = f"{LOCATION}/queues/q"
    assert seen["queue"]["name"] == name
    assert seen["queue"]["state"] == "RUNNING"
    backoff = {"seconds": "0", "nanos": 500_000_000}
    assert seen["queue"]["retryConfig"]["minBackoff"] == backoff
    assert seen["updated"]["retryConfig"]["maxAttempts"] == 5
    assert seen["updated"]["retryConfig"]["minBackoff"] == backoff
    assert seen["full"] == {
        "view": "FULL",
        "method": "PUT",
        "body": "fffe3f3e",
        "deadline": {"seconds": "600", "nanos": 0},
    }
    assert seen["pages"] == ["ab", "c"]
    assert seen["paused"]["state"] == "PAUSED"
    assert seen["ran"]["dispatchCount"] == 1
    assert not seen["policy"]["bindings"]
    tasks = service.list_tasks(name).items
    assert [task.name for task in tasks] == [f"{name}/tasks/b", f"{name}/tasks/c"]

    assert (seen["exists"]["code"], seen["exists"]["text"]) == (6, "Queue already exists")
    assert seen["bad"]["code"] == 3
    assert seen["bad"]["text"].startswith('Task ID "a.b" can contain only letters')
    assert seen["bad"]["details"][0]["links"][0]["description"] == "Definition of task ID"
    assert seen["gone"]["code"] == 5
    assert seen["gone"]["text"].startswith("The task no longer exists, though a task with this")
