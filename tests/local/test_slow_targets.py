"""Targets that hang hold up their own tasks, and nobody else's."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from appengine_compat.core.model import Queue, RateLimits
from appengine_compat.core.names import QueueName
from appengine_compat.local.store import Store
from tests.local.conftest import PATIENCE_SECONDS, QUEUE, Local

OTHER = QueueName("p", "l", "other")
THREADS = 2


class Slow:
    """A service whose targets of the path /hang answer when they are let go."""

    def __init__(self) -> None:
        self.local = Local(Store(None))
        self.local.service.create_queue(OTHER.parent, Queue(name=str(OTHER)))
        self.let_go = threading.Event()
        self.came = threading.Semaphore(0)
        self.local.targets.answer = self.answer
        self.others = threading.enumerate()

    def answer(self, delivery) -> int:
        self.came.release()
        if delivery.claim.url == "/hang":
            assert self.let_go.wait(PATIENCE_SECONDS)
        return 200

    def await_attempts(self, count: int) -> None:
        for _ in range(count):
            assert self.came.acquire(timeout=PATIENCE_SECONDS)

    def start(self, most_slow: int) -> None:
        self.local.service.start(self.local.targets, threads=THREADS, most_slow=most_slow)

    def threads(self) -> list[threading.Thread]:
        return [
            thread
            for thread in threading.enumerate()
            if thread.name.startswith("appengine-compat-task-") and thread not in self.others
        ]


@pytest.fixture
def slow() -> Iterator[Slow]:
    slow = Slow()
    yield slow
    slow.let_go.set()
    assert slow.local.service.close(PATIENCE_SECONDS) == []


def test_a_quick_task_passes_many_that_hang(slow):
    slow.start(most_slow=100)
    for _ in range(8):
        slow.local.add(uri="/hang")
    slow.await_attempts(8)
    slow.local.add("quick", queue=OTHER)
    slow.await_attempts(1)
    assert slow.local.targets.task_ids[-1] == "quick"


def test_more_than_allowed_wait_until_one_has_ended(slow):
    slow.start(most_slow=3)
    for _ in range(8):
        slow.local.add(uri="/hang")
    slow.await_attempts(THREADS + 3)
    assert not slow.came.acquire(timeout=0.5)
    slow.let_go.set()
    slow.await_attempts(3)
    slow.local.settle()
    assert slow.local.targets.most_running == THREADS + 3


def test_without_leave_the_limit_is_the_limit(slow):
    slow.start(most_slow=0)
    for _ in range(4):
        slow.local.add(uri="/hang")
    slow.await_attempts(THREADS)
    assert not slow.came.acquire(timeout=0.5)
    slow.let_go.set()
    slow.local.settle()
    assert slow.local.targets.most_running == THREADS


def test_a_queues_own_concurrency_still_holds(slow):
    limits = RateLimits(max_concurrent_dispatches=4)
    slow.local.service.put_queues([Queue(name=str(QUEUE), rate_limits=limits)])
    slow.start(most_slow=100)
    for _ in range(9):
        slow.local.add(uri="/hang")
    slow.await_attempts(4)
    assert not slow.came.acquire(timeout=0.5)
    slow.let_go.set()
    slow.local.settle()
    assert slow.local.targets.most_running == 4


def test_the_threads_of_the_slow_go_when_those_have_ended(slow):
    slow.start(most_slow=100)
    for _ in range(8):
        slow.local.add(uri="/hang")
    slow.await_attempts(8)
    threads = slow.threads()
    assert len(threads) >= 8
    slow.let_go.set()
    slow.local.settle()
    gone = len(threads) - THREADS
    for thread in threads:
        # Which of them stay is open; that so many go is not.
        if gone and _ends(thread):
            gone -= 1
    assert gone == 0


def _ends(thread: threading.Thread) -> bool:
    thread.join(0.2)
    return not thread.is_alive()


def test_attempts_past_their_deadline_make_room(slow):
    slow.start(most_slow=0)
    for _ in range(THREADS):
        slow.local.add(uri="/hang", dispatch_deadline_seconds=15)
    slow.await_attempts(THREADS)
    slow.local.add("quick")
    slow.local.clock.advance(15)
    slow.await_attempts(1)
    assert slow.local.targets.task_ids[-1] == "quick"
    slow.local.service.purge_queue(str(QUEUE))
