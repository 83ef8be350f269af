"""How fast ``appengine-compat server`` is, as its clients and targets see it, with all on disk.

Rows: tasks created over gRPC by one thread and by eight, each created before the next is sent;
the drain of a backlog over HTTP into an app under waitress; and, at rest, the time from the call
that creates a task to its arrival. The queue's rate is set so high that it does not count. The
client sends bytes that were made before, so that the server is measured and not Google's library.

Beside it stand, in the same run, each where an environment of its own has it,
gcloud-tasks-emulator, which keeps nothing on disk, and RQ's SimpleWorker with a Redis on disk:

    python -m venv .venv-emulator && .venv-emulator/bin/pip install gcloud-tasks-emulator==0.6.2
    python -m venv .venv-rq && .venv-rq/bin/pip install rq

    python benchmarks/server.py [--tasks 2000] [--rounds 3]
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
from google.cloud import tasks_v2

from appengine_compat.core.model import Queue, RateLimits
from appengine_compat.local.service import LocalService
from appengine_compat.local.store import Store

ROOT = Path(__file__).parents[1]
EMULATOR = ROOT / ".venv-emulator" / "bin" / "gcloud-tasks-emulator"
RQ_PYTHON = ROOT / ".venv-rq" / "bin" / "python"
QUEUE = "projects/p/locations/l/queues/q"
SERVICE = "/google.cloud.tasks.v2.CloudTasks/"
GIVE_UP_SECONDS = 120.0
AT_REST = 100

# Writes when each task came: the clock is the same in all processes of a machine.
TARGET = """
import logging, os, sys, time, waitress
logging.getLogger("waitress.queue").setLevel(logging.ERROR)
log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def app(environ, start_response):
    at = time.monotonic()
    environ["wsgi.input"].read()
    os.write(log, b"%18.6f\\n" % at)
    start_response("200 OK", [("Content-Length", "0")])
    return [b""]
server = waitress.create_server(app, host="127.0.0.1", port=0, threads=8)
print(server.effective_port, flush=True)
server.run()
"""
LINE_BYTES = 19

RQ = """
import sys, time, urllib.request
from redis import Redis
from rq import Queue, SimpleWorker
count, url = int(sys.argv[1]), sys.argv[2]
redis = Redis.from_url(url)
queue = Queue(connection=redis)
for _ in range(count):
    queue.enqueue(len, b"x" * 43)
started = time.perf_counter()
SimpleWorker([queue], connection=redis).work(burst=True, logging_level="ERROR")
print(count / (time.perf_counter() - started))
"""


class Target:
    """An app under waitress, and when tasks came to it."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self.process = subprocess.Popen(
            [sys.executable, "-c", TARGET, log], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def count(self) -> int:
        return self._log.stat().st_size // LINE_BYTES

    def await_count(self, count: int) -> None:
        end = time.monotonic() + GIVE_UP_SECONDS
        while self.count() < count:
            assert time.monotonic() < end, f"{self.count()} of {count} tasks came"
            time.sleep(0.001)

    def times(self) -> list[float]:
        return [float(line) for line in self._log.read_text().splitlines()]


class Client:
    """What sends requests to a server over gRPC."""

    def __init__(self, port: int, target: int) -> None:
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        grpc.channel_ready_future(self.channel).result(30)
        request = tasks_v2.CreateTaskRequest(
            parent=QUEUE,
            task={"http_request": {"url": f"http://127.0.0.1:{target}/", "body": b"x" * 43}},
        )
        self._create = self._method("CreateTask")
        self._bytes = tasks_v2.CreateTaskRequest.serialize(request)

    def _method(self, name: str) -> Callable[..., Any]:
        # Servers that speak of routing by metadata are sent none: neither of these looks at it.
        return self.channel.unary_unary(SERVICE + name)

    def create(self) -> None:
        self._create(self._bytes)

    def pause(self) -> None:
        self._method("PauseQueue")(
            tasks_v2.PauseQueueRequest.serialize(tasks_v2.PauseQueueRequest(name=QUEUE))
        )

    def resume(self) -> None:
        self._method("ResumeQueue")(
            tasks_v2.ResumeQueueRequest.serialize(tasks_v2.ResumeQueueRequest(name=QUEUE))
        )

    def creates_per_second(self, count: int, threads: int) -> float:
        part = count // threads

        def work() -> None:
            for _ in range(part):
                self.create()

        workers = [threading.Thread(target=work) for _ in range(threads)]
        started = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return part * threads / (time.perf_counter() - started)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        return int(bound.getsockname()[1])


