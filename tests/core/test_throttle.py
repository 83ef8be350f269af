"""A queue slows down under overload, and comes back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appengine_compat.core import throttle
from appengine_compat.core.throttle import Throttle

NOW = 1_790_000_000.0
LIMITS = st.just(0.0) | st.floats(0.01, 500.0)


def test_a_queue_that_nobody_slows_has_its_full_rate():
    assert throttle.rate_at(None, 500.0, NOW) == 500.0
    assert throttle.burst_at(100, 500.0, 500.0) == 100


def test_overload_halves_the_rate_and_what_may_burst():
    slowed = throttle.slowed(None, 500.0, NOW)
    assert throttle.rate_at(slowed, 500.0, NOW) == 250.0
    assert throttle.burst_at(100, 250.0, 500.0) == 50


def test_overload_that_lasts_goes_on_halving_down_to_one_a_second():
    slowed = None
    rates = []
    for second in range(10):
        slowed = throttle.slowed(slowed, 8.0, NOW + second * 1.0)
        rates.append(round(slowed.rate, 6))
    assert rates[0] == 4.0
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == 1.0


def test_replies_of_one_second_count_once():
    slowed = throttle.slowed(None, 500.0, NOW)
    for _ in range(100):
        slowed = throttle.slowed(slowed, 500.0, NOW + 0.5)
    assert slowed.rate == 250.0


def test_the_rate_doubles_every_ten_seconds_until_the_limit_holds_again():
    slowed = Throttle(rate=10.0, since=NOW)
    assert throttle.rate_at(slowed, 35.0, NOW + 10) == 20.0
    assert throttle.rate_at(slowed, 35.0, NOW + 20) == 35.0
    assert not throttle.is_over(slowed, 35.0, NOW + 10)
    assert throttle.is_over(slowed, 35.0, NOW + 20)


def test_a_rate_below_one_a_second_is_not_raised_by_being_slowed():
    slowed = throttle.slowed(None, 1 / 60, NOW)
    assert throttle.rate_at(slowed, 1 / 60, NOW) == 1 / 60


@pytest.mark.parametrize("limit", [0.0, 0.001])
def test_a_limit_that_is_raised_after_an_overload_comes_to_hold(limit):
    slowed = throttle.slowed(None, limit, NOW)
    assert throttle.rate_at(slowed, limit, NOW) == limit
    assert throttle.rate_at(slowed, 16.0, NOW) == 1.0
    assert throttle.rate_at(slowed, 16.0, NOW + 40) == 16.0
    assert throttle.is_over(slowed, 16.0, NOW + 40)


def test_retry_after_holds_the_queue_and_the_longest_of_them_holds():
    slowed = throttle.slowed(None, 500.0, NOW, 30.0)
    slowed = throttle.slowed(slowed, 500.0, NOW + 0.1, 5.0)
    assert slowed.held_until == NOW + 30
    assert not throttle.is_over(slowed, 500.0, NOW + 29)


@pytest.mark.parametrize("asked", [1e9, float("inf")])
def test_no_target_can_stop_a_queue_for_good(asked):
    assert throttle.slowed(None, 500.0, NOW, asked).held_until == NOW + 3600


@given(LIMITS, st.lists(st.tuples(st.floats(0, 100), st.floats(0, 1e5)), max_size=30))
def test_the_rate_stays_positive_and_within_the_limit_and_comes_back(limit, replies):
    now, slowed = NOW, None
    for pause, retry_after in replies:
        now += pause
        slowed = throttle.slowed(slowed, limit, now, retry_after)
        assert min(limit, 0.01) <= throttle.rate_at(slowed, limit, now) <= limit
        assert slowed.held_until <= now + throttle.LONGEST_HOLD_SECONDS
    assert slowed is None or throttle.is_over(slowed, limit, now + 4000)
