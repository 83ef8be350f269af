"""Tasks on their way into a queue: checked and made ready first, then inserted by a transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from appengine_compat.core import limits, messages, moments, names, validation
from appengine_compat.core.model import Task
from appengine_compat.errors import ApiError
from appengine_compat.local import documents, task_operations

if TYPE_CHECKING:
    from appengine_compat.local.documents import Record
    from appengine_compat.local.store import Connection
    from appengine_compat.local.task_operations import NewTask


@dataclass(slots=True)
class Inserted:
    """What a transaction made of a creation.

    Attributes:
        queue: the queue's number.
        refusals: per task that was ready, None or why it was not inserted.
        kept: what was kept of the results, if a record was asked for.
        is_new: False when the record was there already and nothing was done.
    """

    queue: int
    refusals: list[ApiError | None]
    kept: bytes = b""
    is_new: bool = True


class Creation:
    """Some tasks of one queue."""

    def __init__(
        self,
        parent: str,
        tasks: Sequence[Task | ApiError],
        seconds: float,
        record: Record[Task | ApiError] | None = None,
    ) -> None:
        """Check tasks and make them ready.

        Args:
            parent: the queue's name.
            tasks: the tasks, or why one cannot be.
            seconds: the time, since the epoch.
            record: makes what is kept of the results, in the same commit.

        Raises:
            ApiError: INVALID_ARGUMENT: there are too many, or the name is no queue's.
        """
        if len(tasks) > limits.MAX_BATCH_CREATE:
            raise messages.too_many_in_batch("tasks", limits.MAX_BATCH_CREATE)
        queue = names.parse_queue_name(parent)
        self._parent = parent
        self._now = moments.from_seconds(seconds)
        self._record = record
        self._results: list[Task | ApiError] = []
        self._ready: list[NewTask] = []
        self._places: list[int] = []
        moment = moments.to_datetime(self._now)
        for place, task in enumerate(tasks):
            try:
                if isinstance(task, ApiError):
                    raise task
                stored = validation.canonical_task(queue, task, moment)
            except ApiError as refusal:
                self._results.append(refusal)
                continue
            self._ready.append(task_operations.prepare(stored, is_named=bool(task.name)))
            self._places.append(place)
            self._results.append(stored)

    def insert(self, connection: Connection) -> Inserted:
        """Insert the tasks; an operation as ``local.store`` asks for.

        Raises:
            ApiError: NOT_FOUND: there is no such queue.
        """
        record = self._record
        kept = None if record is None else documents.load(connection, record.key, self._now)
        if kept is not None:
            return Inserted(0, [], kept, is_new=False)
        queue, refusals = task_operations.create(connection, self._parent, self._ready, self._now)
        if record is None:
            return Inserted(queue, refusals)
        results = self._with(refusals)
        return Inserted(queue, refusals, documents.keep(connection, record, results, self._now))

    def results(self, inserted: Inserted) -> list[Task | ApiError]:
        """Return per task, in order, the task as stored, or why it was refused."""
        return self._with(inserted.refusals) if inserted.is_new else []

    def earliest(self, inserted: Inserted) -> dict[str, int]:
        """Return when the first of the inserted tasks is due, by service."""
        found: dict[str, int] = {}
        # A record that was there already leaves no refusals, and nothing to tell.
        for new, refused in zip(self._ready, inserted.refusals):  # noqa: B905
            if refused is None and new.due < found.get(new.service, new.due + 1):
                found[new.service] = new.due
        return found

    def _with(self, refusals: Sequence[ApiError | None]) -> list[Task | ApiError]:
        results = list(self._results)
        for place, refused in zip(self._places, refusals, strict=True):
            if refused is not None:
                results[place] = refused
        return results
