"""``Handler``: who may run a task, what is answered, and that nothing is dropped."""

from __future__ import annotations

import http
import io
import logging
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
from google.appengine.ext import deferred
from google.appengine.ext.deferred import deferred as submodule

from appengine_compat.core.headers import LOCAL_TOKEN_HEADER
from appengine_compat.handler import door, kept
from appengine_compat.local import tokens

SECRET = b"a secret of this test, long enough"
ran: list[Any] = []


def work(*args: Any) -> Any:
    ran.append(args)


def fail(name: str) -> None:
    raise {
        "permanent": deferred.PermanentTaskFailure,
        "singular": deferred.SingularTaskFailure,
        "key": KeyError,
    }[name]("on purpose")


class Bomb:
    """Tells when it is unpickled."""

    def __reduce__(self) -> Any:
        return work, ("unpickled",)


@pytest.fixture(autouse=True)
def nothing_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    ran.clear()
    for variable in ("GAE_ENV", "GAE_APPLICATION", "GAE_INSTANCE"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def believed() -> Iterator[None]:
    """Requests are believed by App Engine's own rule, as under an active test stub."""
    door.trust_tests(True)
    yield
    door.trust_tests(False)


def request(body: bytes, **changes: Any) -> dict[str, Any]:
    """Return the environ of a task request; a value of None leaves the variable out."""
    environ = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/_ah/queue/deferred",
        "CONTENT_LENGTH": str(len(body)),
        "CONTENT_TYPE": "application/octet-stream",
        "REMOTE_ADDR": "0.1.0.2",
        "SERVER_SOFTWARE": "gunicorn/20",
        "HTTP_X_APPENGINE_TASKNAME": "t1",
        "HTTP_X_APPENGINE_QUEUENAME": "default",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": io.StringIO(),
        **changes,
    }
    return {key: value for key, value in environ.items() if value is not None}


def call(app: Any, environ: dict[str, Any]) -> tuple[str, dict[str, str], bytes]:
    """Call a WSGI app as a server does."""
    answer: list[Any] = []

    def start_response(status: str, headers: list[tuple[str, str]]) -> None:
        answer.extend((status, dict(headers)))

    body = b"".join(app(environ, start_response))
    return answer[0], answer[1], body


TEXT = [("Content-Type", "text/plain")]


