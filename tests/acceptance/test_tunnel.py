"""Tasks that come back to this machine through a tunnel.

The local service stands for Cloud Tasks: gRPC in, HTTP with a signed identity token out. A real
TCP forwarder stands for the tunnel: what does not pass it does not arrive.
"""

from __future__ import annotations

import contextlib
import pickle
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from google.appengine.api import taskqueue, wrap_wsgi_app
from google.appengine.ext import deferred

from appengine_compat import defer_middleware
from appengine_compat.backends.cloud_tasks import CloudTasksBackend
from appengine_compat.core.model import Queue, RetryConfig
from appengine_compat.handler import oidc_keys
from appengine_compat.local.fronts.grpc_front import serve_grpc
from appengine_compat.local.http_transport import HttpTransport
from appengine_compat.local.identity import Identity
from appengine_compat.local.service import LocalService
from appengine_compat.local.store import Store
from tests import wsgi_server

PATIENCE_SECONDS = 30.0
ACCOUNT = "tasks@project.iam.gserviceaccount.com"
QUEUE = Queue(
    name="projects/p/locations/l/queues/default",
    retry_config=RetryConfig(min_backoff_seconds=0.05, max_backoff_seconds=0.2),
)


class Seen(list[Any]):
    """What other threads have seen, in order."""

    def __init__(self) -> None:
        super().__init__()
        self._grown = threading.Condition()

    def note(self, value: object) -> None:
        with self._grown:
            self.append(value)
            self._grown.notify_all()

    def wait_for(self, count: int) -> list[Any]:
        with self._grown:
            assert self._grown.wait_for(lambda: len(self) >= count, PATIENCE_SECONDS), self
            return list(self)


RAN = Seen()


def note(value: object) -> None:
    RAN.note(value)


class Tunnel:
    """Forwards TCP from a port of its own to another, while it is open."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._listener: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._ends: list[socket.socket] = []
        self.port = 0
        self.connections = 0
        self.open()

    def open(self) -> None:
        listener = socket.create_server(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        self._listener = listener
        self._thread = threading.Thread(target=self._accept, args=(listener,))
        self._thread.start()

    def close(self) -> None:
        if self._listener is None or self._thread is None:
            return
        # Closing alone does not wake the thread that accepts.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(PATIENCE_SECONDS)
        self._listener = self._thread = None
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._ends.clear()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._to))
            self.connections += 1
            self._ends += (near, far)
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=_pump, args=(source, sink), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(65536):
            sink.sendall(piece)
        sink.shutdown(socket.SHUT_WR)


def page(environ: Any, start_response: Any) -> Iterable[bytes]:
    """What the app serves beside deferred tasks: it notes what a task brings."""
    query = environ["QUERY_STRING"]
    note((environ["REQUEST_METHOD"], environ["PATH_INFO"], query,
          environ.get("HTTP_X_APPENGINE_QUEUENAME")))  # fmt: skip
    start_response("200 OK", [("Content-Length", "0")])
    return [b""]


@dataclass
class Road:
    tunnel: Tunnel
    address: str
    """The tunnel's."""
    statuses: Seen
    """Of the attempts, as the service took them."""


@pytest.fixture
def road(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Road]:
    RAN.clear()
    oidc_keys.forget()
    monkeypatch.chdir(tmp_path)
    with contextlib.ExitStack() as stack:
        issued: list[Any] = []
        issuer_port = stack.enter_context(
            wsgi_server.serving(lambda environ, start_response: issued[0](environ, start_response))
        )
        store = Store(None)
        identity = Identity(store, f"http://127.0.0.1:{issuer_port}")
        issued.append(identity.documents())
        service = LocalService(store)
        service.put_queues([QUEUE])
        front = serve_grpc(service, port=0, location="l")
        transport = HttpTransport(identity=identity)
        statuses = Seen()
        service.observers.append(lambda attempt: statuses.note(attempt.status))
        service.start(transport, threads=4)
        stack.callback(transport.close)
        stack.callback(service.close, 5.0)
        stack.callback(front.stop, 0.2)
        for name, value in {
            "CLOUD_TASKS_EMULATOR_HOST": f"127.0.0.1:{front.port}",
            "APPENGINE_COMPAT_BACKEND": "cloudtasks",
            "APPENGINE_COMPAT_PROJECT": "p",
            "APPENGINE_COMPAT_LOCATION": "l",
            "APPENGINE_COMPAT_SERVICE_ACCOUNT": ACCOUNT,
            "APPENGINE_COMPAT_OIDC_ISSUER": identity.issuer,
        }.items():
            monkeypatch.setenv(name, value)
        app_port = stack.enter_context(wsgi_server.serving(defer_middleware(wrap_wsgi_app(page))))
        tunnel = Tunnel(app_port)
        stack.callback(tunnel.close)
        address = f"http://127.0.0.1:{tunnel.port}"
        monkeypatch.setenv("APPENGINE_COMPAT_TARGETS", address)
        yield Road(tunnel, address, statuses)
    oidc_keys.forget()


def test_a_deferred_task_comes_back_and_runs(road: Road) -> None:
    deferred.defer(note, "hello", _url="/_ah/queue/deferred_greeting?lang=en")
    assert RAN.wait_for(1) == ["hello"]
    assert road.tunnel.connections == 1


def test_path_query_method_and_queue_arrive_as_they_were(road: Road) -> None:
    taskqueue.add(url="/tasks/math/2019nyny?a=1&b=%2F%20", method="GET", queue_name="default")
    assert RAN.wait_for(1) == [("GET", "/tasks/math/2019nyny", "a=1&b=%2F%20", "default")]


def test_one_service_may_be_behind_the_tunnel_and_another_elsewhere(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "APPENGINE_COMPAT_TARGETS", f"default=http://127.0.0.1:9,py3-api={road.address}"
    )
    deferred.defer(note, "api", _target="v1.py3-api", _url="/_ah/queue/deferred_x")
    assert RAN.wait_for(1) == ["api"]


def test_whoever_else_finds_the_tunnel_runs_nothing(road: Road) -> None:
    request = urllib.request.Request(
        f"{road.address}/_ah/queue/deferred",
        pickle.dumps((note, ("forged",), {})),
        {"X-CloudTasks-QueueName": "default", "X-CloudTasks-TaskName": "t"},
    )
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=PATIENCE_SECONDS)
    with caught.value as answer:
        assert answer.code == 401
        assert answer.read().startswith(b"AEC-NO-CREDENTIALS")
    assert RAN == []


def test_a_task_sent_for_another_audience_is_refused_until_that_is_set_right(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    audience = "https://another.example.com"
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("APPENGINE_COMPAT_AUDIENCE", audience)
        backend = CloudTasksBackend()
    deferred.defer(note, "hello", _client=backend)
    assert set(road.statuses.wait_for(2)) == {403}
    assert RAN == []
    monkeypatch.setenv("APPENGINE_COMPAT_AUDIENCE", audience)
    assert RAN.wait_for(1) == ["hello"]


def test_while_the_tunnel_is_closed_tasks_are_tried_again_and_none_is_lost(road: Road) -> None:
    road.tunnel.close()
    for number in range(5):
        deferred.defer(note, number)
    road.statuses.wait_for(5)
    assert RAN == []
    road.tunnel.open()
    assert sorted(RAN.wait_for(5)) == [0, 1, 2, 3, 4]
