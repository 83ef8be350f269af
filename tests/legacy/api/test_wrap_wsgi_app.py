"""What an app sees of requests when ``wrap_wsgi_app`` is around it (legacy-surface, part C)."""

from __future__ import annotations

import _thread
import io
import logging
import os
import pickle
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from google.appengine.api import namespace_manager, wrap_wsgi_app

from appengine_compat.errors import ConfigError
from appengine_compat.handler import door
from appengine_compat.local import tokens

SECRET = b"the secret of this test's database"
CALLS: list[Any] = []


@pytest.fixture(autouse=True)
def quiet_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks would go elsewhere, so that no embedded service is given the apps made here."""
    monkeypatch.setenv("APPENGINE_COMPAT_BACKEND", "cloudtasks")
    for variable in ("GAE_ENV", "GAE_APPLICATION", "GAE_INSTANCE", "K_SERVICE"):
        monkeypatch.delenv(variable, raising=False)
    tokens.register_secret(SECRET)
    CALLS.clear()


@pytest.fixture
def app_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAE_ENV", "standard")
    monkeypatch.setenv("GAE_APPLICATION", "s~project")


def request(path: str = "/", **values: Any) -> dict[str, Any]:
    return {
        "REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": path, "QUERY_STRING": "",
        "SERVER_NAME": "0.0.0.0", "SERVER_PORT": "8080", "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_SOFTWARE": "waitress", "REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "example.com:8080",
        "wsgi.url_scheme": "http", "wsgi.input": io.BytesIO(), **values,
    }  # fmt: skip


def task(path: str = "/work", body: bytes = b"", **values: Any) -> dict[str, Any]:
    token = tokens.make(SECRET, queue_id="q", task_id="t1", path=path)
    return request(
        path, REQUEST_METHOD="POST", HTTP_X_CLOUDTASKS_QUEUENAME="q",
        HTTP_X_CLOUDTASKS_TASKNAME="t1", HTTP_X_CLOUDTASKS_TASKRETRYCOUNT="2",
        HTTP_X_AEC_LOCAL_TOKEN=token, CONTENT_LENGTH=str(len(body)),
        **{"wsgi.input": io.BytesIO(body), **values},
    )  # fmt: skip


class Seen:
    """A WSGI app that notes what it is told."""

    def __init__(self, look: Callable[[dict[str, Any]], object] = dict) -> None:
        self.look = look
        self.seen: list[Any] = []

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self.seen.append(self.look(environ))
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"seen"]


def send(app: Any, environ: dict[str, Any]) -> tuple[str, bytes]:
    statuses: list[str] = []
    body = app(environ, lambda status, headers, exc_info=None: statuses.append(status))
    try:
        sent = b"".join(body)
        return statuses[-1], sent
    finally:
        close = getattr(body, "close", None)
        if close is not None:
            close()


def view(environ: dict[str, Any], **options: Any) -> dict[str, Any]:
    app = Seen()
    assert send(wrap_wsgi_app(app, **options), environ) == ("200 OK", b"seen")
    seen: dict[str, Any] = app.seen[0]
    return seen


def texts(environ: dict[str, Any]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if type(value) is str}


def note(value: object) -> None:
    CALLS.append((value, os.environ.get("HTTP_X_APPENGINE_TASKNAME")))


class TestTaskHeaders:
    def test_a_tasks_headers_are_shown_as_app_engines(self) -> None:
        seen = view(task())
        assert seen["HTTP_X_APPENGINE_QUEUENAME"] == "q"
        assert seen["HTTP_X_APPENGINE_TASKNAME"] == "t1"
        assert seen["HTTP_X_APPENGINE_TASKRETRYCOUNT"] == "2"
        assert seen["HTTP_X_CLOUDTASKS_TASKNAME"] == "t1"
        assert seen["REMOTE_ADDR"] == "0.1.0.2"

    def test_the_services_token_is_not_shown_to_the_app(self) -> None:
        assert not [name for name in view(task()) if name.startswith("HTTP_X_AEC_")]

    def test_app_engines_family_from_the_local_service(self) -> None:
        environ = task()
        for name in [name for name in environ if name.startswith("HTTP_X_CLOUDTASKS_")]:
            environ[name.replace("CLOUDTASKS", "APPENGINE")] = environ.pop(name)
        assert view(environ)["HTTP_X_APPENGINE_TASKRETRYCOUNT"] == "2"

    def test_carried_headers_are_put_back(self) -> None:
        seen = view(
            task(
                HTTP_X_AEC_CARRIED_X_APPENGINE_CURRENT_NAMESPACE="ns1",
                HTTP_X_AEC_CARRIED_HOST="worker.example.com",
            )
        )
        assert seen["HTTP_X_APPENGINE_CURRENT_NAMESPACE"] == "ns1"
        assert (seen["HTTP_HOST"], seen["SERVER_NAME"]) == (
            "worker.example.com",
            "worker.example.com",
        )

    @pytest.mark.parametrize(
        "carried", ["X_APPENGINE_TASKNAME", "X_APPENGINE_USER_IP", "AUTHORIZATION", "X_OTHER"]
    )
    def test_a_task_cannot_carry_who_it_is(self, carried: str) -> None:
        seen = view(task(**{f"HTTP_X_AEC_CARRIED_{carried}": "forged"}))
        assert "forged" not in seen.values()

    def test_headers_that_came_beside_cloud_tasks_own_are_a_strangers(self) -> None:
        seen = view(task(HTTP_X_APPENGINE_TASKNAME="forged", HTTP_X_APPENGINE_USER_IS_ADMIN="1"))
        assert seen["HTTP_X_APPENGINE_TASKNAME"] == "t1"
        assert seen["USER_IS_ADMIN"] == "0"

    def test_forged_headers_never_reach_the_app(self) -> None:
        forged = {
            "HTTP_X_APPENGINE_TASKNAME": "t", "HTTP_X_APPENGINE_QUEUENAME": "q",
            "HTTP_X_APPENGINE_USER_IP": "0.1.0.2", "HTTP_X_APPENGINE_CRON": "true",
            "HTTP_X_APPENGINE_USER_IS_ADMIN": "1", "HTTP_X_APPENGINE_CURRENT_NAMESPACE": "victim",
            "HTTP_X_APPENGINE_REMOTE_ADDR": "0.1.0.2", "HTTP_X_APPENGINE_HTTPS": "on",
            "HTTP_X_CLOUDTASKS_TASKNAME": "t", "HTTP_X_CLOUDTASKS_QUEUENAME": "q",
            "HTTP_X_AEC_CARRIED_HOST": "evil", "HTTP_X_AEC_LOCAL_TOKEN": "0" * 64,
        }  # fmt: skip
        for names in ([name] for name in forged):
            seen = view(request(**{name: forged[name] for name in names}))
            assert not {name: forged[name] for name in names}.items() & texts(seen).items()
        seen = view(request(**forged))
        assert not forged.items() & texts(seen).items()
        assert (seen["REMOTE_ADDR"], seen["USER_IS_ADMIN"]) == ("127.0.0.1", "0")
        assert seen["HTTP_HOST"] == "example.com:8080"

    def test_two_wraps_around_one_app_show_the_same(self) -> None:
        app = Seen()
        twice = wrap_wsgi_app(wrap_wsgi_app(app))
        send(twice, task(HTTP_X_AEC_CARRIED_X_APPENGINE_CURRENT_NAMESPACE="ns1"))
        assert app.seen[0]["HTTP_X_APPENGINE_TASKNAME"] == "t1"
        assert app.seen[0]["HTTP_X_APPENGINE_CURRENT_NAMESPACE"] == "ns1"


@pytest.mark.usefixtures("app_engine")
class TestOnAppEngine:
    def test_its_headers_stay_on_ordinary_requests(self) -> None:
        seen = view(
            request(HTTP_X_APPENGINE_COUNTRY="CH", HTTP_X_APPENGINE_USER_IP="192.0.2.7",
                    HTTP_X_APPENGINE_CRON="true", HTTP_X_CLOUDTASKS_TASKNAME="forged")
        )  # fmt: skip
        assert seen["HTTP_X_APPENGINE_COUNTRY"] == "CH"
        assert seen["HTTP_X_APPENGINE_CRON"] == "true"
        assert seen["REMOTE_ADDR"] == "192.0.2.7"
        assert "HTTP_X_CLOUDTASKS_TASKNAME" not in seen

    def test_an_administrators_task_headers_are_removed_alone(self) -> None:
        seen = view(
            request(HTTP_X_APPENGINE_TASKNAME="t", HTTP_X_APPENGINE_QUEUENAME="q",
                    HTTP_X_APPENGINE_USER_IP="192.0.2.7", HTTP_X_APPENGINE_COUNTRY="CH")
        )  # fmt: skip
        assert "HTTP_X_APPENGINE_TASKNAME" not in seen
        assert seen["HTTP_X_APPENGINE_COUNTRY"] == "CH"

    def test_none_stay_when_the_connection_is_not_the_front_ends(self) -> None:
        seen = view(request(HTTP_X_APPENGINE_COUNTRY="CH", REMOTE_ADDR="8.8.8.8"))
        assert "HTTP_X_APPENGINE_COUNTRY" not in seen

    def test_the_connection_is_described_as_the_front_end_saw_it(self) -> None:
        seen = view(
            request(HTTP_X_FORWARDED_PROTO="https", HTTP_X_APPENGINE_HTTPS="on",
                    HTTP_X_APPENGINE_USER_IP="192.0.2.7")
        )  # fmt: skip
        assert (seen["wsgi.url_scheme"], seen["SERVER_PORT"]) == ("https", "443")
        assert (seen["HTTPS"], seen["SERVER_NAME"]) == ("on", "example.com")

    def test_names_without_prefix(self) -> None:
        seen = view(
            request(HTTP_X_APPENGINE_USER_EMAIL="a@example.com", HTTP_X_APPENGINE_USER_IS_ADMIN="1",
                    HTTP_X_APPENGINE_REQUEST_LOG_ID="abcdef", HTTP_X_APPENGINE_USER_IP="192.0.2.7")
        )  # fmt: skip
        assert (seen["USER_EMAIL"], seen["USER_IS_ADMIN"]) == ("a@example.com", "1")
        assert seen["REQUEST_ID_HASH"] == seen["HTTP_X_APPENGINE_REQUEST_ID_HASH"] == "4B8E39EF"

    def test_stop_is_answered_for_the_platform_only(self) -> None:
        wrapped = wrap_wsgi_app(Seen())
        stop = request("/_ah/stop", HTTP_X_APPENGINE_USER_IP="0.1.0.3")
        assert send(wrapped, stop) == ("200 OK", b"ok")
        assert send(wrapped, request("/_ah/stop"))[1] == b"seen"
        assert send(wrapped, request("/_ah/start"))[1] == b"seen"

    def test_a_task_is_one(self) -> None:
        seen = view(
            request(HTTP_X_APPENGINE_TASKNAME="t", HTTP_X_APPENGINE_QUEUENAME="q",
                    HTTP_X_APPENGINE_USER_IP="0.1.0.2")
        )  # fmt: skip
        assert seen[door.VERDICT_KEY].trusted
        assert (seen["HTTP_X_APPENGINE_TASKNAME"], seen["REMOTE_ADDR"]) == ("t", "0.1.0.2")


class TestConnection:
    def test_a_forwarded_scheme_is_not_believed_by_itself(self) -> None:
        assert view(request(HTTP_X_FORWARDED_PROTO="https"))["wsgi.url_scheme"] == "http"

    def test_it_is_behind_a_proxy_that_is_trusted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("APPENGINE_COMPAT_TRUST_PROXY", "1")
        seen = view(request(HTTP_X_FORWARDED_PROTO="https"))
        assert (seen["wsgi.url_scheme"], seen["SERVER_PORT"]) == ("https", "443")

    def test_it_is_on_cloud_run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("K_SERVICE", "app")
        assert view(request(HTTP_X_FORWARDED_PROTO="https"))["wsgi.url_scheme"] == "https"

    def test_another_scheme_is_told_and_left(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setenv("K_SERVICE", "app")
        assert view(request(HTTP_X_FORWARDED_PROTO="gopher"))["wsgi.url_scheme"] == "http"
        assert "gopher" in caplog.text

    @pytest.mark.parametrize(
        ("host", "name"),
        [("a.com", "a.com"), ("a.com:1", "a.com"), ("[::1]:8080", "[::1]"), ("[::1]", "[::1]")],
    )
    def test_the_server_is_named_by_the_host(self, host: str, name: str) -> None:
        assert view(request(HTTP_HOST=host))["SERVER_NAME"] == name


class TestOsEnviron:
    def test_it_shows_the_request(self) -> None:
        app = Seen(lambda environ: dict(os.environ))
        send(wrap_wsgi_app(app), task())
        assert app.seen[0]["HTTP_X_APPENGINE_TASKNAME"] == "t1"
        assert app.seen[0]["PATH_INFO"] == "/work"
        assert app.seen[0]["PATH"] == os.environ["PATH"]
        assert app.seen[0]["AUTH_DOMAIN"] == "gmail.com"
        assert "HTTP_X_APPENGINE_TASKNAME" not in os.environ

    def test_the_next_request_does_not_see_the_first(self) -> None:
        def look(environ: dict[str, Any]) -> dict[str, str]:
            before = dict(os.environ)
            os.environ["WRITTEN"] = "by the request"
            del os.environ["HOME_OF_TEST"]
            assert os.environ["WRITTEN"] == "by the request"
            assert "HOME_OF_TEST" not in os.environ
            assert len(os.environ) == len(list(os.environ))
            return before

        app = Seen(look)
        wrapped = wrap_wsgi_app(app)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HOME_OF_TEST", "here")
            send(wrapped, task())
            send(wrapped, request())
            assert os.environ["HOME_OF_TEST"] == "here"
        assert "HTTP_X_APPENGINE_TASKNAME" in app.seen[0]
        assert "HTTP_X_APPENGINE_TASKNAME" not in app.seen[1]
        assert app.seen[1]["HOME_OF_TEST"] == "here"
        assert "WRITTEN" not in {**app.seen[0], **app.seen[1], **os.environ}

    def test_it_stays_the_mapping_that_it_was(self) -> None:
        held = os.environ

        def look(environ: dict[str, Any]) -> None:
            assert held is os.environ
            assert os.environ.copy()["PATH_INFO"] == "/"
            assert (os.environ | {"A": "b"})["A"] == "b"
            assert os.environ.setdefault("NEW", "x") == "x"
            assert os.environ.pop("NEW") == "x"
            assert os.getenv("NEW") is None
            with pytest.raises(KeyError, match="NEW"):
                del os.environ["NEW"]
            with pytest.raises(TypeError):
                os.environ["A"] = 1  # type: ignore[assignment]
            with pytest.raises(KeyError):
                os.environ["wsgi.input"]  # noqa: SIM112 - the environ's own name
            assert "PATH_INFO" in repr(os.environ)
            assert os.environ.has_key("PATH_INFO")  # type: ignore[attr-defined]

        send(wrap_wsgi_app(Seen(look)), request())

    def test_no_header_becomes_the_proxy_of_http_libraries(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def look(environ: dict[str, Any]) -> tuple[str | None, bool]:
            return os.environ.get("HTTP_PROXY"), "HTTP_PROXY" in list(os.environ)

        app = Seen(look)
        send(wrap_wsgi_app(app), request(HTTP_PROXY="http://evil.example"))
        monkeypatch.setenv("HTTP_PROXY", "http://ours.example")
        send(wrap_wsgi_app(app), request(HTTP_PROXY="http://evil.example"))
        assert app.seen == [(None, False), ("http://ours.example", True)]

    def test_without_legacy_mode_it_shows_nothing(self) -> None:
        app = Seen(lambda environ: ("PATH_INFO" in os.environ, "AUTH_DOMAIN" in environ))
        send(wrap_wsgi_app(app, use_legacy_context_mode=False), request())
        assert app.seen == [(False, False)]

    def test_process_variables_are_visible_in_threads_in_both_modes(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MYVAR", "there")
        for legacy in (True, False):
            app = Seen(lambda environ: os.environ["MYVAR"])
            wrapped = wrap_wsgi_app(app, use_legacy_context_mode=legacy)
            thread = threading.Thread(target=send, args=(wrapped, request()))
            thread.start()
            thread.join()
            assert app.seen == ["there"]


def in_thread(look: Callable[[], object]) -> object:
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(look()))
    thread.start()
    thread.join()
    return found[0]


def facts() -> tuple[str | None, str]:
    return os.environ.get("HTTP_X_APPENGINE_TASKNAME"), namespace_manager.get_namespace()


class TestThreads:
    def in_namespace(self) -> dict[str, Any]:
        return task(HTTP_X_AEC_CARRIED_X_APPENGINE_CURRENT_NAMESPACE="ns1")

    def test_threads_of_a_request_belong_to_it(self) -> None:
        class Subclass(threading.Thread):
            def run(self) -> None:
                self.found = facts()

        def look(environ: dict[str, Any]) -> object:
            own = Subclass()
            own.start()
            own.join()
            with ThreadPoolExecutor(1) as pool:
                return in_thread(facts), own.found, pool.submit(facts).result()

        app = Seen(look)
        send(wrap_wsgi_app(app), self.in_namespace())
        assert app.seen == [(("t1", "ns1"),) * 3]

    def test_a_pool_that_lives_on_shows_each_call_its_own_request(self) -> None:
        with ThreadPoolExecutor(1) as pool:
            app = Seen(lambda environ: pool.submit(facts).result())
            wrapped = wrap_wsgi_app(app)
            send(wrapped, self.in_namespace())
            send(wrapped, request())
            assert app.seen == [("t1", "ns1"), (None, "")]
            assert pool.submit(facts).result() == (None, "")

    def test_threads_outside_of_requests_belong_to_none(self) -> None:
        send(wrap_wsgi_app(Seen()), self.in_namespace())
        assert in_thread(facts) == (None, "")

    def test_the_module_of_threads_is_left_as_it_was(self) -> None:
        start = _thread.start_new_thread
        wrap_wsgi_app(Seen())
        assert sys.modules["threading"] is threading
        assert _thread.start_new_thread is start


class TestNamespace:
    def test_it_holds_for_the_app_and_for_its_body_and_ends_with_them(self) -> None:
        def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
            start_response("200 OK", [])
            yield namespace_manager.get_namespace().encode()
            yield os.environ["HTTP_X_APPENGINE_TASKNAME"].encode()

        environ = task(HTTP_X_AEC_CARRIED_X_APPENGINE_CURRENT_NAMESPACE="ns1")
        assert send(wrap_wsgi_app(app), environ) == ("200 OK", b"ns1t1")
        assert namespace_manager.get_namespace() == ""

    def test_the_empty_one_is_set_too(self) -> None:
        app = Seen(lambda environ: namespace_manager.get_namespace())
        send(wrap_wsgi_app(app), task(HTTP_X_AEC_CARRIED_X_APPENGINE_CURRENT_NAMESPACE=""))
        assert app.seen == [""]

    def test_a_malformed_one_is_no_success(self) -> None:
        environ = task(HTTP_X_AEC_CARRIED_X_APPENGINE_CURRENT_NAMESPACE="not a namespace!")
        with pytest.raises(namespace_manager.BadValueError):
            send(wrap_wsgi_app(Seen()), environ)

    def test_what_a_request_sets_does_not_leak(self) -> None:
        app = Seen(lambda environ: namespace_manager.set_namespace("mine"))
        send(wrap_wsgi_app(app), request())
        assert namespace_manager.get_namespace() == ""


class TestResponses:
    def test_they_are_streamed_and_closed(self) -> None:
        events: list[str] = []

        class Response:
            def __iter__(self) -> Iterator[bytes]:
                for piece in (b"1", b"2"):
                    events.append(f"made {piece.decode()}")
                    yield piece

            def close(self) -> None:
                events.append("closed")

        def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            start_response("200 OK", [])
            return Response()

        body: Any = wrap_wsgi_app(app)(request(), lambda *args: None)  # type: ignore[arg-type]
        assert events == []
        assert next(body) == b"1"
        assert events == ["made 1"]
        assert list(body) == [b"2"]
        body.close()
        assert events == ["made 1", "made 2", "closed"]

    def test_the_servers_own_start_response_is_called(self) -> None:
        calls: list[Any] = []

        def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
            calls.append((status, exc_info))
            return lambda piece: calls.append(piece)

        def app(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
            write = start("500 No", [], ("type", "value", None))
            write(b"written")
            return []

        wrap_wsgi_app(app)(request(), start_response)
        assert calls == [("500 No", ("type", "value", None)), b"written"]

    def test_a_finished_list_is_handed_on_as_it_is(self) -> None:
        response = [b"a", b"b"]
        wrapped = wrap_wsgi_app(lambda environ, start: response)
        assert wrapped(request(), lambda *args: None) is response  # type: ignore[arg-type]

    def test_a_file_is_left_to_the_server(self) -> None:
        class FileWrapper:
            def __init__(self, file: Any) -> None:
                self.file = file

            def __iter__(self) -> Iterator[bytes]:
                return iter(self.file)

        wrapped = wrap_wsgi_app(lambda environ, start: FileWrapper(io.BytesIO(b"x")))
        body = wrapped(request(**{"wsgi.file_wrapper": FileWrapper}), lambda *args: None)  # type: ignore[arg-type]
        assert type(body) is FileWrapper

    def test_errors_are_logged_and_raised_on(self, caplog: pytest.LogCaptureFixture) -> None:
        def fails(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            raise LookupError("the app's own")

        with pytest.raises(LookupError, match="the app's own"):
            send(wrap_wsgi_app(fails), request())
        (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
        assert record.name == "root"
        assert record.exc_info is not None

    def test_the_error_of_a_task_names_it(
        self, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(door, "_tests_trusted", True)

        def fails(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            raise LookupError("the app's own")

        task = {"HTTP_X_APPENGINE_TASKNAME": "t1", "HTTP_X_APPENGINE_QUEUENAME": "mail"}
        with pytest.raises(LookupError):
            send(wrap_wsgi_app(fails), request("/work", REMOTE_ADDR="0.1.0.2", **task))
        assert "Task t1 of queue mail raised an exception at /work" in caplog.text

    def test_errors_of_a_lazy_body_too(self, caplog: pytest.LogCaptureFixture) -> None:
        def fails(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
            start_response("200 OK", [])
            yield b"1"
            raise LookupError("late")

        with pytest.raises(LookupError, match="late"):
            send(wrap_wsgi_app(fails), request())
        assert "late" in caplog.text


class TestDeferred:
    def payload(self) -> bytes:
        return pickle.dumps((note, ("ran",), {}))

    def test_it_is_served_when_asked_for(self) -> None:
        wrapped = wrap_wsgi_app(Seen(), use_deferred=True)
        environ = task("/_ah/queue/deferred", self.payload())
        assert send(wrapped, environ) == ("200 OK", b"Success")
        assert CALLS == [("ran", "t1")]

    @pytest.mark.parametrize(
        "path",
        [
            "/_ah/queue/deferred/",
            "/_ah/queue/deferred_x",
            "/_ah/queue/deferred2",
            "/_AH/queue/deferred",
        ],
    )
    def test_at_exactly_its_path(self, path: str) -> None:
        assert send(wrap_wsgi_app(Seen(), use_deferred=True), task(path))[1] == b"seen"

    def test_not_when_not_asked_for(self) -> None:
        assert send(wrap_wsgi_app(Seen()), task("/_ah/queue/deferred"))[1] == b"seen"

    def test_nobody_else_runs_anything(self) -> None:
        wrapped = wrap_wsgi_app(Seen(), use_deferred=True)
        environ = task("/_ah/queue/deferred", self.payload())
        del environ["HTTP_X_AEC_LOCAL_TOKEN"]
        status, body = send(wrapped, environ)
        assert status.startswith("401")
        assert body.startswith(b"AEC-NO-CREDENTIALS")
        assert CALLS == []

    def test_a_custom_route_is_not_verified_twice(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from google.appengine.ext import deferred

        def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            assert "HTTP_X_AEC_LOCAL_TOKEN" not in environ
            text, status, headers = deferred.application.post(environ)
            start_response(f"{status.value} {status.phrase}", headers)
            return [text.encode()]

        assert send(wrap_wsgi_app(app), task("/custom/path", self.payload()))[1] == b"Success"
        assert CALLS == [("ran", "t1")]

    def test_a_custom_route_without_the_wrap_verifies_itself(self) -> None:
        from google.appengine.ext import deferred

        environ = task("/custom/path", self.payload())
        assert deferred.application.post(environ)[1].value == 200
        forged = request("/custom/path", **{"wsgi.input": io.BytesIO(self.payload())})
        assert deferred.application.post(forged)[1].value == 401
        assert len(CALLS) == 1


class TestStart:
    def test_several_apps_in_one_process(self) -> None:
        first, second = Seen(), Seen()
        wrapped = [wrap_wsgi_app(first), wrap_wsgi_app(second, use_deferred=True)]
        for app in wrapped:
            send(app, task())
        assert [app.seen[0]["HTTP_X_APPENGINE_TASKNAME"] for app in (first, second)] == ["t1"] * 2

    def test_wrong_settings_are_told_at_start(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("APPENGINE_COMPAT_TRUST_PROXY", "perhaps")
        with pytest.raises(ConfigError, match="APPENGINE_COMPAT_TRUST_PROXY"):
            wrap_wsgi_app(Seen())

    def test_a_place_for_tasks_is_asked_for_at_defer_only(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("APPENGINE_COMPAT_BACKEND")
        monkeypatch.setenv("K_SERVICE", "app")
        wrap_wsgi_app(Seen())
