"""What gRPC puts into an HTTP/2 request and its reply."""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote

from appengine_compat.errors import ApiError
from appengine_compat.local.fronts import rpc_status
from appengine_compat.local.fronts.http2_frames import header_block

MOST_MESSAGE_BYTES = 160 * 1024 * 1024
"""A batch may carry 100 tasks of a MiB; most servers' own limit is 4 MB."""
PREFIX_BYTES = 5
"""Before each message: whether it is compressed, and its length."""

_CONTENT_TYPE = b"application/grpc"
_CONTENT_TYPES = re.compile(rb"application/grpc(?:\+|;|\Z)")
"""Not gRPC-Web's, which is framed alike and ends otherwise."""
_MOST_REFUSAL_BYTES = 1500
"""The text travels twice, and in headers, of which a client takes 8 KiB; names that are quoted in
it may be of any length."""
_MOST_METADATA_BYTES = 64 * 1024
_MOST_DETAIL_BYTES = 2500
_TIMEOUT = re.compile(rb"\A([0-9]{1,8})([HMSmun])\Z")
_UNIT_SECONDS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_COMPRESSIONS = frozenset((b"gzip", b"deflate"))
_EITHER_FORMAT = zlib.MAX_WBITS | 32

_HEAD = (
    (b":status", b"200"),
    (b"content-type", _CONTENT_TYPE),
    (b"grpc-accept-encoding", b"identity,deflate,gzip"),
)
REPLY_HEAD = header_block(*_HEAD)
OK_TRAILERS = header_block((b"grpc-status", b"0"))


@dataclass(frozen=True, slots=True)
class Head:
    """What a request's headers say.

    Attributes:
        method: the full name of the RPC, with a slash before it.
        is_grpc: whether it is a call at all, and not what a browser or another tool asks.
        timeout_seconds: how long the client waits; None for as long as it takes.
        encoding: how messages that say they are compressed are.
        is_too_long: whether there is more metadata than is taken.
    """

    method: str
    is_grpc: bool
    timeout_seconds: float | None
    encoding: bytes
    is_too_long: bool = False


def read_head(headers: Iterable[tuple[bytes, bytes]]) -> Head:
    """Return what a request's headers say."""
    given: dict[bytes, bytes] = {}
    length = 0
    for name, value in headers:
        given[name] = value
        length += len(name) + len(value)
    timeout = _TIMEOUT.match(given.get(b"grpc-timeout", b""))
    kind = given.get(b"content-type", b"")
    return Head(
        method=given.get(b":path", b"").decode("latin-1"),
        is_grpc=given.get(b":method") == b"POST" and _CONTENT_TYPES.match(kind) is not None,
        timeout_seconds=None if timeout is None else int(timeout[1]) * _UNIT_SECONDS[timeout[2]],
        encoding=given.get(b"grpc-encoding", b"identity"),
        is_too_long=length > _MOST_METADATA_BYTES,
    )


def read_message(head: Head, body: bytes | None) -> bytes:
    """Return the one message of a request.

    Args:
        head: the request's.
        body: its body; None for one that was too long to be taken.

    Raises:
        ApiError: RESOURCE_EXHAUSTED: it is too long. UNIMPLEMENTED: it is compressed in a way
            that is not known here. INTERNAL: there is no message, or more than one.
    """
    if body is None:
        raise _too_long()
    if len(body) < PREFIX_BYTES or PREFIX_BYTES + int.from_bytes(body[1:5], "big") != len(body):
        raise ApiError("INTERNAL", "The request does not hold exactly one message.")
    message = body[PREFIX_BYTES:]
    if not body[0]:
        return message
    if body[0] != 1:
        raise ApiError("INTERNAL", f"A message begins with a flag that there is not: {body[0]}.")
    if head.encoding not in _COMPRESSIONS:
        encoding = head.encoding.decode("ascii", "backslashreplace")
        raise ApiError(
            "UNIMPLEMENTED",
            f"Messages compressed by {encoding} cannot be read; those by gzip or deflate can.",
        )
    return _decompressed(message)


def _decompressed(message: bytes) -> bytes:
    reader = zlib.decompressobj(_EITHER_FORMAT)
    try:
        plain = reader.decompress(message, MOST_MESSAGE_BYTES + 1)
    except zlib.error as error:
        raise ApiError("INTERNAL", f"The message cannot be decompressed: {error}.") from None
    if len(plain) > MOST_MESSAGE_BYTES:
        raise _too_long()
    if not reader.eof or reader.unused_data:
        what = "something follows it" if reader.eof else "its end is missing"
        raise ApiError("INTERNAL", f"The message cannot be decompressed: {what}.")
    return plain


def _too_long() -> ApiError:
    return ApiError(
        "RESOURCE_EXHAUSTED",
        f"A request may be {MOST_MESSAGE_BYTES} bytes long, and those under way on a connection "
        "twice as much together, not more.",
    )


def framed(message: bytes) -> bytes:
    """Return a message as a reply's body holds it."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def refusal_block(refusal: ApiError) -> bytes:
    """Return the headers of a reply that has nothing but why a call was refused."""
    status = rpc_status.status(refusal)
    status.message = _shortened(status.message)
    headers = [
        *_HEAD,
        (b"grpc-status", str(status.code).encode("ascii")),
        (b"grpc-message", _written(status.message).encode("ascii")),
    ]
    details = status.SerializeToString() if status.details else b""
    if 0 < len(details) <= _MOST_DETAIL_BYTES:
        headers.append((b"grpc-status-details-bin", base64.b64encode(details).rstrip(b"=")))
    return header_block(*headers)


def not_grpc_block() -> bytes:
    """Return the headers of a reply to what is no call."""
    return header_block((b":status", b"415"))


def _written(text: str) -> str:
    # All but what a header may hold as it is; spaces may not stand at its ends.
    written = quote(text, safe=" !\"#$&'()*+,/:;<=>?@[]^`{|}\\")
    return written if written == written.strip(" ") else written.replace(" ", "%20")


def _shortened(text: str) -> str:
    encoded = text.encode()
    if len(encoded) <= _MOST_REFUSAL_BYTES:
        return text
    return encoded[:_MOST_REFUSAL_BYTES].decode(errors="ignore") + "..."
