"""The endpoints below /_local, asked over HTTP at the doors they are served on."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request

import pytest

from appengine_compat.core.model import AppEngineRequest, Queue, Task
from appengine_compat.core.validation import canonical_queue
from appengine_compat.errors import ConfigError
from appengine_compat.local.clock import ManualClock, SystemClock
from appengine_compat.local.control import Control, health
from appengine_compat.local.delivery import Reply
from appengine_compat.local.doors import ANY_PORT, Ports, open_doors
from appengine_compat.local.http_messages import Request
from appengine_compat.local.service import LocalService
from appengine_compat.local.store import Store

PARENT = "projects/p/locations/l"
MAIL = f"{PARENT}/queues/mail"


class Target:
    """A transport whose attempts wait until the test lets them go."""

    def __init__(self) -> None:
        self.delivered: list[str] = []
        self.go_on = threading.Event()
        self.go_on.set()

    def services(self):
        return None

    def send(self, delivery):
        self.go_on.wait(30)
        self.delivered.append(delivery.claim.task_id)
        return Reply(200)


class Server:
    def __init__(self, clock) -> None:
        self.service = LocalService(Store(None), clock=clock)
        at_start = [canonical_queue(Queue(name=MAIL))]
        self.service.put_queues(at_start)
        self.target = Target()
        control = Control(self.service, clock, at_start)
        self.doors = open_doors(
            control, host="127.0.0.1", ports=Ports(None, ANY_PORT, ANY_PORT), location="l"
        )
        self.service.start(self.target, threads=2)

    def close(self) -> None:
        self.target.go_on.set()
        self.doors.stop(0.1)
        self.service.close()

    def ask(self, method, path, body=None, headers=None, url=None):
        request = urllib.request.Request(
            (url or self.doors.rest_url) + path, body, headers or {}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def json(self, method, path, **options):
        status, body = self.ask(method, path, **options)
        return status, json.loads(body)

    def add(self, name="", queue=MAIL, **fields):
        name = name and f"{queue}/tasks/{name}"
        return self.service.create_task(
            queue, Task(name=name, request=AppEngineRequest(), **fields)
        )


@pytest.fixture
def stepped():
    server = Server(ManualClock())
    yield server
    server.close()


@pytest.fixture
def server():
    made = Server(SystemClock())
    yield made
    made.close()


class TestReset:
    def test_it_leaves_the_queues_of_the_start_alone(self, server):
        server.service.create_queue(PARENT, Queue(name=f"{PARENT}/queues/other"))
        server.service.pause_queue(MAIL)
        server.add("waiting")

        assert server.json("POST", "/_local/reset") == (200, {})

        assert [queue.name for queue in server.service.all_queues()] == [MAIL]
        assert server.service.list_tasks(MAIL).items == []
        assert server.service.get_queue(MAIL).state.value == "RUNNING"

    def test_names_are_free_again(self, server):
        server.add("once")
        server.json("POST", "/_local/wait-idle")

        server.json("POST", "/_local/reset")
        server.add("once")

        assert server.json("POST", "/_local/wait-idle") == (200, {"idle": True})
        assert server.target.delivered == ["once", "once"]

    def test_an_attempt_that_runs_meanwhile_ends_nothing_new(self, server):
        server.target.go_on.clear()
        server.add("same")
        assert server.json("POST", "/_local/wait-idle?timeout=0.05")[0] == 504

        server.json("POST", "/_local/reset")
        server.service.pause_queue(MAIL)
        server.add("same")
        server.target.go_on.set()
        server.json("POST", "/_local/wait-idle")

        assert len(server.service.list_tasks(MAIL).items) == 1


class TestWaitIdle:
    def test_it_ends_when_all_that_is_due_has_run(self, server):
        for _ in range(50):
            server.add()

        assert server.json("POST", "/_local/wait-idle?timeout=20") == (200, {"idle": True})
        assert len(server.target.delivered) == 50

    def test_after_the_timeout_it_tells_what_is_still_there(self, server):
        server.target.go_on.clear()
        server.add()

        status, body = server.json("POST", "/_local/wait-idle?timeout=0.05")

        assert status == 504
        assert body["error"]["status"] == "DEADLINE_EXCEEDED"
        assert "mail has 1 tasks, 1 running" in body["error"]["message"]

    def test_a_paused_queue_is_not_waited_for(self, server):
        server.service.pause_queue(MAIL)
        server.add()

        assert server.json("POST", "/_local/wait-idle?timeout=20")[0] == 200

    @pytest.mark.parametrize("timeout", ["soon", "-1", "inf", "nan", "1e9"])
    def test_a_timeout_that_is_none_is_refused(self, server, timeout):
        status, body = server.json("POST", f"/_local/wait-idle?timeout={timeout}")

        assert status == 400
        assert body["error"]["status"] == "INVALID_ARGUMENT"


class TestAdvance:
    def test_what_becomes_due_is_dispatched(self, stepped):
        now = stepped.service.create_task(MAIL, Task(name="", request=AppEngineRequest()))
        stepped.json("POST", "/_local/wait-idle")
        from datetime import timedelta

        later = now.schedule_time + timedelta(hours=1)
        stepped.add("later", schedule_time=later)

        stepped.json("POST", "/_local/advance?seconds=3599")
        stepped.json("POST", "/_local/wait-idle")
        before = list(stepped.target.delivered)
        status, body = stepped.json("POST", "/_local/advance?seconds=1")
        stepped.json("POST", "/_local/wait-idle")

        assert "later" not in before
        assert stepped.target.delivered[-1] == "later"
        assert (status, body) == (200, {"now": later.isoformat()})

    def test_the_machines_clock_is_not_stepped(self, server):
        status, body = server.json("POST", "/_local/advance?seconds=1")

        assert status == 400
        assert "--stepped-clock" in body["error"]["message"]

    @pytest.mark.parametrize(
        "query", ["", "?seconds=", "?seconds=-1", "?seconds=x", "?seconds=inf"]
    )
    def test_a_step_that_is_none_is_refused(self, stepped, query):
        assert stepped.json("POST", f"/_local/advance{query}")[0] == 400


class TestState:
    def test_it_is_taken_out_and_put_back(self, server):
        server.service.pause_queue(MAIL)
        server.add("one")
        status, state = server.ask("GET", "/_local/export")
        assert status == 200
        server.json("POST", "/_local/reset")

        assert server.json("POST", "/_local/import", body=state) == (200, {})

        assert server.service.get_queue(MAIL).state.value == "PAUSED"
        assert [task.name for task in server.service.list_tasks(MAIL).items] == [
            f"{MAIL}/tasks/one"
        ]

    def test_tasks_that_were_put_back_run(self, server):
        server.service.pause_queue(MAIL)
        server.add("one")
        _, state = server.ask("GET", "/_local/export")
        server.json("POST", "/_local/reset")
        server.json("POST", "/_local/import", body=state)

        server.service.resume_queue(MAIL)
        server.json("POST", "/_local/wait-idle")

        assert server.target.delivered == ["one"]

    @pytest.mark.parametrize("body", [b"", b"nonsense"])
    def test_what_is_no_state_is_refused(self, server, body):
        status, answer = server.json("POST", "/_local/import", body=body)

        assert status == 400
        assert answer["error"]["status"] == "FAILED_PRECONDITION"
        assert [queue.name for queue in server.service.all_queues()] == [MAIL]


class TestAsking:
    def test_an_unknown_endpoint_names_those_that_exist(self, server):
        status, body = server.json("POST", "/_local/rest")

        assert status == 404
        assert "POST /_local/reset" in body["error"]["message"]

    @pytest.mark.parametrize(
        ("method", "path"), [("GET", "reset"), ("GET", "wait-idle"), ("POST", "export")]
    )
    def test_another_method_is_refused(self, server, method, path):
        assert server.json(method, f"/_local/{path}", body=None)[0] == 405

    def test_a_page_of_another_site_cannot_ask(self, server):
        server.service.pause_queue(MAIL)
        server.add()

        status, _ = server.ask(
            "POST", "/_local/reset", body=b"", headers={"Origin": "https://evil.example"}
        )

        assert status == 403
        assert len(server.service.list_tasks(MAIL).items) == 1

    def test_it_is_served_beside_the_page_too(self, server):
        page = server.doors.page_url.removesuffix("/taskqueue")

        assert server.json("POST", "/_local/wait-idle", url=page) == (200, {"idle": True})

    def test_health_is_told_at_both_ports(self, server):
        page = server.doors.page_url.removesuffix("/taskqueue")

        assert server.ask("GET", "/healthz") == (200, b"ok\n")
        assert server.ask("GET", "/healthz", url=page) == (200, b"ok\n")


def test_health_is_bad_once_the_database_is_closed():
    service = LocalService(Store(None))
    service.close()

    answer = health(service)(Request({"REQUEST_METHOD": "GET"}))

    assert answer.status == 503
    assert b"closed" in b"".join(answer.body)


def test_a_port_in_use_opens_no_door():
    service = LocalService(Store(None))
    control = Control(service, SystemClock())
    first = open_doors(control, host="127.0.0.1", ports=Ports(None, None, ANY_PORT), location="l")
    assert first.dashboard is not None

    with pytest.raises(ConfigError, match="The page of the queues cannot be served") as caught:
        open_doors(
            control,
            host="127.0.0.1",
            ports=Ports(ANY_PORT, ANY_PORT, first.dashboard.port),
            location="l",
        )

    assert caught.value.setting == "--dashboard-port"
    first.stop(0.1)
    service.close()
