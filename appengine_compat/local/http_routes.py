"""Several WSGI applications behind one port, told apart by the beginning of the path."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from webob import Request, Response

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


def routed(mounts: Mapping[str, WSGIApplication], home: str) -> WSGIApplication:
    """Return one application.

    Args:
        mounts: what answers, by the path that requests begin with; each gets its path whole.
        home: the path to which the root leads.
    """

    def serve(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        for beginning, app in mounts.items():
            if path == beginning or path.startswith(f"{beginning}/"):
                return app(environ, start_response)
        response = Response(status=404, content_type="text/plain", text="There is no such page.\n")
        if path in ("", "/"):
            response = Response(status=303, location=home)
        return response(environ, start_response)

    return serve


def answering(answer: Callable[[Request], Response]) -> WSGIApplication:
    """Return a function of webob's values as an application."""

    def serve(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return answer(Request(environ))(environ, start_response)

    return serve
