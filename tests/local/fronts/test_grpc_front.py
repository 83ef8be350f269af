"""The gRPC door itself: what no well-meaning client sends, sizes, ports, and its end."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import grpc
import pytest
from google.cloud import tasks_v2
from google.rpc import error_details_pb2, status_pb2

from appengine_compat.errors import ConfigError
from appengine_compat.local.fronts.grpc_front import GrpcServer, serve_grpc
from tests.local.fronts.conftest import LOCATION, QUEUE

SERVICE = "/google.cloud.tasks.v2.CloudTasks"
UNLIMITED = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
PATIENCE_SECONDS = 20


@pytest.fixture
def server(service) -> Iterator[GrpcServer]:
    server = serve_grpc(service, port=0)
    yield server
    server.stop(0)


@pytest.fixture
def channel(server) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"127.0.0.1:{server.port}", UNLIMITED) as channel:
        yield channel


def ask(channel: grpc.Channel, method: str, request: bytes) -> bytes:
    return channel.unary_unary(method)(request, timeout=PATIENCE_SECONDS)


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
    for _ in range(8):
        one = request.requests.add(parent=QUEUE)
        one.task.http_request.url = "http://localhost:9/"
        one.task.http_request.body = b"x" * 1_000_000
    ask(channel, f"{SERVICE}/BatchCreateTasks", request.SerializeToString())
    listed = ask(
        channel,
        f"{SERVICE}/ListTasks",
        tasks_v2.ListTasksRequest.pb()(parent=QUEUE).SerializeToString(),
    )
    assert len(tasks_v2.ListTasksResponse.pb().FromString(listed).tasks) == 8


def test_two_servers_never_share_a_port(server, service) -> None:
    with pytest.raises(ConfigError, match=f"127.0.0.1:{server.port}.*another program") as caught:
        serve_grpc(service, port=server.port)
    assert caught.value.setting == "--grpc-port"


def test_an_address_of_another_machine_is_refused(service) -> None:
    with pytest.raises(ConfigError, match="no address of this machine"):
        serve_grpc(service, host="192.0.2.1", port=0)


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
