"""The examples for Flask, Django and FastAPI, each under a real server, with tasks that run."""

from __future__ import annotations

import os
import pickle
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from appengine_compat import settings
from tests.acceptance.conftest import DevServer, LocalServer

pytestmark = pytest.mark.slow
EXAMPLES = Path(__file__).parents[2] / "examples"
PATIENCE_SECONDS = 60.0


@dataclass
class Site:
    address: str
    directory: Path

    def notes(self, count: int) -> list[str]:
        """Return what tasks have noted, once there are so many lines."""
        path = self.directory / "notes.txt"
        ends_at = time.monotonic() + PATIENCE_SECONDS
        while True:
            lines = path.read_text().splitlines() if path.exists() else []
            if len(lines) >= count:
                return sorted(lines)
            assert time.monotonic() < ends_at, lines
            time.sleep(0.05)

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.address + path, timeout=30) as answer:
            return str(answer.read().decode())

    def refusal(self, path: str, body: bytes = b"") -> str:
        """Return the code that a request is refused with."""
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(self.address + path, body, timeout=30)
        with caught.value as answer:
            assert answer.code == 401
            return str(answer.read().decode()).partition(":")[0]


Start = Callable[[str], Site]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with ExitStack() as stack:

        def begin(kind: str) -> Site:
            directory = tmp_path / kind
            ignored = shutil.ignore_patterns("__pycache__", "notes.txt", ".appengine-compat")
            shutil.copytree(EXAMPLES / f"{kind}_app", directory, ignore=ignored)
            return Site(SERVERS[kind](directory, stack), directory)

        yield begin


def under_dev(directory: Path, stack: ExitStack) -> str:
    doors = ("--grpc-port", "0", "--rest-port", "0", "--dashboard-port", "0")
    server = stack.enter_context(DevServer(directory, *doors, "main:app"))
    return server.ready().address()


def under_gunicorn(directory: Path, stack: ExitStack) -> str:
    return _process(
        directory,
        stack,
        lambda fd: ["gunicorn", "--bind", f"fd://{fd}", "--threads", "4", "main:application"],
    )


def under_uvicorn(directory: Path, stack: ExitStack) -> str:
    server = LocalServer(directory, "--queue", "default")
    stack.enter_context(server)
    server.ready()
    bound = socket.create_server(("127.0.0.1", 0))
    return _process(
        directory,
        stack,
        lambda fd: ["uvicorn", "--fd", str(fd), "main:app"],
        bound,
        CLOUD_TASKS_EMULATOR_HOST=server.door("gRPC"),
        APPENGINE_COMPAT_PROJECT="local",
        APPENGINE_COMPAT_LOCATION="local",
        APPENGINE_COMPAT_OIDC_ISSUER=server.door("REST"),
        APPENGINE_COMPAT_TARGETS=f"http://localhost:{bound.getsockname()[1]}",
        APPENGINE_COMPAT_SERVICE_ACCOUNT="tasks@example.test",
    )


SERVERS: dict[str, Callable[[Path, ExitStack], str]] = {
    "flask": under_dev,
    "django": under_gunicorn,
    "fastapi": under_uvicorn,
}


def _process(
    directory: Path,
    stack: ExitStack,
    command: Callable[[int], list[str]],
    bound: socket.socket | None = None,
    **environment: str,
) -> str:
    bound = bound or socket.create_server(("127.0.0.1", 0))
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith((settings.PREFIX, "GAE_", "GOOGLE_", "K_SERVICE", "PYTEST_"))
    }
    log = stack.enter_context((directory / "server.log").open("wb"))
    process = subprocess.Popen(
        [sys.executable, "-m", *command(bound.fileno())],
        cwd=directory,
        env={**clean, **environment},
        pass_fds=[bound.fileno()],
        stdout=log,
        stderr=log,
    )
    stack.callback(process.wait, PATIENCE_SECONDS)
    stack.callback(process.kill)
    stack.callback(bound.close)
    # Requests wait in the socket's queue until the server takes them.
    return f"http://127.0.0.1:{bound.getsockname()[1]}"


EXPECTED = {
    "flask": ["after the response", "clear_the_cache()", "do_expensive_work('a', b='c')"],
    "django": [
        "after the response",
        "clear_the_cache()",
        "do_expensive_work('a', b='c')",
        "report of today",
    ],
    "fastapi": ["clear_the_cache() on the loop", "do_expensive_work('a', b='c') in a thread"],
}


@pytest.mark.parametrize("kind", sorted(SERVERS))
def test_what_is_deferred_runs_once_and_strangers_run_nothing(start: Start, kind: str) -> None:
    site = start(kind)
    assert "Done! deferred expensive work for later." in site.get("/do_the_thing")
    assert site.notes(len(EXPECTED[kind])) == EXPECTED[kind]
    forged = pickle.dumps((Path.touch, (site.directory / "forged",), {}))
    for path in ("/_ah/queue/deferred", "/_ah/queue/deferred_x"):
        assert site.refusal(path, forged) == "AEC-NO-CREDENTIALS"
    assert not (site.directory / "forged").exists()
    assert site.notes(0) == EXPECTED[kind]


def test_djangos_guarded_view_is_for_tasks_only(start: Start) -> None:
    assert start("django").refusal("/tasks/report") == "AEC-NO-CREDENTIALS"


def test_fastapis_custom_path_is_behind_the_door(start: Start) -> None:
    assert start("fastapi").refusal("/custom/path") == "AEC-NO-CREDENTIALS"
