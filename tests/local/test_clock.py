"""A stepped clock misses no waiter."""

from __future__ import annotations

import threading

import pytest

from appengine_compat.local.clock import ManualClock, SystemClock


def waiter(clock, seconds):
    """Start a thread that waits so long by the clock; return the thread."""
    until = clock.now() + seconds

    def wait():
        condition = threading.Condition()
        with condition:
            while clock.now() < until:
                clock.wait(condition, until)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def test_a_wait_ends_when_the_clock_has_moved_far_enough():
    clock = ManualClock()
    thread = waiter(clock, 10)
    clock.advance(9)
    assert thread.is_alive()
    clock.advance(1)
    thread.join(10)
    assert not thread.is_alive()


def test_no_wakeup_is_missed_however_the_threads_interleave():
    clock = ManualClock()
    for _ in range(300):
        # The thread may look at the time before, while or after the clock moves.
        thread = waiter(clock, 1)
        clock.advance(1)
        thread.join(10)
        assert not thread.is_alive()


def test_a_wait_for_a_moment_that_has_passed_returns_at_once():
    for clock in (ManualClock(), SystemClock()):
        condition = threading.Condition()
        with condition:
            clock.wait(condition, clock.now() - 1)


@pytest.mark.parametrize("clock", [ManualClock(), SystemClock()])
def test_a_notification_ends_a_wait_without_a_moment(clock):
    condition = threading.Condition()
    is_told = False

    def wait():
        with condition:
            while not is_told:
                clock.wait(condition, None)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    with condition:
        is_told = True
        condition.notify_all()
    thread.join(10)
    assert not thread.is_alive()


def test_a_clock_is_not_turned_back():
    with pytest.raises(ValueError, match="not turned back"):
        ManualClock().advance(-1)
