"""``appengine-compat server`` as a process: its options, what it prints, how it begins and ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.api_core.exceptions import NotFound
from google.cloud import tasks_v2
from google.cloud.tasks_v2.services.cloud_tasks.transports import CloudTasksGrpcTransport

pytestmark = pytest.mark.slow

Start = Callable[..., Any]

PARENT = "projects/local/locations/local"
QUEUE = f"{PARENT}/queues/mail"

# Answers 200 to each task, and prints what came.
TARGET = """
    import sys
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"] or 0))
            print("got", self.path, flush=True)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()
"""


@pytest.fixture
def target() -> Any:
    """The address of a process that takes tasks."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(TARGET)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    yield f"http://localhost:{process.stdout.readline().strip()}"
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.fixture
def clients() -> Any:
    """Make clients of Google's library for servers."""
    made: list[tasks_v2.CloudTasksClient] = []

    def client(server: Any) -> tasks_v2.CloudTasksClient:
        channel = grpc.insecure_channel(server.door("gRPC"))
        made.append(tasks_v2.CloudTasksClient(transport=CloudTasksGrpcTransport(channel=channel)))
        return made[-1]

    yield client
    for each in made:
        each.transport.close()


def names(client: tasks_v2.CloudTasksClient, parent: str = PARENT) -> list[str]:
    return [queue.name.rpartition("/")[2] for queue in client.list_queues(parent=parent)]


def test_it_tells_every_address_on_the_line_that_says_it_is_ready(
    tmp_path: Path, start_server: Start
) -> None:
    server = start_server(tmp_path, "--ephemeral")

    server.wait_for(
        r"^Ready: gRPC localhost:\d+, REST http://localhost:\d+, "
        r"queues http://localhost:\d+/taskqueue\. Ctrl-C ends it\.$"
    )


def test_a_port_of_0_turns_a_door_off(tmp_path: Path, start_server: Start) -> None:
    server = start_server(tmp_path, "--ephemeral", "--grpc-port", "0", "--dashboard-port", "0")

    server.wait_for(r"^Ready: REST http://localhost:\d+\. Ctrl-C ends it\.$")


def test_tasks_run_and_each_attempt_is_told(
    tmp_path: Path, start_server: Start, clients: Any, target: str
) -> None:
    server = start_server(
        tmp_path, "--ephemeral", "--queue", "mail",
        "--service", f"worker={target}", "--app-engine-target", f"{target}/",
    )  # fmt: skip
    client = clients(server)

    client.create_task(parent=QUEUE, task={"http_request": {"url": f"{target}/http"}})
    for service in ("worker", "any"):
        client.create_task(
            parent=QUEUE,
            task={
                "app_engine_http_request": {
                    "relative_uri": f"/{service}", "app_engine_routing": {"service": service},
                }
            },
        )  # fmt: skip

    server.wait_for(rf"  mail  POST {target}/http  attempt 1  200  \d+ ms$")
    server.wait_for(r"  mail  worker  POST /worker  attempt 1  200")
    server.wait_for(r"  mail  any  POST /any  attempt 1  200")


def test_quiet_tells_no_attempts(
    tmp_path: Path, start_server: Start, clients: Any, target: str
) -> None:
    server = start_server(tmp_path, "--ephemeral", "--queue", "mail", "--quiet")
    clients(server).create_task(parent=QUEUE, task={"http_request": {"url": f"{target}/http"}})

    assert server.ask("POST", "/_local/wait-idle") == (200, b'{"idle": true}\n')
    server.interrupt()

    assert "attempt 1" not in server.output
    assert server.lines[-1] == "Ended. Nothing was in flight."


