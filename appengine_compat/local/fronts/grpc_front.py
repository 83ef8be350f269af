"""The gRPC door: one thread that reads and writes every connection.

What came meanwhile is taken together: the tasks that clients wait to have created share one
commit, and a lone client's call costs no switch between threads. Calls of other methods go to
threads of a pool, since some of them last.
"""

from __future__ import annotations

import logging
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from appengine_compat.core import messages
from appengine_compat.errors import ApiError, ConfigError
from appengine_compat.local.fronts import grpc_protocol, rpc_status
from appengine_compat.local.fronts.grpc_protocol import Head
from appengine_compat.local.fronts.http2_frames import ConnectionFault, NotHttp2Error
from appengine_compat.local.fronts.methods import Method, methods

if TYPE_CHECKING:
    from appengine_compat.local.fronts.http2_connection import Http2Connection, Received
    from appengine_compat.local.service import LocalService

_THREADS = 16
"""Calls wait for commits, which they share: more threads make larger commits, not more of them."""
_BACKLOG = 1024
_READ_BYTES = 256 * 1024
_MOST_UNSENT_BYTES = 8 * 1024 * 1024
"""A client that does not read its replies is not read from either."""
_ACCEPTED_AT_ONCE = 64
_AFTER_NO_FILES_SECONDS = 0.1
_LONGEST_DEADLINE_SECONDS = 30.0
_NO_DEADLINE_SECONDS = 10 * 365 * 86400.0
_NOT_HTTP2 = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Connection: close\r\n\r\nThis port speaks gRPC, without TLS. REST is on another one: "
    b"appengine-compat says which when it starts.\n"
)

_logger = logging.getLogger(__name__)


class GrpcServer:
    """A gRPC server that runs.

    Attributes:
        host: the address that it listens on.
        port: the port that it listens on.
    """

    def __init__(self, loop: _Loop, host: str, port: int) -> None:
        self._loop = loop
        self.host = host
        self.port = port

    def stop(self, grace_seconds: float = 1.0) -> None:
        """Take no more calls, and give those that run a moment to end."""
        self._loop.stop(grace_seconds)


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
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        bound = socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except OSError:
        shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        raise ConfigError(
            f"Cloud Tasks' gRPC cannot be served on {shown}: another program listens there, or "
            "it is no address of this machine. Choose another port, or end that program.",
            setting="--grpc-port",
        ) from None
    most_bytes = grpc_protocol.PREFIX_BYTES + grpc_protocol.MOST_MESSAGE_BYTES
    loop = _Loop(
        bound,
        methods(service, location),
        lambda: Http2Connection(grpc_protocol.read_head, most_bytes),
    )
    return GrpcServer(loop, host, bound.getsockname()[1])


class _Peer:
    """One client's connection."""

    __slots__ = ("http2", "is_ending", "socket", "unsent", "waits_for")

    def __init__(self, connected: socket.socket, http2: Http2Connection[Head]) -> None:
        self.socket = connected
        self.http2 = http2
        self.unsent: bytes | memoryview = b""
        self.waits_for = selectors.EVENT_READ
        self.is_ending = False
        """Whether it is closed once everything is sent."""


_Call = tuple[_Peer, "Received[Head]"]
_Reply = tuple[_Peer, int, "bytes | ApiError"]


