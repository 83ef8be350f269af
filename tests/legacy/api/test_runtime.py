"""What code is told when App Engine ends its instance."""

from __future__ import annotations

from typing import Any

import pytest
from google.appengine.api import runtime, wrap_wsgi_app


@pytest.fixture(autouse=True)
def running(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APPENGINE_COMPAT_BACKEND", "cloudtasks")
    monkeypatch.setattr(runtime, "_is_shutting_down", False)
    monkeypatch.setattr(runtime, "_hook", None)


def ask(path: str, address: str) -> bytes:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [b"the app"]

    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "REMOTE_ADDR": address}
    return b"".join(wrap_wsgi_app(app)(environ, lambda *head: None))


def test_the_platforms_stop_begins_the_shutdown_and_calls_the_hook() -> None:
    calls: list[bool] = []
    assert runtime.set_shutdown_hook(lambda: calls.append(runtime.is_shutting_down())) is None
    assert not runtime.is_shutting_down()
    assert ask("/_ah/stop", "0.1.0.3") == b"ok"
    assert runtime.is_shutting_down()
    assert calls == [True]


def test_a_stop_of_anyone_else_reaches_the_app() -> None:
    assert ask("/_ah/stop", "192.0.2.7") == b"the app"
    assert not runtime.is_shutting_down()


def test_what_the_hook_raises_fails_the_request_and_the_shutdown_goes_on() -> None:
    def fails() -> None:
        raise LookupError("the hook's own")

    runtime.set_shutdown_hook(fails)
    with pytest.raises(LookupError, match="the hook's own"):
        ask("/_ah/stop", "0.1.0.3")
    assert runtime.is_shutting_down()


def test_a_hook_replaces_the_one_before() -> None:
    assert runtime.set_shutdown_hook(print) is None
    assert runtime.set_shutdown_hook(None) is print
    assert ask("/_ah/stop", "0.1.0.3") == b"ok"


def test_a_hook_must_be_callable() -> None:
    with pytest.raises(TypeError, match="hook must be callable, got <class 'int'>"):
        runtime.set_shutdown_hook(1)  # type: ignore[arg-type]
