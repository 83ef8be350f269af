"""The example on Redis and RQ, with real processes, as `make demo-rq` starts it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from appengine_compat import settings
from tests import redis_server

TOP = Path(__file__).parents[2]
SCRIPT = TOP / "examples" / "demo_rq.py"


class Demo:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = three_free_ports()
        clean = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith((settings.PREFIX, "GAE_", "GOOGLE_", "K_SERVICE", "PYTEST_"))
        }
        self._log = directory / "demo.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, SCRIPT, "--port", str(self.port), "--directory", directory],
                env=clean,
                stdout=log,
                stderr=log,
            )

    @property
    def output(self) -> str:
        return self._log.read_text(errors="replace")

    def wait_for(self, pattern: str) -> None:
        ends_at = time.monotonic() + 60
        while not re.search(pattern, self.output, re.MULTILINE):
            assert time.monotonic() < ends_at, f"{pattern} did not come in:\n{self.output}"
            assert self.process.poll() is None, self.output
            time.sleep(0.05)

    def end(self) -> None:
        """End it, in case it has not by itself."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)

    def post(self, path: str) -> None:
        address = f"http://localhost:{self.port}{path}"
        urllib.request.urlopen(urllib.request.Request(address, b"", method="POST")).close()


def three_free_ports() -> int:
    while True:
        with socket.socket() as first, socket.socket() as second, socket.socket() as third:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
                third.bind(("127.0.0.1", port + 2))
            except (OSError, OverflowError):
                continue
            return port


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    redis_server.require()
    directory = tmp_path_factory.mktemp("demo") / "guestbook"
    shutil.copytree(TOP / "examples" / "guestbook", directory)
    started = Demo(directory)
    try:
        started.wait_for("^Ready")
        yield started
    finally:
        started.end()


def test_make_demo_rq_starts_what_is_tested_here() -> None:
    recipe = re.search(r"^demo-rq:.*\n((?:\t.*\n)+)", (TOP / "Makefile").read_text(), re.MULTILINE)
    assert recipe is not None
    assert "examples/demo_rq.py" in recipe[1]


def test_deferred_work_runs_signed_on_each_service(demo: Demo) -> None:
    demo.post("/sign")
    demo.wait_for(r"default: work\.thank\(\d+, name='Somebody'\): .*: 200 in \d+ ms, attempt 1")
    demo.wait_for(r"default: POST /tasks/wall: POST http://localhost:\d+/tasks/wall: 200 in")


def test_an_unreliable_task_fails_twice_and_then_succeeds(demo: Demo) -> None:
    demo.post("/flaky")
    demo.wait_for(r"import_feed\('news\.example'\): .*: 500 in \d+ ms, attempt 2. Next try in")
    demo.wait_for(r"import_feed\('news\.example'\): .*: 200 in \d+ ms, attempt 3")


def test_nobody_else_is_believed(demo: Demo) -> None:
    request = urllib.request.Request(
        f"http://localhost:{demo.port}/_ah/queue/deferred",
        b"\x80",
        {"X-CloudTasks-QueueName": "default", "X-CloudTasks-TaskName": "t"},
    )
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request)
    with caught.value as answer:
        assert answer.code in (401, 403)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_it_ends_with_all_that_it_started(tmp_path: Path, number: signal.Signals) -> None:
    redis_server.require()
    directory = tmp_path / "guestbook"
    shutil.copytree(TOP / "examples" / "guestbook", directory)
    started = Demo(directory)
    try:
        started.wait_for("^Ready")
        redis_port = int(re.search(r"at redis://localhost:(\d+)", started.output)[1])  # type: ignore[index]
        started.process.send_signal(number)
        assert started.process.wait(60) == 0
    finally:
        started.end()
    for port in (redis_port, started.port):
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_without_redis_it_says_how_to_install_it(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), "--directory", str(tmp_path)],
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert "apt-get install redis-server" in ended.stderr
    assert list(tmp_path.iterdir()) == []
