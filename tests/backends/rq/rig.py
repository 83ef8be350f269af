"""A real Redis, a real target, and workers: in this process, or as processes to be killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import redis
import rq
import rq.timeouts
from rq.job import Job

from appengine_compat.backends.base import TaskRequest
from appengine_compat.backends.rq.backend import RqBackend
from appengine_compat.core.model import Queue, RateLimits, RetryConfig
from tests.http_target import Target
from tests.redis_server import RedisServer

KEYS = "test:0123456789abcdef"
QUEUE_NAME = "projects/p/locations/l/queues/"

# As `appengine-compat rq-worker`, but a worker that is no more is noticed within two seconds.
QUICK_WORKER = """
import sys
from appengine_compat.backends.rq import worker
worker.CLEANING_SECONDS, worker.SIGN_OF_LIFE_SECONDS, worker.DEAD_SECONDS = 1, 1, 2
from appengine_compat.cli.main import main
sys.exit(main(["rq-worker", *sys.argv[1:]]))
"""


class SimpleWorker(rq.SimpleWorker):
    # The signal of RQ's other way to end a job is pytest's own here.
    death_penalty_class = rq.timeouts.TimerDeathPenalty


@dataclass
class Rig:
    """What a test of this folder works with."""

    server: RedisServer
    target: Target
    folder: Path
    environ: dict[str, str]
    client: redis.Redis = field(init=False)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.client = redis.Redis.from_url(self.server.url)

    def backend(
        self, rates: RateLimits | None = None, retry: RetryConfig | None = None
    ) -> RqBackend:
        return RqBackend(
            self.server.url,
            queues={
                name: Queue(
                    name=QUEUE_NAME + name,
                    rate_limits=rates or RateLimits(),
                    retry_config=retry or RetryConfig(),
                )
                for name in ("default", "other")
            },
        )

    def queue(self, name: str = "default") -> rq.Queue:
        return rq.Queue(name, connection=self.client)

    def job(self, task_id: str, queue: str = "default") -> Job:
        return Job.fetch(f"{queue}_{task_id}", connection=self.client)

    def work_off(self, queue: str = "default") -> None:
        """Run what waits in a queue, by RQ's own worker, in this process; one run each."""
        rq_queue = self.queue(queue)
        worker = SimpleWorker([rq_queue], connection=self.client)
        for job in list(rq_queue.jobs):
            rq_queue.remove(job)
            worker.execute_job(job, rq_queue)

    def start_worker(self, *arguments: str) -> subprocess.Popen[bytes]:
        return self._start([sys.executable, "-c", QUICK_WORKER, *arguments])

    def start_plain_worker(self, *arguments: str) -> subprocess.Popen[bytes]:
        """RQ's own, as it is installed."""
        program = str(Path(sys.executable).parent / "rq")
        return self._start(
            [program, "worker", "--with-scheduler", "--url", self.server.url, *arguments]
        )

    def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
        with (self.folder / f"worker-{len(self.processes)}.log").open("wb") as log:
            process = subprocess.Popen(
                command,
                env={**os.environ, **self.environ},
                cwd=self.folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """Kill a worker and all that it has started, as when a machine loses its power."""
        for pid in descendants(process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()

    def logs(self) -> str:
        return "\n".join(
            path.read_text(errors="replace") for path in sorted(self.folder.glob("worker-*.log"))
        )


def descendants(pid: int) -> list[int]:
    """The process and its children; a worker's attempts are in process groups of their own."""
    found = [pid]
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            continue
        if parent == pid:
            found += descendants(int(path.parent.name))
    return found


def eventually(is_so: Callable[[], object], seconds: float = 30.0) -> None:
    """Wait until something is so."""
    ends_at = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < ends_at, "it did not become so"
        time.sleep(0.02)


def add(backend: RqBackend, *requests: TaskRequest, queue: str = "default") -> list[str]:
    """Add tasks, none of which is expected to be refused; return their ids."""
    outcomes = backend.create_tasks(queue, requests)
    assert [outcome.error for outcome in outcomes] == [None] * len(requests)
    return [outcome.task_id for outcome in outcomes]
