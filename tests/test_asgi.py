"""Deferred tasks in ASGI apps: FastAPI and Starlette under uvicorn, over real sockets."""

from __future__ import annotations

import asyncio
import builtins
import contextvars
import http.client
import os
import pickle
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import fastapi
import pytest
import starlette.applications
import starlette.responses
from google.appengine.api import namespace_manager
from google.appengine.ext import deferred

from appengine_compat import asgi, install_defer_routes, on_permanent_failure, run_after_response
from appengine_compat.asgi import MAX_BODY_BYTES, defer_middleware, deferred_app
from appengine_compat.backends import choice
from appengine_compat.backends.base import Outcome
from appengine_compat.handler import kept
from appengine_compat.payload import signing
from tests import asgi_server
from tests.handler.conftest import Issuer, issuer  # noqa: F401 - a fixture

PATH = "/_ah/queue/deferred"
TASK = {"X-CloudTasks-QueueName": "default", "X-CloudTasks-TaskName": "task1"}
USER: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")
SEEN: list[Any] = []
LOOPS: list[asyncio.AbstractEventLoop] = []


def note(*values: Any) -> None:
    SEEN.append(values)


def where() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        SEEN.append(("thread", threading.current_thread() is not threading.main_thread()))
    else:
        SEEN.append(("loop",))


async def where_async() -> None:
    await asyncio.sleep(0)
    SEEN.append(("loop", asyncio.get_running_loop() is LOOPS[0]))


def raises(kind: type[BaseException]) -> None:
    raise kind("in the task")


async def raises_async(kind: type[BaseException]) -> None:
    raise kind("in the task")


def reads_environment() -> None:
    USER.set("the task's")
    SEEN.append(
        (
            os.environ["HTTP_X_APPENGINE_TASKNAME"],
            os.environ["HTTP_X_APPENGINE_QUEUENAME"],
            namespace_manager.get_namespace(),
        )
    )


async def reads_environment_async() -> None:
    reads_environment()


class Method:
    async def work(self) -> None:
        SEEN.append("method")


def works_after() -> None:
    run_after_response(lambda: AFTER.set())
    SEEN.append(AFTER.is_set())


AFTER = threading.Event()
BEGAN, GO = threading.Semaphore(0), threading.Event()


def waits() -> None:
    BEGAN.release()
    GO.wait(30)


SLOW = deferred.serialize(waits)


async def remember_loop(request: Any) -> starlette.responses.Response:
    LOOPS[:] = [asyncio.get_running_loop()]
    return starlette.responses.PlainTextResponse(USER.get() + namespace_manager.get_namespace())


def on_fastapi() -> Any:
    app = fastapi.FastAPI()
    app.add_route("/loop", remember_loop)
    return install_defer_routes(app)


def on_starlette() -> Any:
    app = starlette.applications.Starlette()
    app.add_route("/loop", remember_loop)
    return install_defer_routes(app)


def mounted() -> Any:
    app = fastapi.FastAPI()
    app.add_route("/loop", remember_loop)
    app.mount("/_ah/queue", deferred_app)
    return app


def around() -> Any:
    app = starlette.applications.Starlette()
    app.add_route("/loop", remember_loop)
    return defer_middleware(app)


Send = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def servers() -> Iterator[Callable[[Any], int]]:
    with ExitStack() as stack:
        ports: dict[Any, int] = {}

        def port_of(make: Any) -> int:
            if make not in ports:
                ports[make] = stack.enter_context(asgi_server.serving(make()))
            return ports[make]

        yield port_of


@pytest.fixture(params=[on_fastapi, on_starlette, mounted, around])
def port(request: pytest.FixtureRequest, servers: Callable[[Any], int]) -> int:
    SEEN.clear()
    return servers(request.param)


@pytest.fixture
def one_port(servers: Callable[[Any], int]) -> int:
    SEEN.clear()
    return servers(on_fastapi)


def ask(
    port: int, path: str = PATH, body: bytes = b"", method: str = "POST", **headers: str
) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, names)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


