"""What one client of the gRPC door may cost, and that the others are served meanwhile."""

from __future__ import annotations

import logging
import math
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import grpc
import pytest
from google.cloud import tasks_v2
from h2.events import ConnectionTerminated, ResponseReceived, StreamEnded

from appengine_compat.core.model import HttpRequest, Task
from appengine_compat.local.fronts import grpc_front, grpc_protocol, http2_loop, listening
from appengine_compat.local.fronts.http2_frames import END_STREAM, header_block, header_frames
from appengine_compat.local.store import Store
from tests.local.fronts.h2_client import (
    INVALID_ARGUMENT,
    NOT_FOUND,
    OK,
    PATIENCE_SECONDS,
    QUEUE,
    RESOURCE_EXHAUSTED,
    SERVICE,
    UNIMPLEMENTED,
    Client,
    create_request,
    dial,
)

CANCEL = 8
FOUR_MIB = 4 * 1024 * 1024


class Turnstile:
    """A function that calls enter at once, and that so many leave as they are let."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._changed = threading.Condition()
        self._allowed: float = 0
        self.begun: list[Any] = []
        """The first argument of each call."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        with self._changed:
            self.begun.append(args[0])
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: self._allowed > 0, PATIENCE_SECONDS)
            self._allowed -= 1
        return self._function(*args, **options)

    def let(self, count: float = math.inf) -> None:
        with self._changed:
            self._allowed += count
            self._changed.notify_all()

    def until(self, count: int) -> None:
        """Wait until so many have entered."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.begun) >= count, PATIENCE_SECONDS)


@pytest.fixture
def turnstile(monkeypatch) -> Iterator[Callable[..., Turnstile]]:
    """Puts turnstiles before functions; they all let through in the end, also after a failure."""
    with ExitStack() as opened:

        def turnstile(owner: Any, name: str) -> Turnstile:
            made = Turnstile(getattr(owner, name))
            monkeypatch.setattr(owner, name, made)
            opened.callback(made.let)
            return made

        yield turnstile


@contextmanager
def held(store: Store) -> Iterator[None]:
    """Keep a database busy, as a long commit does."""
    begun, over = threading.Event(), threading.Event()

    def hold(_connection: object) -> None:
        begun.set()
        assert over.wait(PATIENCE_SECONDS)

    thread = threading.Thread(target=store.write, args=(hold,))
    thread.start()
    try:
        assert begun.wait(PATIENCE_SECONDS)
        yield
    finally:
        over.set()
        thread.join(PATIENCE_SECONDS)


def reset(client: Client, *streams: int) -> None:
    for stream in streams:
        client.http2.reset_stream(stream, CANCEL)


def is_served(client: Client) -> bool:
    """Tell whether it is answered; what it has sent before has been read by then."""
    return client.answers(client.nonsense()) == [UNIMPLEMENTED]


def add(service, count: int, **fields: Any) -> None:
    fields.setdefault("url", "http://h/")
    for _ in range(count):
        service.create_task(QUEUE, Task(name="", request=HttpRequest(**fields)))


# --- calls that nobody waits for any more ---


def test_calls_that_are_given_up_before_they_begin_are_not_run(connect, service, turnstile) -> None:
    gate = turnstile(service, "get_queue")
    client, other = connect(), connect()
    streams = [client.get_queue() for _ in range(200)]
    client.send()
    gate.until(grpc_front.THREADS)
    reset(client, *streams)
    assert is_served(client)
    theirs = other.get_queue()
    assert is_served(other)
    gate.let()
    assert other.answers(theirs) == [OK]
    assert client.answers(client.get_queue()) == [OK]
    assert len(gate.begun) == grpc_front.THREADS + 2
    assert not any(client.of(ResponseReceived, stream) for stream in streams)


def test_calls_that_are_given_up_as_they_come_are_not_run(connect, service, turnstile) -> None:
    gate = turnstile(service, "get_queue")
    gate.let()
    client = connect()
    for _ in range(200):
        reset(client, client.get_queue(), client.create())
    assert client.answers(client.get_queue()) == [OK]
    # The system may cut what is sent between a call and its end.
    assert len(gate.begun) <= 1 + 3
    assert len(service.list_tasks(QUEUE).items) <= 3


@pytest.mark.parametrize("end", [Client.close, Client.vanish])
def test_calls_whose_connection_ends_before_they_begin_are_not_run(
    connect, service, turnstile, end: Callable[[Client], None]
) -> None:
    gate = turnstile(service, "get_queue")
    client, other = connect(), connect()
    for _ in range(200):
        client.get_queue()
    client.send()
    gate.until(grpc_front.THREADS)
    end(client)
    assert is_served(other)
    assert is_served(other)
    gate.let()
    assert other.answers(other.get_queue()) == [OK]
    assert len(gate.begun) == grpc_front.THREADS + 1


def test_a_task_whose_client_gives_up_while_others_are_in_front_is_not_created(
    connect, service, turnstile
) -> None:
    gate = turnstile(service, "get_queue")
    client, other = connect(), connect()
    before = [other.get_queue() for _ in range(grpc_front.THREADS)]
    other.send()
    gate.until(grpc_front.THREADS)
    with held(service.store):
        given_up, kept = client.create("never"), client.create("kept")
        assert is_served(client)
        reset(client, given_up)
        assert is_served(client)
    gate.let()
    assert client.answers(kept) == [OK]
    assert other.answers(*before) == [OK] * grpc_front.THREADS
    assert [task.name for task in service.list_tasks(QUEUE).items] == [f"{QUEUE}/tasks/kept"]


# --- how many of a client's calls are taken up ---


def test_who_asks_much_at_once_is_answered_and_does_not_keep_others_behind_all_of_it(
    connect, service, turnstile
) -> None:
    gate = turnstile(service, "get_queue")
    client, other = connect(), connect()
    streams = [client.get_queue() for _ in range(200)]
    client.send()
    gate.until(grpc_front.THREADS)
    foreign = f"{QUEUE}-of-another"
    theirs = other.get_queue(foreign)
    assert is_served(other)
    # All that were taken up before it, and none of those that were kept waiting.
    gate.let(http2_loop.MOST_ELSEWHERE - grpc_front.THREADS + 1)
    gate.until(http2_loop.MOST_ELSEWHERE + 1)
    assert foreign in gate.begun
    gate.let()
    assert other.answers(theirs) == [NOT_FOUND]
    assert client.answers(*streams) == [OK] * 200
    assert len(gate.begun) == 201


# --- clients that do not read their replies ---


@pytest.mark.parametrize("window", [0, 65_535])
def test_nothing_further_is_begun_for_who_lets_no_reply_come_until_it_does(
    connect, service, turnstile, monkeypatch, window: int
) -> None:
    most_held_back = 3
    monkeypatch.setattr(http2_loop, "MOST_UNREAD_BYTES", 1_000_000)
    add(service, 1, body=bytes(300_000))
    gate = turnstile(service, "list_tasks")
    gate.let()
    client, other = connect(window=window), connect()
    streams = [client.list_tasks() for _ in range(80)]
    client.send()
    gate.until(http2_loop.MOST_ELSEWHERE)
    for _ in range(20):
        assert other.answers(other.get_queue(), other.create()) == [OK, OK]
    assert len(gate.begun) <= http2_loop.MOST_ELSEWHERE + most_held_back
    client.open_windows()
    assert client.answers(*streams) == [OK] * 80
    assert len(gate.begun) == 80
    assert all(len(client.body(stream)) > 300_000 for stream in streams)


def test_who_gives_up_the_replies_that_it_did_not_let_come_is_served_again(
    connect, service, monkeypatch
) -> None:
    monkeypatch.setattr(http2_loop, "MOST_UNREAD_BYTES", 1_000_000)
    add(service, 1, body=bytes(300_000))
    client = connect(window=0)
    streams = [client.list_tasks() for _ in range(80)]
    client.send()
    client.until(lambda: len(client.of(ResponseReceived)) > 3)
    refused = client.nonsense()
    reset(client, *streams)
    assert client.answers(refused) == [UNIMPLEMENTED]


def test_whose_replies_all_leave_in_one_piece_is_not_forgotten(
    connect, service, turnstile, monkeypatch
) -> None:
    # Any rest at all is too much, so that what waits can begin only once there is none.
    monkeypatch.setattr(http2_loop, "MOST_UNREAD_BYTES", 1)
    add(service, 1, body=bytes(300_000))
    gate = turnstile(service, "list_tasks")
    gate.let()
    client, other = connect(buffer_bytes=4096), connect()
    # More than the system takes for it, and of more calls than are taken up at once.
    streams = [client.list_tasks() for _ in range(100)]
    client.send()
    gate.until(http2_loop.MOST_ELSEWHERE)
    for _ in range(20):
        assert other.answers(other.get_queue()) == [OK]
    client.widen()
    assert client.answers(*streams) == [OK] * len(streams)


# --- long bodies and long headers ---


def test_bodies_that_are_under_way_together_are_bounded(begin, monkeypatch) -> None:
    monkeypatch.setattr(grpc_protocol, "MOST_MESSAGE_BYTES", 100_000)
    server, client = begin()
    other = dial(server.port)
    try:
        unfinished = [client.begin(f"{SERVICE}/GetQueue") for _ in range(3)]
        for stream in unfinished:
            for _ in range(5):
                client.http2.send_data(stream, bytes(16_000))
        last = unfinished[-1]
        assert client.answers(last) == [RESOURCE_EXHAUSTED]
        assert "those under way on a connection" in client.text(last)
        assert other.answers(other.create(), other.get_queue()) == [OK, OK]
        reset(client, *unfinished[:-1])
        large = create_request() + bytes(90_000)
        streams = [client.ask(f"{SERVICE}/CreateTask", large) for _ in range(2)]
        assert client.answers(*streams) == [INVALID_ARGUMENT] * 2
        assert client.answers(client.get_queue()) == [OK]
    finally:
        other.close()


def test_metadata_beyond_what_is_wanted_concerns_its_call_alone(connect) -> None:
    client = connect()
    before = client.get_queue()
    request = tasks_v2.GetQueueRequest.pb()(name=QUEUE).SerializeToString()
    long = client.ask(f"{SERVICE}/GetQueue", request, x_long="v" * 70_000)
    after = client.get_queue()
    assert client.answers(before, long, after) == [OK, RESOURCE_EXHAUSTED, OK]
    assert "64 KiB" in client.text(long)
    short = client.ask(f"{SERVICE}/GetQueue", request, x_long="v" * 60_000)
    assert client.answers(short) == [OK]


def test_metadata_beyond_a_mib_ends_its_connection_and_no_other(connect) -> None:
    client, other = connect(), connect()
    # Each header counts for 32 bytes more than it has.
    block = header_block(*[(b"a", b"")] * 33_000)
    client.raw(b"".join(header_frames(1, block, END_STREAM, 16_384)))
    client.until(lambda: client.of(ConnectionTerminated))
    assert client.to_end() == b""
    assert other.answers(other.get_queue()) == [OK]


@pytest.mark.parametrize(
    ("most_bytes", "status"), [(100_000_000, INVALID_ARGUMENT), (1_000_000, RESOURCE_EXHAUSTED)]
)
def test_what_becomes_long_once_it_is_read_keeps_nobody_waiting(
    connect, turnstile, monkeypatch, most_bytes: int, status: int
) -> None:
    monkeypatch.setattr(grpc_protocol, "MOST_MESSAGE_BYTES", most_bytes)
    request = tasks_v2.CreateTaskRequest.pb()(parent=QUEUE)
    request.task.http_request.url = "http://h/"
    request.task.http_request.body = bytes(10_000_000)
    client, other = connect(), connect()
    gate = turnstile(grpc_protocol, "read_message")
    long = client.ask(f"{SERVICE}/CreateTask", request.SerializeToString(), is_compressed=True)
    client.send()
    gate.until(1)
    assert is_served(other)
    assert is_served(client)
    gate.let()
    assert other.answers(other.create()) == [OK]
    assert client.answers(long) == [status]


def test_a_short_task_may_come_compressed(connect, service) -> None:
    client = connect()
    short = client.ask(f"{SERVICE}/CreateTask", create_request("a"), is_compressed=True)
    assert client.answers(short) == [OK]
    assert [task.name for task in service.list_tasks(QUEUE).items] == [f"{QUEUE}/tasks/a"]


# --- connections ---


@pytest.fixture
def warnings() -> Iterator[Warnings]:
    handler = Warnings()
    log = logging.getLogger("appengine_compat")
    log.addHandler(handler)
    yield handler
    log.removeHandler(handler)


class Warnings(logging.Handler):
    """What was logged; it may be waited for."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._changed = threading.Condition()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        with self._changed:
            self.texts.append(record.getMessage())
            self._changed.notify_all()

    def until(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.texts) >= count, PATIENCE_SECONDS)