@contextlib.contextmanager
def ours(folder: Path, _: int) -> Iterator[int]:
    """Run the server; give its port."""
    rates = RateLimits(
        max_dispatches_per_second=1e7, max_burst_size=10**6, max_concurrent_dispatches=5000
    )
    service = LocalService(Store(folder / "tasks.db"))
    service.put_queues([Queue(name=QUEUE, rate_limits=rates)])
    service.close()
    port = free_port()
    command = [sys.executable, "-m", "appengine_compat.cli.main", "server", "--quiet"]
    command += ["--db", "tasks.db", "--grpc-port", str(port)]
    command += ["--rest-port", "0", "--dashboard-port", "0"]
    with running(command, folder):
        yield port


@contextlib.contextmanager
def emulator(folder: Path, target: int) -> Iterator[int]:
    """Run gcloud-tasks-emulator; give its port."""
    port = free_port()
    command = [str(EMULATOR), "start", "-q", "-p", str(port), "-t", str(target), "-d", QUEUE]
    with running(command, folder):
        yield port


@contextlib.contextmanager
def running(command: list[str], folder: Path) -> Iterator[None]:
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=subprocess.STDOUT)
        try:
            yield
        finally:
            process.kill()
            process.wait()


def measure(start: Callable[[Path, int], Any], count: int) -> dict[str, float]:
    """Return what one server does."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        target = Target(folder / "came")
        try:
            with start(folder, target.port) as port:
                client = Client(port, target.port)
                client.create()
                target.await_count(1)
                client.pause()
                one = client.creates_per_second(count // 2, 1)
                eight = client.creates_per_second(count // 2, 8)
                total = 1 + count // 2 + count // 2 // 8 * 8
                client.resume()
                target.await_count(total)
                times = sorted(target.times())[1:]
                drained = (len(times) - 1) / (times[-1] - times[0])
                waits = at_rest(client, target, total)
                client.channel.close()
        finally:
            target.process.kill()
            target.process.wait()
            assert target.process.stdout is not None
            target.process.stdout.close()
    return {
        "one": one, "eight": eight, "drain": drained,
        "p50": waits[len(waits) // 2], "p99": waits[int(len(waits) * 0.99)],
    }  # fmt: skip


def at_rest(client: Client, target: Target, came: int) -> list[float]:
    sent = []
    for number in range(1, AT_REST + 1):
        time.sleep(0.02)  # so that the server is at rest
        sent.append(time.monotonic())
        client.create()
        target.await_count(came + number)
    arrived = sorted(target.times())[came:]
    return sorted((at - since) * 1000 for since, at in zip(sent, arrived, strict=True))


def simple_worker(count: int) -> float | None:
    """Return how many jobs RQ's SimpleWorker runs in a second, None where it is not."""
    program = shutil.which("redis-server")
    if program is None or not RQ_PYTHON.exists():
        return None
    with tempfile.TemporaryDirectory() as name:
        port = free_port()
        command = [program, "--port", str(port), "--dir", name, "--appendonly", "yes", "--save", ""]
        with running(command, Path(name)):
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                time.sleep(0.02)
            done = subprocess.run(
                [RQ_PYTHON, "-c", RQ, str(count), f"redis://127.0.0.1:{port}/0"],
                check=True, capture_output=True, text=True,
            )  # fmt: skip
    return float(done.stdout)


def middle(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure appengine-compat server.")
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3, help="of which the median is printed")
    given = parser.parse_args()
    peers = {"emulator": emulator} if EMULATOR.exists() else {}
    found: dict[str, list[dict[str, float]]] = {}
    rq: list[float] = []
    # By turns, so that what else the machine does concerns all of them.
    for _ in range(given.rounds):
        for name, start in {"ours": ours, **peers}.items():
            found.setdefault(name, []).append(measure(start, given.tasks))
        rate = simple_worker(given.tasks // 4)
        rq += [] if rate is None else [rate]
    own = middle(found["ours"])
    other = middle(found["emulator"]) if peers else None
    worker = statistics.median(rq) if rq else None

    def beside(name: str) -> str:
        if other is None:
            return ""
        times = own[name] / other[name]
        return f"gcloud-tasks-emulator, in memory: {other[name]:,.0f} (x {times:.1f})"

    print(f"server, create over gRPC, 1 client\t{own['one']:,.0f} tasks/s\t{beside('one')}")
    print(f"server, create over gRPC, 8 clients\t{own['eight']:,.0f} tasks/s\t{beside('eight')}")
    drained = beside("drain")
    if worker is not None:
        drained += f", RQ SimpleWorker: {worker:,.0f} (x {own['drain'] / worker:.1f})"
    print(f"server, drain over HTTP\t{own['drain']:,.0f} tasks/s\t{drained.lstrip(', ')}")
    waits = f", gcloud-tasks-emulator: p50 {other['p50']:.2f} ms" if other is not None else ""
    print(
        f"server, idle: create to arrival\tp50 {own['p50']:.2f} ms\tp99 {own['p99']:.2f} ms{waits}"
    )


if __name__ == "__main__":
    main()
