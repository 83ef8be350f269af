"""Google's own Python client before each door of one local service."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.api_core import exceptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import tasks_v2, tasks_v2beta3
from google.cloud.tasks_v2.services.cloud_tasks import transports as v2
from google.cloud.tasks_v2beta3.services.cloud_tasks import transports as v2beta3

from appengine_compat.errors import ApiError
from appengine_compat.local.clock import ManualClock
from appengine_compat.local.fronts.grpc_front import serve_grpc
from appengine_compat.local.fronts.methods import Method, methods
from appengine_compat.local.fronts.rest_server import serve_rest
from appengine_compat.local.fronts.rpc_status import code_number
from appengine_compat.local.service import LocalService
from appengine_compat.local.store import Store
from appengine_compat.local.tombstones import Windows

LOCATION = "projects/p/locations/us-central1"
QUEUE = f"{LOCATION}/queues/q"
DOORS = ("in process", "grpc", "rest")
STORES = ("memory", "file", "reopened")
UNLIMITED = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
WINDOWS = Windows(task_seconds=3600, automatic_task_seconds=3600, queue_seconds=86400)


class Behind:
    """Stands where a door expects its service, and is the one that the test has now.

    With the store "reopened" it ends the service before each call and opens another one over the
    same file, as if the program had been started anew.
    """

    def __init__(self) -> None:
        self.clock = ManualClock()
        self._path: Path | None = None
        self._reopens = False
        self._service: LocalService | None = None
        self._lock = threading.Lock()

    def open(self, store: str, folder: Path) -> None:
        self.clock = ManualClock(1_790_000_000.25)
        self._path = None if store == "memory" else folder / "tasks.db"
        self._reopens = store == "reopened"
        self._service = self._made()

    def close(self) -> None:
        assert self._service is not None
        self._service.close()
        self._service = None

    def _made(self) -> LocalService:
        return LocalService(Store(self._path), clock=self.clock, windows=WINDOWS)

    @property
    def service(self) -> LocalService:
        assert self._service is not None
        return self._service

    def __getattr__(self, name: str) -> Any:
        with self._lock:
            if self._reopens:
                self.service.close()
                self._service = self._made()
            return getattr(self.service, name)


@dataclass
class Call:
    """What a channel gives for one method."""

    method: Method
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]

    def with_call(self, request: Any, **_: Any) -> tuple[Any, None]:
        try:
            answer = self.method.call_encoded(self.encode(request))
        except ApiError as refusal:
            code = grpc_code(code_number(refusal.code))
            raise exceptions.from_grpc_status(code, refusal.message) from None
        return self.decode(answer.SerializeToString()), None

    def __call__(self, request: Any, **options: Any) -> Any:
        return self.with_call(request, **options)[0]


class InProcess(grpc.Channel):
    """A channel that asks the service without any transport."""

    def __init__(self, behind: Behind) -> None:
        self._methods = methods(behind, "us-central1")  # type: ignore[arg-type]

    def unary_unary(
        self,
        path: str,
        request_serializer: Callable[[Any], bytes],
        response_deserializer: Callable[[bytes], Any],
        *_: Any,
        **__: Any,
    ) -> Call:
        method = self._methods[path.removeprefix("/")]
        return Call(method, request_serializer, response_deserializer)

    def _none(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError("every method of Cloud Tasks takes one message and gives one")

    unary_stream = stream_unary = stream_stream = subscribe = unsubscribe = _none

    def close(self) -> None:
        pass

    def __enter__(self) -> InProcess:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def grpc_code(number: int) -> grpc.StatusCode:
    return next(code for code in grpc.StatusCode if code.value[0] == number)


@dataclass
class Door:
    """One way in: Google's clients for it, and what stands behind."""

    name: str
    v2: tasks_v2.CloudTasksClient
    v2beta3: tasks_v2beta3.CloudTasksClient
    behind: Behind
    port: int = 0

    @property
    def clock(self) -> ManualClock:
        return self.behind.clock

    @property
    def service(self) -> LocalService:
        return self.behind.service


@contextmanager
def opened(name: str) -> Iterator[Door]:
    """Open a door, with no service behind it yet."""
    behind = Behind()
    if name == "in process":
        yield _door(name, InProcess(behind), behind, 0)
    elif name == "grpc":
        server = serve_grpc(behind, port=0)  # type: ignore[arg-type]
        with grpc.insecure_channel(f"localhost:{server.port}", UNLIMITED) as channel:
            yield _door(name, channel, behind, server.port)
        server.stop(0)
    else:
        rest = serve_rest(behind, port=0)  # type: ignore[arg-type]
        options: dict[str, Any] = {
            "host": f"localhost:{rest.port}",
            "credentials": AnonymousCredentials(),
            "url_scheme": "http",
        }
        first = v2.CloudTasksRestTransport(**options)
        second = v2beta3.CloudTasksRestTransport(**options)
        yield Door(
            name,
            tasks_v2.CloudTasksClient(transport=first),
            tasks_v2beta3.CloudTasksClient(transport=second),
            behind,
            rest.port,
        )
        first.close()
        second.close()
        rest.stop()


def _door(name: str, channel: Any, behind: Behind, port: int) -> Door:
    return Door(
        name,
        tasks_v2.CloudTasksClient(transport=v2.CloudTasksGrpcTransport(channel=channel)),
        tasks_v2beta3.CloudTasksClient(transport=v2beta3.CloudTasksGrpcTransport(channel=channel)),
        behind,
        port,
    )
