"""The thread that reads and writes all connections of the gRPC door.

It tells whoever begins the work of the requests that have become whole since the last turn, all
at once. Their replies come from there, or later from other threads.

What a client costs is bounded: by the requests that are under way for it, by what it has sent of
requests that are not, and by replies that it does not read.
"""

from __future__ import annotations

import logging
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from appengine_compat.local.fronts.http2_frames import ConnectionFault, NotHttp2Error

if TYPE_CHECKING:
    from appengine_compat.local.fronts.grpc_protocol import Head
    from appengine_compat.local.fronts.http2_connection import Http2Connection, Received

_READ_BYTES = 256 * 1024
MOST_UNREAD_BYTES = 8 * 1024 * 1024
"""For a client that leaves more of its replies unread, nothing further is begun."""
MOST_ELSEWHERE = 32
"""How many requests of a client may be in other threads, given up or not."""
_ACCEPTED_AT_ONCE = 64
_AFTER_NO_FILES_SECONDS = 0.1
STUCK_SECONDS = 2.0
_NOT_HTTP2 = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Connection: close\r\n\r\nThis port speaks gRPC, without TLS. REST is on another one: "
    b"appengine-compat says which when it starts.\n"
)

_logger = logging.getLogger(__name__)


class Peer:
    """One client's connection."""

    __slots__ = ("elsewhere", "http2", "is_ending", "socket", "unsent", "waiting", "waits_for")

    def __init__(self, connected: socket.socket, http2: Http2Connection[Head]) -> None:
        self.socket = connected
        self.http2 = http2
        self.unsent: bytes | memoryview = b""
        self.waits_for = selectors.EVENT_READ
        self.is_ending = False
        """Whether it is closed once everything is sent."""
        self.waiting: deque[Received[Head]] = deque()
        """Requests that are not begun yet."""
        self.elsewhere = 0
        """How many of its requests other threads have."""


class Call(NamedTuple):
    """A request, and where its reply goes."""

    peer: Peer
    received: Received[Head]

    @property
    def is_awaited(self) -> bool:
        """Whether there is still somebody who waits for the reply."""
        return self.peer.http2.is_open(self.received.stream)


class Reply(NamedTuple):
    """The parts of a reply, as ``Http2Connection.reply`` takes them."""

    head: bytes
    body: bytes = b""
    trailers: bytes = b""


