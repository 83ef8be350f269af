"""What a reply means, as far as it was ever recorded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appengine_compat.core import outcome
from appengine_compat.core.headers import Family


@given(st.integers(-1, 999))
def test_only_2xx_is_a_success(status):
    assert outcome.is_success(status) == (200 <= status < 300)
    assert (outcome.canonical_code(status) == 0) == outcome.is_success(status)
    assert outcome.is_reply(status) == (status > 0)


@pytest.mark.parametrize(
    ("status", "code"),
    [(500, 13), (502, 13), (504, 4), (403, 7), (404, 5), (405, 9), (outcome.NO_REPLY, 2),
     (outcome.TIMED_OUT, 4), (418, 9), (503, 14), (429, 8), (302, 2)],
)  # fmt: skip
def test_the_canonical_code_of_a_status(status, code):
    assert outcome.canonical_code(status) == code


def test_the_recorded_texts():
    assert outcome.status_message(Family.HTTP, 500) == "INTERNAL(13): HTTP status code 500"
    assert outcome.status_message(Family.HTTP, outcome.NO_REPLY) == (
        "UNKNOWN(2): HTTP status code 0"
    )
    assert outcome.status_message(Family.APP_ENGINE, 404) == (
        "NOT_FOUND(5): Instance Unavailable. HTTP status code 404"
    )
    assert outcome.status_message(Family.HTTP, 204) == ""


@pytest.mark.parametrize(
    ("family", "status", "expected"),
    [(Family.HTTP, 429, True), (Family.APP_ENGINE, 429, False), (Family.HTTP, 503, True),
     (Family.APP_ENGINE, 503, True), (Family.HTTP, 500, False)],
)  # fmt: skip
def test_what_slows_a_queue_down(family, status, expected):
    assert outcome.throttles(family, status) is expected
