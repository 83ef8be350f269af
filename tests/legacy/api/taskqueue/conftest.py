"""A backend that records what it is told, and answers as a test wants."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pytest

from appengine_compat.backends import choice
from appengine_compat.backends.base import BackendError, Outcome, Reason, TaskRequest
from appengine_compat.core.model import QueueStats


@dataclass
class Recorder:
    """Keeps calls; every task gets the name it asks for, else ``made``."""

    kind: str = "recorder"
    created: list[tuple[str, list[TaskRequest]]] = field(default_factory=list)
    deleted: list[tuple[str, list[str]]] = field(default_factory=list)
    purged: list[str] = field(default_factory=list)
    timeouts: list[float | None] = field(default_factory=list)
    refusals: dict[str, BackendError] = field(default_factory=dict)
    """Task name to the refusal of that task."""
    failure: BackendError | None = None
    """What calls as a whole fail with."""
    stats: QueueStats = field(default_factory=QueueStats)
    gate: threading.Event | None = None
    """What calls wait for."""
    threads: set[int] = field(default_factory=set)

    @property
    def only(self) -> TaskRequest:
        """The one task that was created."""
        ((_, (request,)),) = self.created
        return request

    def refuse(self, reason: Reason, message: str = "No.") -> None:
        self.failure = BackendError(reason, message)

    def _called(self, timeout_seconds: float | None) -> None:
        self.threads.add(threading.get_ident())
        self.timeouts.append(timeout_seconds)
        if self.gate is not None:
            assert self.gate.wait(10)
        if self.failure is not None:
            raise self.failure

    def create_tasks(
        self, queue: str, requests: Sequence[TaskRequest], *, timeout_seconds: float | None = None
    ) -> list[Outcome]:
        self._called(timeout_seconds)
        self.created.append((queue, list(requests)))
        return [
            Outcome(request.name or "made", self.refusals.get(request.name)) for request in requests
        ]

    def delete_tasks(
        self, queue: str, task_ids: Sequence[str], *, timeout_seconds: float | None = None
    ) -> list[Outcome]:
        self._called(timeout_seconds)
        self.deleted.append((queue, list(task_ids)))
        return [Outcome(name, self.refusals.get(name)) for name in task_ids]

    def purge_queue(self, queue: str, *, timeout_seconds: float | None = None) -> None:
        self._called(timeout_seconds)
        self.purged.append(queue)

    def queue_stats(
        self, queues: Sequence[str], *, timeout_seconds: float | None = None
    ) -> list[QueueStats]:
        self._called(timeout_seconds)
        return [self.stats for _ in queues]


@pytest.fixture
def backend() -> Iterator[Recorder]:
    """Where tasks go in this test."""
    recorder = Recorder()
    choice.activate(recorder)
    yield recorder
    choice.deactivate(recorder)


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_HOST", "DEFAULT_VERSION_HOSTNAME", "HTTP_X_APPENGINE_DEFAULT_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)