class _Loop:
    """The thread, and all that only it touches."""

    def __init__(
        self,
        listener: socket.socket,
        served: dict[str, Method],
        begin_connection: Callable[[], Http2Connection[Head]],
    ) -> None:
        # As they arrive on the wire, so that a call costs one look-up.
        self._methods = {f"/{name}": method for name, method in served.items()}
        self._begin_connection = begin_connection
        self._listener = listener
        self._listens_at = 0.0
        """When it listens again; 0 while it does."""
        self._waker, self._woken = socket.socketpair()
        self._is_woken = False
        for each in (listener, self._waker, self._woken):
            each.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._peers: set[_Peer] = set()
        self._replies: deque[_Reply] = deque()
        self._ends_at: float | None = None
        self._is_refusing = False
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="appengine-compat-grpc-call")
        self._thread = threading.Thread(target=self._run, name="appengine-compat-grpc", daemon=True)
        self._thread.start()

    # --- called from other threads ---------------------------------------------------------------

    def stop(self, grace_seconds: float) -> None:
        """End the thread, once no call is under way or the grace is over."""
        self._ends_at = time.monotonic() + grace_seconds
        self._wake()
        self._thread.join()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _wake(self) -> None:
        if not self._is_woken:
            self._is_woken = True
            try:
                self._waker.send(b"\0")
            except OSError:
                pass  # full, so it wakes anyway; or closed, so nobody is there to be woken

    def _work(self, method: Method, peer: _Peer, stream: int, message: bytes) -> None:
        try:
            answer: bytes | ApiError = bytes(method.call_encoded(message).SerializeToString())
        except Exception as error:
            answer = rpc_status.as_refusal(error, method.full_name)
        self._replies.append((peer, stream, answer))
        self._wake()

    # --- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._is_over():
                try:
                    self._turn()
                except Exception:  # noqa: PERF203
                    _logger.exception("The gRPC door met an error of its own, and goes on.")
        finally:
            for peer in list(self._peers):
                self._drop(peer)
            self._selector.close()
            for each in (self._listener, self._waker, self._woken):
                each.close()

    def _is_over(self) -> bool:
        if self._ends_at is None:
            return False
        if not self._is_refusing:
            self._is_refusing = True
            if not self._listens_at:
                self._selector.unregister(self._listener)
            self._listener.close()
            for peer in list(self._peers):
                peer.http2.end()
                self._send(peer)
        is_idle = not any(peer.http2.under_way or peer.unsent for peer in self._peers)
        return is_idle or time.monotonic() >= self._ends_at

    def _turn(self) -> None:
        calls: list[_Call] = []
        touched: set[_Peer] = set()
        for key, ready in self._selector.select(self._patience()):
            peer = key.data
            if peer is not None:
                touched.add(peer)
                if ready & selectors.EVENT_READ:
                    calls += self._receive(peer)
            elif key.fileobj is self._listener:
                self._accept()
            else:
                self._woken.recv(_READ_BYTES)
                self._is_woken = False
        if self._listens_at and not self._is_refusing and time.monotonic() >= self._listens_at:
            self._listens_at = 0.0
            self._selector.register(self._listener, selectors.EVENT_READ)
        if calls:
            self._begin(calls)
        while self._replies:
            peer, stream, answer = self._replies.popleft()
            self._answer(peer, stream, answer)
            touched.add(peer)
        for peer in touched:
            self._send(peer)

    def _patience(self) -> float | None:
        moments = [at for at in (self._ends_at, self._listens_at) if at]
        return max(0.0, min(moments) - time.monotonic()) if moments else None

    def _accept(self) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                connected, _ = self._listener.accept()
            except (BlockingIOError, ConnectionError, InterruptedError):
                return
            except OSError as error:
                # Without this the loop would turn and turn, as the listener stays ready.
                _logger.warning("No further connection can be taken for now: %s", error)
                self._selector.unregister(self._listener)
                self._listens_at = time.monotonic() + _AFTER_NO_FILES_SECONDS
                return
            connected.setblocking(False)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            peer = _Peer(connected, self._begin_connection())
            self._peers.add(peer)
            self._selector.register(connected, selectors.EVENT_READ, peer)

    def _receive(self, peer: _Peer) -> list[_Call]:
        try:
            data = peer.socket.recv(_READ_BYTES)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        if not data:
            self._drop(peer)
            return []
        try:
            return [(peer, received) for received in peer.http2.receive(data)]
        except ConnectionFault as fault:
            _logger.info("A gRPC client's connection is ended: %s.", fault)
            peer.http2.end(fault.code)
            peer.is_ending = True
        except NotHttp2Error:
            peer.http2.take_output()
            peer.unsent = _NOT_HTTP2
            peer.is_ending = True
        return []

    def _begin(self, calls: list[_Call]) -> None:
        shared: dict[str, tuple[Method, list[_Call], list[bytes]]] = {}
        for peer, received in calls:
            head = received.head
            if not head.is_grpc:
                peer.http2.reply(received.stream, grpc_protocol.not_grpc_block())
                continue
            try:
                method = self._methods.get(head.method)
                if method is None:
                    raise ApiError("UNIMPLEMENTED", f"There is no method {head.method}.")
                _check_deadline(head)
                message = grpc_protocol.read_message(head, received.body)
            except ApiError as refusal:
                self._answer(peer, received.stream, refusal)
                continue
            if method.together is not None:
                _, group, encoded = shared.setdefault(head.method, (method, [], []))
                group.append((peer, received))
                encoded.append(message)
            else:
                self._pool.submit(self._work, method, peer, received.stream, message)
        for method, group, encoded in shared.values():
            for (peer, received), done in zip(group, method.call_together(encoded), strict=True):
                answer = done if isinstance(done, ApiError) else bytes(done.SerializeToString())
                self._answer(peer, received.stream, answer)

    def _answer(self, peer: _Peer, stream: int, answer: bytes | ApiError) -> None:
        if isinstance(answer, ApiError):
            peer.http2.reply(stream, grpc_protocol.refusal_block(answer))
        else:
            peer.http2.reply(
                stream,
                grpc_protocol.REPLY_HEAD,
                grpc_protocol.framed(answer),
                grpc_protocol.OK_TRAILERS,
            )

    def _send(self, peer: _Peer) -> None:
        if peer not in self._peers:
            return
        unsent, more = peer.unsent, peer.http2.take_output()
        if more:
            unsent = b"".join((unsent, more)) if unsent else more
        if unsent:
            try:
                sent = peer.socket.send(unsent)
                # A view, as what is left of much would be copied with each piece that is sent.
                unsent = memoryview(unsent)[sent:] if sent < len(unsent) else b""
            except BlockingIOError:
                pass
            except OSError:
                self._drop(peer)
                return
        peer.unsent = unsent
        if peer.is_ending and not unsent:
            self._drop(peer)
            return
        is_read = len(unsent) < _MOST_UNSENT_BYTES and not peer.is_ending
        waits_for = (selectors.EVENT_READ if is_read else 0) | (
            selectors.EVENT_WRITE if unsent else 0
        )
        if waits_for != peer.waits_for:
            self._selector.modify(peer.socket, waits_for, peer)
            peer.waits_for = waits_for

    def _drop(self, peer: _Peer) -> None:
        if peer in self._peers:
            self._peers.discard(peer)
            self._selector.unregister(peer.socket)
            peer.socket.close()


def _check_deadline(head: Head) -> None:
    remaining = head.timeout_seconds
    if remaining is not None and _LONGEST_DEADLINE_SECONDS < remaining < _NO_DEADLINE_SECONDS:
        deadline = datetime.fromtimestamp(time.time() + remaining, timezone.utc)
        raise messages.deadline_too_far(deadline)
