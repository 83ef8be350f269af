"""A token is believed for the task, the queue and the path that it was made for, and no other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appengine_compat.local import tokens

SECRET = b"0123456789abcdef0123456789abcdef"
OTHER = b"fedcba9876543210fedcba9876543210"
TASK = {"queue_id": "default", "task_id": "17", "path": "/_ah/queue/deferred"}


@pytest.fixture(autouse=True)
def only_one_secret(monkeypatch):
    monkeypatch.setattr(tokens, "_secrets", ())
    tokens.register_secret(SECRET)


def test_a_token_of_a_registered_secret_is_genuine():
    assert tokens.is_genuine(tokens.make(SECRET, **TASK), **TASK)


def test_a_token_of_another_secret_is_not():
    assert not tokens.is_genuine(tokens.make(OTHER, **TASK), **TASK)


def test_every_registered_secret_is_believed():
    tokens.register_secret(OTHER)
    assert tokens.is_genuine(tokens.make(OTHER, **TASK), **TASK)
    assert tokens.is_genuine(tokens.make(SECRET, **TASK), **TASK)


@pytest.mark.parametrize(
    "change", [{"queue_id": "admin"}, {"task_id": "18"}, {"path": "/admin"}, {"path": ""}]
)
def test_a_token_holds_for_nothing_else(change):
    assert not tokens.is_genuine(tokens.make(SECRET, **TASK), **{**TASK, **change})


@pytest.mark.parametrize("token", ["", "0" * 64, "é", "\udcff", "x" * 10_000])
def test_garbage_is_refused_without_an_error(token):
    assert not tokens.is_genuine(token, **TASK)


def test_nothing_is_believed_before_a_secret_is_registered(monkeypatch):
    monkeypatch.setattr(tokens, "_secrets", ())
    assert not tokens.is_genuine(tokens.make(SECRET, **TASK), **TASK)


def test_a_short_secret_is_refused():
    with pytest.raises(ValueError, match="16 is the least"):
        tokens.register_secret(b"short")


@given(st.tuples(st.text(), st.text(), st.text()), st.tuples(st.text(), st.text(), st.text()))
def test_two_tasks_never_share_a_token(first, second):
    names = ("queue_id", "task_id", "path")
    one = tokens.make(SECRET, **dict(zip(names, first, strict=True)))
    two = tokens.make(SECRET, **dict(zip(names, second, strict=True)))
    assert (one == two) == (first == second)