class Http2Loop:
    """The thread, and all that only it touches."""

    def __init__(
        self,
        listener: socket.socket,
        connect: Callable[[], Http2Connection[Head]],
        begin: Callable[[list[Call]], None],
        most_connections: int,
    ) -> None:
        """Make it ready; ``start`` lets it run.

        Args:
            listener: the socket that listens; the loop closes it.
            connect: makes what a new connection speaks.
            begin: called in the thread with the requests that have come. It replies by
                ``reply``, or takes a call elsewhere by ``take_elsewhere``.
            most_connections: how many may be open.
        """
        self._listener = listener
        self._connect = connect
        self._begin = begin
        self._most_connections = most_connections
        self._is_listening = True
        self._listens_at: float | None = None
        """When it is tried again to accept, after no file was left."""
        self._is_short = False
        self._waker, self._woken = socket.socketpair()
        self._is_woken = False
        for each in (listener, self._waker, self._woken):
            each.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._peers: set[Peer] = set()
        self._resumed: set[Peer] = set()
        """Those that the next turn looks at, whatever comes."""
        self._replies: deque[tuple[Call, Reply]] = deque()
        self._ends_at: float | None = None
        self._is_refusing = False
        self._thread = threading.Thread(target=self._run, name="appengine-compat-grpc", daemon=True)

    # --- called from other threads ---------------------------------------------------------------

    def start(self) -> None:
        """Begin to take connections."""
        self._thread.start()

    def stop(self, grace_seconds: float) -> None:
        """End the thread, once no request is under way or the grace is over."""
        self._ends_at = time.monotonic() + grace_seconds
        self._wake()
        # A database that another program holds may keep the thread for longer.
        self._thread.join(grace_seconds + STUCK_SECONDS)

    def reply_from_elsewhere(self, call: Call, reply: Reply) -> None:
        """Answer a call that was taken elsewhere."""
        self._replies.append((call, reply))
        self._wake()

    def _wake(self) -> None:
        if not self._is_woken:
            self._is_woken = True
            try:
                self._waker.send(b"\0")
            except OSError:
                pass  # full, so it wakes anyway; or closed, so nobody is there to be woken

    # --- called in the thread --------------------------------------------------------------------

    def reply(self, call: Call, reply: Reply) -> None:
        """Answer a call."""
        call.peer.http2.reply(call.received.stream, *reply)

    def take_elsewhere(self, call: Call) -> bool:
        """Say that another thread will answer a call; False when its client has to wait."""
        peer = call.peer
        if peer.elsewhere >= MOST_ELSEWHERE:
            peer.waiting.append(call.received)  # until one of the others is answered
            return False
        peer.elsewhere += 1
        return True

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
            self._listen(False)
            self._listener.close()
            for peer in list(self._peers):
                peer.http2.end()
                self._send(peer)
        is_idle = not any(peer.http2.under_way or peer.unsent for peer in self._peers)
        return is_idle or time.monotonic() >= self._ends_at

    def _turn(self) -> None:
        calls: list[Call] = []
        touched, self._resumed = self._resumed, set()
        for key, ready in self._selector.select(self._patience()):
            peer = key.data
            if peer is not None:
                touched.add(peer)
                if ready & selectors.EVENT_READ:
                    self._receive(peer)
            elif key.fileobj is self._listener:
                self._accept()
            else:
                self._woken.recv(_READ_BYTES)
                self._is_woken = False
        if self._listens_at is not None and time.monotonic() >= self._listens_at:
            self._listens_at = None
            self._listen(True)
        while self._replies:
            call, reply = self._replies.popleft()
            call.peer.elsewhere -= 1
            self.reply(call, reply)
            touched.add(call.peer)
        for peer in touched:
            if peer.waiting:
                self._take_waiting(peer, calls)
        if calls:
            self._begin(calls)
        for peer in touched:
            is_held = bool(peer.waiting) and not self._reads_replies(peer)
            self._send(peer)
            if is_held and self._reads_replies(peer):
                self._resumed.add(peer)
                self._wake()  # nothing else might make a turn for it

    def _patience(self) -> float | None:
        if self._ends_at is None and self._listens_at is None:
            return None
        moments = [at for at in (self._ends_at, self._listens_at) if at is not None]
        return max(0.0, min(moments) - time.monotonic())

    def _take_waiting(self, peer: Peer, calls: list[Call]) -> None:
        waiting, peer.waiting = peer.waiting, deque()
        is_open = peer.http2.is_open
        # No more than a connection may have under way are open: all others were given up.
        awaited = [received for received in waiting if is_open(received.stream)]
        if self._reads_replies(peer):
            calls += [Call(peer, received) for received in awaited]
        else:
            peer.waiting += awaited

    def _reads_replies(self, peer: Peer) -> bool:
        return len(peer.unsent) + peer.http2.held_back_bytes <= MOST_UNREAD_BYTES

    def _receive(self, peer: Peer) -> None:
        try:
            data = peer.socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(peer)
            return
        try:
            peer.waiting += peer.http2.receive(data)
        except ConnectionFault as fault:
            _logger.info("A gRPC client's connection is ended: %s.", fault)
            peer.http2.end(fault.code)
            peer.is_ending = True
        except NotHttp2Error:
            peer.unsent = _NOT_HTTP2
            peer.is_ending = True
        except Exception:
            _logger.exception("A gRPC client's connection is ended by an error of the door's own.")
            self._drop(peer)

    def _send(self, peer: Peer) -> None:
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
        is_read = len(unsent) < MOST_UNREAD_BYTES and not peer.is_ending
        waits_for = (selectors.EVENT_READ if is_read else 0) | (
            selectors.EVENT_WRITE if unsent else 0
        )
        if waits_for != peer.waits_for:
            self._selector.modify(peer.socket, waits_for, peer)
            peer.waits_for = waits_for

    # --- connections -----------------------------------------------------------------------------

    def _listen(self, wanted: bool) -> None:
        if wanted is self._is_listening or (wanted and self._is_refusing):
            return
        self._is_listening = wanted
        if wanted:
            self._selector.register(self._listener, selectors.EVENT_READ)
        else:
            self._selector.unregister(self._listener)

    def _accept(self) -> None:
        room = self._most_connections - len(self._peers)
        if room <= 0:
            self._tell_short(f"there are {len(self._peers)}")
            self._listen(False)
            return
        for _ in range(min(room, _ACCEPTED_AT_ONCE)):
            try:
                connected, _ = self._listener.accept()
            except BlockingIOError:
                self._is_short = False  # nobody waits any more
                return
            except (ConnectionError, InterruptedError):
                return
            except OSError as error:
                # Without this the loop would turn and turn, as the listener stays ready.
                self._tell_short(str(error))
                self._listen(False)
                self._listens_at = time.monotonic() + _AFTER_NO_FILES_SECONDS
                return
            try:
                connected.setblocking(False)
                connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            except OSError:  # it has gone already
                connected.close()
                continue
            peer = Peer(connected, self._connect())
            self._peers.add(peer)
            self._selector.register(connected, selectors.EVENT_READ, peer)

    def _tell_short(self, why: str) -> None:
        if not self._is_short:
            self._is_short = True
            _logger.warning("gRPC clients wait until others have gone: %s.", why)

    def _drop(self, peer: Peer) -> None:
        if peer not in self._peers:
            return
        self._peers.discard(peer)
        self._selector.unregister(peer.socket)
        peer.socket.close()
        peer.http2.abandon()
        peer.waiting.clear()
        if self._listens_at is None:
            self._listen(True)
