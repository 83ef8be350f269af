"""An attempt reaches a WSGI app as the request that a server would have made of it."""

from __future__ import annotations

import io
from wsgiref.validate import validator

import pytest

from appengine_compat.core import moments
from appengine_compat.local.delivery import Claim, Delivery
from appengine_compat.local.wsgi_transport import WsgiTransport, wsgi_path


def delivery(url="/work", method="POST", body=b"", headers=()) -> Delivery:
    claim = Claim(
        seq=1, claim=1, queue=1, queue_id="q", task_id="t", lane="default", service="default",
        due=moments.from_seconds(1), forced=0, is_named=True, method=method, url=url,
        headers={}, extra={}, body=body, deadline_ms=0, attempt=1, executions=0,
        previous_status=None, first_dispatch=0,
    )  # fmt: skip
    return Delivery(claim, tuple(headers), 600)


class App:
    """Remembers the request and answers what it was told to."""

    def __init__(self, status="200 OK", chunks=(b"ok",), headers=()):
        self.status, self.chunks = status, chunks
        self.headers = [("Content-Type", "text/plain"), *headers]
        self.environ: dict = {}
        self.body = b""
        self.is_closed = False

    def __call__(self, environ, start_response):
        self.environ = dict(environ)
        self.body = environ["wsgi.input"].read()
        start_response(self.status, self.headers)
        app = self

        class Result:
            def __iter__(self):
                return iter(app.chunks)

            def close(self):
                app.is_closed = True

        return Result()


def send(app, *args, **kwargs):
    transport = WsgiTransport()
    transport.register(app, "default", "localhost:8080")
    return transport.send(delivery(*args, **kwargs))


def test_the_request_is_whole():
    app = App()
    reply = send(
        app,
        "/caf%C3%A9/a%20b?x=%20y&z=1",
        "PUT",
        b"payload",
        [("Content-Type", "a/b"), ("X-AppEngine-TaskName", "t"), ("X-Uni", "ä")],
    )
    environ = app.environ
    assert reply.status == 200
    assert reply.body == b"ok"
    assert app.body == b"payload"
    assert environ["REQUEST_METHOD"] == "PUT"
    assert environ["SCRIPT_NAME"] == ""
    assert environ["PATH_INFO"] == "/caf\xc3\xa9/a b"
    assert environ["QUERY_STRING"] == "x=%20y&z=1"
    assert environ["CONTENT_LENGTH"] == "7"
    assert environ["CONTENT_TYPE"] == "a/b"
    assert environ["HTTP_X_APPENGINE_TASKNAME"] == "t"
    assert environ["HTTP_X_UNI"].encode("latin-1").decode() == "ä"
    assert environ["HTTP_HOST"] == "localhost:8080"
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == ("localhost", "8080")
    assert environ["SERVER_SOFTWARE"].startswith("Development")
    assert environ["REMOTE_ADDR"] == "127.0.0.1"


def test_the_request_and_the_handling_of_the_answer_follow_the_standard():
    def app(environ, start_response):
        assert environ["wsgi.input"].read(10) == b"x"
        start_response("204 No Content", [])
        return [b""]

    checked = validator(app)
    reply = send(checked, "/a%20b?c=d", "POST", b"x", [("Content-Type", "text/plain")])
    assert reply.error == ""
    assert reply.status == 204


def test_the_answer_is_read_to_its_end_and_closed():
    app = App(chunks=[b"x" * 1000] * 50)
    reply = send(app)
    assert app.is_closed
    assert reply.body == b"x" * 2048


def test_an_exception_is_a_500_and_logged(caplog):
    def app(environ, start_response):
        raise ValueError("broken")

    reply = send(app)
    assert (reply.status, reply.error) == (500, "ValueError: broken")
    assert "Task t of queue q: POST /work raised an exception" in caplog.text


@pytest.mark.parametrize("raised", [SystemExit(1), KeyboardInterrupt(), GeneratorExit()])
def test_what_would_end_the_program_ends_the_attempt(raised, caplog):
    def app(environ, start_response):
        raise raised

    assert send(app).status == 500


def test_an_exception_while_the_answer_is_read_is_a_500_too_and_it_is_closed(caplog):
    def chunks():
        yield b"a"
        raise ValueError("half way")

    app = App(chunks=chunks())
    assert send(app).status == 500
    assert app.is_closed


def test_an_app_that_answers_nothing_proper_has_failed():
    assert send(lambda environ, start_response: []).status == 500
    assert send(App(status="nonsense")).status == 500


def test_the_status_may_come_with_the_first_chunk_and_be_replaced():
    def app(environ, start_response):
        start_response("200 OK", [])
        try:
            raise ValueError
        except ValueError as error:
            start_response("503 No", [], (type(error), error, error.__traceback__))
        yield b""

    assert send(app).status == 503


def test_retry_after_is_passed_on():
    assert send(App(headers=[("Retry-After", "7")])).retry_after_seconds == 7


def test_a_header_with_an_underscore_cannot_pass_for_a_task_header():
    app = App()
    send(app, headers=[("X_AppEngine_TaskName", "forged"), ("X-AppEngine-TaskName", "t")])
    assert app.environ["HTTP_X_APPENGINE_TASKNAME"] == "t"


def test_a_body_less_get_has_an_empty_input():
    app = App()
    send(app, "/x", "GET")
    assert app.body == b""
    assert isinstance(app.environ["wsgi.input"], io.BytesIO)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("/", ("/", "")),
        ("/a?b", ("/a", "b")),
        ("/a%3Fb?c%3F", ("/a?b", "c%3F")),
        ("/a#fragment", ("/a", "")),
        ("/%e4", ("/\xe4", "")),
        ("/ä?ö", ("/\xc3\xa4", "\xc3\xb6")),
        ("/%zz", ("/%zz", "")),
    ],
)
def test_paths_are_decoded_as_wsgi_has_them(url, expected):
    assert wsgi_path(url) == expected
