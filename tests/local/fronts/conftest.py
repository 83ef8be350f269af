"""A service with a stepped clock, its REST door without a server, and its gRPC door on a port."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes
from wsgiref.util import setup_testing_defaults

import pytest

from appengine_compat.core.model import Queue
from appengine_compat.local.clock import ManualClock
from appengine_compat.local.fronts import rest_front
from appengine_compat.local.fronts.grpc_front import GrpcServer, serve_grpc
from appengine_compat.local.service import LocalService
from appengine_compat.local.store import Store
from tests.local.fronts.h2_client import LOCATION, QUEUE, Client, dial

TASKS = f"/v2/{QUEUE}/tasks"


@dataclass(frozen=True)
class Response:
    """What the door answers."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Rest:
    """Asks the REST door's application."""

    def __init__(self, service: LocalService, **options: Any) -> None:
        self.service = service
        self.app = rest_front.application(service, **options)

    def __call__(
        self, method: str, path: str, body: Any = None, *, raw: bytes | None = None
    ) -> Response:
        if raw is None:
            raw = b"" if body is None else json.dumps(body).encode()
        plain, _, query = path.partition("?")
        environ: dict[str, Any] = {
            "REQUEST_METHOD": method,
            "PATH_INFO": unquote_to_bytes(plain).decode("latin-1"),
            "QUERY_STRING": query,
            "CONTENT_LENGTH": str(len(raw)) if raw else "",
            "wsgi.input": io.BytesIO(raw),
        }
        setup_testing_defaults(environ)
        started: list[Any] = []
        written = self.app(environ, lambda *it: started.extend(it))  # type: ignore[arg-type, return-value]
        text = b"".join(written)
        return Response(int(started[0][:3]), dict(started[1]), text)

    def json(self, method: str, path: str, body: Any = None) -> Any:
        """Return what is answered, which must be no refusal."""
        response = self(method, path, body)
        assert response.status == 200, response.body
        assert response.headers["Content-Type"].startswith("application/json")
        return response.json

    def refusal(self, method: str, path: str, body: Any = None, *, raw: bytes | None = None) -> Any:
        """Return the error that is answered."""
        response = self(method, path, body, raw=raw)
        error = response.json["error"]
        assert error["code"] == response.status
        return error


@pytest.fixture
def service() -> Iterator[LocalService]:
    service = LocalService(Store(None), clock=ManualClock(1_790_000_000.25))
    service.create_queue(LOCATION, Queue(name=QUEUE))
    yield service
    service.close()


@pytest.fixture
def rest(service) -> Rest:
    return Rest(service)


@pytest.fixture
def grpc_server(service) -> Iterator[GrpcServer]:
    server = serve_grpc(service, port=0)
    yield server
    server.stop(0)


@pytest.fixture
def connect(grpc_server) -> Iterator[Callable[..., Client]]:
    with ExitStack() as opened:

        def connect(**options: Any) -> Client:
            client = dial(grpc_server.port, **options)
            opened.callback(client.close)
            return client

        yield connect


@pytest.fixture
def begin(service) -> Iterator[Callable[[], tuple[GrpcServer, Client]]]:
    """Begins servers that a test ends itself, each with a client."""
    with ExitStack() as opened:

        def begin() -> tuple[GrpcServer, Client]:
            server = serve_grpc(service, port=0)
            opened.callback(server.stop, 0)
            client = dial(server.port)
            opened.callback(client.close)
            return server, client

        yield begin
