"""A server's side of one HTTP/2 connection: bytes in, whole requests out; replies in, bytes out.

It reads and writes no socket. Of RFC 9113 it does what calls of one request and one reply need;
priorities are read over, and nothing is pushed. Header blocks are decoded by ``hpack``.

It stands where a library could, since a reply costs a library more than the task it is about:
``h2`` takes some 100 microseconds for one, gRPC's own server twice that and two switches between
threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

import hpack

from appengine_compat.local.fronts import http2_frames as frames
from appengine_compat.local.fronts.http2_frames import ConnectionFault, NotHttp2Error

H = TypeVar("H")

MOST_STREAMS = 256
"""How many requests of a connection may be under way; a client keeps back what is more."""
WINDOW_BYTES = 1024 * 1024
"""How much of a request, and of a connection's requests, may be on its way to us unread."""
_WANTED_HEADER_BYTES = 64 * 1024
_MOST_HEADER_BYTES = 1024 * 1024
"""Beyond what is wanted, headers still have to be read, as later ones build upon them."""
_MOST_BODIES = 2
"""So many of the longest bodies a connection may have under way together."""
_MOST_KNOWN_BLOCKS = 64
_LONGEST_KNOWN_BLOCK = 1024

_OUR_SETTINGS = frames.settings(
    {
        frames.MAX_CONCURRENT_STREAMS: MOST_STREAMS,
        frames.INITIAL_WINDOW_SIZE: WINDOW_BYTES,
        frames.MAX_HEADER_LIST_SIZE: _WANTED_HEADER_BYTES,
    }
) + frames.window_update(0, WINDOW_BYTES - frames.FIRST_WINDOW)
_SETTINGS_ACK = frames.frame(frames.SETTINGS, frames.ACK, 0)


@dataclass(slots=True)
class Received(Generic[H]):
    """A request that has come whole.

    Attributes:
        stream: where its reply goes.
        head: what ``read_head`` made of its headers.
        body: its body; None for one longer than is taken, alone or with others under way, the
            rest of which is not read.
    """

    stream: int
    head: H
    body: bytes | None


class _Stream(Generic[H]):
    __slots__ = (
        "chunks", "head", "is_ended", "number", "pending", "size", "trailers", "unacknowledged",
        "window",
    )  # fmt: skip

    def __init__(self, number: int, head: H, window: int) -> None:
        self.number = number
        self.head = head
        self.chunks: list[bytes] | None = []
        """None once the body has become too long."""
        self.size = 0
        self.is_ended = False
        self.window = window
        self.unacknowledged = 0
        self.pending = memoryview(b"")
        """What of the reply's body the window has not yet let through."""
        self.trailers = b""


