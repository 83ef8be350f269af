"""Nothing is dispatched into an app that is still being set up."""

from __future__ import annotations

import queue
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from appengine_compat.backends.embedded_gate import Gate, processor_seconds

PATIENCE_SECONDS = 20.0


def opens(gate: Gate) -> bool:
    for _ in range(int(PATIENCE_SECONDS / 0.01)):
        if gate.is_open():
            return True
        threading.Event().wait(0.01)
    return False


class Clock:
    """Seconds that a test lets pass, and those of them that the watched thread wanted to work."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.wanted_seconds = 0.0

    def __call__(self) -> float:
        return self.seconds

    def wanted(self, thread: int) -> float:
        return self.wanted_seconds

    def advance(self, seconds: float, working: float = 0.0) -> None:
        self.seconds += seconds
        self.wanted_seconds += working * seconds


@contextmanager
def being_set_up(clock: Clock | None = None) -> Iterator[Gate]:
    """Yield a gate that was made by a function which has not returned yet."""
    gates: queue.Queue[Gate] = queue.Queue()
    is_over = threading.Event()

    def set_up() -> None:
        gates.put(Gate(now=clock, wanted=clock.wanted) if clock else Gate(settled_seconds=0.1))
        is_over.wait()

    thread = threading.Thread(target=set_up, daemon=True)
    thread.start()
    gate = gates.get(timeout=PATIENCE_SECONDS)
    try:
        yield gate
    finally:
        is_over.set()
        thread.join()


def test_it_opens_when_the_function_that_sets_up_has_returned():
    with being_set_up(Clock()) as gate:
        assert not gate.is_open()
    assert gate.is_open()


def asked_until_open(gate: Gate, clock: Clock, *, working: float) -> float:
    """Ask ten times a second; return after how many seconds it opens."""
    while not gate.is_open():
        clock.advance(0.1, working)
        assert clock.seconds < 60
    return clock.seconds


def test_it_opens_when_what_is_left_stands_still_in_a_main_loop():
    clock = Clock()
    with being_set_up(clock) as gate:
        assert asked_until_open(gate, clock, working=0.05) == pytest.approx(0.5, abs=0.2)


def test_it_stays_shut_while_the_function_works():
    clock = Clock()
    with being_set_up(clock) as gate:
        for _ in range(90):
            assert not gate.is_open()
            clock.advance(0.1, working=0.5)
    assert gate.is_open()


def test_what_works_for_very_long_is_a_main_loop_too():
    clock = Clock()
    with being_set_up(clock) as gate:
        assert asked_until_open(gate, clock, working=1.0) == pytest.approx(10, abs=0.5)


def test_the_clocks_of_the_machine_tell_that_a_thread_waits():
    with being_set_up() as gate:
        assert opens(gate)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of threads")
def test_the_clocks_of_the_machine_tell_that_a_thread_works():
    thread = threading.get_native_id()
    before = processor_seconds(thread)
    until = time.thread_time() + 0.05
    while time.thread_time() < until:
        pass
    # The kernel notes it from tick to tick.
    assert processor_seconds(thread) - before > 0.02


def dispatched_in(tmp_path, files: dict[str, str], *command: str) -> list[str]:
    for name, text in files.items():
        (tmp_path / name).write_text(textwrap.dedent(text))
    done = subprocess.run(
        [sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


APP = """
    import threading, time
    from appengine_compat.backends.base import TaskRequest
    from appengine_compat.backends.embedded import EmbeddedBackend
    routes = set()
    has_run = threading.Event()
    def app(environ, start_response):
        print("found" if environ["PATH_INFO"] in routes else "missing", flush=True)
        has_run.set()
        start_response("200 OK", [])
        return []
    backend = EmbeddedBackend("tasks.db")
    backend.register_app(app, "default")
    backend.create_tasks("default", [TaskRequest(relative_url="/late")])
    time.sleep(0.8)
    routes.add("/late")
"""


RELOADER = """
    def restart_with_reloader():
        print("ran" if has_run.wait(1.5) else "waited")
    restart_with_reloader()
"""


def test_a_module_that_is_being_imported_is_waited_for(tmp_path):
    files = {"webapp.py": APP, "main.py": "import webapp\nwebapp.has_run.wait(20)\n"}
    assert dispatched_in(tmp_path, files, "main.py") == ["found"]


def test_a_process_that_only_reloads_dispatches_nothing(tmp_path):
    main = APP.replace("time.sleep(0.8)", RELOADER)
    assert dispatched_in(tmp_path, {"main.py": main}, "main.py") == ["waited"]
