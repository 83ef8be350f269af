"""How fast the embedded service stores tasks and runs them, in one process and on disk.

Rows: enqueue with one thread and with eight (their commits are shared), then the drain of a
backlog into a WSGI app that does nothing but read its body. The queue's rate is set so high that
it does not count.

Beside it stands huey's SQLite consumer, measured in the same run, where an environment of its own
has it: ``python -m venv .venv-huey && .venv-huey/bin/pip install huey``. (huey loses the tasks in
flight when it is killed.)

    python benchmarks/embedded.py [--tasks 5000] [--profile]
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from appengine_compat.backends.base import TaskRequest
from appengine_compat.backends.embedded import EmbeddedBackend
from appengine_compat.core.model import Queue, RateLimits

QUEUE = Queue(
    name="projects/local/locations/local/queues/default",
    rate_limits=RateLimits(
        max_dispatches_per_second=1e7, max_burst_size=10**6, max_concurrent_dispatches=5000
    ),
)
PAYLOAD = b"\x80\x05\x95" + b"x" * 40
WORK = TaskRequest(
    relative_url="/_ah/queue/deferred",
    payload=PAYLOAD,
    headers=(("Content-Type", "application/octet-stream"),),
)


def app(environ, start_response):
    environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b""]


def enqueue(backend: EmbeddedBackend, count: int, threads: int) -> float:
    """Return tasks per second."""
    part = count // threads

    def work() -> None:
        for _ in range(part):
            backend.create_tasks("default", (WORK,))

    workers = [threading.Thread(target=work) for _ in range(threads)]
    started = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return part * threads / (time.perf_counter() - started)


def drain(backend: EmbeddedBackend, count: int) -> tuple[float, float]:
    """Return tasks per second, and processor microseconds per task."""
    is_done = threading.Event()
    seen = 0

    def observe(_event) -> None:
        nonlocal seen
        seen += 1
        if seen == count:
            is_done.set()

    backend.observe(observe)
    backend.register_app(app, "default", is_set_up=True)
    started, worked = time.perf_counter(), time.process_time()
    backend.start()
    assert is_done.wait(300)
    seconds = time.perf_counter() - started
    return count / seconds, (time.process_time() - worked) / count * 1e6


def idle_latency(backend: EmbeddedBackend, count: int) -> list[float]:
    """Return, per task, the milliseconds from the call that enqueues to the start of its run."""
    has_run = threading.Event()
    at = 0.0

    def timed(environ, start_response):
        nonlocal at
        at = time.perf_counter()
        has_run.set()
        return app(environ, start_response)

    backend.register_app(timed, "default", is_set_up=True)
    milliseconds = []
    for _ in range(count):
        time.sleep(0.01)  # so that the service is at rest
        has_run.clear()
        started = time.perf_counter()
        backend.create_tasks("default", (WORK,))
        assert has_run.wait(10)
        milliseconds.append((at - started) * 1000)
    return sorted(milliseconds)


HUEY_PYTHON = Path(__file__).parents[1] / ".venv-huey" / "bin" / "python"
HUEY = """
import sys, tempfile, threading, time
from huey import SqliteHuey
count = int(sys.argv[1])
with tempfile.TemporaryDirectory() as directory:
    huey = SqliteHuey(filename=directory + "/huey.db")
    is_done, seen = threading.Event(), 0
    @huey.task()
    def work(payload):
        global seen
        seen += 1
        if seen == count:
            is_done.set()
    started = time.perf_counter()
    for _ in range(count):
        work(b"x" * 43)
    print(count / (time.perf_counter() - started))
    consumer = huey.create_consumer(workers=4, periodic=False)
    started = time.perf_counter()
    consumer.start()
    is_done.wait(300)
    print(count / (time.perf_counter() - started))
    consumer.stop(graceful=True)
"""


def huey_rates(count: int) -> tuple[float, float] | None:
    """Return huey's enqueues and drained tasks per second, or None where it is not."""
    if not HUEY_PYTHON.exists():
        return None
    done = subprocess.run(
        [HUEY_PYTHON, "-c", HUEY, str(count)], check=True, capture_output=True, text=True
    )
    enqueued, drained = map(float, done.stdout.split())
    return enqueued, drained


def with_backend(run: Callable[[EmbeddedBackend], object]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        backend = EmbeddedBackend(f"{directory}/tasks.db", queues=[QUEUE])
        backend.service()
        run(backend)
        backend.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the embedded service.")
    parser.add_argument("--tasks", type=int, default=5000)
    parser.add_argument("--profile", action="store_true", help="profile the calling thread")
    given = parser.parse_args()

    huey = huey_rates(given.tasks)

    def measure(backend: EmbeddedBackend) -> None:
        one = enqueue(backend, given.tasks, 1)
        beside = f"huey, SQLite: {huey[0]:,.0f}" if huey else f"{1e6 / one:.0f} us each, on disk"
        print(f"embedded enqueue, 1 thread\t{one:,.0f} tasks/s\t{beside}")
        eight = enqueue(backend, given.tasks, 8)
        print(f"embedded enqueue, 8 threads\t{eight:,.0f} tasks/s\tcommits shared")
        rate, worked = drain(backend, 2 * given.tasks // 8 * 8)
        beside = f", huey, SQLite: {huey[1]:,.0f} (x {rate / huey[1]:.1f})" if huey else ""
        print(
            f"embedded drain, in process\t{rate:,.0f} tasks/s\t"
            f"{worked:.0f} us of processor each{beside}"
        )

    def measure_idle(backend: EmbeddedBackend) -> None:
        waits = idle_latency(backend, 200)
        print(f"embedded, idle: enqueue to run\tp50 {waits[100]:.2f} ms\tp99 {waits[197]:.2f} ms")

    if given.profile:
        profile = cProfile.Profile()
        with_backend(lambda backend: profile.runcall(enqueue_here, backend, given.tasks))
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)
        return
    with_backend(measure)
    with_backend(measure_idle)


def enqueue_here(backend: EmbeddedBackend, count: int) -> None:
    for _ in range(count):
        backend.create_tasks("default", (WORK,))


if __name__ == "__main__":
    main()
