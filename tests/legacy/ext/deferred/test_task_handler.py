"""``TaskHandler``: what py2 apps subclass, on WebOb alone, and on webapp2 where it is."""

from __future__ import annotations

import importlib.util
import io
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.appengine.ext import deferred

from appengine_compat.handler import door, kept

ran: list[Any] = []

# webapp2 tells WebOb to copy every body into a temporary file, which nobody closes.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Exception ignored in. <_io.FileIO"),
]

on_webob_alone = pytest.mark.skipif(
    importlib.util.find_spec("webapp2") is not None, reason="webapp2 has ways of its own"
)


def work(*args: Any) -> None:
    ran.append(args)


def fail(name: str) -> None:
    raise {
        "permanent": deferred.PermanentTaskFailure,
        "singular": deferred.SingularTaskFailure,
        "key": KeyError,
    }[name]("on purpose")


@pytest.fixture(autouse=True)
def believed() -> Iterator[None]:
    ran.clear()
    door.trust_tests(True)
    yield
    door.trust_tests(False)


def call(app: Any, body: bytes = b"", **changes: Any) -> tuple[str, dict[str, str], bytes]:
    """Call a WSGI app with a task's request; a value of None leaves the variable out."""
    environ = {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/_ah/queue/deferred_label",
        "QUERY_STRING": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "CONTENT_LENGTH": str(len(body)),
        "REMOTE_ADDR": "0.1.0.2",
        "HTTP_X_APPENGINE_TASKNAME": "t1",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": io.StringIO(),
        "wsgi.url_scheme": "http",
        "wsgi.version": (1, 0),
        **changes,
    }
    answer: list[Any] = []

    def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
        answer[:] = (status, dict(headers))

    body = b"".join(
        app({key: value for key, value in environ.items() if value is not None}, start_response)
    )
    return answer[0], answer[1], body


@pytest.fixture
def app() -> Any:
    return deferred.TaskHandler.as_application()


def test_success_has_no_body(app: Any) -> None:
    status, headers, body = call(app, deferred.serialize(work, 1))
    assert (status, body) == ("200 OK", b"")
    assert headers["Cache-Control"] == "no-cache"
    assert ran == [(1,)]


def test_another_try(app: Any) -> None:
    assert call(app, deferred.serialize(fail, "singular"))[0].startswith("408 ")


def test_a_task_that_failed_for_good_is_kept(app: Any, caplog: pytest.LogCaptureFixture) -> None:
    tasks: list[kept.KeptTask] = []
    kept.on_permanent_failure(tasks.append)
    try:
        assert call(app, deferred.serialize(fail, "permanent"))[0] == "200 OK"
    finally:
        kept.forget_callback(tasks.append)
    assert tasks[0].function == f"{__name__}.fail('permanent')"
    assert "Permanent failure attempting to execute task" in caplog.text


@on_webob_alone
def test_any_other_error_goes_to_the_server(app: Any) -> None:
    with pytest.raises(KeyError):
        call(app, deferred.serialize(fail, "key"))


@on_webob_alone
@pytest.mark.parametrize("method", ["GET", "PUT", "NONSENSE"])
def test_other_methods(app: Any, method: str) -> None:
    status, headers, _ = call(app, REQUEST_METHOD=method)
    assert status == "405 Method Not Allowed"
    assert headers["Allow"] == "POST"


def test_nobody_by_headers_alone(app: Any) -> None:
    door.trust_tests(False)
    status, _, body = call(app, deferred.serialize(work))
    assert status.startswith("401 ")
    assert b"APPENGINE_COMPAT_" in body
    assert ran == []


def test_under_a_stub_app_engines_words_hold(app: Any) -> None:
    status, _, body = call(app, deferred.serialize(work), HTTP_X_APPENGINE_TASKNAME=None)
    assert status == "403 Forbidden"
    assert body.startswith(b"Detected an attempted XSRF attack.")


