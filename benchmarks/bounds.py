"""What a million waiting tasks cost ``appengine-compat server``: memory, creates, the start.

Each row is a figure with so many tasks waiting, beside the same with few.

    python benchmarks/bounds.py [--tasks 1000000]
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from appengine_compat.core.model import HttpRequest, Queue, Task
from appengine_compat.local.service import LocalService
from appengine_compat.local.store import Store

QUEUE = "projects/local/locations/local/queues/q"
NOW = "projects/local/locations/local/queues/now"
FEW = 1000
CREATES = 1000
BATCH = 100
GIVE_UP_SECONDS = 120.0


def fill(path: Path, count: int) -> None:
    """Store tasks that wait for tomorrow, and one that is due."""
    service = LocalService(Store(path))
    service.put_queues([Queue(name=QUEUE), Queue(name=NOW)])
    tomorrow = datetime.now(timezone.utc) + timedelta(days=1)
    task = Task(
        name="",
        request=HttpRequest(url="http://127.0.0.1:9/", body=b"x" * 43),
        schedule_time=tomorrow,
    )
    for _ in range(count // BATCH):
        service.create_tasks(QUEUE, [task] * BATCH)
    service.create_task(NOW, Task(name="", request=HttpRequest(url="http://127.0.0.1:9/")))
    service.close()


class Server:
    """The command, over a database."""

    def __init__(self, path: Path) -> None:
        began = time.perf_counter()
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "appengine_compat.cli.main", "server", "--db", path),
                *("--grpc-port", "free", "--rest-port", "free", "--dashboard-port", "0"),
            ],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=path.parent,
        )  # fmt: skip
        assert self.process.stdout is not None
        ready = self._line("Ready")
        found = re.search(r"REST (http://\S+?)[,.] ", ready)
        assert found, ready
        self.url = found[1]
        self._line("attempt 1")
        self.seconds_to_dispatch = time.perf_counter() - began

    def _line(self, word: str) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if word in line:
                return line
        raise AssertionError(f"the server ended before it said {word!r}")

    def creates(self) -> float:
        """Return the median milliseconds of a create."""
        tomorrow = (datetime.now(timezone.utc) + timedelta(days=1)).isoformat()
        task = {"httpRequest": {"url": "http://127.0.0.1:9/"}, "scheduleTime": tomorrow}
        body = json.dumps({"task": task}).encode()
        taken = []
        for _ in range(CREATES):
            began = time.perf_counter()
            request = urllib.request.Request(f"{self.url}/v2/{QUEUE}/tasks", body)
            urllib.request.urlopen(request, timeout=GIVE_UP_SECONDS).read()
            taken.append((time.perf_counter() - began) * 1000)
        return statistics.median(taken)

    def megabytes(self) -> float:
        """Return the memory that is the process's own or shared, in MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+)", status)
        assert found
        return int(found[1]) / 1000

    def idle_percent(self, seconds: float = 5.0) -> float:
        """Return how much of one processor it takes when there is nothing to do."""
        before = self._ticks()
        time.sleep(seconds)
        return (self._ticks() - before) / seconds  # a hundred ticks are a second

    def _ticks(self) -> int:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def measure(count: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tasks.db"
        fill(path, count)
        server = Server(path)
        try:
            found = {"start": server.seconds_to_dispatch, "create": server.creates()}
            time.sleep(1.0)  # what begins with the start has ended
            return found | {"memory": server.megabytes(), "idle": server.idle_percent()}
        finally:
            server.end()


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure a server with many waiting tasks.")
    parser.add_argument("--tasks", type=int, default=1_000_000)
    given = parser.parse_args()
    few, many = measure(FEW), measure(given.tasks)
    title, beside = f"server, {given.tasks:,} tasks waiting", f"with {FEW:,}:"
    more = many["memory"] - few["memory"]
    print(f"{title}: memory\t{many['memory']:.0f} MB\t{beside} {few['memory']:.0f} ({more:+.0f})")
    ratio = many["create"] / few["create"]
    print(
        f"{title}: a create over REST\t{many['create']:.2f} ms\t"
        f"{beside} {few['create']:.2f} (x {ratio:.2f})"
    )
    print(f"{title}: start to first dispatch\t{many['start']:.2f} s\t{beside} {few['start']:.2f}")
    print(f"{title}: idle\t{many['idle']:.1f} % of a processor\t{beside} {few['idle']:.1f}")


if __name__ == "__main__":
    main()