@pytest.mark.usefixtures("believed")
class TestAnswers:
    def test_success(self) -> None:
        environ = request(deferred.serialize(work, 1))
        assert deferred.application.post(environ) == ("Success", http.HTTPStatus.OK, TEXT)
        assert ran == [(1,)]

    def test_a_task_that_wants_another_try(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        answer = deferred.application.post(request(deferred.serialize(fail, "singular")))
        assert answer == ("SingularTaskFailure", http.HTTPStatus.REQUEST_TIMEOUT, TEXT)
        assert ("root", logging.DEBUG, "Failure executing task, task retry forced") in (
            caplog.record_tuples
        )

    @pytest.mark.parametrize("body", [deferred.serialize(fail, "permanent"), b"unreadable", b""])
    def test_a_task_that_failed_for_good(
        self, body: bytes, caplog: pytest.LogCaptureFixture
    ) -> None:
        answer = deferred.application.post(request(body))
        assert answer == ("PermanentTaskFailure", http.HTTPStatus.OK, TEXT)
        (record,) = [r for r in caplog.records if r.name == "root"]
        assert record.getMessage() == "Permanent failure attempting to execute task"
        assert record.levelno == logging.ERROR
        assert record.exc_info

    def test_a_task_that_failed_for_good_is_kept(self) -> None:
        tasks: list[kept.KeptTask] = []
        kept.on_permanent_failure(tasks.append)
        try:
            body = deferred.serialize(fail, "permanent")
            deferred.application.post(request(body, HTTP_X_APPENGINE_TASKRETRYCOUNT="2"))
        finally:
            kept.forget_callback(tasks.append)
        (task,) = tasks
        assert task.payload == body
        assert (task.queue, task.task_name, task.attempts) == ("default", "t1", 3)
        assert task.function == f"{__name__}.fail('permanent')"
        assert "on purpose" in task.traceback

    def test_any_other_error_goes_to_the_server(self) -> None:
        with pytest.raises(KeyError):
            deferred.application.post(request(deferred.serialize(fail, "key")))
        with pytest.raises(KeyError):
            call(deferred.application, request(deferred.serialize(fail, "key")))


@pytest.mark.usefixtures("believed")
class TestAsWsgi:
    def test_success(self) -> None:
        status, headers, body = call(deferred.application, request(deferred.serialize(work)))
        assert (status, headers, body) == ("200 OK", dict(TEXT), b"Success")

    def test_another_try(self) -> None:
        status, _, _ = call(deferred.application, request(deferred.serialize(fail, "singular")))
        assert status == "408 Request Timeout"

    @pytest.mark.parametrize("method", ["GET", "PUT", "HEAD", "DELETE", "PATCH"])
    def test_other_methods_are_told_which_is_allowed(self, method: str) -> None:
        """App Engine's application returned without an answer."""
        environ = request(deferred.serialize(work), REQUEST_METHOD=method)
        status, headers, _ = call(deferred.application, environ)
        assert status == "405 Method Not Allowed"
        assert headers["Allow"] == "POST"
        assert ran == []

    def test_any_path_is_served(self) -> None:
        environ = request(deferred.serialize(work), PATH_INFO="/_ah/queue/deferred_label/x")
        assert call(deferred.application, environ)[0] == "200 OK"


class TestWhoMayCall:
    @pytest.mark.parametrize(
        "changes",
        [
            {},
            {"HTTP_X_APPENGINE_USER_IP": "0.1.0.2"},
            {"SERVER_SOFTWARE": "Development/2.0"},
            {"HTTP_X_APPENGINE_TASKNAME": None, "HTTP_X_CLOUDTASKS_TASKNAME": "t1"},
            {"HTTP_AUTHORIZATION": "Bearer x.y.z"},
            {"HTTP_X_AEC_LOCAL_TOKEN": "forged"},
            {"HTTP_APPENGINE_COMPAT_VERDICT": "trusted"},
        ],
    )
    def test_nobody_by_headers_alone(self, changes: dict[str, Any]) -> None:
        body = pickle.dumps((work, (Bomb(),), {}))
        environ = request(body, **changes)
        text, status, headers = deferred.application.post(environ)
        assert status in (http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN)
        assert "APPENGINE_COMPAT_" in text
        assert headers == TEXT
        assert ran == []
        assert environ["wsgi.input"].tell() == 0, "the body must not even be read"

    @pytest.mark.parametrize("method", ["post", "run_from_request"])
    def test_either_method_asks_the_door(self, method: str) -> None:
        body = pickle.dumps((work, (Bomb(),), {}))
        _, status, _ = getattr(deferred.Handler(), method)(request(body))
        assert status == http.HTTPStatus.UNAUTHORIZED
        assert ran == []

    def test_the_local_service_by_its_token(self) -> None:
        tokens.register_secret(SECRET)
        token = tokens.make(SECRET, queue_id="default", task_id="t1", path="/_ah/queue/deferred")
        header = "HTTP_" + LOCAL_TOKEN_HEADER.upper().replace("-", "_")
        environ = request(deferred.serialize(work), **{header: token})
        assert deferred.application.post(environ)[1] == http.HTTPStatus.OK
        assert ran == [()]

    @pytest.mark.usefixtures("believed")
    @pytest.mark.parametrize(
        ("changes", "text"),
        [
            (
                {"HTTP_X_APPENGINE_TASKNAME": None},
                "Detected an attempted XSRF attack. The header 'X-AppEngine-Taskname' was not set.",
            ),
            (
                {"REMOTE_ADDR": "203.0.113.9"},
                "Detected an attempted XSRF attack. "
                "This request did not originate from Task Queue.",
            ),
        ],
    )
    def test_under_a_stub_app_engines_words_hold(
        self, changes: dict[str, Any], text: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        answer = deferred.application.post(request(deferred.serialize(work), **changes))
        assert answer == (text, http.HTTPStatus.FORBIDDEN, TEXT)
        assert ("root", logging.ERROR, text) in caplog.record_tuples
        assert ran == []


@pytest.mark.usefixtures("believed")
class TestBodies:
    def test_no_server_software(self) -> None:
        environ = request(deferred.serialize(work), SERVER_SOFTWARE=None)
        assert deferred.application.post(environ)[1] == http.HTTPStatus.OK

    @pytest.mark.parametrize("length", [None, ""])
    def test_no_length_but_an_end(self, length: str | None) -> None:
        """A chunked request; App Engine's handler answered 200 and lost the task."""
        body = deferred.serialize(work, "x" * 100_000)
        environ = request(
            body,
            **{
                "CONTENT_LENGTH": length,
                "HTTP_TRANSFER_ENCODING": "chunked",
                "wsgi.input": Pieces(body),
                "wsgi.input_terminated": True,
            },
        )
        assert deferred.application.post(environ)[1] == http.HTTPStatus.OK
        assert ran == [("x" * 100_000,)]

    def test_no_length_and_no_end_is_sent_again(self, caplog: pytest.LogCaptureFixture) -> None:
        body = deferred.serialize(work)
        environ = request(body, **{"CONTENT_LENGTH": None, "wsgi.input": Pieces(body)})
        text, status, _ = deferred.application.post(environ)
        assert status == http.HTTPStatus.LENGTH_REQUIRED
        assert "Content-Length" in text
        assert text in caplog.text
        assert ran == []

    @pytest.mark.parametrize("length", ["x", "-1", "1.5", str(10**6)])
    def test_a_length_that_is_not_the_bodys_is_sent_again(self, length: str) -> None:
        environ = request(deferred.serialize(work), CONTENT_LENGTH=length)
        assert deferred.application.post(environ)[1] == http.HTTPStatus.BAD_REQUEST
        assert ran == []

    def test_a_body_that_something_has_read_before_is_sent_again(self) -> None:
        environ = request(deferred.serialize(work))
        environ["wsgi.input"].read(3)
        text, status, _ = deferred.application.post(environ)
        assert status == http.HTTPStatus.BAD_REQUEST
        assert "read from wsgi.input" in text

    def test_a_stream_that_gives_less_than_asked(self) -> None:
        body = deferred.serialize(work, "x" * 1000)
        environ = request(body, **{"wsgi.input": Pieces(body)})
        assert deferred.application.post(environ)[1] == http.HTTPStatus.OK


class Pieces:
    """A stream that is no buffer: at most 100 bytes a read, and no way to tell its end."""

    def __init__(self, data: bytes) -> None:
        self._stream = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        return self._stream.read() if size < 0 else self._stream.read(min(size, 100))


@pytest.mark.usefixtures("believed")
class TestLog:
    def test_each_tasks_headers_at_the_level_that_is_set(
        self, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(submodule, "_DEFAULT_LOG_LEVEL", logging.INFO)
        caplog.set_level(logging.INFO)
        deferred.application.post(request(deferred.serialize(work)))
        line = "X_APPENGINE_TASKNAME:t1, X_APPENGINE_QUEUENAME:default"
        assert ("root", logging.INFO, line) in caplog.record_tuples

        caplog.clear()
        deferred.set_log_level(logging.DEBUG)
        deferred.application.post(request(deferred.serialize(work)))
        assert line not in caplog.text


@pytest.mark.usefixtures("believed")
class TestSubclasses:
    def test_overriding_post_as_googles_documentation_shows(self) -> None:
        class Mine(deferred.Handler):
            def post(self, environ: Any) -> Any:
                text, status, headers = super().post(environ)
                return text + "!", status, [*headers, ("X-Mine", "1")]

        status, headers, body = call(Mine(), request(deferred.serialize(work)))
        assert (status, headers["X-Mine"], body) == ("200 OK", "1", b"Success!")

    def test_overriding_run_from_request(self) -> None:
        class Mine(deferred.Handler):
            def run_from_request(self, environ: Any) -> None:
                deferred.run(environ["wsgi.input"].read())

        answer = Mine().post(request(deferred.serialize(work, 1)))
        assert answer == ("Success", http.HTTPStatus.OK, TEXT)
        assert ran == [(1,)]
        answer = Mine().post(request(deferred.serialize(fail, "singular")))
        assert answer[1] == http.HTTPStatus.REQUEST_TIMEOUT

    def test_a_status_that_is_a_number(self) -> None:
        class Mine(deferred.Handler):
            def post(self, environ: Any) -> Any:
                return "later", 503, []

        assert call(Mine(), request(b""))[0] == "503 Service Unavailable"

    def test_flask_takes_what_post_returns(self) -> None:
        import flask

        app = flask.Flask(__name__)

        @app.route("/custom/path", methods=["POST"])
        def custom() -> Any:
            return deferred.application.post(flask.request.environ)

        answer = app.test_client().post(
            "/custom/path",
            data=deferred.serialize(work, "flask"),
            headers={"X-AppEngine-TaskName": "t1"},
            environ_base={"REMOTE_ADDR": "0.1.0.2"},
        )
        assert (answer.status_code, answer.text) == (200, "Success")
        assert ran == [("flask",)]

    def test_run_is_looked_up_when_it_is_used(self, monkeypatch: pytest.MonkeyPatch) -> None:
        payloads: list[bytes] = []
        monkeypatch.setattr(submodule, "run", payloads.append)
        deferred.application.post(request(b"anything"))
        assert payloads == [b"anything"]
