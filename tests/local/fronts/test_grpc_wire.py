"""The gRPC door's connections: what shares a commit, who goes away, who never reads, its end."""

from __future__ import annotations

import base64
import contextlib
import logging
import os
import socket
import threading
from contextlib import ExitStack
from typing import Any

import grpc
import pytest
from google.cloud import tasks_v2
from h2.events import (
    ConnectionTerminated,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)

from appengine_compat.core.model import Task
from appengine_compat.local import task_operations
from appengine_compat.local.fronts import grpc_protocol, task_methods
from appengine_compat.local.service import LocalService
from tests.local.fronts.conftest import LOCATION, QUEUE
from tests.local.fronts.h2_client import (
    ALREADY_EXISTS,
    INTERNAL,
    INVALID_ARGUMENT,
    NOT_FOUND,
    OK,
    PATIENCE_SECONDS,
    RESOURCE_EXHAUSTED,
    SERVICE,
    UNAVAILABLE,
    UNIMPLEMENTED,
    Client,
    Gate,
    create_request,
    dial,
)


@pytest.fixture
def commits(service) -> list[str]:
    found: list[str] = []
    service.store._connection.set_trace_callback(
        lambda statement: found.append(statement) if statement == "COMMIT" else None
    )
    return found


def task_ids(service: LocalService) -> set[str]:
    return {task.name.rpartition("/")[2] for task in service.list_tasks(QUEUE).items}


# --- calls that come together ---


def test_what_one_client_sends_together_shares_a_commit(connect, service, commits) -> None:
    client = connect()
    streams = [client.create(f"t{number}") for number in range(40)]
    assert client.answers(*streams) == [OK] * 40
    assert len(commits) == 1
    assert task_ids(service) == {f"t{number}" for number in range(40)}
    for number, stream in enumerate(streams):
        made = tasks_v2.Task.pb().FromString(client.body(stream)[5:])
        assert made.name == f"{QUEUE}/tasks/t{number}"


def test_what_many_clients_send_meanwhile_shares_the_next_commit(
    connect, service, commits, monkeypatch
) -> None:
    clients = [connect() for _ in range(20)]
    gate = Gate(service.create_each)
    monkeypatch.setattr(service, "create_each", gate)
    first, *others = clients
    streams = [client.create(f"t{number}") for number, client in enumerate(clients)]
    first.send()
    assert gate.entered.wait(PATIENCE_SECONDS)
    for client in others:
        client.send()
    gate.opened.set()
    for client, stream in zip(clients, streams, strict=True):
        assert client.answers(stream) == [OK]
    assert len(commits) == 2
    assert len(task_ids(service)) == 20


def test_a_call_that_is_refused_does_not_concern_those_that_share_its_commit(
    connect, service
) -> None:
    service.delete_task(service.create_task(QUEUE, made("gone")).name)
    client = connect()
    create = f"{SERVICE}/CreateTask"
    expected = {
        client.create("first"): OK,
        client.create(queue=f"{LOCATION}/queues/none"): NOT_FOUND,
        client.create("gone"): ALREADY_EXISTS,
        client.create(url="nowhere"): INVALID_ARGUMENT,
        client.create("first"): ALREADY_EXISTS,
        client.ask(create, b"\xff\xff"): INVALID_ARGUMENT,
        client.ask(create, create_request(), grpc_timeout="31S"): INVALID_ARGUMENT,
        client.ask("/none/Such", b""): UNIMPLEMENTED,
        client.get_queue(): OK,
        client.create("last"): OK,
    }
    assert dict(zip(expected, client.answers(*expected), strict=True)) == expected
    assert task_ids(service) == {"first", "last"}


def made(task_id: str) -> Task:
    request = tasks_v2.CreateTaskRequest.pb().FromString(create_request(task_id))
    return task_methods.read_task(request.task)


def test_a_commit_that_fails_refuses_all_that_share_it_and_the_next_works(
    connect, service, caplog
) -> None:
    store = service.store
    pages = store.read(lambda connection: connection.execute("PRAGMA page_count").fetchone()[0])
    store.read(lambda connection: connection.execute(f"PRAGMA max_page_count={pages}"))
    client = connect()
    request = tasks_v2.CreateTaskRequest.pb()(parent=QUEUE)
    request.task.http_request.url = "http://h/"
    request.task.http_request.body = b"x" * 50_000
    large = request.SerializeToString()
    streams = [client.ask(f"{SERVICE}/CreateTask", large) for _ in range(3)]
    assert client.answers(*streams) == [UNAVAILABLE] * 3
    assert "free space on its disk" in client.text(streams[2])
    assert "CreateTask failed" in caplog.text
    store.read(lambda connection: connection.execute("PRAGMA max_page_count=1000000"))
    assert task_ids(service) == set()
    assert client.answers(client.ask(f"{SERVICE}/CreateTask", large)) == [OK]


