"""A client that speaks HTTP/2 by an independent library, and does what no client of gRPC would."""

from __future__ import annotations

import gzip
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from google.cloud import tasks_v2
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    DataReceived,
    Event,
    ResponseReceived,
    SettingsAcknowledged,
    StreamEnded,
    TrailersReceived,
)
from h2.settings import SettingCodes

LOCATION = "projects/p/locations/us-central1"
QUEUE = f"{LOCATION}/queues/q"
SERVICE = "/google.cloud.tasks.v2.CloudTasks"
PATIENCE_SECONDS = 20.0
LARGEST_WINDOW = 2**31 - 1
FIRST_WINDOW = 65_535
OK, INVALID_ARGUMENT, NOT_FOUND, ALREADY_EXISTS, RESOURCE_EXHAUSTED = 0, 3, 5, 6, 8
UNIMPLEMENTED, INTERNAL, UNAVAILABLE = 12, 13, 14


class Client:
    """A client that sends what it is told when it is told."""

    def __init__(self, connected: socket.socket, window: int = LARGEST_WINDOW) -> None:
        self._socket = connected
        self._socket.settimeout(PATIENCE_SECONDS)
        self.http2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self.events: list[Event] = []
        self.is_at_end = False
        self.http2.initiate_connection()
        self.http2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: window})
        if window == LARGEST_WINDOW:
            self.http2.increment_flow_control_window(LARGEST_WINDOW - FIRST_WINDOW)

    def settle(self) -> Client:
        """Wait until the server has taken the connection."""
        self.send()
        self.until(lambda: len(self.of(SettingsAcknowledged)) == 2)
        return self

    def ask(
        self,
        method: str,
        message: bytes,
        *,
        method_name: str = "POST",
        is_compressed: bool = False,
        **headers: str,
    ) -> int:
        """Prepare a call, and return its stream."""
        if is_compressed:
            message, headers = gzip.compress(message), {**headers, "grpc-encoding": "gzip"}
        stream = self.begin(method, method_name, **headers)
        framed = bytes((is_compressed,)) + len(message).to_bytes(4, "big") + message
        for at in range(0, len(framed), 16_384):
            self.http2.send_data(stream, framed[at : at + 16_384])
        self.http2.end_stream(stream)
        return stream

    def begin(self, method: str, method_name: str = "POST", **headers: str) -> int:
        """Prepare the headers of a call, and return its stream."""
        stream = self.http2.get_next_available_stream_id()
        given = {"content-type": "application/grpc", "te": "trailers"}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        pseudo = {":method": method_name, ":scheme": "http", ":path": method, ":authority": "x"}
        self.http2.send_headers(stream, list((pseudo | given).items()))
        return stream

    def create(self, task_id: str = "", *, queue: str = QUEUE, url: str = "http://h/") -> int:
        return self.ask(f"{SERVICE}/CreateTask", create_request(task_id, queue, url))

    def get_queue(self, name: str = QUEUE) -> int:
        request = tasks_v2.GetQueueRequest.pb()(name=name)
        return self.ask(f"{SERVICE}/GetQueue", request.SerializeToString())

    def list_tasks(self) -> int:
        request = tasks_v2.ListTasksRequest.pb()(parent=QUEUE, response_view=2)
        return self.ask(f"{SERVICE}/ListTasks", request.SerializeToString())

    def nonsense(self) -> int:
        """Prepare a call that is refused without any work."""
        return self.ask("/none/Such", b"")

    def open_windows(self) -> None:
        """Let everything come that was kept back."""
        self.http2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: LARGEST_WINDOW})
        self.http2.increment_flow_control_window(LARGEST_WINDOW - FIRST_WINDOW)

    def send(self) -> None:
        """Send everything that is prepared, in one piece."""
        self._socket.sendall(self.http2.data_to_send())

    def of(self, kind: type, stream: int | None = None) -> list[Any]:
        found = [each for each in self.events if isinstance(each, kind)]
        return [each for each in found if stream is None or each.stream_id == stream]

    def until(self, is_so: Callable[[], object]) -> None:
        while not is_so():
            data = self._socket.recv(1 << 20)
            if not data:
                self.is_at_end = True
                assert is_so(), "the server has closed the connection"
                return
            self.events += self.http2.receive_data(data)

    def answers(self, *streams: int) -> list[int]:
        """Send what is prepared, and return the status of each of these calls."""
        self.send()
        self.until(lambda: all(self.of(StreamEnded, stream) for stream in streams))
        return [self.status(stream) for stream in streams]

    def status(self, stream: int) -> int:
        (last, *_) = [*self.of(TrailersReceived, stream), *self.of(ResponseReceived, stream)]
        return int(dict(last.headers)["grpc-status"])

    def text(self, stream: int) -> str:
        (refusal,) = self.of(ResponseReceived, stream)
        return unquote(dict(refusal.headers)["grpc-message"])

    def body(self, stream: int) -> bytes:
        return b"".join(each.data for each in self.of(DataReceived, stream))

    def to_end(self) -> bytes:
        """Return what comes until the connection's end."""
        found = b""
        while data := self._socket.recv(1 << 20):
            found += data
        return found

    def raw(self, data: bytes) -> None:
        self._socket.sendall(data)

    def vanish(self) -> None:
        """End the connection by a reset, as when a process is killed with data unread."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def widen(self) -> None:
        """Let much come at once from now on."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)

    def close(self) -> None:
        self._socket.close()


def dial(port: int, *, buffer_bytes: int = 0, window: int = LARGEST_WINDOW) -> Client:
    connected = socket.socket()
    if buffer_bytes:
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
    connected.connect(("127.0.0.1", port))
    return Client(connected, window).settle()


class Gate:
    """A function in whose midst calls wait."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.entered, self.opened = threading.Event(), threading.Event()

    def __call__(self, *args: Any, **options: Any) -> Any:
        self.entered.set()
        assert self.opened.wait(PATIENCE_SECONDS)
        return self._function(*args, **options)


def create_request(task_id: str = "", queue: str = QUEUE, url: str = "http://h/") -> bytes:
    request = tasks_v2.CreateTaskRequest.pb()(parent=queue)
    request.task.http_request.url = url
    if task_id:
        request.task.name = f"{queue}/tasks/{task_id}"
    return bytes(request.SerializeToString())
