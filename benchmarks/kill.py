"""Kill a program again and again while it enqueues and runs tasks, and count what that cost.

Each child opens the same database, enqueues tasks and runs them, and is killed with SIGKILL at a
random moment; the last one is let finish. All append to one log, a line for each step, so that
the order of steps over all processes is the order of lines:

    A 17    defer returned: task 17 is accepted
    R 17    task 17 runs
    F 17    task 17 is finished: its end was committed

Every accepted task must have run, and none may run after it was finished. Those that were running
when their process died run again: at most as many per kill as there are threads.

    python benchmarks/kill.py [--tasks 1000] [--kills 20] [--processes 1] [--seed N]
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

GIVE_UP_SECONDS = 120.0
STEP_SECONDS = 2.0
THREADS = 8


def child(directory: str, first: int, last: int, is_last: bool) -> None:
    """Enqueue tasks first..last-1 and run whatever is there; then end, or wait for the kill."""
    from appengine_compat.backends.base import TaskRequest
    from appengine_compat.backends.embedded import EmbeddedBackend
    from appengine_compat.local.delivery import Outcome

    log = os.open(f"{directory}/log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(step: str, number: bytes) -> None:
        os.write(log, step.encode() + b" " + number + b"\n")

    def app(environ, start_response):
        number = environ["wsgi.input"].read()
        write("R", number)
        time.sleep(random.random() / 500)
        start_response("200 OK", [])
        return []

    def observe(event) -> None:
        if event.outcome is Outcome.DONE:
            write("F", event.body)

    # As a program with a queue.yaml would set it; what is tested is not the rate.
    from appengine_compat.core.model import Queue, RateLimits

    rates = RateLimits(max_dispatches_per_second=500, max_burst_size=500)
    queue = Queue(name="projects/local/locations/local/queues/default", rate_limits=rates)
    backend = EmbeddedBackend(f"{directory}/tasks.db", threads=THREADS, queues=[queue])
    backend.register_app(app, "default")
    backend.observe(observe)
    backend.start()
    for number in range(first, last):
        text = b"%d" % number
        (outcome,) = backend.create_tasks("default", [TaskRequest(relative_url="/", payload=text)])
        assert outcome.error is None, outcome.error
        write("A", text)
    while not is_last:
        time.sleep(60.0)
    service = backend.service()
    while service.queue_stats(queue.name).tasks_count:
        service.wait_idle(1.0)
    backend.close()


def spawn(
    directory: str, first: int, last: int, *, is_last: bool = False
) -> subprocess.Popen[bytes]:
    """Start a child."""
    return subprocess.Popen(
        [sys.executable, __file__, "--child", directory, str(first), str(last), str(int(is_last))]
    )


def steps(directory: str) -> list[tuple[str, int]]:
    """Return the log; a line that a kill has cut off is none."""
    path = Path(directory) / "log"
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    return [(line[:1].decode(), int(line[2:])) for line in lines]


def run(tasks: int, kills: int, processes: int, seed: int) -> dict[str, Any]:
    """Kill children until the tasks are enqueued and the kills done, and return what was seen."""
    chance = random.Random(seed)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        for generation in range(kills):
            # Nobody knows whether a task was stored whose "A" was cut off, so that no number is
            # given twice. Each child may enqueue all that are left of its part, and is killed at
            # a random step: while it imports, opens, enqueues, runs, or has nothing to do.
            part = max(1, (tasks - accepted(directory)) // (kills - generation))
            first = generation * tasks
            children = [spawn(directory, first, first + part)]
            children += [spawn(directory, 0, 0) for _ in range(processes - 1)]
            until = len(steps(directory)) + chance.randrange(3 * part + 1)
            limit = time.monotonic() + STEP_SECONDS
            while len(steps(directory)) < until and time.monotonic() < limit:
                time.sleep(0.0005)
            for each in children:
                each.send_signal(signal.SIGKILL)
                each.wait()
        first = kills * tasks
        left = tasks - accepted(directory)
        last_child = spawn(directory, first, first + left, is_last=True)
        try:
            last_child.wait(GIVE_UP_SECONDS)
        except subprocess.TimeoutExpired:
            last_child.kill()
            last_child.wait()
        return count(steps(directory), kills) | {
            "seconds": round(time.monotonic() - started, 1),
            "last_child": last_child.returncode,
            "seed": seed,
        }


def accepted(directory: str) -> int:
    """Return how many tasks have been accepted."""
    return sum(1 for step, _ in steps(directory) if step == "A")


def count(log: list[tuple[str, int]], killed: int) -> dict[str, Any]:
    """Return what the log shows."""
    taken = {number for step, number in log if step == "A"}
    finished: set[int] = set()
    runs: collections.Counter[int] = collections.Counter()
    after_finish = []
    for step, number in log:
        if step == "F":
            finished.add(number)
        elif step == "R":
            runs[number] += 1
            if number in finished:
                after_finish.append(number)
    return {
        "accepted": len(taken),
        "kills": killed,
        "lost": sorted(taken - runs.keys()),
        "ran_after_finish": after_finish,
        "ran_twice": sum(1 for times in runs.values() if times > 1),
    }


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5] == "1")
        return
    parser = argparse.ArgumentParser(description="Kill a program while it runs tasks.")
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    given = parser.parse_args()
    result = run(given.tasks, given.kills, given.processes, given.seed)
    print(
        f"kill -9 x {given.kills}: accepted tasks that never ran\t{len(result['lost'])}\t"
        f"of {result['accepted']} accepted"
    )
    print(
        f"kill -9 x {given.kills}: finished tasks that ran again\t"
        f"{len(result['ran_after_finish'])}\t{result['ran_twice']} that were cut off ran again"
    )
    print(json.dumps(result))
    if result["lost"] or result["ran_after_finish"] or result["last_child"] != 0:
        sys.exit(1)


if __name__ == "__main__":
    main()