class Visitors:
    """Clients that are connected, whether the door has taken them or not."""

    def __init__(self, port: int, opened: ExitStack) -> None:
        self._port = port
        self._opened = opened

    def __call__(self) -> Client:
        client = Client(socket.create_connection(("127.0.0.1", self._port), PATIENCE_SECONDS))
        self._opened.callback(client.close)
        client.send()
        return client


def test_who_is_one_too_many_waits_until_another_has_gone(begin, monkeypatch, warnings) -> None:
    monkeypatch.setattr(listening, "most_connections", lambda: 3)
    server, first = begin()
    with ExitStack() as opened:
        visit = Visitors(server.port, opened)
        second, third = visit().settle(), visit().settle()
        assert warnings.texts == []
        fourth = visit()
        created = fourth.create("late")
        fourth.send()
        warnings.until(1)
        assert warnings.texts[0].startswith("gRPC clients wait until others have gone: there are 3")
        assert all(is_served(each) for each in (first, second, third))
        assert not fourth.events
        first.close()
        assert fourth.answers(created) == [OK]

        fifth = visit()
        assert is_served(fourth)
        second.close()
        assert is_served(fifth)
        assert len(warnings.texts) == 1

        # Once there is room for all again, the next shortage is another one.
        third.close()
        fourth.close()
        assert is_served(fifth)
        assert is_served(visit())
        assert is_served(visit())
        visit()
        warnings.until(2)
        assert is_served(fifth)
        assert len(warnings.texts) == 2