class Http2Connection(Generic[H]):
    """One connection."""

    def __init__(
        self,
        read_head: Callable[[Iterable[tuple[bytes, bytes]]], H],
        most_body_bytes: int,
    ) -> None:
        """Begin a connection.

        Args:
            read_head: makes a request's headers into what it is received with.
            most_body_bytes: how long a body may be.
        """
        self._read_head = read_head
        self._most_body_bytes = most_body_bytes
        self._output: list[bytes] = []
        self._rest = b""
        self._has_begun = False
        self._streams: dict[int, _Stream[H]] = {}
        self._last_stream = 0
        self._takes_more = True
        self._whole: list[Received[H]] = []
        self._continued: tuple[int, int, bytearray] | None = None
        self._decoder = hpack.Decoder(_MOST_HEADER_BYTES)
        self._known_blocks: dict[bytes, H] = {}
        self._unacknowledged = 0
        self._body_bytes = 0
        """Of requests under way."""
        self._window = frames.FIRST_WINDOW
        self._stream_window = frames.FIRST_WINDOW
        self._frame_bytes = frames.SMALLEST_MAX_FRAME
        self._held_back: list[_Stream[H]] = []
        """Those whose replies wait for the client to take more."""
        self._on: dict[int, Callable[[int, int, bytes], None]] = {
            frames.DATA: self._on_data,
            frames.HEADERS: self._on_headers,
            frames.RST_STREAM: self._on_reset,
            frames.SETTINGS: self._on_settings,
            frames.PUSH_PROMISE: self._on_push,
            frames.PING: self._on_ping,
            frames.WINDOW_UPDATE: self._on_window_update,
            frames.CONTINUATION: self._on_continuation,
        }

    def is_open(self, number: int) -> bool:
        """Tell whether a request is under way: not replied to, nor given up."""
        return number in self._streams

    @property
    def held_back_bytes(self) -> int:
        """How much of replies waits for the client to take more."""
        held_back = self._held_back
        return sum(len(stream.pending) for stream in held_back) if held_back else 0

    @property
    def under_way(self) -> int:
        """How many requests have begun and have not had their whole reply."""
        return len(self._streams)

    # --- in --------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> list[Received[H]]:
        """Take what has come, and return the requests that are now whole.

        Raises:
            ConnectionFault: the connection must end; ``end`` says so to the other side.
            NotHttp2Error: it is no HTTP/2.
        """
        buffer = self._rest + data if self._rest else data
        at = 0
        if not self._has_begun:
            given = buffer[: len(frames.PREFACE)]
            if not frames.PREFACE.startswith(given):
                raise NotHttp2Error
            if len(given) < len(frames.PREFACE):
                self._rest = buffer
                return []
            self._has_begun = True
            # Not before, as another protocol's client would take them for its answer.
            self._output.append(_OUR_SETTINGS)
            at = len(frames.PREFACE)
        end = len(buffer)
        while end - at >= frames.HEAD_BYTES:
            length, kind, flags, stream = frames.read_head(buffer, at)
            if length > frames.SMALLEST_MAX_FRAME:
                raise ConnectionFault(frames.FRAME_SIZE_ERROR, f"a frame of {length} bytes")
            start = at + frames.HEAD_BYTES
            at = start + length
            if at > end:
                at = start - frames.HEAD_BYTES
                break
            if self._continued is not None and (
                kind != frames.CONTINUATION or stream != self._continued[0]
            ):
                raise ConnectionFault(frames.PROTOCOL_ERROR, "headers broken off")
            handle = self._on.get(kind)
            if handle is not None:
                handle(stream, flags, buffer[start:at])
        self._rest = buffer[at:]
        whole, self._whole = self._whole, []
        return whole

    def _on_data(self, number: int, flags: int, payload: bytes) -> None:
        stream = self._streams.get(number)
        if stream is None and (number == 0 or number > self._last_stream):
            raise ConnectionFault(frames.PROTOCOL_ERROR, "data of a request that has not begun")
        length = len(payload)
        self._unacknowledged += length
        if self._unacknowledged > WINDOW_BYTES // 2:
            self._output.append(frames.window_update(0, self._unacknowledged))
            self._unacknowledged = 0
        if stream is None:
            return  # its reply is out already, or its client has given it up
        if stream.is_ended:
            raise ConnectionFault(frames.STREAM_CLOSED, "data after the end of a request")
        if flags & frames.PADDED:
            payload = frames.unwrapped(flags & frames.PADDED, payload)
        stream.size += len(payload)
        if payload and stream.chunks is not None:
            stream.chunks.append(payload)
            self._body_bytes += len(payload)
            if (
                stream.size > self._most_body_bytes
                or self._body_bytes > _MOST_BODIES * self._most_body_bytes
            ):
                self._forget_body(stream)
                stream.chunks = None
                self._whole.append(Received(number, stream.head, None))
        if flags & frames.END_STREAM:
            self._end_request(stream)
            return
        stream.unacknowledged += length
        if stream.unacknowledged > WINDOW_BYTES // 2:
            self._output.append(frames.window_update(number, stream.unacknowledged))
            stream.unacknowledged = 0

    def _end_request(self, stream: _Stream[H]) -> None:
        stream.is_ended = True
        if stream.chunks is not None:
            self._whole.append(Received(stream.number, stream.head, b"".join(stream.chunks)))
            stream.chunks = []

    def _forget_body(self, stream: _Stream[H]) -> None:
        if stream.chunks is not None:
            self._body_bytes -= stream.size

    def _on_headers(self, number: int, flags: int, payload: bytes) -> None:
        if not number % 2:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "a request of a number that is not odd")
        if flags & (frames.PADDED | frames.PRIORITIZED):
            payload = frames.unwrapped(flags, payload)
        if flags & frames.END_HEADERS:
            self._begin_request(number, flags, payload)
        else:
            self._continued = (number, flags, bytearray(payload))

    def _on_continuation(self, number: int, flags: int, payload: bytes) -> None:
        if self._continued is None:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "a continuation of nothing")
        _, first_flags, block = self._continued
        block += payload
        is_end = flags & frames.END_HEADERS
        if len(block) > _MOST_HEADER_BYTES or not (payload or is_end):
            raise ConnectionFault(frames.ENHANCE_YOUR_CALM, "headers without end")
        if is_end:
            self._continued = None
            self._begin_request(number, first_flags, bytes(block))

    def _begin_request(self, number: int, flags: int, block: bytes) -> None:
        # Whatever becomes of the request: the tables of both sides must stay the same.
        head = self._decoded(block)
        stream = self._streams.get(number)
        is_end = bool(flags & frames.END_STREAM)
        if stream is not None:
            if stream.is_ended or not is_end:
                raise ConnectionFault(frames.PROTOCOL_ERROR, "headers in the midst of a request")
            self._end_request(stream)
            return
        if number <= self._last_stream:
            return  # the trailers of a request that has had its reply
        self._last_stream = number
        if not self._takes_more or len(self._streams) >= MOST_STREAMS:
            self._reset(number, frames.REFUSED_STREAM)
            return
        stream = self._streams[number] = _Stream(number, head, self._stream_window)
        if is_end:
            self._end_request(stream)

    def _decoded(self, block: bytes) -> H:
        """Decode headers, once for each block: a client's calls have mostly the same ones."""
        known = self._known_blocks.get(block)
        if known is not None:
            return known
        table = self._decoder.header_table.dynamic_entries
        newest, count = (table[0] if table else None), len(table)
        try:
            headers = self._decoder.decode(block, raw=True)
        except hpack.HPACKError as error:
            raise ConnectionFault(frames.COMPRESSION_ERROR, str(error)) from None
        head = self._read_head(headers)
        # A block that puts something into the table means another thing the next time; and one
        # that begins by a new size of the table must be obeyed each time, and lets others put
        # into the table what had no room before.
        is_resized = b"\x20" <= block[:1] < b"\x40"
        if is_resized or len(table) != count or (table[0] if table else None) is not newest:
            self._known_blocks.clear()
        elif len(block) <= _LONGEST_KNOWN_BLOCK:
            if len(self._known_blocks) >= _MOST_KNOWN_BLOCKS:
                self._known_blocks.clear()
            self._known_blocks[block] = head
        return head

    def _on_reset(self, number: int, _flags: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFault(frames.FRAME_SIZE_ERROR, "a reset of a broken length")
        if number == 0 or number > self._last_stream:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "the end of a request that never began")
        stream = self._streams.pop(number, None)
        if stream is not None:
            self._forget_body(stream)
            if self._held_back:
                self._send_pending()

    def _on_settings(self, number: int, flags: int, payload: bytes) -> None:
        if number:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "settings of one request")
        if flags & frames.ACK:
            if payload:
                raise ConnectionFault(frames.FRAME_SIZE_ERROR, "settings that were not asked for")
            return
        for setting, value in frames.read_settings(payload):
            if setting == frames.INITIAL_WINDOW_SIZE:
                if value > frames.LARGEST_WINDOW:
                    raise ConnectionFault(frames.FLOW_CONTROL_ERROR, f"a window of {value} bytes")
                for stream in self._streams.values():
                    stream.window += value - self._stream_window
                    self._check_window(stream.window)
                self._stream_window = value
            elif setting == frames.MAX_FRAME_SIZE:
                if not frames.SMALLEST_MAX_FRAME <= value <= frames.LARGEST_MAX_FRAME:
                    raise ConnectionFault(frames.PROTOCOL_ERROR, f"frames of {value} bytes")
                self._frame_bytes = value
        self._output.append(_SETTINGS_ACK)
        if self._held_back:
            self._send_pending()

    def _on_push(self, _number: int, _flags: int, _payload: bytes) -> None:
        raise ConnectionFault(frames.PROTOCOL_ERROR, "a push from a client")

    def _on_ping(self, _number: int, flags: int, payload: bytes) -> None:
        if len(payload) != 8:
            raise ConnectionFault(frames.FRAME_SIZE_ERROR, "a ping of a broken length")
        if not flags & frames.ACK:
            self._output.append(frames.frame(frames.PING, frames.ACK, 0, payload))

    def _on_window_update(self, number: int, _flags: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFault(frames.FRAME_SIZE_ERROR, "a window update of a broken length")
        more = int.from_bytes(payload, "big") & frames.LARGEST_WINDOW
        if not more:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "a window update by nothing")
        stream = self._streams.get(number)
        if number == 0:
            self._window += more
            self._check_window(self._window)
        elif stream is not None:
            stream.window += more
            self._check_window(stream.window)
        elif number > self._last_stream:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "a window of what has not begun")
        if self._held_back:
            self._send_pending()

    def _check_window(self, size: int) -> None:
        if size > frames.LARGEST_WINDOW:
            raise ConnectionFault(frames.FLOW_CONTROL_ERROR, "a window beyond its bounds")

    # --- out -------------------------------------------------------------------------------------

    def take_output(self) -> bytes:
        """Return what is to be sent, and forget it."""
        output, self._output = self._output, []
        return output[0] if len(output) == 1 else b"".join(output)

    def reply(self, number: int, head: bytes, body: bytes = b"", trailers: bytes = b"") -> None:
        """Answer a request; when its client has given it up, nothing is sent.

        Args:
            number: the request's stream.
            head: the block of the headers.
            body: the body.
            trailers: the block of the trailers; "" when head and body are all.
        """
        stream = self._streams.get(number)
        if stream is None:
            return
        length = len(body)
        if (
            trailers
            and length <= min(self._window, stream.window, self._frame_bytes)
            and len(head) + len(trailers) <= frames.SMALLEST_MAX_FRAME
        ):
            self._window -= length
            self._output.append(frames.whole_reply(number, head, body, trailers))
            self._end_reply(stream)
        elif trailers:
            self._output += frames.header_frames(number, head, 0, self._frame_bytes)
            stream.pending, stream.trailers = memoryview(body), trailers
            self._held_back.append(stream)
            self._send_pending()
        else:
            last = frames.END_STREAM
            self._output += frames.header_frames(number, head, last, self._frame_bytes)
            self._end_reply(stream)

    def _send_pending(self) -> None:
        self._held_back = [each for each in self._held_back if not self._is_sent(each)]

    def _is_sent(self, stream: _Stream[H]) -> bool:
        if stream.number not in self._streams:
            return True  # its client has given it up
        rest = stream.pending
        while rest:
            length = min(len(rest), self._window, stream.window, self._frame_bytes)
            if length <= 0:
                stream.pending = rest
                return False
            self._output.append(frames.frame(frames.DATA, 0, stream.number, rest[:length]))
            self._window -= length
            stream.window -= length
            rest = rest[length:]
        last = frames.END_STREAM
        self._output += frames.header_frames(
            stream.number, stream.trailers, last, self._frame_bytes
        )
        self._end_reply(stream)
        return True

    def _end_reply(self, stream: _Stream[H]) -> None:
        del self._streams[stream.number]
        self._forget_body(stream)
        if not stream.is_ended:
            self._reset(stream.number, frames.NO_ERROR)  # the rest of the request is not wanted

    def _reset(self, number: int, code: int) -> None:
        self._output.append(frames.frame(frames.RST_STREAM, 0, number, code.to_bytes(4, "big")))

    def abandon(self) -> None:
        """Forget all requests: nobody waits for them any more."""
        self._streams.clear()
        self._held_back.clear()
        self._takes_more = False

    def end(self, code: int = frames.NO_ERROR) -> None:
        """Say that no further requests are taken; those under way still get their replies."""
        self._takes_more = False
        if not self._has_begun:
            return
        last = self._last_stream.to_bytes(4, "big")
        self._output.append(frames.frame(frames.GOAWAY, 0, 0, last + code.to_bytes(4, "big")))
