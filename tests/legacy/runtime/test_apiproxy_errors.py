"""The errors that old code catches can be imported, and are what it takes them for."""

from __future__ import annotations

import pytest
from google.appengine.runtime import DeadlineExceededError, apiproxy_errors, context


def test_every_error_is_an_apiproxy_error() -> None:
    errors = [one for one in vars(apiproxy_errors).values() if isinstance(one, type)]
    assert len(errors) == 14
    assert all(issubclass(error, apiproxy_errors.Error) for error in errors)


def test_the_deadline_of_a_request_is_not_caught_by_except_exception() -> None:
    assert not issubclass(DeadlineExceededError, Exception)


def test_a_services_own_error_tells_code_and_words() -> None:
    error = apiproxy_errors.ApplicationError(3, "words")
    assert (error.application_error, error.error_detail) == (3, "words")
    assert str(error) == "ApplicationError: 3 words"


def test_the_context_is_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_HOST", "example.com")
    assert context.get("HTTP_HOST") == "example.com"
    monkeypatch.delenv("HTTP_HOST")
    assert context.get("HTTP_HOST", "other") == "other"
