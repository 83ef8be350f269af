"""kill -9 of the server, the app, or both: what was accepted runs, what finished stays so."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL here"),
]

QUEUE = "/v2/projects/local/locations/local/queues/mail"
RETRIES = {"maxAttempts": -1, "minBackoff": "0.05s", "maxBackoff": "0.2s"}
KILLS = 4
BATCH = 25
PATIENCE_SECONDS = 60.0

# Writes the number of each task that comes, and then answers.
APP = """
    import os, sys, time
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"] or 0))
            os.write(log, self.path[1:].encode() + b"\\n")
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    log = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()
"""


class App:
    """A process that takes tasks, at the same port each time that it is started."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.port = 0
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(APP), str(self.port), str(self.log)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def runs(self) -> Counter[int]:
        """Return how often each task has come; a line that a kill has cut off is none."""
        lines = self.log.read_bytes().split(b"\n")[:-1] if self.log.exists() else []
        return Counter(map(int, lines))


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    app = App(tmp_path / "runs")
    yield app
    app.kill()


def finished(server: Any) -> set[int]:
    """Return the tasks of which a server has told that they ended well, which it does after."""
    found = re.findall(r"POST http://localhost:\d+/(\d+)  attempt \d+  200 ", server.output)
    return set(map(int, found))


@pytest.mark.parametrize("who", ["server", "app", "both"])
def test_nothing_is_lost_and_nothing_finished_runs_again(
    who: str, tmp_path: Path, start_server: Callable[..., Any], app: App
) -> None:
    chance = random.Random(who)
    begin = lambda: start_server(tmp_path, "--db", "tasks.db", "--queue", "mail").ready()  # noqa: E731
    server = begin()
    change = {"retryConfig": RETRIES}
    assert server.ask("PATCH", QUEUE, json.dumps(change).encode())[0] == 200
    accepted: set[int] = set()
    done: dict[int, int] = {}

    for _ in range(KILLS):
        first = len(accepted)
        for number in range(first, first + BATCH):
            task = {"httpRequest": {"url": f"http://localhost:{app.port}/{number}"}}
            status, _ = server.ask("POST", f"{QUEUE}/tasks", json.dumps({"task": task}).encode())
            assert status == 200
            accepted.add(number)
        until = chance.randrange(first, first + BATCH)
        end = time.monotonic() + PATIENCE_SECONDS
        while len(app.runs()) < until and time.monotonic() < end:
            pass
        if who != "app":
            server.kill()
        if who != "server":
            app.kill()
            app.start()
        if who != "app":
            runs = app.runs()
            done |= {number: runs[number] for number in finished(server)}
            server = begin()

    while server.ask("GET", f"{QUEUE}/tasks")[1].strip() != b"{}":
        assert server.ask("POST", "/_local/wait-idle")[0] == 200
    runs = app.runs()
    done |= {number: runs[number] for number in finished(server) if number not in done}
    assert accepted - runs.keys() == set()
    assert {number: runs[number] for number in done} == done
    assert len(done) > BATCH
