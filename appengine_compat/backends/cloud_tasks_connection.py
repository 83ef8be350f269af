"""Calls to Cloud Tasks: one gRPC channel per process, made when first used.

Google's client makes the channel, with its credentials, endpoint and certificates; the calls
go over it as plain protobuf messages, which halves what a call costs beside the client's own
methods. A client of another transport, or of a class of the caller's, is called by its methods.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import google.auth.exceptions
import grpc
from google.api_core import exceptions as api_exceptions
from google.cloud import tasks_v2
from google.longrunning import operations_pb2
from google.protobuf import empty_pb2

from appengine_compat.errors import ApiError

Metadata = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Rpc:
    """One operation: its path on the wire, and its method on Google's client."""

    path: str
    method: str
    request: Any
    """Google's wrapper class of the request, for the client's method; None: a plain message."""
    answer: Any
    """The protobuf class of the answer."""


_V2 = "/google.cloud.tasks.v2.CloudTasks/"
CREATE = Rpc(_V2 + "CreateTask", "create_task", tasks_v2.CreateTaskRequest, tasks_v2.Task.pb())
BATCH_CREATE = Rpc(
    _V2 + "BatchCreateTasks",
    "batch_create_tasks",
    tasks_v2.BatchCreateTasksRequest,
    operations_pb2.Operation,
)
BATCH_DELETE = Rpc(
    _V2 + "BatchDeleteTasks",
    "batch_delete_tasks",
    tasks_v2.BatchDeleteTasksRequest,
    operations_pb2.Operation,
)
PURGE = Rpc(_V2 + "PurgeQueue", "purge_queue", tasks_v2.PurgeQueueRequest, empty_pb2.Empty)
GET_OPERATION = Rpc(
    "/google.longrunning.Operations/GetOperation", "get_operation", None, operations_pb2.Operation
)
GetOperationRequest = operations_pb2.GetOperationRequest

_CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # A proxy for the wide world has no business between a program and its emulator.
    ("grpc.enable_http_proxy", 0),
)

_connections: weakref.WeakSet[Connection] = weakref.WeakSet()
_inherited: list[object] = []
"""Clients of a parent process: closing their channels here would write to its sockets."""


class Connection:
    """Makes calls; thread-safe, and usable after a fork."""

    def __init__(self, *, emulator: str = "", client: tasks_v2.CloudTasksClient | None = None):
        """Prepare; nothing is connected before the first call.

        Args:
            emulator: ``host:port`` of a plain-text endpoint; "" for Google's.
            client: a ready client to use, which is the caller's to keep fork-safe.
        """
        self._emulator = emulator
        self._given = client
        self._lock = threading.Lock()
        self._client: tasks_v2.CloudTasksClient | None = None
        self._calls: dict[str, Callable[..., Any]] = {}
        _connections.add(self)

    def call(self, rpc: Rpc, request: Any, timeout_seconds: float, metadata: Metadata) -> Any:
        """Make one call, once.

        Returns:
            The answer, as a protobuf message.

        Raises:
            ApiError: it was refused, or did not arrive, with the canonical code and text.
        """
        try:
            call = self._calls.get(rpc.path) or self._open(rpc)
            return call(request, timeout=timeout_seconds, metadata=metadata)
        except grpc.RpcError as error:
            raise ApiError(error.code().name, error.details() or "") from error
        except api_exceptions.GoogleAPICallError as error:
            raise ApiError(_error_code(error), error.message or "") from error
        except google.auth.exceptions.GoogleAuthError as error:
            raise ApiError("UNAUTHENTICATED", str(error)) from error

    def _open(self, rpc: Rpc) -> Callable[..., Any]:
        with self._lock:
            if self._client is None:
                self._client = self._given or _make_client(self._emulator)
            channel = _channel(self._client)
            if channel is None:
                call = _by_method(self._client, rpc)
            else:
                call = channel.unary_unary(
                    rpc.path,
                    request_serializer=_serialize,
                    response_deserializer=rpc.answer.FromString,
                )
            self._calls[rpc.path] = call
            return call

    def leave_to_parent(self) -> None:
        """Begin anew in a child process, in which only the thread that forked goes on."""
        self._lock = threading.Lock()
        _inherited.append(self._client)
        self._client = None
        self._calls = {}


def _serialize(message: Any) -> bytes:
    serialized: bytes = message.SerializeToString()
    return serialized


def _make_client(emulator: str) -> tasks_v2.CloudTasksClient:
    if not emulator:
        return tasks_v2.CloudTasksClient()
    transport = tasks_v2.CloudTasksClient.get_transport_class("grpc")
    channel = grpc.insecure_channel(emulator, options=_CHANNEL_OPTIONS)
    return tasks_v2.CloudTasksClient(transport=transport(channel=channel))


def _channel(client: tasks_v2.CloudTasksClient) -> Any:
    # A class of the caller's may have its own idea of what create_task does: it is to be asked.
    if type(client) is not tasks_v2.CloudTasksClient:
        return None
    return getattr(client.transport, "grpc_channel", None)


def _by_method(client: tasks_v2.CloudTasksClient, rpc: Rpc) -> Callable[..., Any]:
    method = getattr(client, rpc.method, None) if rpc.method else None
    if method is None:
        raise ApiError("UNIMPLEMENTED", f"{type(client).__name__} has no {rpc.path}")

    def call(request: Any, *, timeout: float, metadata: Metadata) -> Any:
        # The routing header among the metadata is one that the method makes itself.
        del metadata
        wrapped = request if rpc.request is None else rpc.request.wrap(request)
        answer = method(request=wrapped, timeout=timeout, retry=None)
        # A batch comes back as a future; what the service answered is within.
        return getattr(answer, "operation", answer)

    return call


def routing(field: str, path: str) -> Metadata:
    """Return the metadata by which the service finds the part of it that holds a resource."""
    return (("x-goog-request-params", f"{field}={quote(path, safe='')}"),)


def code_name(number: int) -> str:
    """Return the name of a canonical code, as google.rpc.Status has it by number."""
    return _CODES_BY_NUMBER.get(number, "UNKNOWN")


def _error_code(error: api_exceptions.GoogleAPICallError) -> str:
    if error.grpc_status_code is not None:
        return str(error.grpc_status_code.name)
    # Over REST only HTTP's codes arrive, of which two stand for several of gRPC's.
    for base, name in _CODES_OF_CLASSES:
        if isinstance(error, base):
            return name
    return "UNKNOWN"


_CODES_BY_NUMBER: dict[int, str] = {status.value[0]: status.name for status in grpc.StatusCode}
_CODES_OF_CLASSES: tuple[tuple[type[api_exceptions.GoogleAPICallError], str], ...] = (
    (api_exceptions.Aborted, "ABORTED"),
    (api_exceptions.Conflict, "ALREADY_EXISTS"),
    (api_exceptions.NotFound, "NOT_FOUND"),
    (api_exceptions.BadRequest, "INVALID_ARGUMENT"),
    (api_exceptions.Unauthorized, "UNAUTHENTICATED"),
    (api_exceptions.Forbidden, "PERMISSION_DENIED"),
    (api_exceptions.TooManyRequests, "RESOURCE_EXHAUSTED"),
    (api_exceptions.GatewayTimeout, "DEADLINE_EXCEEDED"),
    (api_exceptions.ServiceUnavailable, "UNAVAILABLE"),
    (api_exceptions.MethodNotImplemented, "UNIMPLEMENTED"),
    (api_exceptions.InternalServerError, "INTERNAL"),
)


def _after_fork_in_child() -> None:
    for connection in list(_connections):
        connection.leave_to_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
