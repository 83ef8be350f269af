"""One HTTP/1.1 exchange on a connected socket: bytes out, a reply in, ended at a moment.

http.client would take four times as long per request (it builds an email message of each reply),
and its timeout begins anew with every byte, so that a target that drips could hold a thread for
ever.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

KEPT_BODY_BYTES = 2048
LONGEST_BODY_BYTES = 64 * 1024 * 1024
"""A reply that is longer is not read to its end; its status counts all the same."""

_LONGEST_HEAD_BYTES = 256 * 1024
_LONGEST_LINE_BYTES = 16 * 1024
_CHUNK_BYTES = 64 * 1024
_MOST_INTERIM_REPLIES = 20
_JOINED_BODY_BYTES = 64 * 1024
_STATUS_LINE = re.compile(rb"HTTP/(\d)\.(\d) ([1-9]\d\d)(?: [^\r\n]*)?\Z")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_BREAKS = re.compile("[\r\n\0]")
_DIGITS = re.compile(r"[0-9]{1,18}\Z")
_HEX = re.compile(rb"[0-9A-Fa-f]{1,15}\Z")
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})


class BrokenReplyError(Exception):
    """What came back is no HTTP reply, or ended before its end."""


class NoBytesError(BrokenReplyError):
    """The connection was closed before any byte of a reply had come."""


class MalformedRequestError(Exception):
    """The task cannot be sent over HTTP as it is."""


@dataclass(frozen=True, slots=True)
class Received:
    """A reply, read to its end."""

    status: int
    headers: Mapping[str, str]
    """By their names in small letters; of one given twice, joined by ", "."""
    body: bytes
    """The beginning of it."""
    may_go_on: bool
    """Whether the connection can carry another request."""


def request_bytes(
    method: str, target: str, host: str, headers: Iterable[tuple[str, str]], body: bytes
) -> list[bytes]:
    """Return a request as it goes over the wire, in one part or two.

    Args:
        method: of HTTP.
        target: path with query, ASCII without spaces.
        host: for the header ``Host``.
        headers: all but ``Host`` and ``Content-Length``.
        body: sent with its length, also when there is none and the method has one.

    Raises:
        MalformedRequestError: a header's name is none.
    """
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}"]
    for name, value in headers:
        if not _NAME.match(name):
            raise MalformedRequestError(f"{name!r} cannot be the name of a header")
        # What would end the line could add headers of its own.
        lines.append(f"{name}: {_BREAKS.sub(' ', value)}")
    if body or method in _WITH_BODY:
        lines.append(f"Content-Length: {len(body)}")
    head = ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogatepass")
    return [head + body] if len(body) <= _JOINED_BODY_BYTES else [head, body]


def exchange(sock: socket.socket, method: str, parts: Iterable[bytes], ends_at: float) -> Received:
    """Send a request and read the reply to its end.

    Args:
        sock: connected.
        method: of the request; the reply to HEAD has no body.
        parts: of ``request_bytes``.
        ends_at: when to give up, by ``time.monotonic``.

    Raises:
        TimeoutError: the moment has come.
        NoBytesError: the connection was closed without a word.
        BrokenReplyError: what came is no reply, or ended early.
        OSError: the connection broke.
    """
    try:
        for part in parts:
            sock.settimeout(_left(ends_at))
            sock.sendall(part)
    except TimeoutError:
        raise
    except OSError as error:
        # A target may refuse a long body by its reply and close: the reply is what counts.
        try:
            return _Reader(sock, ends_at).reply(method, may_go_on=False)
        except (NoBytesError, OSError):
            raise NoBytesError(str(error)) from error
    return _Reader(sock, ends_at).reply(method, may_go_on=True)


def _left(ends_at: float) -> float:
    seconds = ends_at - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds


class _Reader:
    """Reads one reply from a socket."""

    def __init__(self, sock: socket.socket, ends_at: float) -> None:
        self._sock = sock
        self._ends_at = ends_at
        self._buffer = b""
        self._total = 0

    def reply(self, method: str, *, may_go_on: bool) -> Received:
        for _ in range(_MOST_INTERIM_REPLIES):
            is_keeping, status, headers = self._head()
            if status == 101:
                raise BrokenReplyError("it changed to another protocol")
            if status >= 200:
                break
        else:
            raise BrokenReplyError("it goes on sending interim replies")
        body, is_whole = self._body(method, status, headers)
        may_go_on = may_go_on and is_keeping and is_whole and not self._buffer
        return Received(status, headers, body, may_go_on)

    def _more(self) -> bool:
        self._sock.settimeout(_left(self._ends_at))
        chunk = self._sock.recv(_CHUNK_BYTES)
        self._buffer += chunk
        self._total += len(chunk)
        return bool(chunk)

    def _head(self) -> tuple[bool, int, dict[str, str]]:
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > _LONGEST_HEAD_BYTES:
                raise BrokenReplyError("its headers have no end")
            if self._buffer and not b"HTTP/".startswith(self._buffer[:5]):
                raise BrokenReplyError(f"it begins with {self._buffer[:40]!r}, which is not HTTP")
            try:
                is_there = self._more()
            except TimeoutError:
                raise
            except OSError as error:
                if self._total:
                    raise
                raise NoBytesError(str(error)) from error
            if not is_there:
                if self._total:
                    raise BrokenReplyError("it closed the connection within its headers")
                raise NoBytesError("it closed the connection without a reply")
        lines = self._buffer[:end].split(b"\r\n")
        self._buffer = self._buffer[end + 4 :]
        match = _STATUS_LINE.match(lines[0])
        if match is None:
            raise BrokenReplyError(f"it begins with {lines[0][:40]!r}, which is not HTTP")
        headers = _headers(lines[1:])
        connection = headers.get("connection", "").lower()
        is_keeping = (
            match[1] == b"1"
            and "close" not in connection
            and (match[2] != b"0" or "keep-alive" in connection)
        )
        return is_keeping, int(match[3]), headers

    def _body(self, method: str, status: int, headers: Mapping[str, str]) -> tuple[bytes, bool]:
        """Return the beginning of the body, and whether its end is known and was read."""
        if method == "HEAD" or status in (204, 304):
            return b"", True
        coding = headers.get("transfer-encoding", "").lower()
        if coding:
            if coding.split(",")[-1].strip() != "chunked":
                return self._until_closed()
            return self._chunked()
        length = headers.get("content-length")
        if length is None:
            return self._until_closed()
        # Joined, since a repeated header is; the same number twice is allowed.
        lengths = {each.strip() for each in length.split(",")}
        if len(lengths) > 1 or not _DIGITS.match(next(iter(lengths))):
            raise BrokenReplyError(f"its Content-Length is {length[:40]!r}")
        kept = bytearray()
        is_whole = self._pass(int(lengths.pop()), kept)
        return bytes(kept), is_whole

    def _pass(self, count: int, kept: bytearray) -> bool:
        """Read so many bytes, and keep what is still wanted; False when they are too many."""
        while count:
            if not self._buffer and not self._more():
                raise BrokenReplyError(f"it closed the connection {count} bytes before its end")
            taken, self._buffer = self._buffer[:count], self._buffer[count:]
            kept += taken[: KEPT_BODY_BYTES - len(kept)]
            count -= len(taken)
            if self._total > LONGEST_BODY_BYTES:
                return False
        return True

    def _until_closed(self) -> tuple[bytes, bool]:
        kept = bytearray()
        while True:
            kept += self._buffer[: KEPT_BODY_BYTES - len(kept)]
            self._buffer = b""
            if self._total > LONGEST_BODY_BYTES or not self._more():
                return bytes(kept), False

    def _chunked(self) -> tuple[bytes, bool]:
        kept = bytearray()
        while True:
            size = self._line().partition(b";")[0].strip()
            if not _HEX.match(size):
                raise BrokenReplyError(f"a chunk of it has the length {size[:20]!r}")
            count = int(size, 16)
            if not count:
                break
            if not self._pass(count, kept):
                return bytes(kept), False
            if self._line():
                raise BrokenReplyError("a chunk of it is longer than it says")
        while self._line():  # trailers
            if self._total > LONGEST_BODY_BYTES:
                return bytes(kept), False
        return bytes(kept), True

    def _line(self) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            if len(self._buffer) > _LONGEST_LINE_BYTES:
                raise BrokenReplyError("a line of it has no end")
            if not self._more():
                raise BrokenReplyError("it closed the connection within a chunk")
        line, self._buffer = self._buffer[:end], self._buffer[end + 2 :]
        return line


def _headers(lines: Iterable[bytes]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        name, separator, value = line.decode("latin-1").partition(":")
        if separator:
            name, value = name.lower(), value.strip()
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers
