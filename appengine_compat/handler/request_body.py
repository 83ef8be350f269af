"""Reading the body of a task's request whole, or saying why not.

App Engine's handler took a body without ``Content-Length`` for an empty one, answered 200, and
the task was lost.
"""

from __future__ import annotations

import io
import sys
from collections.abc import MutableMapping
from typing import Any


class BodyError(ValueError):
    """The body cannot be read whole, so the task must be sent again.

    Attributes:
        status: the HTTP status to answer with, 400 or 411.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def read(environ: MutableMapping[str, Any]) -> bytes:
    """Return the body of a WSGI request.

    Args:
        environ: the WSGI environment.

    Raises:
        BodyError: its length is not known, or not all of it is there.
    """
    text = environ.get("CONTENT_LENGTH")
    stream = environ["wsgi.input"]
    if text:
        try:
            length = int(text)
        except ValueError:
            length = -1
        if not 0 <= length <= sys.maxsize:
            raise BodyError(400, f"The header Content-Length is {text!r}, not a length.")
        data: bytes = stream.read(length)
        if len(data) < length:
            data += _rest(stream, length - len(data))
        if len(data) < length:
            raise BodyError(
                400,
                f"Only {len(data)} of the body's {length} bytes are there: the connection broke, "
                "or something before the handler has read from wsgi.input.",
            )
        return data
    # Without a length, only a stream that ends by itself can be read: any other would block.
    if environ.get("wsgi.input_terminated") or isinstance(stream, io.BytesIO):
        whole: bytes = stream.read()
        return whole
    raise BodyError(
        411,
        "The request has no Content-Length, and this server does not say where a body ends "
        "(wsgi.input_terminated): send the length.",
    )


def read_at_most(environ: MutableMapping[str, Any], limit: int) -> bytes:
    """Return the body of a WSGI request, or the first ``limit + 1`` bytes of a longer one.

    Args:
        environ: the WSGI environment; a ``Content-Length`` in it is within the limit.
        limit: in bytes.

    Raises:
        BodyError: its length is not known, or not all of it is there.
    """
    stream = environ["wsgi.input"]
    if environ.get("CONTENT_LENGTH") or not environ.get("wsgi.input_terminated"):
        return read(environ)
    return _rest(stream, limit + 1)


def _rest(stream: Any, missing: int) -> bytes:
    parts = []
    while missing > 0:
        part: bytes = stream.read(missing)
        if not part:
            break
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)