@pytest.mark.parametrize(
    ("owner", "function"), [(task_operations, "prepare"), (task_methods, "write_task")]
)
def test_a_fault_of_ours_in_one_call_is_that_ones_alone(
    connect, monkeypatch, caplog, owner, function
) -> None:
    right = getattr(owner, function)

    def wrong(*args: Any, **options: Any) -> Any:
        task = next(each for each in args if isinstance(each, Task))
        if task.name.endswith("/bad"):
            raise ZeroDivisionError
        return right(*args, **options)

    monkeypatch.setattr(owner, function, wrong)
    client = connect()
    streams = [client.create(task_id) for task_id in ("a", "bad", "b")]
    assert client.answers(*streams) == [OK, INTERNAL, OK]
    assert client.text(streams[1]) == "Internal error encountered."
    assert "ZeroDivisionError" in caplog.text


# --- what is no call ---


def test_who_speaks_http_1_is_told_so_in_it(grpc_server) -> None:
    with socket.create_connection(("127.0.0.1", grpc_server.port)) as client:
        client.settimeout(PATIENCE_SECONDS)
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b""
        while data := client.recv(10_000):
            answer += data
    head, _, text = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"Connection: close" in head
    assert b"This port speaks gRPC, without TLS." in text


def test_what_is_no_grpc_is_an_unsupported_media_type(connect) -> None:
    client = connect()
    streams = [
        client.ask(f"{SERVICE}/GetQueue", b"", content_type="application/json"),
        client.ask("/", b"", method_name="PUT"),
    ]
    good = client.get_queue()
    assert client.answers(good) == [OK]
    for stream in streams:
        (head,) = client.of(ResponseReceived, stream)
        assert dict(head.headers) == {":status": "415"}
        assert client.of(StreamEnded, stream)


def test_a_fault_ends_its_connection_with_its_reason_and_no_other(connect) -> None:
    broken, other = connect(), connect()
    broken.raw(b"\0\0\1\6\0\0\0\0\0x")
    broken.until(lambda: broken.of(ConnectionTerminated))
    assert broken.of(ConnectionTerminated)[0].error_code == 6
    assert broken.to_end() == b""
    assert other.answers(other.get_queue()) == [OK]


def test_a_message_that_is_too_long_is_refused_before_its_end(begin, monkeypatch) -> None:
    monkeypatch.setattr(grpc_protocol, "MOST_MESSAGE_BYTES", 100_000)
    _, client = begin()
    stream = client.begin(f"{SERVICE}/GetQueue")
    for _ in range(7):
        client.http2.send_data(stream, bytes(16_000))
    client.send()
    client.until(lambda: client.of(StreamReset, stream) or client.of(StreamEnded, stream))
    assert client.status(stream) == RESOURCE_EXHAUSTED
    assert client.text(stream).startswith("A request may be 100000 bytes long")
    client.until(lambda: client.of(StreamReset, stream))
    assert client.of(StreamReset, stream)[0].error_code == 0
    assert client.answers(client.get_queue()) == [OK]


def test_details_come_in_binary_in_the_headers(connect) -> None:
    client = connect()
    request = tasks_v2.CreateQueueRequest.pb()(parent=LOCATION)
    request.queue.name = "bad"
    stream = client.ask(f"{SERVICE}/CreateQueue", request.SerializeToString())
    assert client.answers(stream) == [INVALID_ARGUMENT]
    headers = dict(client.of(ResponseReceived, stream)[0].headers)
    encoded = headers["grpc-status-details-bin"]
    assert base64.b64decode(encoded + "=" * (-len(encoded) % 4)).startswith(b"\x08\x03")


# --- clients that go or do not read ---


@pytest.mark.parametrize("method", ["create_each", "get_queue"])
def test_a_client_that_vanishes_in_the_midst_of_its_call_concerns_nobody(
    connect, service, monkeypatch, method: str
) -> None:
    gate = Gate(getattr(service, method))
    monkeypatch.setattr(service, method, gate)
    gone, other = connect(), connect()
    gone.create("done")
    gone.get_queue()
    gone.send()
    assert gate.entered.wait(PATIENCE_SECONDS)
    gone.vanish()
    gate.opened.set()
    assert other.answers(other.create("too"), other.get_queue()) == [OK, OK]
    assert task_ids(service) == {"done", "too"}


def test_a_client_that_vanishes_in_the_midst_of_a_frame_concerns_nobody(connect, service) -> None:
    gone, other = connect(), connect()
    gone.create("never")
    gone.raw(gone.http2.data_to_send()[:-20])
    gone.vanish()
    assert other.answers(other.create("a")) == [OK]
    assert task_ids(service) == {"a"}


