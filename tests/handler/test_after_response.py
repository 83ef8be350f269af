"""Work after the response: three forms, in order, and nothing of it in another request."""

from __future__ import annotations

import contextvars
import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any

import flask
import pytest
from google.appengine.api import wrap_wsgi_app

from appengine_compat import after_response_middleware, run_after_response
from appengine_compat.handler import after_response

Wrap = Callable[[Any], Any]


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APPENGINE_COMPAT_BACKEND", "cloudtasks")
    monkeypatch.delenv("K_SERVICE", raising=False)


@pytest.fixture(params=[wrap_wsgi_app, after_response_middleware])
def wrap(request: pytest.FixtureRequest) -> Wrap:
    chosen: Wrap = request.param
    return chosen


def start(app: Any) -> Any:
    return app({"REQUEST_METHOD": "GET", "PATH_INFO": "/"}, lambda *args: None)


def app_that(*steps: Callable[[], object]) -> Any:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        for step in steps:
            step()
        return [b"body"]

    return app


def test_it_waits_for_the_server_to_close_the_response(wrap: Wrap) -> None:
    ran: list[int] = []
    body = start(wrap(app_that(lambda: run_after_response(lambda: ran.append(1)))))
    assert list(body) == [b"body"]
    assert ran == []
    body.close()
    assert ran == [1]


def test_the_three_forms_run_in_order(wrap: Wrap) -> None:
    ran: list[str] = []

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        def function_to_run() -> None:
            ran.append("function")

        run_after_response(lambda: ran.append("lambda"))
        assert run_after_response(function_to_run) is function_to_run

        @run_after_response
        def decorated() -> None:
            ran.append("decorated")
            run_after_response(lambda: ran.append("added meanwhile"))

        assert callable(decorated)
        return [b""]

    start(wrap(app)).close()
    assert ran == ["lambda", "function", "decorated", "added meanwhile"]


def test_a_failure_is_logged_with_its_function_and_stops_nothing(
    wrap: Wrap, caplog: pytest.LogCaptureFixture
) -> None:
    ran: list[int] = []

    def explodes() -> None:
        raise LookupError("in the work")

    app = app_that(
        lambda: run_after_response(explodes), lambda: run_after_response(lambda: ran.append(1))
    )
    start(wrap(app)).close()
    assert ran == [1]
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "explodes" in record.getMessage()
    assert record.exc_info is not None


def test_it_sees_the_requests_context(wrap: Wrap) -> None:
    user: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")
    seen: list[str] = []
    app = app_that(
        lambda: user.set("ann"), lambda: run_after_response(lambda: seen.append(user.get()))
    )
    start(wrap(app)).close()
    assert seen == ["ann"]
    assert user.get() == "nobody"


def test_a_coroutine_function_is_run_to_its_end(wrap: Wrap) -> None:
    ran: list[int] = []

    async def work() -> None:
        ran.append(1)

    start(wrap(app_that(lambda: run_after_response(work)))).close()
    assert ran == [1]


def test_it_runs_at_once_outside_of_requests() -> None:
    ran: list[int] = []
    run_after_response(lambda: ran.append(1))
    assert ran == [1]


def test_a_thread_that_outlived_its_request_does_not_wait_for_another() -> None:
    ran: list[int] = []
    ended = threading.Event()
    threads: list[threading.Thread] = []

    def late() -> None:
        ended.wait(10)
        run_after_response(lambda: ran.append(threading.get_ident()))

    def step() -> None:
        threads.append(threading.Thread(target=late))
        threads[0].start()
        run_after_response(lambda: None)

    start(wrap_wsgi_app(app_that(step))).close()
    ended.set()
    threads[0].join()
    assert ran == [threads[0].ident]


def test_work_of_a_request_that_failed_is_not_lost(wrap: Wrap) -> None:
    ran: list[int] = []

    def fails() -> None:
        raise LookupError

    app = wrap(app_that(lambda: run_after_response(lambda: ran.append(1)), fails))
    with pytest.raises(LookupError):
        start(app)
    assert ran == [1]


def test_many_requests_on_reused_threads_keep_their_work_apart() -> None:
    ran: list[tuple[int, int]] = []

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        number = environ["number"]
        run_after_response(lambda: ran.append((number, threading.get_ident())))
        return [b""]

    wrapped = wrap_wsgi_app(app)

    def serve(first: int) -> None:
        for number in range(first, first + 50):
            body = wrapped({"PATH_INFO": "/", "number": number}, lambda *args: None)  # type: ignore[arg-type]
            assert (number, threading.get_ident()) not in ran
            body.close()  # type: ignore[attr-defined]
            assert (number, threading.get_ident()) in ran

    threads = [threading.Thread(target=serve, args=(first,)) for first in range(0, 200, 50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(number for number, _ in ran) == list(range(200))


def test_flask_streams_first(wrap: Wrap) -> None:
    app = flask.Flask(__name__)
    ran: list[str] = []

    @app.get("/")
    def index() -> flask.Response:
        run_after_response(lambda: ran.append("after"))

        def pieces() -> Iterable[str]:
            ran.append("piece")
            yield "x"

        return flask.Response(flask.stream_with_context(pieces()))

    app.wsgi_app = wrap(app.wsgi_app)  # type: ignore[method-assign]
    with app.test_client().get("/") as response:
        assert response.text == "x"
        assert ran == ["piece"]
    assert ran == ["piece", "after"]


def test_flasks_request_is_there_for_functions_that_ask_flask_for_it() -> None:
    ran: list[str] = []
    app = flask.Flask(__name__)

    @app.route("/page")
    def view() -> str:
        @run_after_response
        @flask.copy_current_request_context
        def work() -> None:
            ran.append(flask.request.path)

        return "x"

    app.wsgi_app = wrap_wsgi_app(app.wsgi_app)  # type: ignore[method-assign]
    with app.test_client().get("/page"):
        pass
    assert ran == ["/page"]


def test_one_layer_inside_another_makes_one_request() -> None:
    ran: list[int] = []
    app = app_that(lambda: run_after_response(lambda: ran.append(1)))
    start(wrap_wsgi_app(after_response_middleware(app))).close()
    assert ran == [1]


def test_what_cannot_be_called_is_refused() -> None:
    with pytest.raises(TypeError, match="run_after_response takes a function"):
        run_after_response("work")  # type: ignore[type-var]


def test_cloud_run_is_warned_about_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("K_SERVICE", "app")
    monkeypatch.setattr(after_response, "_has_warned", False)
    step = lambda: run_after_response(lambda: None)  # noqa: E731
    for _ in range(3):
        start(after_response_middleware(app_that(step))).close()
    warned = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warned) == 1
    assert "--no-cpu-throttling" in warned[0].getMessage()
