"""Response bodies: streamed as the app makes them, in the request's context, closed at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextvars import Context
from typing import TYPE_CHECKING

from appengine_compat.handler.request import Request

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    OnError = Callable[[WSGIEnvironment, Exception], None]


class Body:
    """An app's response, piece by piece; what waits for the response's end runs at ``close``."""

    __slots__ = ("_body", "_context", "_environ", "_iterator", "_on_error", "_request")

    def __init__(
        self,
        body: Iterable[bytes],
        environ: WSGIEnvironment,
        context: Context,
        request: Request,
        on_error: OnError | None = None,
    ) -> None:
        self._body = body
        self._environ = environ
        self._context = context
        self._request = request
        self._on_error = on_error
        self._iterator: Iterator[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            if self._iterator is None:
                self._iterator = self._context.run(iter, self._body)
            return self._context.run(next, self._iterator)
        except Exception as error:
            if self._on_error is not None and not isinstance(error, StopIteration):
                self._context.run(self._on_error, self._environ, error)
            raise

    def close(self) -> None:
        """Close the app's response, then run what waited for it."""
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                self._context.run(close)
        finally:
            self._context.run(self._request.end)


class SizedBody(Body):
    """A response whose number of pieces is known; servers send its length by that."""

    __slots__ = ()

    def __len__(self) -> int:
        return len(self._body)  # type: ignore[arg-type]


def answered(
    body: Iterable[bytes],
    environ: WSGIEnvironment,
    context: Context,
    request: Request,
    on_error: OnError | None = None,
) -> Iterable[bytes]:
    """Return what the server gets for an app's response.

    A response that is there already, or a file that the server sends by itself, is handed on
    as it is, unless something waits for its end.

    Args:
        body: the app's response.
        environ: the request's WSGI environ.
        context: what the app ran in.
        request: whose end the response's is.
        on_error: called in that context with the environ and what the response raises.
    """
    if not request.after and (type(body) in (list, tuple) or _is_file(body, environ)):
        context.run(request.end)
        return body
    kind = SizedBody if hasattr(body, "__len__") else Body
    return kind(body, environ, context, request, on_error)


def _is_file(body: Iterable[bytes], environ: WSGIEnvironment) -> bool:
    wrapper = environ.get("wsgi.file_wrapper")
    return isinstance(wrapper, type) and isinstance(body, wrapper)
