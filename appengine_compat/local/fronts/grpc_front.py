"""The gRPC door.

What came meanwhile is taken together: the tasks that clients wait to have created share one
commit, and a lone client's call costs no switch between threads. Calls of other methods go to
threads of a pool, since some of them last.
"""

from __future__ import annotations

import itertools
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from appengine_compat.core import messages
from appengine_compat.errors import ApiError, ConfigError
from appengine_compat.local.fronts import grpc_protocol, listening, rpc_status
from appengine_compat.local.fronts.http2_loop import Call, Http2Loop, Reply
from appengine_compat.local.fronts.methods import Method, methods

if TYPE_CHECKING:
    from appengine_compat.local.fronts.grpc_protocol import Head
    from appengine_compat.local.service import LocalService

THREADS = 16
"""Calls wait for commits, which they share: more threads make larger commits, not more of them."""
_LONG_COMPRESSED_BYTES = 4 * 1024
"""A thousand times as much may come out of it."""
_LONGEST_DEADLINE_SECONDS = 30.0
_NO_DEADLINE_SECONDS = 10 * 365 * 86400.0


class GrpcServer:
    """A gRPC server that runs.

    Attributes:
        host: the address that it listens on.
        port: the port that it listens on.
    """

    def __init__(self, calls: _Calls, host: str, port: int) -> None:
        self._calls = calls
        self.host = host
        self.port = port

    def stop(self, grace_seconds: float = 1.0) -> None:
        """Take no more calls, and give those that run a moment to end."""
        self._calls.loop.stop(grace_seconds)
        self._calls.close()


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
        ConfigError: nothing can listen on this address, or hpack is not installed.
    """
    try:
        from appengine_compat.local.fronts.http2_connection import Http2Connection
    except ImportError:
        raise ConfigError(
            "Serving gRPC needs hpack, which is not installed: pip install 'appengine-compat[dev]'."
        ) from None
    most_bytes = grpc_protocol.PREFIX_BYTES + grpc_protocol.MOST_MESSAGE_BYTES
    calls = _Calls(service, methods(service, location))
    bound = listening.bind(host, port, "gRPC", "--grpc-port")
    calls.loop = Http2Loop(
        bound,
        lambda: Http2Connection(grpc_protocol.read_head, most_bytes),
        calls.begin,
        listening.most_connections(),
    )
    calls.loop.start()
    return GrpcServer(calls, host, bound.getsockname()[1])


class _Calls:
    """What becomes of calls: together in the loop's thread, or each in a thread of the pool."""

    def __init__(self, service: LocalService, served: dict[str, Method]) -> None:
        # As they arrive on the wire, so that a call costs one look-up.
        self._methods = {f"/{name}": method for name, method in served.items()}
        self._service = service
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="appengine-compat-grpc-call")
        self.loop: Http2Loop

    def begin(self, calls: list[Call]) -> None:
        """Begin what has come; called in the loop's thread."""
        groups: dict[str, tuple[Method, list[Call], list[bytes]]] = {}
        for call in calls:
            head, body = call.received.head, call.received.body
            if not head.is_grpc:
                self.loop.reply(call, Reply(grpc_protocol.not_grpc_block()))
                continue
            try:
                method = self._method(head)
                is_together = method.together is not None and not _takes_long_to_read(body)
                message = grpc_protocol.read_message(head, body) if is_together else b""
            except ApiError as refusal:
                self.loop.reply(call, _refusal(refusal))
                continue
            if is_together:
                _, group, encoded = groups.setdefault(head.method, (method, [], []))
                group.append(call)
                encoded.append(message)
            elif self.loop.take_elsewhere(call):
                self._pool.submit(self._call, method, call)
        for method, group, encoded in groups.values():
            # Who waits for another's commit waits in a thread that nobody else waits for.
            if self._service.store.is_busy:
                self._begin_elsewhere(method, group, encoded)
                continue
            for call, reply in zip(group, _done_together(method, encoded), strict=True):
                self.loop.reply(call, reply)

    def _begin_elsewhere(self, method: Method, group: list[Call], encoded: list[bytes]) -> None:
        taken = [self.loop.take_elsewhere(call) for call in group]
        self._pool.submit(
            self._call_together,
            method,
            list(itertools.compress(group, taken)),
            list(itertools.compress(encoded, taken)),
        )

    def close(self) -> None:
        """Begin nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _method(self, head: Head) -> Method:
        if head.is_too_long:
            raise ApiError("RESOURCE_EXHAUSTED", "The metadata of a call may be 64 KiB, not more.")
        method = self._methods.get(head.method)
        if method is None:
            raise ApiError("UNIMPLEMENTED", f"There is no method {head.method}.")
        _check_deadline(head)
        return method

    # --- in threads of the pool ------------------------------------------------------------------

    def _call(self, method: Method, call: Call) -> None:
        reply = Reply(b"")
        try:
            if call.is_awaited:
                message = grpc_protocol.read_message(call.received.head, call.received.body)
                reply = _answer(bytes(method.call_encoded(message).SerializeToString()))
        except Exception as error:
            reply = _refusal(rpc_status.as_refusal(error, method.full_name))
        self.loop.reply_from_elsewhere(call, reply)

    def _call_together(self, method: Method, group: list[Call], encoded: list[bytes]) -> None:
        awaited = [call.is_awaited for call in group]
        replies = iter(_done_together(method, list(itertools.compress(encoded, awaited))))
        for call, is_awaited in zip(group, awaited, strict=True):
            self.loop.reply_from_elsewhere(call, next(replies) if is_awaited else Reply(b""))


def _done_together(method: Method, encoded: list[bytes]) -> list[Reply]:
    replies = []
    for done in method.call_together(encoded):
        if isinstance(done, ApiError):
            replies.append(_refusal(done))
            continue
        try:
            replies.append(_answer(bytes(done.SerializeToString())))
        except Exception as error:
            replies.append(_refusal(rpc_status.as_refusal(error, method.full_name)))
    return replies


def _answer(message: bytes) -> Reply:
    framed = grpc_protocol.framed(message)
    return Reply(grpc_protocol.REPLY_HEAD, framed, grpc_protocol.OK_TRAILERS)


def _refusal(refusal: ApiError) -> Reply:
    return Reply(grpc_protocol.refusal_block(refusal))


def _takes_long_to_read(body: bytes | None) -> bool:
    return body is not None and len(body) > _LONG_COMPRESSED_BYTES and body[:1] != b"\0"


def _check_deadline(head: Head) -> None:
    remaining = head.timeout_seconds
    if remaining is not None and _LONGEST_DEADLINE_SECONDS < remaining < _NO_DEADLINE_SECONDS:
        deadline = datetime.fromtimestamp(time.time() + remaining, timezone.utc)
        raise messages.deadline_too_far(deadline)
