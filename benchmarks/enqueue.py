"""What it takes to enqueue to Cloud Tasks: processor time and time of the caller, per task.

A server in a process of its own answers every call at once and keeps nothing; plain text over
the loopback, no TLS, no credentials. Contenders take turns round by round, each in a process of
its own; Google's SDK runs in the environment that AEC_TEST_SDK_PYTHON names (``make bench`` sets
it), and is left out without one. The floor is a protobuf message over a gRPC stub and no more.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

ROUNDS = 7
CALLS = 400
BATCH = 100
QUEUE = "projects/bench/locations/us-central1/queues/default"


@dataclass
class Contender:
    name: str
    worker: str
    tasks_per_call: int = 1
    python: str = sys.executable
    cpu_us: list[float] = field(default_factory=list)
    wall_us: list[float] = field(default_factory=list)
    process: subprocess.Popen[str] | None = None

    def start(self, address: str) -> None:
        environ = os.environ | {
            "CLOUD_TASKS_EMULATOR_HOST": address,
            "GOOGLE_CLOUD_PROJECT": "bench",
            "LOCATION_ID": "us-central1",
            "APPENGINE_USE_CLOUDTASK_PUSH_QUEUE": "true",
            "HTTP_HOST": "localhost",
        }
        self.process = subprocess.Popen(
            [self.python, __file__, "--worker", self.worker],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environ,
        )
        self.run(20)

    def run(self, calls: int) -> None:
        assert self.process is not None
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{calls}\n")
        self.process.stdin.flush()
        cpu, wall = map(float, self.process.stdout.readline().split())
        if calls >= 100 or self.tasks_per_call > 1:
            self.cpu_us.append(cpu / self.tasks_per_call)
            self.wall_us.append(wall / self.tasks_per_call)

    def stop(self) -> None:
        if self.process is not None:
            self.process.communicate()

    def row(self, others: list[Contender]) -> str:
        cpu = statistics.median(self.cpu_us)
        figure = (
            f"cpu {cpu:.0f} us ({min(self.cpu_us):.0f}..{max(self.cpu_us):.0f}), "
            f"time {statistics.median(self.wall_us):.0f} us"
        )
        beside = ", ".join(
            f"{cpu / statistics.median(other.cpu_us):.2f}x the cpu of {other.name}"
            for other in others
        )
        return f"{self.name}\t{figure}\t{beside}"


# --- what each process does ---


def answer_at_once() -> None:
    """Serve, print the port, and stop with the standard input."""
    from concurrent import futures

    import grpc
    from google.cloud import tasks_v2
    from google.longrunning import operations_pb2

    task_class = tasks_v2.Task.pb()
    task = task_class(name=f"{QUEUE}/tasks/{'7' * 19}")
    task.app_engine_http_request.relative_uri = "/_ah/queue/deferred"
    task.app_engine_http_request.headers["User-Agent"] = "AppEngine-Google; (+http://code.google)"
    task.schedule_time.GetCurrentTime()
    task.create_time.GetCurrentTime()
    operation = operations_pb2.Operation(name="projects/bench/operations/1", done=True)
    operation.metadata.Pack(tasks_v2.BatchCreateTasksMetadata.pb()(state=2))
    operation.response.Pack(tasks_v2.BatchCreateTasksResponse.pb()(tasks=[task] * BATCH))
    answers = {"CreateTask": task.SerializeToString(), "BatchCreateTasks": operation}
    answers["BatchCreateTasks"] = operation.SerializeToString()

    class Handler(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, details: object) -> object:
            answer = answers[details.method.rpartition("/")[2]]  # type: ignore[attr-defined]
            return grpc.unary_unary_rpc_method_handler(lambda _request, _context: answer)

    server = grpc.server(futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((Handler(),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    sys.stdin.read()
    server.stop(None)


def raw() -> Callable[[], object]:
    import pickle

    import grpc
    from google.cloud import tasks_v2

    create, task_class = tasks_v2.CreateTaskRequest.pb(), tasks_v2.Task.pb()
    channel = grpc.insecure_channel(os.environ["CLOUD_TASKS_EMULATOR_HOST"])
    call = channel.unary_unary(
        "/google.cloud.tasks.v2.CloudTasks/CreateTask",
        request_serializer=create.SerializeToString,
        response_deserializer=task_class.FromString,
    )

    def enqueue() -> None:
        request = create(parent=QUEUE)
        http = request.task.app_engine_http_request
        http.relative_uri, http.http_method = "/_ah/queue/deferred", 1
        http.body = pickle.dumps((os.path.join, ("a", "b"), {}), 5)
        call(request, timeout=20)

    return enqueue


def backend(tasks_per_call: int) -> Callable[[], object]:
    import pickle

    from appengine_compat.backends.base import TaskRequest
    from appengine_compat.backends.choice import current

    def enqueue() -> None:
        requests = [
            TaskRequest(
                relative_url="/_ah/queue/deferred",
                payload=pickle.dumps((os.path.join, ("a", "b"), {}), 5),
                headers=(("Content-Type", "application/octet-stream"),),
            )
            for _ in range(tasks_per_call)
        ]
        for outcome in current().create_tasks("default", requests):
            if outcome.error is not None:
                raise outcome.error

    return enqueue


def client() -> Callable[[], object]:
    import pickle

    created = plain_text_client()

    def enqueue() -> None:
        body = pickle.dumps((os.path.join, ("a", "b"), {}), 5)
        http = {"relative_uri": "/_ah/queue/deferred", "http_method": 1, "body": body}
        created.create_task(parent=QUEUE, task={"app_engine_http_request": http})

    return enqueue


def plain_text_client():  # type: ignore[no-untyped-def]
    import grpc
    from google.cloud import tasks_v2

    transport = tasks_v2.CloudTasksClient.get_transport_class("grpc")
    channel = grpc.insecure_channel(os.environ["CLOUD_TASKS_EMULATOR_HOST"])
    return tasks_v2.CloudTasksClient(transport=transport(channel=channel))


def defer() -> Callable[[], object]:
    from google.appengine.ext import deferred

    return lambda: deferred.defer(os.path.join, "a", "b")


def add(tasks_per_call: int) -> Callable[[], object]:
    import pickle

    from google.appengine.api import taskqueue

    queue = taskqueue.Queue("default")

    def enqueue() -> None:
        queue.add(
            [
                taskqueue.Task(payload=pickle.dumps((os.path.join, ("a", "b"), {}), 5), url="/x")
                for _ in range(tasks_per_call)
            ]
        )

    return enqueue


def sdk(prepared: Callable[[], Callable[[], object]]) -> Callable[[], object]:
    # The SDK knows no emulator: its client is put together for it.
    from google.cloud import tasks_v2

    created = plain_text_client()
    tasks_v2.CloudTasksClient = lambda: created
    return prepared()


WORKERS: dict[str, Callable[[], Callable[[], object]]] = {
    "raw": raw,
    "backend": lambda: backend(1),
    "backend-batch": lambda: backend(BATCH),
    "client": client,
    "defer": defer,
    "add-batch": lambda: add(BATCH),
    "sdk-defer": lambda: sdk(defer),
    "sdk-add-batch": lambda: sdk(lambda: add(BATCH)),
}


def work(name: str) -> None:
    """Enqueue as often as each line of the standard input says, and print what a call took."""
    enqueue = WORKERS[name]()
    for line in sys.stdin:
        calls = int(line)
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(calls):
            enqueue()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        print(cpu / calls * 1e6, wall / calls * 1e6, flush=True)


def main() -> None:
    sdk_python = os.environ.get("AEC_TEST_SDK_PYTHON")
    floor = Contender("one task: the floor", "raw")
    google = Contender("one task: Google's client", "client")
    bare = Contender("one task: our backend", "backend")
    ours = Contender("one task: our defer", "defer")
    ours_batch = Contender(f"task of {BATCH}: our Queue.add", "add-batch", BATCH)
    bare_batch = Contender(f"task of {BATCH}: our backend", "backend-batch", BATCH)
    contenders = [floor, google, bare, ours, bare_batch, ours_batch]
    theirs = Contender("one task: SDK's defer", "sdk-defer", 1, sdk_python or "")
    theirs_batch = Contender(
        f"task of {BATCH}: SDK's Queue.add", "sdk-add-batch", BATCH, sdk_python or ""
    )
    if sdk_python:
        contenders += [theirs, theirs_batch]
    server = subprocess.Popen(
        [sys.executable, __file__, "--server"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    try:
        address = f"127.0.0.1:{server.stdout.readline().strip()}"
        for contender in contenders:
            contender.start(address)
            contender.cpu_us.clear()
            contender.wall_us.clear()
        for _ in range(ROUNDS):
            for contender in contenders:
                contender.run(max(20, CALLS // contender.tasks_per_call))
    finally:
        for contender in contenders:
            contender.stop()
        server.communicate()
    print(floor.row([]))
    print(google.row([floor]))
    print(bare.row([floor, google]))
    print(ours.row([floor, theirs] if sdk_python else [floor]))
    print(bare_batch.row([]))
    print(ours_batch.row([theirs_batch] if sdk_python else []))
    if sdk_python:
        print(theirs.row([]))
        print(theirs_batch.row([]))
    else:
        print("Google's SDK was left out: AEC_TEST_SDK_PYTHON is not set.")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(sys.argv[2])
    elif sys.argv[1:2] == ["--server"]:
        answer_at_once()
    else:
        main()
