"""Threads that belong to no request, though one starts them."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from typing import Any

import pytest
from google.appengine.api import background_thread, namespace_manager, wrap_wsgi_app

SECONDS = 20


def within_a_request(do: Callable[[], object]) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        namespace_manager.set_namespace("ns1")
        assert os.environ["PATH_INFO"] == "/begin"
        do()
        start_response("200 OK", [])
        return []

    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/begin", "REMOTE_ADDR": "127.0.0.1"}
    list(wrap_wsgi_app(app)(environ, lambda *head: None))


@pytest.fixture(autouse=True)
def no_dispatching(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APPENGINE_COMPAT_BACKEND", "cloudtasks")


def test_it_calls_with_the_arguments_and_tells_its_identifier() -> None:
    told: queue.Queue[tuple[object, int]] = queue.Queue()

    def work(first: str, *, second: int) -> None:
        told.put(((first, second), threading.get_ident()))

    ident = background_thread.start_new_background_thread(work, ["a"], {"second": 2})
    assert told.get(timeout=SECONDS) == (("a", 2), ident)


@pytest.mark.parametrize("is_class_used", [True, False])
def test_it_sees_nothing_of_the_request_that_begins_it(is_class_used: bool) -> None:
    told: queue.Queue[tuple[object, ...]] = queue.Queue()

    def look() -> None:
        told.put((namespace_manager.get_namespace(), os.environ.get("PATH_INFO")))

    def begin() -> None:
        if is_class_used:
            background_thread.BackgroundThread(target=look, daemon=True).start()
        else:
            background_thread.start_new_background_thread(look, ())

    within_a_request(begin)
    assert told.get(timeout=SECONDS) == ("", None)


def test_code_that_catches_the_platforms_refusals_finds_them() -> None:
    refusals = (
        background_thread.FrontendsNotSupported,
        background_thread.BackgroundThreadLimitReachedError,
    )
    assert all(issubclass(each, background_thread.Error) for each in refusals)