# --- while the database is another's ---


def test_while_the_database_is_busy_the_door_is_open_and_tasks_wait(connect, service) -> None:
    client, other = connect(), connect()
    with held(service.store):
        created = [client.create(f"t{number}") for number in range(100)]
        assert is_served(client)
        assert is_served(other)
        assert is_served(connect())
        assert not any(client.of(StreamEnded, stream) for stream in created)
    assert client.answers(*created) == [OK] * 100
    assert len(service.list_tasks(QUEUE).items) == 100


def test_its_end_does_not_wait_for_a_busy_database(begin, service) -> None:
    server, client = begin()
    with held(service.store):
        stream = client.create()
        assert is_served(client)
        server.stop(0)
        client.until(lambda: client.is_at_end or client.of(ConnectionTerminated))
        assert not client.of(StreamEnded, stream)


def test_its_end_does_not_wait_for_a_commit_that_does_not_end(
    begin, service, turnstile, monkeypatch
) -> None:
    monkeypatch.setattr(http2_loop, "STUCK_SECONDS", 0.0)
    gate = turnstile(service, "create_each")
    server, client = begin()
    client.create()
    client.send()
    gate.until(1)
    server.stop(0)
    gate.let()
    client.until(lambda: client.is_at_end or client.of(ConnectionTerminated))