def test_a_call_that_is_taken_back_gets_no_reply(connect, service, monkeypatch) -> None:
    gate = Gate(service.get_queue)
    monkeypatch.setattr(service, "get_queue", gate)
    client = connect()
    stream = client.get_queue()
    client.send()
    assert gate.entered.wait(PATIENCE_SECONDS)
    client.http2.reset_stream(stream, 8)
    assert client.answers(client.create()) == [OK]
    gate.opened.set()
    assert client.answers(client.get_queue()) == [OK]
    assert not client.of(ResponseReceived, stream)


def test_a_client_that_does_not_read_does_not_keep_others_waiting_and_loses_nothing(
    connect, service
) -> None:
    for number in range(8):
        service.create_task(QUEUE, made_with_body(number))
    idle, other = connect(buffer_bytes=4096), connect()
    streams = [idle.list_tasks() for _ in range(6)]
    idle.send()
    for number in range(20):
        assert other.answers(other.create(f"t{number}"), other.get_queue()) == [OK, OK]
    idle.widen()
    assert idle.answers(*streams) == [OK] * 6
    for stream in streams:
        listed = tasks_v2.ListTasksResponse.pb().FromString(idle.body(stream)[5:])
        bodies = {each.http_request.body for each in listed.tasks}
        assert {bytes([number]) * 300_000 for number in range(8)} <= bodies


def made_with_body(number: int) -> Task:
    request = tasks_v2.CreateTaskRequest.pb()(parent=QUEUE)
    request.task.http_request.url = "http://h/"
    request.task.http_request.body = bytes([number]) * 300_000
    return task_methods.read_task(request.task)


def test_a_thousand_idle_connections_while_one_works(grpc_server) -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 4096:
        pytest.skip("this process may not have so many files open")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4096), hard))
    try:
        with ExitStack() as opened:
            for _ in range(1000):
                idle = socket.create_connection(("127.0.0.1", grpc_server.port), PATIENCE_SECONDS)
                opened.callback(idle.close)
            client = dial(grpc_server.port)
            opened.callback(client.close)
            for _ in range(10):
                assert client.answers(client.create()) == [OK]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_who_comes_when_no_file_can_be_opened_is_served_once_one_can(grpc_server) -> None:
    resource = pytest.importorskip("resource")
    told = threading.Event()
    handler = logging.Handler()
    handler.emit = lambda record: told.set()  # type: ignore[method-assign]
    log = logging.getLogger("appengine_compat")
    log.addHandler(handler)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    late = socket.socket()
    with ExitStack() as opened:
        opened.callback(log.removeHandler, handler)
        opened.callback(late.close)
        before = dial(grpc_server.port)
        opened.callback(before.close)
        opened.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (late.fileno() + 10, hard))
        held = ExitStack()
        opened.callback(held.close)
        with contextlib.suppress(OSError):
            while True:
                held.callback(os.close, os.dup(late.fileno()))
        late.connect(("127.0.0.1", grpc_server.port))
        assert told.wait(PATIENCE_SECONDS)
        assert before.answers(before.create()) == [OK]
        held.close()
        client = Client(late).settle()
        assert client.answers(client.create()) == [OK]


# --- its end ---


def test_its_end_tells_idle_connections_and_closes_them(begin) -> None:
    server, client = begin()
    stream = client.create()
    assert client.answers(stream) == [OK]
    server.stop(PATIENCE_SECONDS)
    client.until(lambda: client.of(ConnectionTerminated))
    (told,) = client.of(ConnectionTerminated)
    assert (told.error_code, told.last_stream_id) == (0, stream)
    assert client.to_end() == b""


def test_its_end_waits_for_the_reply_to_a_call_under_way(begin, service, monkeypatch) -> None:
    gate = Gate(service.get_queue)
    monkeypatch.setattr(service, "get_queue", gate)
    server, idle = begin()
    stopping = threading.Thread(target=server.stop, args=(PATIENCE_SECONDS,))
    # h2 takes no reply after it was told of the end, as gRPC's own clients do.
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        request = tasks_v2.GetQueueRequest.pb()(name=QUEUE).SerializeToString()
        reply = channel.unary_unary(f"{SERVICE}/GetQueue").future(request, PATIENCE_SECONDS)
        assert gate.entered.wait(PATIENCE_SECONDS)
        stopping.start()
        idle.until(lambda: idle.of(ConnectionTerminated))
        gate.opened.set()
        assert tasks_v2.Queue.pb().FromString(reply.result()).name == QUEUE
    stopping.join(PATIENCE_SECONDS)
    assert not stopping.is_alive()


def test_its_end_does_not_wait_beyond_the_grace(begin, service, monkeypatch) -> None:
    gate = Gate(service.get_queue)
    monkeypatch.setattr(service, "get_queue", gate)
    server, client = begin()
    stream = client.get_queue()
    client.send()
    assert gate.entered.wait(PATIENCE_SECONDS)
    server.stop(0)
    client.until(lambda: client.is_at_end or client.of(ConnectionTerminated))
    assert not client.of(StreamEnded, stream)
    gate.opened.set()
