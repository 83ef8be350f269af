"""HTTP requests and answers as the server's own pages and endpoints take and give them.

webob would do, but importing it warns on the Pythons that deprecate what it is built on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_MOST_FORM_BYTES = 64 * 1024


class Request:
    """A request, read from a WSGI environ. What is not UTF-8 reads as replacement characters."""

    def __init__(self, environ: WSGIEnvironment) -> None:
        self.method = str(environ["REQUEST_METHOD"])
        self.path = environ.get("PATH_INFO", "").encode("latin-1").decode("utf-8", "replace")
        self._environ = environ

    @property
    def origin(self) -> str:
        """The scheme, host and port that were asked; "" where the client names no host."""
        host = self._environ.get("HTTP_HOST", "")
        return f"{self._environ['wsgi.url_scheme']}://{host}" if host else ""

    @cached_property
    def query(self) -> Mapping[str, str]:
        """The parameters of the query; of one that is given twice, the last."""
        text = self._environ.get("QUERY_STRING", "")
        return dict(parse_qsl(text, keep_blank_values=True, errors="replace"))

    @cached_property
    def form(self) -> Mapping[str, str]:
        """The fields of a form in the body; empty when the body is no form, or is too long."""
        kind = self._environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
        if kind != "application/x-www-form-urlencoded":
            return {}
        body = self.read(_MOST_FORM_BYTES + 1)
        if len(body) > _MOST_FORM_BYTES:
            return {}
        text = body.decode("utf-8", "replace")
        return dict(parse_qsl(text, keep_blank_values=True, errors="replace"))

    def read(self, size: int) -> bytes:
        """Return up to so many bytes of what is left of the body."""
        return bytes(self._environ["wsgi.input"].read(size))


@dataclass
class Response:
    """An answer."""

    status: int = 200
    body: Iterable[bytes] = ()
    """Its parts; closed at the end if it can be."""
    headers: dict[str, str] = field(default_factory=dict)

    def __call__(self, start_response: StartResponse) -> Iterable[bytes]:
        """Give it to a server."""
        reason = HTTPStatus(self.status).phrase
        start_response(f"{self.status} {reason}", list(self.headers.items()))
        return self.body


def text(content: str, status: int = 200, content_type: str = "text/plain") -> Response:
    """Return an answer that is text."""
    encoded = content.encode()
    headers = {
        "Content-Type": f"{content_type}; charset=utf-8",
        "Content-Length": str(len(encoded)),
    }
    return Response(status, [encoded], headers)


def as_json(value: Any, status: int = 200) -> Response:
    """Return an answer that is JSON."""
    return text(json.dumps(value) + "\n", status, "application/json")


def error(status: int, code: str, message: str) -> Response:
    """Return an error in the form of Google's APIs."""
    return as_json({"error": {"code": status, "message": message, "status": code}}, status)


def redirect(location: str) -> Response:
    """Return the answer that leads a browser elsewhere, to be got from there."""
    return Response(303, (), {"Location": location, "Content-Length": "0"})


def application(answer: Callable[[Request], Response]) -> WSGIApplication:
    """Return a function of these values as a WSGI application."""

    def serve(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        response = answer(Request(environ))
        if environ["REQUEST_METHOD"] == "HEAD":
            response.body = ()
        return response(start_response)

    return serve


def routed(mounts: Mapping[str, WSGIApplication], home: str) -> WSGIApplication:
    """Return several applications as one.

    Args:
        mounts: what answers, by the path that requests begin with; each gets its path whole.
        home: the path to which the root leads.
    """

    def serve(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        for beginning, app in mounts.items():
            if path == beginning or path.startswith(f"{beginning}/"):
                return app(environ, start_response)
        found = redirect(home) if path in ("", "/") else text("There is no such page.\n", 404)
        return found(start_response)

    return serve