def test_queues_come_from_options_and_from_queue_yaml(
    tmp_path: Path, start_server: Start, clients: Any
) -> None:
    (tmp_path / "queue.yaml").write_text("queue:\n- name: slow\n  rate: 6/m\n")
    far = "projects/far-away/locations/moon/queues/base"

    server = start_server(
        tmp_path, "--ephemeral", "--project", "p-one", "--location", "l-one",
        "--queue", "mail", "--queue", far,
    )  # fmt: skip

    server.wait_for(r"^  slow +0\.1/s, 1000 at once, retried without end$")
    client = clients(server)
    assert names(client, "projects/p-one/locations/l-one") == ["mail", "slow"]
    assert names(client, "projects/far-away/locations/moon") == ["base"]


def test_without_either_there_are_none(tmp_path: Path, start_server: Start, clients: Any) -> None:
    server = start_server(tmp_path, "--ephemeral")

    server.wait_for("^There are no queues yet: create one, or start with --queue NAME.$")
    assert names(clients(server)) == []


def test_a_file_keeps_queues_and_tasks_over_a_kill(
    tmp_path: Path, start_server: Start, clients: Any
) -> None:
    first = start_server(tmp_path, "--db", "mine.db", "--queue", "mail")
    client = clients(first)
    client.pause_queue(name=QUEUE)
    client.create_task(
        parent=QUEUE, task={"name": f"{QUEUE}/tasks/one", "http_request": {"url": "http://x/"}}
    )
    first.kill()

    second = start_server(tmp_path, "--db", "mine.db", "--queue", "mail")

    second.wait_for(r"^Queues and tasks are kept in mine\.db, 1 waiting\.$")
    second.wait_for(r"^  mail +.*, paused$")
    assert [task.name for task in clients(second).list_tasks(parent=QUEUE)] == [
        f"{QUEUE}/tasks/one"
    ]


def test_ephemeral_leaves_nothing_behind(tmp_path: Path, start_server: Start, clients: Any) -> None:
    server = start_server(tmp_path, "--ephemeral", "--queue", "mail")
    names(clients(server))

    assert server.interrupt(signal.SIGTERM) == 0
    assert list(tmp_path.iterdir()) == []


def test_the_clock_is_stepped_by_whoever_asks(
    tmp_path: Path, start_server: Start, clients: Any, target: str
) -> None:
    server = start_server(
        tmp_path, "--ephemeral", "--queue", "mail", "--stepped-clock", "2031-02-03T04:05:06Z"
    )
    client = clients(server)
    task = client.create_task(
        parent=QUEUE,
        task={
            "http_request": {"url": f"{target}/later"},
            "schedule_time": "2031-02-03T05:05:06Z",
        },
    )
    assert server.ask("POST", "/_local/wait-idle")[0] == 200
    assert "POST" not in server.output.partition("Ready")[2]

    status, body = server.ask("POST", "/_local/advance?seconds=3600")

    assert (status, json.loads(body)) == (200, {"now": "2031-02-03T05:05:06+00:00"})
    server.wait_for(rf"POST {target}/later  attempt 1  200")
    assert server.ask("POST", "/_local/wait-idle")[0] == 200
    with pytest.raises(NotFound, match="no longer exists"):
        client.get_task(name=task.name)


def test_names_stay_taken_for_as_long_as_it_is_told(
    tmp_path: Path, start_server: Start, clients: Any
) -> None:
    server = start_server(
        tmp_path, "--ephemeral", "--queue", "mail", "--stepped-clock", "--task-name-window", "1h"
    )
    client = clients(server)
    task = {"name": f"{QUEUE}/tasks/one", "http_request": {"url": "http://x/"}}
    client.pause_queue(name=QUEUE)
    client.create_task(parent=QUEUE, task=task)
    client.delete_task(name=task["name"])

    server.ask("POST", "/_local/advance?seconds=3599")
    with pytest.raises(NotFound, match="no longer exists"):
        client.get_task(name=task["name"])
    server.ask("POST", "/_local/advance?seconds=1")

    assert client.create_task(parent=QUEUE, task=task).name == task["name"]


