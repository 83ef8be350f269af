"""The namespace, where appengine-compat stands alone."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Iterator

import pytest
from google.appengine.api import namespace_manager


@pytest.fixture(autouse=True)
def no_namespace() -> Iterator[None]:
    yield
    namespace_manager.set_namespace(None)


def test_the_namespace_that_was_set_holds() -> None:
    assert namespace_manager.get_namespace() == ""
    namespace_manager.set_namespace("a-B_c.9")
    assert namespace_manager.get_namespace() == "a-B_c.9"
    namespace_manager.set_namespace(None)
    assert namespace_manager.get_namespace() == ""


@pytest.mark.parametrize("namespace", ["a b", "x" * 101, "a\n", "é", "a/b"])
def test_what_is_no_namespace_is_refused(namespace: str) -> None:
    with pytest.raises(namespace_manager.BadValueError, match="does not match regex"):
        namespace_manager.set_namespace(namespace)
    assert namespace_manager.get_namespace() == ""


def test_a_namespace_is_text() -> None:
    with pytest.raises(namespace_manager.BadValueError, match="should be a string"):
        namespace_manager.validate_namespace(5)
    with pytest.raises(KeyError):
        namespace_manager.validate_namespace("a b", KeyError)


def test_a_namespace_belongs_to_its_context_and_thread() -> None:
    contextvars.copy_context().run(namespace_manager.set_namespace, "inner")
    assert namespace_manager.get_namespace() == ""
    namespace_manager.set_namespace("outer")
    seen = []
    context = contextvars.Context()
    thread = threading.Thread(
        target=context.run, args=(lambda: seen.append(namespace_manager.get_namespace()),)
    )
    thread.start()
    thread.join()
    assert seen == [""]


def test_the_google_apps_domain_comes_with_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HTTP_X_APPENGINE_DEFAULT_NAMESPACE", raising=False)
    assert namespace_manager.google_apps_namespace() is None
    monkeypatch.setenv("HTTP_X_APPENGINE_DEFAULT_NAMESPACE", "example.com")
    assert namespace_manager.google_apps_namespace() == "example.com"
