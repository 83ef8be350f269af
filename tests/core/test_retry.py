"""When a failed task is tried again, and when it is given up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appengine_compat.core.model import UNLIMITED, RetryConfig, RetryOverrides
from appengine_compat.core.retry import backoff_seconds, effective_retry_config, is_exhausted

# The worked schedules of Google's own pages (and what follows from the same formula).
SCHEDULES = [
    (RetryConfig(min_backoff_seconds=10, max_backoff_seconds=300, max_doublings=3),
     [10, 20, 40, 80, 160, 240, 300, 300]),
    (RetryConfig(min_backoff_seconds=10, max_backoff_seconds=200, max_doublings=0),
     [10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120, 130, 140, 150, 160, 170, 180, 190, 200,
      200, 200]),
    (RetryConfig(),
     [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 102.4, 204.8, 409.6, 819.2, 1638.4,
      3276.8, 3600, 3600]),
    (RetryConfig(min_backoff_seconds=1, max_backoff_seconds=10, max_doublings=2),
     [1, 2, 4, 8, 10, 10]),
    (RetryConfig(min_backoff_seconds=5, max_backoff_seconds=5), [5, 5, 5, 5]),
    (RetryConfig(min_backoff_seconds=0, max_backoff_seconds=3600), [0, 0, 0, 0]),
]  # fmt: skip


@pytest.mark.parametrize(("config", "waits"), SCHEDULES)
def test_the_worked_schedules_hold_exactly(config, waits):
    assert [backoff_seconds(config, retry) for retry in range(1, len(waits) + 1)] == waits


def test_a_hundred_attempts_by_default_take_three_and_a_half_days():
    config = RetryConfig()
    total = sum(backoff_seconds(config, retry) for retry in range(1, 100))
    assert total == pytest.approx(305_353.5)


def test_the_ninth_dispatch_of_the_recorded_log_waited_25_6_seconds():
    assert backoff_seconds(RetryConfig(), 9) == 25.6


def test_retries_are_counted_from_one():
    with pytest.raises(ValueError, match="counted from 1"):
        backoff_seconds(RetryConfig(), 0)


configs = st.builds(
    RetryConfig,
    min_backoff_seconds=st.floats(0, 1e6),
    max_backoff_seconds=st.floats(0, 1e6),
    max_doublings=st.integers(0, 10_000),
)


@given(configs, st.integers(1, 10**6))
def test_no_wait_is_longer_than_max_backoff_nor_shorter_than_the_one_before(config, retry):
    wait = backoff_seconds(config, retry)
    assert 0 <= wait <= config.max_backoff_seconds
    assert wait <= backoff_seconds(config, retry + 1)


@given(configs)
def test_the_first_wait_is_min_backoff_where_max_allows_it(config):
    expected = min(config.min_backoff_seconds, config.max_backoff_seconds)
    assert backoff_seconds(config, 1) == expected


@pytest.mark.parametrize(
    ("max_attempts", "max_duration", "attempts", "age", "dropped"),
    [
        (3, 0, 2, 1e9, False),
        (3, 0, 3, 0, True),
        (1, 0, 1, 0, True),
        (UNLIMITED, 60, 10**9, 60, False),
        (UNLIMITED, 60, 1, 60.001, True),
        # Both limits: tried again while either still allows it.
        (3, 60, 3, 60, False),
        (3, 60, 100, 59, False),
        (3, 60, 2, 1e9, False),
        (3, 60, 3, 61, True),
        (UNLIMITED, 0, 10**9, 1e12, False),
    ],
)
def test_when_a_task_is_dropped(max_attempts, max_duration, attempts, age, dropped):
    config = RetryConfig(max_attempts=max_attempts, max_retry_duration_seconds=max_duration)
    assert is_exhausted(config, attempts, age) is dropped


@given(st.integers(1, 100), st.floats(1, 1e5), st.integers(1, 200), st.floats(0, 2e5))
def test_with_both_limits_both_must_be_passed(limit, duration, attempts, age):
    both = RetryConfig(max_attempts=limit, max_retry_duration_seconds=duration)
    by_count = RetryConfig(max_attempts=limit)
    by_age = RetryConfig(max_attempts=UNLIMITED, max_retry_duration_seconds=duration)
    assert is_exhausted(both, attempts, age) == (
        is_exhausted(by_count, attempts, age) and is_exhausted(by_age, attempts, age)
    )


def test_a_tasks_own_settings_stand_over_the_queues_field_by_field():
    queue = RetryConfig(max_attempts=5, min_backoff_seconds=2, max_doublings=3)
    task = RetryOverrides(max_attempts=7, max_retry_duration_seconds=9)
    assert effective_retry_config(queue, task) == RetryConfig(
        max_attempts=7, max_retry_duration_seconds=9, min_backoff_seconds=2, max_doublings=3
    )
    assert effective_retry_config(queue, None) is queue


@pytest.mark.parametrize(
    ("overrides", "bounds"),
    [
        (RetryOverrides(min_backoff_seconds=4000), (4000, 4000)),
        (RetryOverrides(max_backoff_seconds=0.05), (0.05, 0.05)),
    ],
)
def test_one_bound_that_crosses_the_other_takes_it_along(overrides, bounds):
    merged = effective_retry_config(RetryConfig(), overrides)
    assert (merged.min_backoff_seconds, merged.max_backoff_seconds) == bounds