def test_a_body_that_cannot_be_read_whole(app: Any) -> None:
    assert call(app, deferred.serialize(work), CONTENT_LENGTH="100000")[0] == "400 Bad Request"
    assert ran == []


def test_headers_are_logged_by_their_names(app: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    call(app, deferred.serialize(work))
    assert "X-Appengine-Taskname:t1" in caplog.text


class TestSubclasses:
    def test_what_they_touch_in_the_wild(self) -> None:
        class Mine(deferred.TaskHandler):  # type: ignore[misc]
            def post(self) -> None:
                assert self.request.headers["X-AppEngine-TaskName"] == "t1"
                assert self.request.body
                super().post()
                self.response.headers["X-Mine"] = "1"
                self.response.out.write("done")

        status, headers, body = call(Mine.as_application(), deferred.serialize(work))
        assert (status, headers["X-Mine"], body) == ("200 OK", "1", b"done")
        assert ran == [()]

    def test_a_body_that_they_decode_first(self) -> None:
        class Mine(deferred.TaskHandler):  # type: ignore[misc]
            def run_from_request(self) -> None:
                self.request.body = self.request.body[::-1]
                super().run_from_request()

        assert call(Mine.as_application(), deferred.serialize(work, 2)[::-1])[0] == "200 OK"
        assert ran == [(2,)]

    def test_an_error_of_their_own(self) -> None:
        class Mine(deferred.TaskHandler):  # type: ignore[misc]
            def run_from_request(self) -> None:
                self.response.write("half")
                self.error(500)

        status, _, body = call(Mine.as_application(), deferred.serialize(work))
        assert (status, body) == ("500 Internal Server Error", b"")

    def test_dispatch_may_be_overridden(self) -> None:
        class Mine(deferred.TaskHandler):  # type: ignore[misc]
            def dispatch(self) -> None:
                self.response.set_status(503, "Not Now")

        assert call(Mine.as_application(), b"")[0] == "503 Not Now"

    @on_webob_alone
    def test_they_may_be_used_without_an_application(self) -> None:
        handler = deferred.TaskHandler()
        request = type(handler.request).blank("/some/path", POST=b"")
        handler.initialize(request, handler.response)
        handler.dispatch()
        assert handler.response.status_int == 403


def test_the_script_serves_one_request_as_cgi(tmp_path: Path) -> None:
    """What ``app.yaml`` files of Python 2.5 named."""
    payload = tmp_path / "payload"
    payload.write_bytes(deferred.serialize(print, "it ran"))
    program = (
        "from appengine_compat.handler import door; door.trust_tests(True)\n"
        "from google.appengine.ext.deferred import handler; handler.main()"
    )
    with payload.open("rb") as stream:
        done = subprocess.run(
            [sys.executable, "-c", program],
            stdin=stream,
            capture_output=True,
            check=True,
            env={
                "REQUEST_METHOD": "POST",
                "PATH_INFO": "/_ah/queue/deferred",
                "CONTENT_LENGTH": str(payload.stat().st_size),
                "HTTP_X_APPENGINE_TASKNAME": "t1",
                "REMOTE_ADDR": "0.1.0.2",
                "SERVER_NAME": "localhost",
                "SERVER_PORT": "80",
            },
        )
    assert b"it ran" in done.stdout
    assert b"Status: 200 OK" in done.stdout
    assert b"\r\n\r\nSuccess" in done.stdout


@pytest.mark.skipif(importlib.util.find_spec("webapp2") is None, reason="webapp2 is not installed")
class TestOnWebapp2:
    def test_it_is_a_webapp2_handler(self) -> None:
        import webapp2

        assert issubclass(deferred.TaskHandler, webapp2.RequestHandler)
        app = webapp2.WSGIApplication([("/_ah/queue/deferred.*", deferred.TaskHandler)])
        assert call(app, deferred.serialize(work, 1))[0] == "200 OK"
        assert ran == [(1,)]
        assert call(app, REQUEST_METHOD="GET")[0] == "405 Method Not Allowed"
