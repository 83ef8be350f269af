"""A service on a clock that tests step, and targets that answer what tests tell them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone

import pytest

from appengine_compat.core.model import AppEngineRequest, AppEngineRouting, Queue, Task
from appengine_compat.core.names import QueueName
from appengine_compat.local.clock import ManualClock
from appengine_compat.local.delivery import AttemptEvent, Delivery, Reply
from appengine_compat.local.service import LocalService
from appengine_compat.local.store import Store
from appengine_compat.local.tombstones import Windows

QUEUE = QueueName("p", "l", "q")
PATIENCE_SECONDS = 20.0


class Targets:
    """A transport that remembers what it was given, and answers by a function."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []
        self.answer: Callable[[Delivery], int | Reply] = lambda delivery: 200
        self.known: frozenset[str] | None = None
        self._lock = threading.Lock()
        self._running = 0
        self.most_running = 0

    def services(self) -> frozenset[str] | None:
        return self.known

    def send(self, delivery: Delivery) -> Reply:
        with self._lock:
            self.deliveries.append(delivery)
            self._running += 1
            self.most_running = max(self.most_running, self._running)
        try:
            answer = self.answer(delivery)
        finally:
            with self._lock:
                self._running -= 1
        return answer if isinstance(answer, Reply) else Reply(answer)

    @property
    def task_ids(self) -> list[str]:
        return [each.claim.task_id for each in self.deliveries]

    def headers(self, place: int = -1) -> dict[str, str]:
        return dict(self.deliveries[place].headers)


class Local:
    """A service with one queue, its clock, its targets and what observers were told."""

    def __init__(self, store: Store, **options) -> None:
        self.clock = ManualClock(1_790_000_000.25)
        self.targets = Targets()
        self.service = LocalService(store, clock=self.clock, **options)
        self.events: list[AttemptEvent] = []
        self.service.observers.append(self.events.append)
        self.queue = self.service.create_queue(QUEUE.parent, Queue(name=str(QUEUE)))

    @property
    def now(self) -> datetime:
        return datetime.fromtimestamp(self.clock.now(), timezone.utc)

    def start(self, threads: int = 4) -> None:
        self.service.start(self.targets, threads=threads)

    def add(
        self, task_id: str = "", *, delay: float = 0, queue: QueueName = QUEUE, **fields
    ) -> str:
        """Create an App Engine task and return its name."""
        task = Task(
            name=queue.task(task_id) if task_id else "",
            request=AppEngineRequest(
                relative_uri=fields.pop("uri", "/work"),
                body=fields.pop("body", b""),
                headers=fields.pop("headers", {}),
                routing=AppEngineRouting(service=fields.pop("service", "")),
            ),
            schedule_time=self.now + timedelta(seconds=delay) if delay else None,
            **fields,
        )
        return self.service.create_task(str(queue), task).name

    def settle(self) -> None:
        """Wait until nothing is due or running."""
        assert self.service.wait_idle(PATIENCE_SECONDS)

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.settle()


@pytest.fixture(params=["file", "memory"])
def store(request, tmp_path) -> Iterator[Store]:
    store = Store(tmp_path / "tasks.db" if request.param == "file" else None)
    yield store
    store.close()


@pytest.fixture
def local(store) -> Iterator[Local]:
    local = Local(store, windows=Windows(task_seconds=86400, automatic_task_seconds=3600))
    yield local
    assert local.service.close(PATIENCE_SECONDS) == []
