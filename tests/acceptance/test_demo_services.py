"""The example's services as three real processes, as `make demo-services` starts them."""

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

TOP = Path(__file__).parents[2]
SCRIPT = TOP / "examples" / "demo_services.py"
pytestmark = pytest.mark.slow


class Demo:
    def __init__(self, directory: Path) -> None:
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
    directory = tmp_path_factory.mktemp("demo") / "guestbook"
    ignored = shutil.ignore_patterns("__pycache__", "*.db", ".appengine-compat")
    shutil.copytree(TOP / "examples" / "guestbook", directory, ignore=ignored)
    started = Demo(directory)
    try:
        for service in ("default", "py3-web", "py3-tasks-io"):
            started.wait_for(rf"^{service} +\| Ready")
        yield started
    finally:
        if started.process.poll() is None:
            started.process.send_signal(signal.SIGTERM)
        assert started.process.wait(60) == 0, started.output
    assert len(re.findall(r"\| Ending\.$", started.output, re.MULTILINE)) == 3


def test_a_task_stays_with_the_process_of_its_service(demo: Demo) -> None:
    demo.post("/sign")
    demo.wait_for(r"^default +\| .*work\.thank\(\d+, name='Somebody'\)  attempt 1  200")
    demo.wait_for(r"^py3-web +\| .*POST /tasks/wall  attempt 1  200")


def test_targets_are_reached_in_other_processes(demo: Demo) -> None:
    demo.post("/points")
    demo.post("/notify")
    demo.wait_for(r"^py3-tasks-io +\| .*GET /tasks/math/do/points/2019nyny  attempt 1  200")
    demo.wait_for(r"^py3-tasks-io +\| .*work\.send_notification\(.*attempt 1  200")


def test_retries_happen_in_the_process_of_the_service_too(demo: Demo) -> None:
    demo.post("/flaky")
    demo.wait_for(r"^default +\| .*work\.import_feed.*attempt 3  200")
    assert not re.search(r"^py3-\S+ +\| .*work\.import_feed", demo.output, re.MULTILINE)


def test_make_starts_it() -> None:
    makefile = (TOP / "Makefile").read_text("utf-8")
    recipe = re.search(r"^demo-services:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert recipe is not None
    assert recipe[1].split()[-1] == "examples/demo_services.py"
