"""The published schedules of retries, to the digit, over real HTTP on a clock that tests step."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from appengine_compat.core.model import HttpRequest, Queue, RetryConfig, Task
from appengine_compat.errors import ApiError
from appengine_compat.local.delivery import Outcome
from appengine_compat.local.http_transport import HttpTransport
from appengine_compat.local.service_addresses import ServiceAddresses
from appengine_compat.local.store import Store
from tests.local import raw_target
from tests.local.conftest import QUEUE, Local
from tests.local.raw_target import Raw

NAME = str(QUEUE)
FAILS = b"HTTP/1.1 500 Word\r\nContent-Length: 0\r\n\r\n"
DOUBLED_16_TIMES = [
    0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 102.4, 204.8, 409.6, 819.2, 1638.4, 3276.8,
]  # fmt: skip


def backoff(least: float, most: float, doublings: int, **limits) -> RetryConfig:
    return RetryConfig(
        min_backoff_seconds=least, max_backoff_seconds=most, max_doublings=doublings, **limits
    )


class Failing:
    """A local service whose tasks all fail at a target over HTTP."""

    def __init__(self, target: Raw) -> None:
        self.target = target
        self.local = Local(Store(None))
        self.transport = HttpTransport(ServiceAddresses())
        self.local.service.start(self.transport, threads=2)

    def begin(self, config: RetryConfig) -> str:
        self.local.service.put_queues([Queue(name=NAME, retry_config=config)])
        request = HttpRequest(url=self.target.url + "/work")
        name = self.local.service.create_task(NAME, Task(name="", request=request)).name
        self.local.settle()
        return name

    def attempts(self) -> int:
        return len(self.target.requests)


@pytest.fixture
def failing() -> Iterator[Failing]:
    with raw_target.serving() as target:
        target.answers = [FAILS] * 200
        failing = Failing(target)
        yield failing
        assert failing.local.service.close(20) == []
        failing.transport.close()


@pytest.mark.parametrize(
    ("config", "waits"),
    [
        (backoff(10, 300, 3), [10, 20, 40, 80, 160, 240, 300, 300]),
        (backoff(10, 200, 0), [*range(10, 201, 10), 200]),
        (RetryConfig(), [*DOUBLED_16_TIMES, 3600, 3600]),
        (backoff(1, 10, 2), [1, 2, 4, 8, 10, 10]),
        (backoff(5, 5, 16), [5, 5, 5]),
        (backoff(0.1, 3600, 8), [*DOUBLED_16_TIMES[:9], 51.2, 76.8, 102.4]),
    ],
    ids=["doubled, then linear", "linear", "defaults", "short", "constant", "few doublings"],
)
def test_12_13_the_wait_before_each_retry(failing, config, waits):
    name = failing.begin(config)
    for attempts, wait in enumerate(waits, 1):
        task = failing.local.service.get_task(name)
        assert (task.schedule_time - task.last_attempt.response_time).total_seconds() == wait
        failing.local.advance(wait - 0.000_5)
        assert failing.attempts() == attempts
        failing.local.advance(0.000_5)
        # Steps of the clock are floats, and so may fall short of a moment by a millionth.
        failing.local.advance(0.000_001)
        assert failing.attempts() == attempts + 1


def test_15_the_defaults_allow_99_retries_in_three_and_a_half_days(failing):
    name = failing.begin(RetryConfig())
    waited = 0.0
    for _ in range(99):
        task = failing.local.service.get_task(name)
        wait = (task.schedule_time - task.last_attempt.response_time).total_seconds()
        waited += wait
        failing.local.advance(wait + 0.000_001)
    assert failing.attempts() == 100
    assert waited == pytest.approx(305_353.5)
    assert failing.local.events[-1].outcome is Outcome.FAILED
    with pytest.raises(ApiError, match="The task no longer exists"):
        failing.local.service.get_task(name)


@pytest.mark.parametrize(
    ("limits", "attempts"),
    [
        ({"max_attempts": 1}, 1),
        ({"max_attempts": 3}, 3),
        # Attempts are at 0, 10, 20 and 30 seconds; an age equal to the limit is within it.
        ({"max_attempts": -1, "max_retry_duration_seconds": 20}, 4),
        ({"max_attempts": -1, "max_retry_duration_seconds": 19}, 3),
        ({"max_attempts": 2, "max_retry_duration_seconds": 20}, 4),
        ({"max_attempts": 5, "max_retry_duration_seconds": 5}, 5),
    ],
    ids=["one", "count", "age is the limit", "age", "both: age is longer", "both: count is longer"],
)
def test_14_15_when_a_task_is_dropped(failing, limits, attempts):
    failing.begin(backoff(10, 10, 16, **limits))
    for _ in range(7):
        failing.local.advance(10)
    assert failing.attempts() == attempts
    assert failing.local.events[-1].outcome is Outcome.FAILED


def test_without_limits_a_task_is_retried_until_its_queue_lets_go_of_it(failing, caplog):
    name = failing.begin(backoff(86_400, 86_400, 16, max_attempts=-1))
    for _ in range(30):
        failing.local.advance(86_400)
    assert failing.attempts() == 31
    assert failing.local.service.get_task(name).dispatch_count == 31
    failing.local.advance(86_400)
    assert failing.attempts() == 31
    assert "older than its queue retains tasks" in caplog.text
    with pytest.raises(ApiError, match="The task no longer exists"):
        failing.local.service.get_task(name)