# --- pages ---


@pytest.mark.parametrize(
    ("count", "fields"),
    [
        (84, {"body": bytes(100_000)}),
        (120, {"headers": {f"X-{number}": "x" * 4000 for number in range(18)}}),
        (100, {"headers": {f"X-{number}": "\u00e9" * 2000 for number in range(15)}}),
        (900, {"url": "http://h/" + "\u65e5" * 2000}),
        (30, {"body": bytes(900_000), "url": "http://h/" + "\u65e5" * 2000}),
    ],
    ids=["bodies", "headers", "headers not in ASCII", "urls not in ASCII", "long bodies"],
)
def test_all_pages_of_tasks_are_taken_by_a_client_that_sets_no_limit(
    grpc_server, service, count: int, fields: dict[str, Any]
) -> None:
    add(service, count, **fields)
    names, sizes = set(), []
    with grpc.insecure_channel(f"127.0.0.1:{grpc_server.port}") as channel:
        call = channel.unary_unary(f"{SERVICE}/ListTasks")
        request = tasks_v2.ListTasksRequest.pb()(parent=QUEUE, page_size=1000, response_view=2)
        while True:
            encoded = call(request.SerializeToString(), PATIENCE_SECONDS)
            sizes.append(len(encoded))
            page = tasks_v2.ListTasksResponse.pb().FromString(encoded)
            names |= {task.name for task in page.tasks}
            request.page_token = page.next_page_token
            if not page.next_page_token:
                break
    assert len(names) == count
    assert max(sizes) < FOUR_MIB
    # They are no shorter than that needs, either.
    assert len(sizes) <= sum(sizes) // (FOUR_MIB // 2) + 1
