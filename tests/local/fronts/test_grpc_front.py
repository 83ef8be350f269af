"""The gRPC door itself: what no well-meaning client sends, sizes, ports, and its end."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.cloud import tasks_v2
from google.rpc import error_details_pb2, status_pb2

from appengine_compat.errors import ConfigError
from appengine_compat.local.fronts import grpc_protocol
from appengine_compat.local.fronts.grpc_front import GrpcServer, serve_grpc
from appengine_compat.local.fronts.methods import Method
from tests.local.fronts.conftest import LOCATION, QUEUE

SERVICE = "/google.cloud.tasks.v2.CloudTasks"
UNLIMITED = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
PATIENCE_SECONDS = 20


@pytest.fixture
def server(grpc_server: GrpcServer) -> GrpcServer:
    return grpc_server


@pytest.fixture
def channel(server) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"127.0.0.1:{server.port}", UNLIMITED) as channel:
        yield channel


def ask(channel: grpc.Channel, method: str, request: bytes) -> bytes:
    return channel.unary_unary(method)(request, timeout=PATIENCE_SECONDS)


def create_request(task_id: str = "", body: bytes = b"") -> bytes:
    request = tasks_v2.CreateTaskRequest.pb()(parent=QUEUE)
    request.task.http_request.url = "http://localhost:9/"
    request.task.http_request.body = body
    if task_id:
        request.task.name = f"{QUEUE}/tasks/{task_id}"
    return bytes(request.SerializeToString())


def name_in(answer: bytes) -> str:
    return str(tasks_v2.Task.pb().FromString(answer).name)


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


def refused(code: grpc.StatusCode):
    return pytest.raises(grpc.RpcError, check=lambda error: error.code() is code)


def test_bytes_that_are_no_message_are_an_invalid_argument(channel) -> None:
    with refused(grpc.StatusCode.INVALID_ARGUMENT) as caught:
        ask(channel, f"{SERVICE}/GetQueue", b"\xff\xff\xff")
    assert caught.value.details() == "The request is not a GetQueueRequest."


def test_text_that_is_not_utf_8_is_an_invalid_argument(channel) -> None:
    with refused(grpc.StatusCode.INVALID_ARGUMENT):
        ask(channel, f"{SERVICE}/GetQueue", b"\x0a\x02\xff\xfe")


@pytest.mark.parametrize("method", ["/none/Such", f"{SERVICE}/UpdateTask", f"{SERVICE}/BufferTask"])
def test_a_method_that_there_is_not_is_unimplemented(channel, method: str) -> None:
    with refused(grpc.StatusCode.UNIMPLEMENTED):
        ask(channel, method, b"")


def test_details_travel_as_grpcs_status_message(channel) -> None:
    request = tasks_v2.CreateQueueRequest.pb()(parent=LOCATION)
    request.queue.name = "bad"
    with refused(grpc.StatusCode.INVALID_ARGUMENT) as caught:
        ask(channel, f"{SERVICE}/CreateQueue", request.SerializeToString())
    status = status_pb2.Status.FromString(
        dict(caught.value.trailing_metadata())["grpc-status-details-bin"]
    )
    assert status.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert status.message == caught.value.details()
    help_ = error_details_pb2.Help()
    assert status.details[0].Unpack(help_)
    assert help_.links[0].description == "Definition of queue name"


@pytest.mark.parametrize("letter", ["a", "\U0001f600"])
def test_a_refusal_that_quotes_much_is_shortened_not_lost(channel, letter: str) -> None:
    request = tasks_v2.GetTaskRequest.pb()(name=f"{QUEUE}/tasks/.{letter * 100_000}")
    with refused(grpc.StatusCode.INVALID_ARGUMENT) as caught:
        ask(channel, f"{SERVICE}/GetTask", request.SerializeToString())
    assert caught.value.details().startswith(f'Task ID ".{letter}')
    assert caught.value.details().endswith(f"{letter}...")


def test_a_batch_may_be_larger_than_grpcs_own_limit(channel) -> None:
    request = tasks_v2.BatchCreateTasksRequest.pb()(parent=QUEUE)
    for _ in range(20):
        one = request.requests.add(parent=QUEUE)
        one.task.http_request.url = "http://localhost:9/"
        one.task.http_request.body = b"x" * 1_000_000
    ask(channel, f"{SERVICE}/BatchCreateTasks", request.SerializeToString())
    listed = ask(
        channel,
        f"{SERVICE}/ListTasks",
        tasks_v2.ListTasksRequest.pb()(parent=QUEUE).SerializeToString(),
    )
    assert len(tasks_v2.ListTasksResponse.pb().FromString(listed).tasks) == 20


def test_two_servers_never_share_a_port(server, service) -> None:
    with pytest.raises(
        ConfigError, match=rf"127.0.0.1:{server.port}.*[Aa]nother program"
    ) as caught:
        serve_grpc(service, port=server.port)
    assert caught.value.setting == "--grpc-port"


def test_an_address_of_another_machine_is_refused(service) -> None:
    with pytest.raises(ConfigError, match="no address of this machine"):
        serve_grpc(service, host="192.0.2.1", port=0)


def test_without_hpack_it_says_what_to_install(service, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "appengine_compat.local.fronts.http2_connection", None)
    with pytest.raises(ConfigError, match=r"hpack.*pip install 'appengine-compat\[dev\]'"):
        serve_grpc(service, port=0)


def test_a_reply_that_cannot_be_written_is_internal_and_not_awaited_for_ever(
    channel, service, monkeypatch
) -> None:
    class Unwritable:
        def SerializeToString(self) -> bytes:
            raise ValueError("too large")

    monkeypatch.setattr(Method, "call_encoded", lambda self, encoded: Unwritable())
    with refused(grpc.StatusCode.INTERNAL):
        ask(channel, f"{SERVICE}/GetQueue", b"")


def test_many_clients_at_once_are_all_served(server, service) -> None:
    names: list[str] = []
    faults: list[BaseException] = []

    def create(number: int) -> None:
        request = tasks_v2.CreateTaskRequest.pb()(parent=QUEUE)
        request.task.http_request.url = f"http://localhost:9/{number}"
        try:
            with grpc.insecure_channel(f"127.0.0.1:{server.port}") as own:
                for _ in range(5):
                    answer = ask(own, f"{SERVICE}/CreateTask", request.SerializeToString())
                    names.append(tasks_v2.Task.pb().FromString(answer).name)
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    assert not faults
    assert len(set(names)) == 120
    assert {task.name for task in service.list_tasks(QUEUE).items} == set(names)


def test_a_fault_of_ours_is_internal_and_logged(channel, service, monkeypatch, caplog) -> None:
    monkeypatch.setattr(service, "get_queue", lambda name: 1 / 0)
    request = tasks_v2.GetQueueRequest.pb()(name=QUEUE)
    with refused(grpc.StatusCode.INTERNAL) as caught:
        ask(channel, f"{SERVICE}/GetQueue", request.SerializeToString())
    assert caught.value.details() == "Internal error encountered."
    assert "ZeroDivisionError" in caplog.text


def test_after_its_end_it_takes_no_calls(service) -> None:
    server = serve_grpc(service, port=0)
    server.stop(0)
    request = tasks_v2.GetQueueRequest.pb()(name=QUEUE)
    with (
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
        refused(grpc.StatusCode.UNAVAILABLE),
    ):
        ask(channel, f"{SERVICE}/GetQueue", request.SerializeToString())


@pytest.mark.parametrize("kind", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_requests_may_be_compressed(channel, service, monkeypatch, kind: grpc.Compression) -> None:
    flags: list[int] = []
    right = grpc_protocol.read_message

    def read_message(head: grpc_protocol.Head, body: bytes) -> bytes:
        flags.append(body[0])
        return right(head, body)

    monkeypatch.setattr(grpc_protocol, "read_message", read_message)
    create = channel.unary_unary(f"{SERVICE}/CreateTask")
    body = b"much of the same " * 5000
    create(create_request("a", body), timeout=PATIENCE_SECONDS, compression=kind)
    assert service.get_task(f"{QUEUE}/tasks/a").request.body == body
    create(create_request("b"), timeout=PATIENCE_SECONDS)
    assert flags == [1, 0]


def test_many_calls_at_once_on_one_channel_have_their_own_results(channel) -> None:
    create, get = (channel.unary_unary(f"{SERVICE}/{name}") for name in ("CreateTask", "GetTask"))
    names = [f"{QUEUE}/tasks/t{number}" for number in range(50)]
    calls = [
        create.future(create_request(f"t{number}"), timeout=PATIENCE_SECONDS)
        for number in range(50)
    ]
    assert [name_in(call.result()) for call in calls] == names
    requests = [tasks_v2.GetTaskRequest.pb()(name=name).SerializeToString() for name in names]
    found = [get.future(request, timeout=PATIENCE_SECONDS) for request in requests]
    assert [name_in(call.result()) for call in found] == names


def test_more_calls_at_once_than_a_connection_carries_wait_for_their_turn(channel, service) -> None:
    create = channel.unary_unary(f"{SERVICE}/CreateTask")
    calls = [create.future(create_request(), timeout=PATIENCE_SECONDS) for _ in range(600)]
    assert len({name_in(call.result()) for call in calls}) == 600


def test_clients_of_asyncio_are_served(server, service) -> None:
    async def create_all() -> list[Any]:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            create = channel.unary_unary(f"{SERVICE}/CreateTask")
            return await asyncio.gather(
                *(
                    create(create_request(task_id), timeout=PATIENCE_SECONDS)
                    for task_id in ("a", "b", "c", "a")
                ),
                return_exceptions=True,
            )

    *made, fault = sorted(asyncio.run(create_all()), key=lambda each: isinstance(each, Exception))
    assert {name_in(each) for each in made} == {f"{QUEUE}/tasks/{each}" for each in "abc"}
    assert fault.code() is grpc.StatusCode.ALREADY_EXISTS
    assert len(service.list_tasks(QUEUE).items) == 3


def test_a_call_that_its_client_cancels_leaves_the_channel_usable(
    channel, service, monkeypatch
) -> None:
    entered, go_on = threading.Event(), threading.Event()
    right = service.get_queue

    def slow(name: str) -> Any:
        entered.set()
        assert go_on.wait(PATIENCE_SECONDS)
        return right(name)

    monkeypatch.setattr(service, "get_queue", slow)
    request = tasks_v2.GetQueueRequest.pb()(name=QUEUE).SerializeToString()
    call = channel.unary_unary(f"{SERVICE}/GetQueue").future(request)
    assert entered.wait(PATIENCE_SECONDS)
    call.cancel()
    with pytest.raises(grpc.FutureCancelledError):
        call.result()
    ask(channel, f"{SERVICE}/CreateTask", create_request("a"))
    go_on.set()
    ask(channel, f"{SERVICE}/GetQueue", request)


def test_a_deadline_beyond_30_seconds_is_refused_and_a_shorter_one_is_taken(channel) -> None:
    create = channel.unary_unary(f"{SERVICE}/CreateTask")
    with refused(grpc.StatusCode.INVALID_ARGUMENT) as caught:
        create(create_request(), timeout=40)
    assert "deadline" in caught.value.details()
    create(create_request(), timeout=10)
    create(create_request())


def test_much_metadata_is_read_over(channel) -> None:
    metadata = [("authorization", "Bearer " + "x" * 10_000), ("trace-bin", bytes(range(256)) * 30)]
    create = channel.unary_unary(f"{SERVICE}/CreateTask")
    for _ in range(3):
        create(create_request(), timeout=PATIENCE_SECONDS, metadata=metadata)


def test_a_channel_goes_on_when_another_server_takes_the_port(service) -> None:
    server = serve_grpc(service, port=0)
    # Waits between attempts to connect are a second and more where nothing is set.
    options = (("grpc.initial_reconnect_backoff_ms", 100), ("grpc.min_reconnect_backoff_ms", 100))
    with grpc.insecure_channel(f"127.0.0.1:{server.port}", options) as channel:
        create = channel.unary_unary(f"{SERVICE}/CreateTask")
        create(create_request("before"), timeout=PATIENCE_SECONDS)
        server.stop()
        with refused(grpc.StatusCode.UNAVAILABLE):
            create(create_request("meanwhile"), timeout=PATIENCE_SECONDS)
        server = serve_grpc(service, port=server.port)
        create(create_request("after"), timeout=PATIENCE_SECONDS, wait_for_ready=True)
    server.stop()
    names = {task.name.rpartition("/")[2] for task in service.list_tasks(QUEUE).items}
    assert names == {"before", "after"}


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_an_address_of_ipv6(service) -> None:
    server = serve_grpc(service, host="::1", port=0)
    with grpc.insecure_channel(f"[::1]:{server.port}") as channel:
        ask(channel, f"{SERVICE}/CreateTask", create_request("a"))
    with pytest.raises(ConfigError, match=rf"\[::1\]:{server.port}"):
        serve_grpc(service, host="::1", port=server.port)
    server.stop()
