"""Tasks on their way out of a queue: their names checked first, then deleted by a transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from appengine_compat.core import limits, messages, moments, names
from appengine_compat.errors import ApiError
from appengine_compat.local import documents, task_operations

if TYPE_CHECKING:
    from appengine_compat.local.documents import Record
    from appengine_compat.local.store import Connection
    from appengine_compat.local.tombstones import Windows


class Deletion:
    """Some tasks of one queue."""

    def __init__(
        self,
        parent: str,
        task_names: Sequence[str],
        seconds: float,
        windows: Windows,
        record: Record[ApiError | None] | None = None,
    ) -> None:
        """Check names.

        Args:
            parent: the queue's name.
            task_names: the tasks' names.
            seconds: the time, since the epoch.
            windows: how long names stay reserved.
            record: makes what is kept of the results, in the same commit.

        Raises:
            ApiError: INVALID_ARGUMENT: there are too many, or a name is none of this queue's.
        """
        if len(task_names) > limits.MAX_BATCH_DELETE:
            raise messages.too_many_in_batch("names", limits.MAX_BATCH_DELETE)
        names.parse_queue_name(parent)
        self._parent = parent
        self._now = moments.from_seconds(seconds)
        self._windows = windows
        self._record = record
        self._task_ids = []
        for name in task_names:
            queue, task_id = names.parse_task_name(name)
            if str(queue) != parent:
                raise messages.parents_differ()
            self._task_ids.append(task_id)

    def delete(self, connection: Connection) -> tuple[list[ApiError | None], bytes]:
        """Delete the tasks; an operation as ``local.store`` asks for.

        Returns:
            Per task None or why it was not deleted, and what was kept of the results; when that
            was kept before, nothing is done.

        Raises:
            ApiError: NOT_FOUND: there is no such queue.
        """
        record = self._record
        kept = None if record is None else documents.load(connection, record.key, self._now)
        if kept is not None:
            return [], kept
        refusals = task_operations.delete(
            connection, self._parent, self._task_ids, self._windows, self._now
        )
        if record is None:
            return refusals, b""
        return refusals, documents.keep(connection, record, refusals, self._now)
