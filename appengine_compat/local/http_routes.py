"""Several WSGI applications behind one door, told apart by the beginning of the path."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from webob import Request, Response

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

Route = tuple[str, "WSGIApplication"]


def routed(routes: Sequence[Route], otherwise: WSGIApplication) -> WSGIApplication:
    """Return one application.

    Args:
        routes: the beginning of a path, and what answers there; the first that fits does.
        otherwise: answers the rest.
    """

    def serve(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        for beginning, app in routes:
            if path.startswith(beginning):
                return app(environ, start_response)
        return otherwise(environ, start_response)

    return serve


def answering(answer: Callable[[Request], Response]) -> WSGIApplication:
    """Return a function of webob's values as an application."""

    def serve(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return answer(Request(environ))(environ, start_response)

    return serve
