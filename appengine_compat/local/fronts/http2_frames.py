"""HTTP/2's frames (RFC 9113) as bytes, and header blocks (RFC 7541) that need no state."""

from __future__ import annotations

import struct
from collections.abc import Iterator

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD_BYTES = 9

# Kinds of frames.
DATA, HEADERS, _PRIORITY, RST_STREAM, SETTINGS = range(5)
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(5, 10)

# Flags; a number means another thing in another kind of frame.
ACK = END_STREAM = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITIZED = 0x20

# Settings.
MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = 3, 4, 5, 6

# Error codes.
NO_ERROR, PROTOCOL_ERROR = 0, 1
FLOW_CONTROL_ERROR, STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM = 3, 5, 6, 7
COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 9, 11

SMALLEST_MAX_FRAME, LARGEST_MAX_FRAME = 16_384, 2**24 - 1
FIRST_WINDOW, LARGEST_WINDOW = 65_535, 2**31 - 1

_HEAD = struct.Struct(">HBBBL")
_PRIORITY_BYTES = 5
_LONG_STRING = 0x7F


class NotHttp2Error(Exception):
    """The other side does not speak HTTP/2."""


class ConnectionFault(Exception):
    """What the other side sent cannot be gone on from; the connection ends with this code."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code = code


def read_head(data: bytes, at: int) -> tuple[int, int, int, int]:
    """Return a frame's length, kind, flags and stream."""
    high, low, kind, flags, stream = _HEAD.unpack_from(data, at)
    return high << 8 | low, kind, flags, stream & LARGEST_WINDOW


def frame(kind: int, flags: int, stream: int, payload: bytes | memoryview = b"") -> bytes:
    """Return one frame."""
    length = len(payload)
    return _HEAD.pack(length >> 8, length & 0xFF, kind, flags, stream) + payload


def whole_reply(stream: int, head: bytes, body: bytes, trailers: bytes) -> bytes:
    """Return the frames of headers, body and trailers that fit into one frame each."""
    return (
        frame(HEADERS, END_HEADERS, stream, head)
        + frame(DATA, 0, stream, body)
        + frame(HEADERS, END_HEADERS | END_STREAM, stream, trailers)
    )


def header_frames(stream: int, block: bytes, flags: int, most_bytes: int) -> Iterator[bytes]:
    """Yield a header block's frames, each with no more than so many bytes of it."""
    kind = HEADERS
    while len(block) > most_bytes:
        yield frame(kind, flags, stream, block[:most_bytes])
        kind, flags, block = CONTINUATION, 0, block[most_bytes:]
    yield frame(kind, flags | END_HEADERS, stream, block)


def header_block(*headers: tuple[bytes, bytes]) -> bytes:
    """Return headers as a block that leaves the other side's table as it is.

    It so is the same bytes for the same headers, on every connection.
    """
    return b"".join(b"\0" + _string(name) + _string(value) for name, value in headers)


def _string(value: bytes) -> bytes:
    length = len(value)
    if length < _LONG_STRING:
        return b"%c%b" % (length, value)
    encoded, rest = bytearray((_LONG_STRING,)), length - _LONG_STRING
    while rest >= 0x80:
        encoded.append(rest & 0x7F | 0x80)
        rest >>= 7
    encoded.append(rest)
    return bytes(encoded) + value


def settings(values: dict[int, int]) -> bytes:
    """Return the frame that tells the other side these settings."""
    pairs = (
        number.to_bytes(2, "big") + value.to_bytes(4, "big") for number, value in values.items()
    )
    return frame(SETTINGS, 0, 0, b"".join(pairs))


def read_settings(payload: bytes) -> Iterator[tuple[int, int]]:
    """Yield each setting's number and value.

    Raises:
        ConnectionFault: it is no list of settings.
    """
    if len(payload) % 6:
        raise ConnectionFault(FRAME_SIZE_ERROR, "SETTINGS of a broken length")
    for at in range(0, len(payload), 6):
        number = int.from_bytes(payload[at : at + 2], "big")
        yield number, int.from_bytes(payload[at + 2 : at + 6], "big")


def window_update(stream: int, more: int) -> bytes:
    """Return the frame that allows so many more bytes."""
    return frame(WINDOW_UPDATE, 0, stream, more.to_bytes(4, "big"))


def unwrapped(flags: int, payload: bytes) -> bytes:
    """Return a payload without its padding and its priority.

    Raises:
        ConnectionFault: it is shorter than its padding.
    """
    start, end = 0, len(payload)
    if flags & PADDED:
        if not payload:
            raise ConnectionFault(FRAME_SIZE_ERROR, "a padded frame without a length of padding")
        start, end = 1, end - payload[0]
    if flags & PRIORITIZED:
        start += _PRIORITY_BYTES
    if start > end:
        raise ConnectionFault(PROTOCOL_ERROR, "padding longer than its frame")
    return payload[start:end]
