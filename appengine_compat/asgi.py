"""Deferred tasks for ASGI apps: FastAPI, Starlette and whatever else ASGI servers run.

The door, the body's rules and the answers are those of the WSGI handler. What differs is where a
task runs: a coroutine function on the server's event loop, any other in a thread, so that neither
holds up requests.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import inspect
import io
import logging
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from http import HTTPStatus
from typing import Any

from appengine_compat.core import limits, trace
from appengine_compat.handler import door, environ, guard, kept, running
from appengine_compat.handler.request import CURRENT, Request
from appengine_compat.handler.wrap import DEFERRED_PATH as PREFIX

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_BODY_BYTES = limits.MAX_STORED_TASK_BYTES
"""No task can have a longer body: the service refuses it when it is enqueued."""
MAX_THREADS = 40
"""How many tasks that are no coroutines run at once in a process; others wait their turn."""
RECEIVE_SECONDS = 60.0
"""How long a body that the door must read is waited for."""

_QUEUES = "/_ah/queue/"
_TEXT = [("Content-Type", "text/plain; charset=utf-8")]
_TRACE_HEADERS = {
    trace.TRACEPARENT.encode(): trace.TRACEPARENT_KEY,
    trace.CLOUD_TRACE_CONTEXT.lower().encode(): trace.CLOUD_TRACE_CONTEXT_KEY,
}
_OF_ANOTHER = ("CONTENT_TYPE", "CONTENT_LENGTH")

_Answer = tuple[str, int, Iterable[tuple[str, str]]]


class DeferredApp:
    """Runs deferred tasks: ``deferred_app`` is an ASGI app to mount, or to route to.

    POST only, and verified before a byte is unpickled. Mounted at ``/_ah/queue`` it serves every
    path that begins with ``/_ah/queue/deferred`` and answers 404 to other queues' paths; routed
    to from elsewhere (``_url="/custom/path"``) it serves whatever path it gets.

    Answers as the WSGI handler does: 200, also for what failed for good; 408 when a task asks to
    be tried again; 401 or 403 when the caller is not believed; 400 when the body breaks off; 405;
    and 413 for a body that no task can have.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request; a lifespan is acknowledged, a WebSocket closed.

        Raises:
            Exception: whatever the task raises; the server makes it a 500, and the queue tries
                again.
        """
        kind = scope["type"]
        if kind == "lifespan":
            await _live(receive, send)
        elif kind == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        elif kind == "http":
            # A task of asyncio's has a context of its own: nothing of it is left behind.
            await asyncio.ensure_future(_serve(scope, receive, send))


deferred_app = DeferredApp()


def defer_middleware(app: App) -> App:
    """Return the ASGI app with deferred tasks served at ``/_ah/queue/deferred…``.

    In its other requests ``run_after_response`` waits for the response's end, and the tasks that
    they enqueue carry their traces.

    Args:
        app: gets all other paths, lifespans and WebSockets.
    """

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            if _path(scope)[len(scope.get("root_path", "")) :].startswith(PREFIX):
                await deferred_app(scope, receive, send)
                return
            request = _Request()
            tokens = CURRENT.set(request), trace.CURRENT.set(_trace(scope))
            try:
                await app(scope, receive, send)
            finally:
                CURRENT.reset(tokens[0])
                trace.CURRENT.reset(tokens[1])
                await _end(request)
            return
        await app(scope, receive, send)

    return serve


def _trace(scope: Scope) -> trace.Trace | None:
    brought = {
        _TRACE_HEADERS[name]: value.decode("latin-1")
        for name, value in scope["headers"]
        if name in _TRACE_HEADERS
    }
    return trace.of_request(brought) if brought else None


class _Request(Request):
    """A request whose parts run in contexts of their own: what waits for its end keeps its own."""

    __slots__ = ()

    def add(self, function: Callable[[], object]) -> bool:
        context = copy_context()

        @functools.wraps(function, updated=())
        def in_context() -> object:
            return context.run(function)

        return super().add(in_context)


async def _end(request: Request) -> None:
    if request.after:
        await _in_thread(request.end)
    else:
        request.end()


async def _live(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def _serve(scope: Scope, receive: Receive, send: Send) -> None:
    text, status, headers = await _answer(scope, receive)
    body = text.encode()
    await send(
        {
            "type": "http.response.start",
            "status": int(status),
            "headers": [
                *((name.lower().encode(), value.encode("latin-1")) for name, value in headers),
                (b"content-length", str(len(body)).encode()),
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})
    request = CURRENT.get()
    if request is not None:
        await _end(request)


async def _answer(scope: Scope, receive: Receive) -> _Answer:
    path = _path(scope)
    if _QUEUES in path and PREFIX not in path:
        return "Not a path of deferred tasks\n", 404, _TEXT
    if scope["method"] != "POST":
        return "Tasks are sent by POST\n", 405, [*_TEXT, ("Allow", "POST")]
    seen = _environ(scope)
    if _length(seen) > MAX_BODY_BYTES:
        return f"No task has a body of over {MAX_BODY_BYTES} bytes\n", 413, _TEXT
    stream = _Stream(receive, asyncio.get_running_loop())
    seen["wsgi.input"] = stream
    # In a thread: the door may fetch keys, and read a signed body once the rest is genuine.
    refused = await _in_thread(_refusal, seen)
    if refused is not None:
        return refused.text, refused.status, guard.refusal_headers(refused)
    if seen["wsgi.input"] is stream:
        body = await _body(receive, _length(seen))
        if isinstance(body, int):
            return f"{HTTPStatus(body).phrase}: the body is not one of a task\n", body, _TEXT
        seen["wsgi.input"] = io.BytesIO(body)
        seen["CONTENT_LENGTH"] = str(len(body))
    return await _run(seen)


def _refusal(seen: door.Environ) -> door.Verdict | None:
    return guard.refusal(seen)


async def _run(seen: door.Environ) -> _Answer:
    from google.appengine.api import namespace_manager
    from google.appengine.ext import deferred

    environ.install()
    request = _Request(dict(seen))
    CURRENT.set(request)
    trace.enter(seen)
    namespace = seen.get("HTTP_X_APPENGINE_CURRENT_NAMESPACE")
    if namespace is not None:
        namespace_manager.set_namespace(namespace)
    task = running.begin(seen)
    try:
        status = HTTPStatus.OK
        text = "Success"
        try:
            await _call(seen)
        except deferred.SingularTaskFailure:
            logging.debug("Failure executing task, task retry forced")
            text, status = "SingularTaskFailure", HTTPStatus.REQUEST_TIMEOUT
        except deferred.PermanentTaskFailure as error:
            logging.exception("Permanent failure attempting to execute task")
            await _in_thread(kept.keep, seen, error)
            text = "PermanentTaskFailure"
        if task is not None:
            task.status = status.value
        return text, status.value, _TEXT
    except BaseException as error:
        running.note_error(seen, error)
        logging.error(
            "Task %s of queue %s raised an exception at %s",
            seen.get("HTTP_X_APPENGINE_TASKNAME"),
            seen.get("HTTP_X_APPENGINE_QUEUENAME"),
            door.request_path(seen),
            exc_info=error,
        )
        # The server answers now; nobody else ends this request.
        await _end(request)
        raise
    finally:
        if task is not None:
            running.end(task)


async def _call(seen: door.Environ) -> None:
    """Make the call of a payload, and wait for what it returns if that is to be awaited."""
    function, args, kwargs = await _in_thread(_loaded, seen)
    try:
        if inspect.iscoroutinefunction(_called(function, args)):
            await function(*args, **kwargs)
            return
        result = await _in_thread(functools.partial(function, *args, **kwargs), pool=_tasks())
        if hasattr(result, "__await__"):
            await result
    except (SystemExit, KeyboardInterrupt) as error:
        raise _not_for_the_loop(error) from error


def _loaded(seen: door.Environ) -> Any:
    from google.appengine.ext.deferred import deferred

    payload = seen["wsgi.input"].read()
    seen[kept.PAYLOAD_KEY] = payload
    try:
        return deferred._read_payload(payload)
    except Exception as error:
        raise deferred.PermanentTaskFailure(error) from error


def _called(function: Any, args: Any) -> Any:
    """Return what a payload calls: of a deferred method not the function that looks it up."""
    from google.appengine.ext import deferred

    if function is deferred.invoke_member and len(args) > 1:
        return getattr(type(args[0]), str(args[1]), None)
    return function


@functools.cache
def _tasks() -> ThreadPoolExecutor:
    # Apart from the loop's own: slow tasks must not keep the door, or the app, waiting.
    return ThreadPoolExecutor(MAX_THREADS, "appengine-compat-asgi-task")


async def _in_thread(
    function: Callable[..., Any], *args: Any, pool: ThreadPoolExecutor | None = None
) -> Any:
    """Run a function in a thread, in this context.

    A thread's result is handed over as a value: some exceptions end an event loop (sys.exit()),
    or cannot be put into a future (StopIteration).
    """

    def run() -> tuple[Any, BaseException | None]:
        try:
            return function(*args), None
        except BaseException as error:
            return None, error

    loop = asyncio.get_running_loop()
    result, error = await loop.run_in_executor(pool, copy_context().run, run)
    if error is None:
        return result
    if isinstance(error, StopIteration) or not isinstance(error, Exception):
        raise _not_for_the_loop(error) from error
    raise error


def _not_for_the_loop(error: BaseException) -> RuntimeError:
    return RuntimeError(f"The task raised {type(error).__name__}({error}), which ends its attempt")


class _Stream(io.RawIOBase):
    """A request's body for the door's thread, received on the server's loop as it is read."""

    def __init__(self, receive: Receive, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._receive, self._loop = receive, loop
        self._rest = b""
        self._is_over = False

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        while not self._is_over and (size < 0 or len(self._rest) < size):
            received = asyncio.run_coroutine_threadsafe(_received(self._receive), self._loop)
            try:
                message = received.result(RECEIVE_SECONDS)
            except concurrent.futures.TimeoutError:
                # Whoever asks takes what is there for a body that broke off.
                received.cancel()
                self._is_over = True
                break
            self._rest += message.get("body", b"")
            self._is_over = not message.get("more_body", False)
        size = len(self._rest) if size < 0 else size
        piece, self._rest = self._rest[:size], self._rest[size:]
        return piece


async def _received(receive: Receive) -> Message:
    return await receive()


async def _body(receive: Receive, length: int) -> bytes | int:
    """Return a body, or the status to answer one with that is too long or breaks off."""
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return HTTPStatus.BAD_REQUEST.value
        pieces.append(message.get("body", b""))
        size += len(pieces[-1])
        if size > MAX_BODY_BYTES:
            return HTTPStatus.REQUEST_ENTITY_TOO_LARGE.value
        if not message.get("more_body", False):
            break
    if length >= 0 and size != length:
        return HTTPStatus.BAD_REQUEST.value
    return b"".join(pieces)


def _length(seen: door.Environ) -> int:
    """Return the length that a request says it has, -1 where it does not."""
    text = seen.get("CONTENT_LENGTH", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else -1


def _path(scope: Scope) -> str:
    """Return the whole path: servers and frameworks differ in whether it has ``root_path``."""
    root: str = scope.get("root_path", "").rstrip("/")
    path: str = scope["path"]
    return path if not root or path == root or path.startswith(f"{root}/") else root + path


def _environ(scope: Scope) -> dict[str, Any]:
    """Return a request as WSGI shows it, which is what the door reads."""
    server = scope.get("server") or ("localhost", None)
    scheme = scope.get("scheme", "http")
    client = scope.get("client")
    seen: dict[str, Any] = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": _path(scope).encode().decode("latin-1"),
        "QUERY_STRING": scope.get("query_string", b"").decode("latin-1"),
        "SERVER_NAME": str(server[0]),
        "SERVER_PORT": str(server[1] or (443 if scheme == "https" else 80)),
        "SERVER_PROTOCOL": f"HTTP/{scope.get('http_version', '1.1')}",
        "REMOTE_ADDR": _address(client[0] if client else ""),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scheme,
        "wsgi.input_terminated": True,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        if "_" in name:
            # One key for both spellings: it could stand for a header that a proxy removes.
            continue
        key = name.upper().replace("-", "_")
        if key not in _OF_ANOTHER:
            key = f"HTTP_{key}"
        seen[key] = f"{seen[key]},{value}" if key in seen else value
    return seen


def _address(address: str) -> str:
    # ASGI servers write what X-Forwarded-For says over the transport's address, and this one is
    # App Engine's for tasks: what a header can say proves nothing, so other things must.
    return "" if address == door.TASK_ADDRESS else address


__all__ = ["MAX_BODY_BYTES", "DeferredApp", "defer_middleware", "deferred_app"]
