"""429, 503 and Retry-After slow a queue down; its settings stay what they are."""

from __future__ import annotations

import pytest

from appengine_compat.core.model import HttpRequest, Queue, RateLimits, RetryConfig, Task
from appengine_compat.local import housekeeping
from appengine_compat.local.delivery import Reply
from appengine_compat.local.store import Store
from appengine_compat.local.tombstones import Windows
from tests.local.conftest import QUEUE, Local

NAME = str(QUEUE)


def add_http(local: Local, count: int = 1) -> None:
    for _ in range(count):
        request = HttpRequest(url="http://localhost:1/x")
        local.service.create_task(NAME, Task(name="", request=request))


def effective_rate(local: Local) -> float:
    return local.service.queue_stats(NAME).effective_execution_rate


@pytest.mark.parametrize("status", [429, 503])
def test_an_overloaded_http_target_halves_the_rate_in_effect(local, status):
    local.targets.answer = lambda _: status
    add_http(local)
    local.start()
    local.settle()
    assert effective_rate(local) == 250
    assert local.service.get_queue(NAME).rate_limits.max_dispatches_per_second == 500


@pytest.mark.parametrize(("status", "rate"), [(503, 250), (429, 500), (500, 500)])
def test_an_app_engine_service_slows_its_queue_by_503_alone(local, status, rate):
    local.targets.answer = lambda _: status
    local.add()
    local.start()
    local.settle()
    assert effective_rate(local) == rate


def test_ordinary_failures_slow_nothing(local):
    local.targets.answer = lambda _: 500
    add_http(local, 5)
    local.start()
    local.settle()
    assert effective_rate(local) == 500


def test_retry_after_holds_the_whole_queue(local):
    local.targets.answer = lambda _: Reply(503, retry_after_seconds=30)
    add_http(local)
    local.start()
    local.settle()
    local.targets.answer = lambda _: 200
    add_http(local)
    local.advance(29.9)
    assert len(local.targets.deliveries) == 1
    local.advance(0.1)
    assert len(local.targets.deliveries) == 3


def test_retry_after_of_any_other_reply_holds_nothing(local):
    local.targets.answer = lambda _: Reply(500, retry_after_seconds=30)
    add_http(local)
    local.start()
    local.settle()
    local.advance(0.2)
    assert len(local.targets.deliveries) == 2


def test_a_task_that_is_run_by_hand_passes_a_queue_that_is_held(local):
    local.targets.answer = lambda _: Reply(503, retry_after_seconds=3000)
    add_http(local)
    local.start()
    local.settle()
    local.targets.answer = lambda _: 200
    name = local.add("now")
    local.settle()
    assert "now" not in local.targets.task_ids
    local.service.run_task(name)
    local.settle()
    assert local.targets.task_ids[-1] == "now"


def test_a_slowed_queue_dispatches_at_the_rate_in_effect_and_recovers(local):
    local.service.put_queues(
        [
            Queue(
                name=NAME,
                rate_limits=RateLimits(max_dispatches_per_second=4, max_burst_size=4),
                retry_config=RetryConfig(max_attempts=1),
            )
        ]
    )
    local.targets.answer = lambda _: 503
    add_http(local)
    local.start()
    local.settle()
    assert effective_rate(local) == 2
    local.targets.answer = lambda _: 200
    add_http(local, 20)
    local.settle()
    burst = len(local.targets.deliveries)
    assert burst == 1 + 2
    for _ in range(4):  # in steps, since a bucket that fills at once is one burst
        local.advance(0.5)
    assert len(local.targets.deliveries) - burst in (4, 5)
    local.advance(10)
    assert effective_rate(local) == 4


def test_the_throttle_outlives_the_process(tmp_path):
    path = tmp_path / "tasks.db"
    first = Local(Store(path))
    first.targets.answer = lambda _: Reply(503, retry_after_seconds=600)
    first.add()
    first.start()
    first.settle()
    assert first.service.close(5) == []
    store = Store(path)
    assert store.read(
        lambda connection: connection.execute("SELECT rate FROM throttles").fetchall()
    ) == [(250.0,)]
    store.close()


def test_what_is_over_is_forgotten_and_goes_with_the_queue(local):
    local.targets.answer = lambda _: 503
    add_http(local)
    local.start()
    local.settle()

    def rows() -> list:
        return local.service.store.read(
            lambda connection: connection.execute("SELECT queue FROM throttles").fetchall()
        )

    def clean(after_seconds: float) -> None:
        now = int((local.clock.now() + after_seconds) * 1e6)
        housekeeping.clean(local.service.store, Windows(), now)

    clean(5)
    assert len(rows()) == 1
    clean(15)
    assert rows() == []
    add_http(local)
    local.settle()
    assert len(rows()) == 1
    local.service.delete_queue(NAME)
    assert rows() == []
