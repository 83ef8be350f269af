"""Work after the response under real servers, whose threads serve one request after another."""

from __future__ import annotations

import contextlib
import contextvars
import http.client
import socketserver
import threading
import wsgiref.simple_server
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from google.appengine.api import wrap_wsgi_app

from appengine_compat import after_response_middleware, run_after_response
from tests import wsgi_server

Wrap = Callable[[Any], Any]
Get = Callable[[str], bytes]
Serve = Callable[[Any], Get]
PATIENCE_SECONDS = 20.0

USER: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")


class Threaded(socketserver.ThreadingMixIn, wsgiref.simple_server.WSGIServer):
    """A server with a thread for each connection."""


class Quiet(wsgiref.simple_server.WSGIRequestHandler):
    def log_message(self, *args: Any) -> None: ...


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APPENGINE_COMPAT_BACKEND", "cloudtasks")
    monkeypatch.delenv("K_SERVICE", raising=False)


@pytest.fixture(params=[wrap_wsgi_app, after_response_middleware])
def wrap(request: pytest.FixtureRequest) -> Wrap:
    chosen: Wrap = request.param
    return chosen


@pytest.fixture(params=["one thread for all", "a thread for each"])
def serve(request: pytest.FixtureRequest) -> Iterator[Serve]:
    with contextlib.ExitStack() as ends:

        def start(app: Any) -> Get:
            one_thread = request.param.startswith("one")
            port = ends.enter_context(
                wsgi_server.serving(app, threads=1) if one_thread else _threaded(app)
            )

            def get(path: str) -> bytes:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
                try:
                    connection.request("GET", path)
                    # By its length: the connection's end may come only after the work.
                    return connection.getresponse().read()
                finally:
                    connection.close()

            return get

        yield start


@contextlib.contextmanager
def _threaded(app: Any) -> Iterator[int]:
    server = wsgiref.simple_server.make_server("127.0.0.1", 0, app, Threaded, Quiet)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join(PATIENCE_SECONDS)
        server.server_close()


def answer(start_response: Any, text: bytes) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Length", str(len(text)))])
    return [text]


def test_the_client_has_the_response_while_the_work_still_waits(serve: Serve, wrap: Wrap) -> None:
    client_has_it, done = threading.Event(), threading.Event()
    in_time: list[bool] = []

    def work() -> None:
        in_time.append(client_has_it.wait(PATIENCE_SECONDS))
        done.set()

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        run_after_response(work)
        return answer(start_response, b"the response")

    get = serve(wrap(app))
    assert get("/") == b"the response"
    client_has_it.set()
    assert done.wait(PATIENCE_SECONDS)
    assert in_time == [True]


def test_a_streamed_response_is_out_to_its_last_byte(serve: Serve, wrap: Wrap) -> None:
    order: list[str] = []
    done = threading.Event()

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Length", "3")])
        for piece in (b"a", b"b", b"c"):
            order.append(piece.decode())
            yield piece
            run_after_response(lambda piece=piece: order.append(f"after {piece.decode()}"))  # type: ignore[misc]
        run_after_response(done.set)

    assert serve(wrap(app))("/") == b"abc"
    assert done.wait(PATIENCE_SECONDS)
    assert order == ["a", "b", "c", "after a", "after b", "after c"]


def test_nothing_of_a_request_is_seen_by_the_next_on_the_same_thread(
    serve: Serve, wrap: Wrap
) -> None:
    seen: list[tuple[str, str, str]] = []
    ended = threading.Semaphore(0)

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        path, before = environ["PATH_INFO"], USER.get()
        if path != "/anonymous":
            USER.set(path)

            def work() -> None:
                seen.append((path, before, USER.get()))
                ended.release()

            run_after_response(work)
        else:
            seen.append((path, before, USER.get()))
            ended.release()
        return answer(start_response, b"ok")

    get = serve(wrap(app))
    paths = ["/ann", "/anonymous", "/bob", "/anonymous"]
    for path in paths:
        assert get(path) == b"ok"
        assert ended.acquire(timeout=PATIENCE_SECONDS)
    assert seen == [(path, "nobody", "nobody" if path == "/anonymous" else path) for path in paths]


def test_work_that_fails_costs_neither_its_client_nor_the_next_anything(
    serve: Serve, wrap: Wrap, caplog: pytest.LogCaptureFixture
) -> None:
    ended = threading.Semaphore(0)

    def explodes() -> None:
        raise LookupError("in the work")

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        run_after_response(explodes)
        run_after_response(ended.release)
        return answer(start_response, b"ok")

    get = serve(wrap(app))
    for _ in range(2):
        assert get("/") == b"ok"
        assert ended.acquire(timeout=PATIENCE_SECONDS)
    failures = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(failures) == 2
    assert all("explodes" in text for text in failures)
