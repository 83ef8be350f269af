"""The queues and tasks of the stub, and how its queues follow a queue.yaml."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from appengine_compat.backends.base import BackendError, Reason, TaskRequest
from appengine_compat.core.model import RetryConfig
from appengine_compat.core.names import QUEUE_ID
from appengine_compat.queues import queue_yaml
from appengine_compat.queues.queue_yaml import QueueEntry, QueueFile

DEFAULT_QUEUE = "default"
MICROSECONDS = 1_000_000
PARENT = "projects/test/locations/test"
StrPath = str | os.PathLike[str]
QueueConfig = StrPath | Callable[[], StrPath | QueueFile | None] | None


@dataclass(slots=True, eq=False)
class StubTask:
    """A task as the stub keeps it; what an attempt changes is written in place."""

    id: str
    queue: str
    request: TaskRequest
    eta_microseconds: int
    """When it is due, since the epoch; a retry moves it."""
    created_at: float
    """Seconds since the epoch."""
    eta_at_creation: float
    """When it was due at first, in seconds since the epoch."""
    sequence: int
    """Rises with every task created: the order among those due at one time."""
    retries: int = 0
    executions: int = 0
    previous_response: int | None = None
    first_attempt_at: float | None = None

    @property
    def eta(self) -> datetime:
        """When it is due, aware, in UTC."""
        return utc(self.eta_microseconds)


@dataclass(slots=True, eq=False)
class StubQueue:
    """A queue as the stub keeps it."""

    entry: QueueEntry
    retry_config: RetryConfig
    is_configured: bool
    """Whether it stands in a queue.yaml; else it is ``default``, or was made on first use."""
    tasks: dict[str, StubTask] = field(default_factory=dict)
    tombstones: set[str] = field(default_factory=set)

    @property
    def name(self) -> str:
        """The queue id."""
        return self.entry.name

    @property
    def is_paused(self) -> bool:
        """Whether its rate is 0, so that nothing of it runs."""
        return self.entry.rate == 0

    def ordered_tasks(self) -> list[StubTask]:
        """Return its tasks by due time, then by name."""
        return sorted(self.tasks.values(), key=lambda task: (task.eta_microseconds, task.id))


class StubQueues:
    """Queues by name: those of a queue.yaml as it stands now, and those made on first use.

    Not thread-safe; the backend's lock is around it.

    Args:
        config: the queue.yaml, or a function that returns its path or its content, or None
            without one.
        all_valid: whether a queue that is not known is made on first use.
    """

    def __init__(self, config: QueueConfig, all_valid: bool) -> None:
        self._config = config
        self.all_valid = all_valid
        self.by_name: dict[str, StubQueue] = {}
        self._read: QueueFile | tuple[Path, int, int] | None = None
        self._source = ""
        self._is_cleared = False

    def existing(self, name: str) -> StubQueue:
        """Return a queue that is to be used.

        Raises:
            BackendError: there is none of this name.
            QueueYamlError: the queue.yaml is wrong.
        """
        self.refresh(make_again=True)
        queue = self.by_name.get(name)
        if queue is not None:
            return queue
        if QUEUE_ID.match(name) is None:
            raise BackendError(
                Reason.INVALID_QUEUE_NAME,
                f"Queue name {name!r} is not 1 to 100 letters, digits and hyphens.",
                queue=name,
            )
        if self.all_valid:
            return self.by_name.setdefault(name, _implicit(name))
        where = (
            f"in {self._source}"
            if self._read
            else "without a queue.yaml (root_path= says where it is)"
        )
        close = difflib.get_close_matches(name, self.by_name, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise BackendError(
            Reason.UNKNOWN_QUEUE,
            f"There is no queue {name!r} {where}; there are {', '.join(sorted(self.by_name))}."
            + hint,
            queue=name,
        )

    def clear(self) -> None:
        """Drop all queues until one is to be used."""
        self.by_name.clear()
        self._read = None
        self._is_cleared = True

    def refresh(self, *, make_again: bool = False) -> None:
        """Follow the queue.yaml; after ``clear`` only if they are to be made again.

        Raises:
            QueueYamlError: the queue.yaml is wrong.
        """
        if self._is_cleared and not make_again:
            return
        self._is_cleared = False
        self._follow()
        if DEFAULT_QUEUE not in self.by_name:
            self.by_name[DEFAULT_QUEUE] = _implicit(DEFAULT_QUEUE)

    def _follow(self) -> None:
        config = self._config() if callable(self._config) else self._config
        if config is None:
            return
        seen = config if isinstance(config, QueueFile) else _state(Path(config))
        if seen is not None and seen == self._read:
            return
        file = config if isinstance(config, QueueFile) else queue_yaml.read(config)
        from appengine_compat.queues.deployed import deployed_queue

        followed: dict[str, StubQueue] = {}
        for entry in file.queues:
            kept = self.by_name.get(entry.name)
            followed[entry.name] = StubQueue(
                entry=entry,
                retry_config=deployed_queue(entry, PARENT).retry_config,
                is_configured=True,
                tasks=kept.tasks if kept else {},
                tombstones=kept.tombstones if kept else set(),
            )
        made_on_use = {
            name: queue for name, queue in self.by_name.items() if not queue.is_configured
        }
        self.by_name = {**made_on_use, **followed}
        self._read, self._source = seen, file.path


def _state(path: Path) -> tuple[Path, int, int] | None:
    try:
        state = path.stat()
    except OSError:
        return None
    return (path, state.st_mtime_ns, state.st_size)


def _implicit(name: str) -> StubQueue:
    entry = QueueEntry(name=name, rate=5.0, rate_text="5.00/s", bucket_size=5)
    return StubQueue(entry=entry, retry_config=RetryConfig(), is_configured=False)


def utc(microseconds: int) -> datetime:
    """Return a moment, given in microseconds since the epoch."""
    return datetime.fromtimestamp(microseconds / MICROSECONDS, timezone.utc)
