"""The example on Redis and RQ, with real processes, as `make demo-rq` starts it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import redis_server
from tests.acceptance import demo_script
from tests.acceptance.demo_script import Demo

SCRIPT = demo_script.TOP / "examples" / "demo_rq.py"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    redis_server.require()
    started = Demo(SCRIPT, tmp_path_factory.mktemp("demo") / "guestbook")
    try:
        started.wait_for("^Ready")
        yield started
    finally:
        started.end()


def test_make_demo_rq_starts_what_is_tested_here() -> None:
    assert "examples/demo_rq.py" in demo_script.recipe_of("demo-rq")


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
    started = Demo(SCRIPT, tmp_path / "guestbook")
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
