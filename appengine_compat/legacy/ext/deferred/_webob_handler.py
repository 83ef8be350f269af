"""The part of ``webapp2.RequestHandler`` that task handlers use, on WebOb alone."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

with warnings.catch_warnings():
    # WebOb imports cgi, which Python 3.11 and 3.12 warn of and later ones get from legacy-cgi.
    warnings.simplefilter("ignore", DeprecationWarning)
    import webob

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_METHODS = ("GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE")


class Response(webob.Response):
    """WebOb's response, with webapp2's ``set_status``, ``clear`` and ``out``."""

    @property
    def out(self) -> Response:
        """What handlers write to."""
        return self

    def set_status(self, code: int, message: str | None = None) -> None:
        """Set the status, with a reason phrase of one's own if given."""
        if message:
            self.status = f"{code} {message}"
        else:
            self.status_int = code

    def clear(self) -> None:
        """Drop what has been written."""
        self.body = b""


class RequestHandler:
    """Answers a request with the method named like the request's."""

    request: webob.Request
    response: Response
    app: Any = None

    def __init__(
        self, request: webob.Request | None = None, response: Response | None = None
    ) -> None:
        self.initialize(request, response)

    def initialize(self, request: webob.Request | None, response: Response | None) -> None:
        """Take the request to answer, and the response to fill."""
        self.request = request or webob.Request.blank("/")
        self.response = Response() if response is None else response

    def dispatch(self) -> None:
        """Call the method that the request asks for, or answer 405."""
        method = self.request.method
        function = getattr(self, method.lower(), None) if method in _METHODS else None
        if function is None:
            self.error(405)
            allowed = [name for name in _METHODS if getattr(self, name.lower(), None)]
            self.response.headers["Allow"] = ", ".join(allowed)
            return
        function()

    def error(self, code: int) -> None:
        """Set the status and drop what has been written."""
        self.response.set_status(code)
        self.response.clear()


class WSGIApplication:
    """Serves requests with the handler class of the first route that fits the path."""

    def __init__(self, routes: Sequence[tuple[str, type[RequestHandler]]]) -> None:
        self.routes = [(re.compile(f"(?:{pattern})\\Z"), cls) for pattern, cls in routes]

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request; what the handler raises propagates."""
        request, response = webob.Request(environ), Response()
        response.headers["Cache-Control"] = "no-cache"
        for pattern, cls in self.routes:
            if pattern.match(request.path):
                cls(request, response).dispatch()
                break
        else:
            response.set_status(404)
        return response(environ, start_response)