@pytest.fixture
def bearer(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:  # noqa: F811
    monkeypatch.setenv("APPENGINE_COMPAT_BACKEND", "cloudtasks")
    return {"Authorization": f"Bearer {issuer.token()}", **TASK}


class TestRunning:
    @pytest.mark.parametrize("path", [PATH, f"{PATH}_mail", f"{PATH}/x?a=1"])
    def test_every_deferred_path(self, port: int, bearer: dict[str, str], path: str) -> None:
        assert ask(port, path, deferred.serialize(note, 1), **bearer) == (200, "Success")
        assert SEEN == [(1,)]

    def test_a_function_runs_in_a_thread(self, port: int, bearer: dict[str, str]) -> None:
        assert ask(port, PATH, deferred.serialize(where), **bearer)[0] == 200
        assert SEEN == [("thread", True)]

    def test_a_coroutine_function_runs_on_the_servers_loop(
        self, port: int, bearer: dict[str, str]
    ) -> None:
        ask(port, "/loop", method="GET")
        assert ask(port, PATH, deferred.serialize(where_async), **bearer)[0] == 200
        assert SEEN == [("loop", True)]

    def test_so_does_a_method(self, one_port: int, bearer: dict[str, str]) -> None:
        assert ask(one_port, PATH, deferred.serialize(Method().work), **bearer)[0] == 200
        assert SEEN == ["method"]

    @pytest.mark.parametrize("function", [reads_environment, reads_environment_async])
    def test_a_task_sees_what_it_would_on_app_engine_and_leaves_nothing(
        self, one_port: int, bearer: dict[str, str], function: Any
    ) -> None:
        headers = {**bearer, "X-AEC-Carried-X-AppEngine-Current-Namespace": "tenant"}
        assert ask(one_port, PATH, deferred.serialize(function), **headers)[0] == 200
        assert SEEN == [("task1", "default", "tenant")]
        assert ask(one_port, "/loop", method="GET") == (200, "nobody")
        assert "HTTP_X_APPENGINE_TASKNAME" not in os.environ

    def test_what_is_to_run_after_the_response_does(
        self, one_port: int, bearer: dict[str, str]
    ) -> None:
        AFTER.clear()
        assert ask(one_port, PATH, deferred.serialize(works_after), **bearer)[0] == 200
        assert AFTER.wait(20)
        assert SEEN == [False]

    def test_slow_tasks_keep_nobody_else_waiting(
        self, one_port: int, bearer: dict[str, str]
    ) -> None:
        GO.clear()
        threads = [
            threading.Thread(target=ask, args=(one_port, PATH, SLOW), kwargs=bearer)
            for _ in range(asgi.MAX_THREADS)
        ]
        try:
            for thread in threads:
                thread.start()
            for _ in threads:
                assert BEGAN.acquire(timeout=20)
            assert ask(one_port, PATH)[0] == 401
            assert ask(one_port, PATH, deferred.serialize(Method().work), **bearer)[0] == 200
        finally:
            GO.set()
            for thread in threads:
                thread.join()

    def test_it_may_have_a_path_of_its_own(self, bearer: dict[str, str]) -> None:
        SEEN.clear()
        app = starlette.applications.Starlette()
        app.add_route("/custom/path", deferred_app)
        with asgi_server.serving(app) as port:
            assert ask(port, "/custom/path", deferred.serialize(note, 1), **bearer)[0] == 200
        assert SEEN == [(1,)]

    def test_it_serves_alone_behind_a_root_path(self, bearer: dict[str, str]) -> None:
        SEEN.clear()
        with asgi_server.serving(deferred_app, root_path="/api", lifespan="on") as port:
            assert ask(port, PATH, deferred.serialize(note, 1), **bearer)[0] == 200
            assert ask(port, "/_ah/queue/mail", b"a=1", **bearer)[0] == 404
        assert SEEN == [(1,)]


class TestAnswers:
    @pytest.mark.parametrize("function", [raises, raises_async])
    def test_those_of_the_wsgi_handler(
        self, port: int, bearer: dict[str, str], function: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        expected = {
            deferred.SingularTaskFailure: (408, "SingularTaskFailure"),
            deferred.PermanentTaskFailure: (200, "PermanentTaskFailure"),
        }
        for kind, answer in expected.items():
            assert ask(port, PATH, deferred.serialize(function, kind), **bearer) == answer

    @pytest.mark.parametrize("function", [raises, raises_async])
    @pytest.mark.parametrize("kind", [LookupError, SystemExit, StopIteration, KeyboardInterrupt])
    def test_whatever_else_is_raised_is_tried_again_and_harms_no_server(
        self, one_port: int, bearer: dict[str, str], function: Any, kind: Any,
        caplog: pytest.LogCaptureFixture,
    ) -> None:  # fmt: skip
        assert ask(one_port, PATH, deferred.serialize(function, kind), **bearer)[0] == 500
        assert any("task1 of queue default raised" in each.getMessage() for each in caplog.records)
        assert ask(one_port, PATH, deferred.serialize(note, 1), **bearer)[0] == 200

    def test_what_fails_for_good_is_kept(self, one_port: int, bearer: dict[str, str]) -> None:
        found: list[kept.KeptTask] = []
        on_permanent_failure(found.append)
        try:
            body = deferred.serialize(raises, deferred.PermanentTaskFailure)
            ask(one_port, PATH, body, **bearer)
            ask(one_port, PATH, b"no pickle", **bearer)
        finally:
            kept.forget_callback(found.append)
        first, second = found
        assert first.function.startswith(f"{__name__}.raises(")
        assert first.payload == body
        assert (second.payload, second.queue) == (b"no pickle", "default")

    @pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
    def test_post_only(self, port: int, bearer: dict[str, str], method: str) -> None:
        assert ask(port, PATH, b"", method, **bearer)[0] == 405

    def test_other_queues_paths_are_not_taken_for_deferred_ones(
        self, port: int, bearer: dict[str, str]
    ) -> None:
        assert ask(port, "/_ah/queue/mail", b"a=1", **bearer)[0] == 404


class TestBodies:
    def test_the_largest(self, one_port: int, bearer: dict[str, str]) -> None:
        body = deferred.serialize(note, "x" * (MAX_BODY_BYTES - 200))
        assert ask(one_port, PATH, body, **bearer)[0] == 200

    def test_a_longer_one_is_refused_unread(self, one_port: int, bearer: dict[str, str]) -> None:
        head = "".join(f"{name}: {value}\r\n" for name, value in bearer.items())
        request = f"POST {PATH} HTTP/1.1\r\nHost: x\r\n{head}Content-Length: 99999999\r\n\r\n"
        with socket.create_connection(("127.0.0.1", one_port), timeout=20) as connection:
            connection.sendall(request.encode())
            assert connection.recv(65536).startswith(b"HTTP/1.1 413")

    def test_so_is_one_that_grows_without_saying_so(
        self, one_port: int, bearer: dict[str, str]
    ) -> None:
        def pieces() -> Iterator[bytes]:
            for _ in range(40):
                yield b"x" * 65536

        connection = http.client.HTTPConnection("127.0.0.1", one_port, timeout=20)
        try:
            try:
                connection.request("POST", PATH, pieces(), bearer, encode_chunked=True)
            except OSError:
                pass  # the server need not read what it will not take
            assert connection.getresponse().status == 413
        finally:
            connection.close()

    def test_one_in_pieces_is_whole(self, one_port: int, bearer: dict[str, str]) -> None:
        payload = deferred.serialize(note, "in pieces")
        connection = http.client.HTTPConnection("127.0.0.1", one_port, timeout=20)
        try:
            connection.request(
                "POST", PATH, iter([payload[:7], payload[7:]]), bearer, encode_chunked=True
            )
            assert connection.getresponse().status == 200
        finally:
            connection.close()
        assert SEEN == [("in pieces",)]

    def test_one_that_breaks_off_runs_nothing(self) -> None:
        statuses = asyncio.run(self.broken_off())
        assert statuses == [400]
        assert SEEN == []

    async def broken_off(self) -> list[int]:
        from appengine_compat.handler import door

        SEEN.clear()
        statuses: list[int] = []
        payload = deferred.serialize(note, 1)
        messages = [
            {"type": "http.request", "body": payload, "more_body": True},
            {"type": "http.disconnect"},
        ]

        async def receive() -> Any:
            return messages.pop(0)

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        scope = {
            "type": "http", "method": "POST", "path": PATH, "query_string": b"",
            "headers": [(b"x-appengine-taskname", b"t"), (b"x-appengine-queuename", b"q")],
            "client": ("127.0.0.1", 1), "server": ("localhost", 80),
        }  # fmt: skip
        # As a test stub's task, believed without a token.
        known = door._judged
        door._judged = lambda environ: door._TEST_TASK
        try:
            await deferred_app(scope, receive, send)
        finally:
            door._judged = known
        return statuses


class Tripwire:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return builtins.open, (self.path, "w")


FORGERIES: dict[str, dict[str, str]] = {
    "nothing": {},
    "App Engine's headers": {
        "X-AppEngine-QueueName": "default", "X-AppEngine-TaskName": "t",
        "X-AppEngine-User-IP": "0.1.0.2", "X-Forwarded-For": "0.1.0.2",
    },
    "Cloud Tasks' headers": dict(TASK),
    "underscores": {"X_AppEngine_QueueName": "default", "X_AppEngine_TaskName": "t"},
    "a token of nobody": {"Authorization": "Bearer e30.e30.e30", **TASK},
    "a local token": {"X-AEC-Local-Token": "t", **TASK},
    "a signature": {"X-AEC-Signature": "v1;k=a;t=1;s=x", **TASK},
}  # fmt: skip


class TestTheDoor:
    @pytest.mark.parametrize("forgery", sorted(FORGERIES))
    @pytest.mark.parametrize("platform", ["", "standard"])
    def test_no_forged_request_gets_a_byte_unpickled(
        self, port: int, bearer: dict[str, str], forgery: str, platform: str, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        if platform and forgery == "App Engine's headers":
            return  # from this host: what App Engine's front end says (see below)
        if platform:
            monkeypatch.setenv("GAE_ENV", platform)
        body = pickle.dumps((print, (Tripwire(str(tmp_path / "tripped")),), {}))
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            connection.request("POST", PATH, body, FORGERIES[forgery])
            answer = connection.getresponse()
            assert answer.status in (401, 403)
            assert answer.read().startswith(b"AEC-")
        finally:
            connection.close()
        assert list(tmp_path.iterdir()) == []

    def test_the_tripwire_works(
        self, one_port: int, bearer: dict[str, str], tmp_path: Path
    ) -> None:
        body = pickle.dumps((note, (Tripwire(str(tmp_path / "tripped")),), {}))
        assert ask(one_port, PATH, body, **bearer)[0] == 200
        SEEN.pop()[0].close()
        assert [path.name for path in tmp_path.iterdir()] == ["tripped"]

    @pytest.mark.parametrize(("source", "status"), [("0.1.0.2", 200), ("203.0.113.9", 403)])
    def test_app_engines_front_end_is_believed_by_what_it_says_itself(
        self, one_port: int, bearer: dict[str, str], source: str, status: int,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        """X-Forwarded-For makes uvicorn show any address for the connection's."""
        monkeypatch.setenv("GAE_ENV", "standard")
        headers = {
            "X-AppEngine-QueueName": "default", "X-AppEngine-TaskName": "t",
            "X-AppEngine-User-IP": source, "X-Forwarded-For": "0.1.0.2",
        }  # fmt: skip
        assert ask(one_port, PATH, deferred.serialize(note, 1), **headers)[0] == status

    def test_a_signed_task_is_read_only_as_far_as_it_was_signed(
        self, port: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("APPENGINE_COMPAT_BACKEND", "rq")
        monkeypatch.setenv("APPENGINE_COMPAT_SIGNING_KEYS", "k:0123456789abcdef")
        monkeypatch.delenv("APPENGINE_COMPAT_SERVICE_ACCOUNT", raising=False)
        body = deferred.serialize(note, "signed")
        signature = signing.header_for(
            method="POST", url=f"http://x{PATH}", queue="default", task_name="task1", body=body,
            at=time.time(),
        )  # fmt: skip
        assert ask(port, PATH, body, **TASK, **signature) == (200, "Success")
        assert SEEN == [("signed",)]
        assert ask(port, PATH, body[:-1] + b"x", **TASK, **signature)[0] == 403
        assert ask(port, f"{PATH}_other", body, **TASK, **signature)[0] == 403
        assert ask(port, PATH, body + b"x", **TASK, **signature)[0] == 403
        assert SEEN == [("signed",)]

    def test_a_signed_body_that_does_not_come_is_waited_for_no_longer_than_that(
        self, one_port: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("APPENGINE_COMPAT_BACKEND", "rq")
        monkeypatch.setenv("APPENGINE_COMPAT_SIGNING_KEYS", "k:0123456789abcdef")
        monkeypatch.delenv("APPENGINE_COMPAT_SERVICE_ACCOUNT", raising=False)
        monkeypatch.setattr(asgi, "RECEIVE_SECONDS", 0.05)
        body = deferred.serialize(note, "late")
        signature = signing.header_for(
            method="POST", url=f"http://x{PATH}", queue="default", task_name="task1", body=body,
            at=time.time(),
        )  # fmt: skip
        head = "".join(f"{name}: {value}\r\n" for name, value in {**TASK, **signature}.items())
        request = f"POST {PATH} HTTP/1.1\r\nHost: x\r\n{head}Content-Length: {len(body)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", one_port), timeout=20) as connection:
            connection.sendall(request.encode() + body[:5])
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            assert answer.status == 403
            assert answer.read().startswith(b"AEC-SIGNATURE-BODY")
        assert SEEN == []

    def test_who_is_refused_waits_for_no_body(self, one_port: int, bearer: dict[str, str]) -> None:
        request = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
        with socket.create_connection(("127.0.0.1", one_port), timeout=20) as connection:
            connection.sendall(request.encode())
            assert connection.recv(65536).startswith(b"HTTP/1.1 401")


class Sent:
    kind = "cloudtasks"

    def __init__(self) -> None:
        self.requests: list[Any] = []

    def create_tasks(self, queue: str, requests: Any, **_: Any) -> list[Outcome]:
        self.requests += requests
        return [Outcome("t") for _ in requests]

    delete_tasks = purge_queue = queue_stats = None


def test_the_middleware_hands_traces_on(bearer: dict[str, str]) -> None:
    app = fastapi.FastAPI()

    @app.get("/enqueue")
    async def enqueue() -> str:
        deferred.defer(note, 1)
        return "ok"

    backend = Sent()
    choice.activate(backend)  # type: ignore[arg-type]
    place = f"00-{'1' * 32}-{'2' * 16}-01"
    try:
        with asgi_server.serving(defer_middleware(app)) as port:
            assert ask(port, "/enqueue", method="GET", traceparent=place)[0] == 200
            assert ask(port, "/enqueue", method="GET")[0] == 200
    finally:
        choice.deactivate(backend)  # type: ignore[arg-type]
    traced, untraced = [dict(request.headers) for request in backend.requests]
    assert traced["traceparent"] == place
    assert "traceparent" not in untraced


class TestAfterTheResponse:
    @pytest.mark.parametrize("path", ["/sync", "/async"])
    def test_it_runs_in_order_in_the_requests_context_off_the_loop(self, path: str) -> None:
        ran: list[Any] = []
        has_response, done = threading.Event(), threading.Event()

        def work() -> None:
            is_in_time = has_response.wait(20)
            try:
                asyncio.get_running_loop()
            except RuntimeError:
                ran.append((is_in_time, USER.get()))

        def prepare() -> str:
            USER.set("ann")
            run_after_response(work)
            run_after_response(done.set)
            return "ok"

        async def prepare_async() -> str:
            return prepare()

        app = fastapi.FastAPI()
        app.get("/sync")(prepare)
        app.get("/async")(prepare_async)
        with asgi_server.serving(defer_middleware(app)) as port:
            for _ in range(2):
                assert ask(port, path, method="GET")[0] == 200
                has_response.set()
                assert done.wait(20)
                done.clear()
        assert ran == [(True, "ann")] * 2

    def test_work_of_a_request_that_failed_is_not_lost(self) -> None:
        done = threading.Event()
        app = fastapi.FastAPI()

        @app.get("/")
        async def fails() -> None:
            run_after_response(done.set)
            raise LookupError

        with asgi_server.serving(defer_middleware(app)) as port:
            assert ask(port, "/", method="GET")[0] == 500
            assert done.wait(20)

    def test_a_failure_is_logged_with_its_function(self, caplog: pytest.LogCaptureFixture) -> None:
        done = threading.Event()

        def explodes() -> None:
            raise LookupError

        app = fastapi.FastAPI()

        @app.get("/")
        async def fails() -> None:
            run_after_response(explodes)
            run_after_response(done.set)

        with asgi_server.serving(defer_middleware(app)) as port:
            assert ask(port, "/", method="GET")[0] == 200
            assert done.wait(20)
        assert any("explodes, run after" in record.getMessage() for record in caplog.records)


def test_a_websocket_is_closed() -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(deferred_app({"type": "websocket"}, receive, send))
    assert [message["type"] for message in sent] == ["websocket.close"]


def test_no_framework_is_loaded_by_it() -> None:
    import subprocess

    program = "import sys, appengine_compat.asgi; print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-c", program], text=True).split()
    assert not {"starlette", "fastapi", "uvicorn", "grpc", "anyio"} & set(loaded)
