"""``appengine-compat dev`` and ``server`` as processes, with their output read as it comes."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from appengine_compat import settings

EXAMPLE = Path(__file__).parents[2] / "examples" / "guestbook"
SERVICES = ("main:app", "py3-web=web:app", "py3-tasks-io=tasks_io:app")
DEADLINE_SECONDS = 60.0


class DevServer:
    """A running server; used as a context manager, it is killed at the end."""

    # Tests that run at the same time would dispute the usual ports.
    COMMAND: tuple[str, ...] = (
        "dev", "--port", "0",
        "--grpc-port", "free", "--rest-port", "free", "--dashboard-port", "free",
    )  # fmt: skip

    def __init__(self, directory: Path, *arguments: str, **environment: str) -> None:
        clean = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith((settings.PREFIX, "GAE_", "GOOGLE_", "K_SERVICE", "PYTEST_"))
        }
        self.lines: list[str] = []
        self._grown = threading.Condition()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "appengine_compat.cli.main", *self.COMMAND, *arguments],
            cwd=directory,
            env=clean | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> DevServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._grown:
                self.lines.append(line.rstrip("\n"))
                self._grown.notify_all()
        with self._grown:
            self._grown.notify_all()

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def wait_for(self, pattern: str, count: int = 1) -> list[re.Match[str]]:
        """Return the first ``count`` matches in the output, once they have come."""
        end = time.monotonic() + DEADLINE_SECONDS
        with self._grown:
            while True:
                found = [match for line in self.lines if (match := re.search(pattern, line))]
                if len(found) >= count:
                    return found[:count]
                remaining = end - time.monotonic()
                has_ended = not self._reader.is_alive()
                if remaining <= 0 or has_ended:
                    why = "the server ended" if has_ended else f"{DEADLINE_SECONDS:g} s passed"
                    raise AssertionError(
                        f"{pattern!r} did not come {count} times before {why}:\n{self.output}"
                    )
                self._grown.wait(min(remaining, 1.0))

    def ready(self) -> DevServer:
        self.wait_for(r"^Ready")
        return self

    def address(self, service: str = "default") -> str:
        return self.wait_for(rf"^ *{service} +(http://\S+)")[0][1]

    def get(self, path: str, service: str = "default") -> str:
        with urllib.request.urlopen(self.address(service) + path, timeout=30) as answer:
            return str(answer.read().decode())

    def post(
        self,
        path: str,
        service: str = "default",
        headers: dict[str, str] | None = None,
        **form: str,
    ) -> tuple[int, str]:
        """Return status and body of the answer, redirects followed."""
        request = urllib.request.Request(
            self.address(service) + path, urllib.parse.urlencode(form).encode(), headers or {}
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def interrupt(self, number: int = signal.SIGINT) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        code = self.process.wait(DEADLINE_SECONDS)
        self._reader.join(DEADLINE_SECONDS)
        return code

    def kill(self) -> None:
        """End it as ``kill -9`` does."""
        self.process.kill()
        self.process.wait(DEADLINE_SECONDS)
        self._reader.join(DEADLINE_SECONDS)
        if self.process.stdout is not None:
            self.process.stdout.close()


class UsualDevServer(DevServer):
    """A running ``appengine-compat dev`` whose doors are where they are unless told otherwise."""

    COMMAND = ("dev", "--port", "0")


class LocalServer(DevServer):
    """A running ``appengine-compat server`` on free ports."""

    COMMAND = (
        "server", "--grpc-port", "free", "--rest-port", "free", "--dashboard-port", "free",
    )  # fmt: skip

    def door(self, name: str) -> str:
        """Return the address of a door: ``gRPC``, ``REST`` or ``queues``."""
        return self.wait_for(rf"^Ready: .*\b{name} ([^\s,]+[^\s,.])")[0][1]

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Ask the REST door, and return status and body."""
        request = urllib.request.Request(self.door("REST") + path, body, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()


Start = Callable[..., DevServer]


@pytest.fixture(scope="session")
def guestbook(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Make copies of the example, so that nothing is left in the checkout."""

    def copy() -> Path:
        directory = tmp_path_factory.mktemp("guestbook") / "app"
        shutil.copytree(
            EXAMPLE,
            directory,
            ignore=shutil.ignore_patterns("__pycache__", "*.db", ".appengine-compat"),
        )
        return directory

    return copy


@pytest.fixture
def start_dev() -> Iterator[Start]:
    """Start servers that are killed at the end of the test."""
    started: list[DevServer] = []

    def start(directory: Path, *arguments: str, **environment: str) -> DevServer:
        server = DevServer(directory, *arguments, **environment)
        started.append(server)
        return server

    yield start
    for server in started:
        server.kill()


@pytest.fixture
def start_server() -> Iterator[Callable[..., LocalServer]]:
    """Start local Cloud Tasks that are killed at the end of the test."""
    started: list[LocalServer] = []

    def start(directory: Path, *arguments: str, **environment: str) -> LocalServer:
        server = LocalServer(directory, *arguments, **environment)
        started.append(server)
        return server

    yield start
    for server in started:
        server.kill()


@pytest.fixture(scope="session")
def usual_dev() -> type[DevServer]:
    """What starts ``dev`` at the usual ports, of which there is one set on a machine."""
    return UsualDevServer


@pytest.fixture(scope="session")
def local_server() -> type[LocalServer]:
    """What starts a local Cloud Tasks, for fixtures that live longer than a test."""
    return LocalServer


@pytest.fixture(scope="module")
def demo(guestbook: Callable[[], Path]) -> Iterator[DevServer]:
    """The example's three services, started as ``make demo`` does."""
    with DevServer(guestbook(), *SERVICES) as server:
        yield server.ready()