def test_the_page_shows_the_queues(tmp_path: Path, start_server: Start) -> None:
    server = start_server(tmp_path, "--ephemeral", "--queue", "mail")
    with urllib.request.urlopen(server.door("queues"), timeout=10) as answer:
        assert ">mail</a>" in answer.read().decode()


def test_the_network_is_let_in_only_when_told_and_that_is_said(
    tmp_path: Path, start_server: Start
) -> None:
    server = start_server(tmp_path, "--ephemeral", "--host", "0.0.0.0")

    server.wait_for(r"^Listening on 0\.0\.0\.0: whoever reaches this machine may create tasks")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_either_signal_ends_it_cleanly(tmp_path: Path, start_server: Start, number: int) -> None:
    server = start_server(tmp_path, "--ephemeral").ready()

    assert server.interrupt(number) == 0
    assert server.lines[-1] == "Ended. Nothing was in flight."
    assert "Traceback" not in server.output


def run(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "appengine_compat.cli.main", "server", *arguments],
        cwd=directory,
        # Google's libraries warn of the oldest Python that we support.
        env={
            "PATH": os.environ["PATH"], "HOME": str(directory),
            "PYTHONWARNINGS": "ignore::FutureWarning",
        },
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


class TestVariables:
    """``--print-env``."""

    def test_a_shell_takes_them(self, tmp_path: Path) -> None:
        printed = run(tmp_path, "--print-env", "--project", "p-one", "--rest-port", "9124").stdout

        done = subprocess.run(
            ["sh", "-c", 'eval "$1" && env', "sh", printed],
            env={}, capture_output=True, text=True, check=True,
        )  # fmt: skip

        found = dict(line.split("=", 1) for line in done.stdout.splitlines())
        assert found["CLOUD_TASKS_EMULATOR_HOST"] == "localhost:8123"
        assert found["CLOUDSDK_API_ENDPOINT_OVERRIDES_CLOUDTASKS"] == "http://localhost:9124/"
        assert found["CLOUDSDK_CORE_PROJECT"] == found["APPENGINE_COMPAT_PROJECT"] == "p-one"
        builders = Path(found["CLOUDSDK_APP_RUNTIME_BUILDERS_ROOT"].removeprefix("file://"))
        assert (builders / "experiments.yaml").is_file()

    def test_a_door_that_is_off_has_none(self, tmp_path: Path) -> None:
        printed = run(tmp_path, "--print-env", "--grpc-port", "0", "--rest-port", "0").stdout

        assert "EMULATOR_HOST" not in printed
        assert "CLOUDSDK" not in printed

    def test_nothing_is_started_or_made(self, tmp_path: Path) -> None:
        assert run(tmp_path, "--print-env").returncode == 0
        assert list(tmp_path.iterdir()) == []


class TestErrors:
    """Each is one line on stderr, and the exit code 2."""

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--grpc-port", "eighty"], "'eighty' is not a port from 1 to 65535, nor 0"),
            (["--rest-port", "65536"], "'65536' is not a port"),
            (["--db", "x", "--ephemeral"], "not allowed with argument"),
            (["--queue", "no_such"], "--queue no_such names no queue"),
            (["--queue", "projects/p/queues/q"], "names no queue"),
            (["--project", "a b"], "projects/a b/locations/local is no location"),
            (["--service", "worker"], "--service worker gives no service its address"),
            (["--service", "worker=localhost:80"], "is no address for worker"),
            (["--service", "a=http://x", "--service", "a=http://y"], "gives a two addresses"),
            (["--app-engine-target", "nowhere"], "is no address for every other service"),
            (["--task-name-window", "soon"], "'soon' is not a time up to a year"),
            (["--task-name-window", "400d"], "'400d' is not a time up to a year"),
            (["--stepped-clock", "soon"], "--stepped-clock soon is no time"),
            (["--queue-yaml", "none.yaml"], "none.yaml: there is no such file"),
            (["--db", "."], "Tasks cannot be kept in"),
            (["--host", "nowhere.invalid"], "nowhere.invalid"),
            (["--print-env", "--rest-port", "free"], "--print-env cannot know a port"),
        ],
    )
    def test_of_the_command_line(self, tmp_path: Path, arguments: list[str], said: str) -> None:
        ports = ["--grpc-port", "0", "--rest-port", "free", "--dashboard-port", "0"]

        done = run(tmp_path, *ports, *arguments)

        assert done.returncode == 2, done
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1, done.stderr
        assert said in done.stderr

    @pytest.mark.parametrize("door", ["grpc", "rest", "dashboard"])
    def test_of_a_port_in_use(self, tmp_path: Path, door: str) -> None:
        ports = dict.fromkeys(("grpc", "rest", "dashboard"), "0")
        with socket.create_server(("127.0.0.1", 0)) as other:
            ports[door] = str(other.getsockname()[1])

            done = run(
                tmp_path, "--ephemeral",
                *(word for name, port in ports.items() for word in (f"--{name}-port", port)),
            )  # fmt: skip

        assert done.returncode == 2
        assert done.stderr.count("\n") == 1, done.stderr
        assert "cannot be served on" in done.stderr


