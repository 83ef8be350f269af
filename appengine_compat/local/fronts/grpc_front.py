"""The gRPC door."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from concurrent import futures
from datetime import datetime, timezone
from typing import Any

import grpc

from appengine_compat.core import messages
from appengine_compat.errors import ApiError, ConfigError
from appengine_compat.local.fronts import rpc_status
from appengine_compat.local.fronts.methods import Method, methods
from appengine_compat.local.service import LocalService

_THREADS = 16
"""Calls wait for commits, which they share: more threads make larger commits, not more of them."""
_MAX_REQUEST_BYTES = 160 * 1024 * 1024
"""A batch may carry 100 tasks of a MiB; the library's own limit is 4 MB."""
_OPTIONS = (
    ("grpc.max_receive_message_length", _MAX_REQUEST_BYTES),
    ("grpc.max_send_message_length", -1),
    # Two servers that share a port without knowing would share the tasks too.
    ("grpc.so_reuseport", 0),
)
_MOST_MESSAGE_BYTES = 1500
"""It travels twice, and in headers, of which a client takes 8 KiB; names that are quoted in it may
be of any length."""
_LONGEST_DEADLINE_SECONDS = 30.0
_NO_DEADLINE_SECONDS = 10 * 365 * 86400.0

_CODES = {code.value[0]: code for code in grpc.StatusCode}


class GrpcServer:
    """A gRPC server that runs.

    Attributes:
        host: the address that it listens on.
        port: the port that it listens on.
    """

    def __init__(self, server: grpc.Server, host: str, port: int) -> None:
        self._server = server
        self.host = host
        self.port = port

    def stop(self, grace_seconds: float = 1.0) -> None:
        """Take no more calls, and give those that run a moment to end."""
        self._server.stop(grace_seconds).wait()


def serve_grpc(
    service: LocalService,
    host: str = "127.0.0.1",
    port: int = 8123,
    *,
    location: str = "us-central1",
) -> GrpcServer:
    """Serve Cloud Tasks over gRPC, in threads of this process.

    Args:
        service: does the work; it is not closed with the server.
        host: the address to listen on.
        port: the port to listen on; 0 for any that is free.
        location: the location that ListLocations gives though it has no queue yet.

    Returns:
        The server, which has begun to take calls.

    Raises:
        ConfigError: nothing can listen on this address.
    """
    server = grpc.server(
        futures.ThreadPoolExecutor(_THREADS, thread_name_prefix="appengine-compat-grpc"),
        options=_OPTIONS,
    )
    server.add_generic_rpc_handlers((_Handlers(methods(service, location)),))
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        # The library says on stderr, in lines of its own, what it cannot bind.
        bound = server.add_insecure_port(address) if _can_be_bound(host, port) else 0
    except RuntimeError:
        bound = 0
    if not bound:
        raise ConfigError(
            f"Cloud Tasks' gRPC cannot be served on {address}: another program listens there, or "
            "it is no address of this machine. Choose another port, or end that program.",
            setting="--grpc-port",
        )
    server.start()
    return GrpcServer(server, host, bound)


def _can_be_bound(host: str, port: int) -> bool:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        with socket.create_server(found[0][4][:2], family=found[0][0]):
            return True
    except OSError:
        return False


class _Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, served: dict[str, Method]) -> None:
        # As they arrive on the wire, so that a call costs one look-up.
        self._handlers = {
            f"/{name}": grpc.unary_unary_rpc_method_handler(_behaviour(method))
            for name, method in served.items()
        }

    def service(self, handler_call_details: Any) -> Any:
        return self._handlers.get(handler_call_details.method)


def _behaviour(method: Method) -> Callable[[bytes, Any], bytes]:
    def call(encoded: bytes, context: Any) -> bytes:
        try:
            _check_deadline(context)
            return bytes(method.call_encoded(encoded).SerializeToString())
        except ApiError as refusal:
            return _refuse(context, refusal)

    return call


def _check_deadline(context: Any) -> None:
    remaining = context.time_remaining()
    if remaining is not None and _LONGEST_DEADLINE_SECONDS < remaining < _NO_DEADLINE_SECONDS:
        deadline = datetime.fromtimestamp(time.time() + remaining, timezone.utc)
        raise messages.deadline_too_far(deadline)


def _refuse(context: Any, refusal: ApiError) -> bytes:
    status = rpc_status.status(refusal)
    status.message = _shortened(status.message)
    if status.details:
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    # Set rather than aborted: an abort is an exception, which grpc logs as a fault of ours.
    context.set_code(_CODES[status.code])
    context.set_details(status.message)
    return b""


def _shortened(text: str) -> str:
    encoded = text.encode()
    if len(encoded) <= _MOST_MESSAGE_BYTES:
        return text
    return encoded[:_MOST_MESSAGE_BYTES].decode(errors="ignore") + "..."
