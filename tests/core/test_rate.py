"""A queue never dispatches faster than its token bucket allows."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appengine_compat.core import rate

rates = st.floats(1 / 86400, 500)
bursts = st.integers(1, 500)


def test_a_queue_that_rested_may_dispatch_its_burst_at_once_and_no_more():
    bucket = rate.full_bucket(5, 0.0)
    assert rate.available(bucket) == 5
    assert rate.available(rate.taken(bucket, 5)) == 0


def test_a_rate_below_one_a_second_gives_a_token_in_its_time():
    empty = rate.taken(rate.full_bucket(1, 0.0), 1)
    assert rate.seconds_until_token(empty, 1 / 60) == pytest.approx(60)
    assert rate.available(rate.refilled(empty, 1 / 60, 1, 59.9)) == 0
    assert rate.available(rate.refilled(empty, 1 / 60, 1, 60.0)) == 1


def test_a_rate_of_nought_never_gives_one():
    assert rate.seconds_until_token(rate.taken(rate.full_bucket(1, 0), 1), 0) == math.inf


def test_a_clock_that_steps_back_gives_nothing_and_takes_nothing():
    bucket = rate.taken(rate.full_bucket(5, 100.0), 3)
    assert rate.refilled(bucket, 10, 5, 50.0).tokens == 2


def test_more_than_there_is_cannot_be_taken():
    with pytest.raises(ValueError, match="6 tokens asked for"):
        rate.taken(rate.full_bucket(5, 0), 6)


@pytest.mark.parametrize(("speed", "burst"), [(500, 100), (5, 10), (1, 10), (0.1, 10)])
def test_the_burst_that_the_service_derives(speed, burst):
    assert rate.burst_for_rate(speed) == burst


@given(rates, bursts, st.lists(st.floats(0, 100), max_size=40))
def test_over_any_time_no_more_than_burst_and_rate_are_dispatched(speed, burst, pauses):
    bucket, now, dispatched = rate.full_bucket(burst, 0.0), 0.0, 0
    for pause in pauses:
        now += pause
        bucket = rate.refilled(bucket, speed, burst, now)
        count = rate.available(bucket)
        bucket = rate.taken(bucket, count)
        dispatched += count
        assert dispatched <= burst + speed * now + 1e-6 * (1 + dispatched)


@given(rates, bursts, st.floats(0, 1))
def test_the_wait_for_a_token_is_long_enough_when_it_is_over(speed, burst, tokens):
    bucket = rate.Bucket(tokens, 0.0)
    wait = rate.seconds_until_token(bucket, speed)
    assert rate.available(rate.refilled(bucket, speed, burst, wait)) >= 1