class TestDev:
    """``dev`` has the same doors."""

    APP = """
        from google.appengine.api import taskqueue

        def app(environ, start_response):
            if environ["PATH_INFO"] == "/enqueue":
                taskqueue.add(url="/run", queue_name="mail")
            else:
                print("ran", environ["PATH_INFO"], environ["GAE_SERVICE"], flush=True)
            start_response("200 OK", [])
            return [b"ok"]
    """

    def ask(self, server: Any, method: str, path: str) -> bytes:
        url = server.wait_for(r"^Ready: .*REST ([^\s,]+[^\s,.])")[0][1]
        request = urllib.request.Request(url + path, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return bytes(answer.read())

    def test_what_comes_through_them_runs_in_the_apps(
        self, tmp_path: Path, start_dev: Start, target: str
    ) -> None:
        (tmp_path / "app.py").write_text(textwrap.dedent(self.APP))
        server = start_dev(
            tmp_path, "app:app", "--ephemeral", "--queue", "mail",
            "--service", f"far={target}",
        )  # fmt: skip
        address = server.wait_for(r"^Ready: gRPC (\S+),")[0][1]
        with tasks_v2.CloudTasksClient(
            transport=CloudTasksGrpcTransport(channel=grpc.insecure_channel(address))
        ) as client:
            client.create_task(
                parent=QUEUE, task={"app_engine_http_request": {"relative_uri": "/by-client"}}
            )
            client.create_task(
                parent=QUEUE,
                task={
                    "app_engine_http_request": {
                        "relative_uri": "/far", "app_engine_routing": {"service": "far"},
                    }
                },
            )  # fmt: skip
            client.create_task(parent=QUEUE, task={"http_request": {"url": f"{target}/http"}})

        server.wait_for("^ran /by-client default$")
        server.wait_for(r"  mail  far  POST /far  attempt 1  200")
        server.wait_for(rf"  mail  POST {target}/http  attempt 1  200")
        server.get("/enqueue")
        server.wait_for("^ran /run default$")
        assert self.ask(server, "POST", "/_local/wait-idle") == b'{"idle": true}\n'
        assert {each.name for each in tmp_path.iterdir()} <= {"__pycache__", "app.py"}

    def test_a_second_one_leaves_the_usual_ports_to_the_first(
        self, tmp_path: Path, usual_dev: Any
    ) -> None:
        (tmp_path / "app.py").write_text(textwrap.dedent(self.APP))
        with (
            usual_dev(tmp_path, "app:app").ready() as first,
            usual_dev(tmp_path, "other=app:app").ready() as second,
        ):
            assert first.process.poll() is None
            second.wait_for(r"^Port 8123 is in use: no grpc here \(--grpc-port takes another\)\.$")
            second.wait_for(r"^Ready\. Ctrl-C ends it\.$")
