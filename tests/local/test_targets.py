"""The service and its targets over real HTTP, on a clock that tests step."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from appengine_compat.core.model import HttpRequest, Queue, RetryConfig, Task
from appengine_compat.local.delivery import Outcome, Reply
from appengine_compat.local.http_transport import HttpTransport
from appengine_compat.local.joined_transport import JoinedTransport
from appengine_compat.local.service_addresses import ServiceAddresses
from appengine_compat.local.store import Store
from appengine_compat.local.wsgi_transport import WsgiTransport
from tests.local import raw_target
from tests.local.conftest import QUEUE, Local, Targets
from tests.local.raw_target import Raw

NAME = str(QUEUE)
RECORDED = [503, 404, 429, 500, 302, 200]


class Served:
    """A local service, and a target over HTTP that takes all tasks."""

    def __init__(self, local: Local, target: Raw) -> None:
        self.local, self.target = local, target
        self.transport = HttpTransport(ServiceAddresses(otherwise=target.url))
        local.service.start(self.transport, threads=4)

    def add_http(self, path: str = "/work", **fields) -> str:
        request = HttpRequest(url=self.target.url + path, body=b"b", **fields)
        return self.local.service.create_task(NAME, Task(name="", request=request)).name


@pytest.fixture
def served() -> Iterator[Served]:
    local = Local(Store(None))
    with raw_target.serving() as target:
        served = Served(local, target)
        yield served
        assert local.service.close(20) == []
        served.transport.close()


def told(target: Raw, prefix: str, name: str) -> list[str | None]:
    return [target.headers(place).get(f"{prefix}{name}") for place in range(len(target.requests))]


@pytest.mark.parametrize("family", ["x-cloudtasks-", "x-appengine-"])
def test_the_recorded_sequence_of_headers(served, family):
    served.target.answers = [
        f"HTTP/1.1 {status} Word\r\nContent-Length: 0\r\n\r\n".encode() for status in RECORDED
    ]
    if family == "x-cloudtasks-":
        served.add_http()
    else:
        served.local.add()
    served.local.settle()
    for wait in (0.1, 0.2, 0.4, 0.8, 1.6):
        served.local.advance(wait)
    is_http = family == "x-cloudtasks-"
    reason = "" if is_http else "App Error"
    assert told(served.target, family, "taskretrycount") == list("012345")
    executions = "001223" if is_http else "012345"
    assert told(served.target, family, "taskexecutioncount") == list(executions)
    previous = told(served.target, family, "taskpreviousresponse")
    assert previous == [None, "503", "404", "429", "500", "302"]
    assert told(served.target, family, "taskretryreason") == [None] + [reason] * 5
    assert [event.outcome for event in served.local.events[-1:]] == [Outcome.DONE]


def test_a_target_that_never_answers_is_told_of_the_timeout(served):
    asked = threading.Event()

    def hang(_) -> None:
        asked.set()
        served.target.over.wait()

    served.target.answers = [hang]
    name = served.add_http()
    assert asked.wait(raw_target.LONG_SECONDS)
    served.local.clock.advance(600)
    served.local.settle()
    attempt = served.local.service.get_task(name).last_attempt
    assert (attempt.response_code, attempt.response_time) == (4, None)
    served.local.advance(0.1)
    assert served.target.headers()["x-cloudtasks-taskpreviousresponse"] == "504"
    assert served.target.headers()["x-cloudtasks-taskexecutioncount"] == "0"
    # The first attempt's thread is still at it, until the target goes.
    served.target.over.set()


def test_an_attempt_is_described_as_cloud_tasks_does(served):
    for status, text in (
        (404, "NOT_FOUND(5): HTTP status code 404"),
        (500, "INTERNAL(13): HTTP status code 500"),
    ):
        served.target.answers = [f"HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n".encode()]
        name = served.add_http()
        served.local.settle()
        assert served.local.service.get_task(name).last_attempt.response_message == text
        served.local.service.delete_task(name)


def test_a_target_that_is_not_there_yet_gets_its_task_when_it_is(served):
    request = HttpRequest(url="http://127.0.0.1:1/", body=b"b")
    name = served.local.service.create_task(NAME, Task(name="", request=request)).name
    served.local.settle()
    attempt = served.local.service.get_task(name).last_attempt
    assert attempt.response_message == "UNKNOWN(2): HTTP status code 0"
    assert "nothing listens at http://127.0.0.1:1" in served.local.events[0].error


def test_retry_after_of_a_real_reply_holds_the_queue(served):
    served.target.answers = [b"HTTP/1.1 429 Slow\r\nRetry-After: 60\r\nContent-Length: 0\r\n\r\n"]
    served.add_http("/first")
    served.local.settle()
    served.add_http("/second")
    served.local.advance(59)
    assert len(served.target.requests) == 1
    served.local.advance(1)
    assert len(served.target.requests) == 3


def test_a_task_that_no_address_can_carry_fails_for_good_with_words(served):
    served.local.service.put_queues([Queue(name=NAME, retry_config=RetryConfig(max_attempts=1))])
    served.add_http("/%zz")
    served.local.settle()
    (event,) = served.local.events
    assert event.outcome is Outcome.FAILED
    assert "escapes nothing" in event.error


# --- several transports as one ---


def test_apps_of_this_process_go_before_addresses():
    app_calls = []

    def app(environ, start_response):
        app_calls.append(environ["PATH_INFO"])
        start_response("200 OK", [])
        return []

    apps = WsgiTransport()
    with raw_target.serving() as target:
        http = HttpTransport(ServiceAddresses({"worker": target.url, "default": target.url}))
        joined = JoinedTransport(apps, http)
        assert joined.services() == {"", "worker", "default"}
        local = Local(Store(None))
        local.service.start(joined, threads=2)
        local.add("before", uri="/before")
        local.settle()
        apps.register(app, "default")
        local.service.services_changed()
        local.add("after", uri="/after")
        local.add("other", uri="/other", service="worker")
        local.settle()
        assert app_calls == ["/after"]
        assert [head[0].split()[1] for head in target.heads()] == ["/before", "/other"]
        assert local.service.close(20) == []
        http.close()


def test_one_that_reaches_all_makes_all_reached():
    http = HttpTransport(ServiceAddresses(otherwise="http://localhost:1"))
    assert JoinedTransport(WsgiTransport(), http).services() is None


def test_what_no_transport_reaches_is_said():
    reached = Targets()
    reached.known = frozenset({"a"})
    reply = JoinedTransport(reached).send(raw_target.delivery("/", service="b"))
    assert reply == Reply(0, error="nothing here reaches the service 'b'")
