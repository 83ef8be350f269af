"""Tasks that are enqueued when a datastore transaction commits, and not if it does not.

Transactions are those of Google's SDK (``ext.ndb`` and ``ext.db``) and of google-cloud-ndb.
Tasks wait in the transaction's own list of what to do on commit: an attempt that is rolled back
or tried again takes its list with it, so that nothing is enqueued early, or twice.

Differs from App Engine: there the commit and the tasks were one. Here the tasks are enqueued
right after the commit; a process that dies between the two loses them, and a failure is logged
and raised from the transaction, whose data is written by then.
"""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from google.appengine.api.taskqueue import _limits
from google.appengine.api.taskqueue import _sending as sending
from google.appengine.api.taskqueue._errors import (
    BadTransactionStateError,
    InvalidTaskNameError,
    TransactionalRequestTooLargeError,
    datastore_refusal,
    error_for,
)

from appengine_compat.backends.base import Backend, BackendError, Reason
from appengine_compat.core.names import automatic_task_id

if TYPE_CHECKING:
    from google.appengine.api.taskqueue._task import Task

_logger = logging.getLogger("appengine_compat.transactions")
_known_queues: tuple[Backend | None, set[str]] = (None, set())
"""The backend that was asked last, and the queues that it has."""


class _OnCommit:
    """The tasks of one attempt of a transaction; called when it has committed."""

    def __init__(self) -> None:
        self.tasks = 0
        self.operations: list[tuple[str, sending.Operation]] = []

    def __call__(self) -> None:
        failures = []
        for what, operation in self.operations:
            try:
                operation.finish(operation.run(None))
            except Exception as error:  # noqa: PERF203 - each is its own
                _logger.exception("The transaction has committed, but %s could not be added", what)
                failures.append(error)
        if failures:
            raise failures[0]


@dataclasses.dataclass(frozen=True, slots=True)
class _Transaction:
    """The transaction that runs now."""

    find: Callable[[], _OnCommit | None]
    register: Callable[[_OnCommit], None]


def check(task: Task) -> None:
    """Refuse a task that cannot be added transactionally.

    Raises:
        BadTransactionStateError: no transaction runs.
        InvalidTaskNameError: the task has a name, which a transaction could not keep unique.
    """
    if _current() is None:
        raise BadTransactionStateError("Transactional adds are not allowed outside of transactions")
    if task.name:
        raise InvalidTaskNameError("A task bound to a transaction cannot be named.")


def adding(
    queue_name: str, tasks: list[Task], multiple: bool, backend: Backend
) -> sending.Operation:
    """Return the operation that leaves tasks with the transaction that runs now.

    Raises:
        TransactionalRequestTooLargeError: the tasks are over 1 MiB together.
        DatastoreError: the transaction would have more than 5 tasks.
        UnknownQueueError: the queue does not exist.
    """
    size = sum(task.size for task in tasks)
    if size > _limits.MAX_TRANSACTIONAL_REQUEST_SIZE_BYTES:
        raise TransactionalRequestTooLargeError(
            "Transactional request size must be less than "
            f"{_limits.MAX_TRANSACTIONAL_REQUEST_SIZE_BYTES}; found {size}"
        )
    transaction = _current()
    if transaction is None:  # no tasks: check() was not asked
        return sending.Operation("BulkAdd", lambda _: [], lambda _: [])
    pending = transaction.find()
    waiting = 0 if pending is None else pending.tasks
    if waiting + len(tasks) > _limits.MAX_TASKS_PER_TRANSACTION:
        raise datastore_refusal(
            f"Too many messages, maximum allowed {_limits.MAX_TASKS_PER_TRANSACTION}"
        )
    _check_queue(queue_name, backend)
    if pending is None:
        pending = _OnCommit()
        transaction.register(pending)
    requests = [
        # Named here: the caller may ask for the name, and sending twice cannot double the task.
        dataclasses.replace(task._to_request(queue_name), name=automatic_task_id())
        for task in tasks
    ]
    pending.tasks += len(tasks)
    what = f"{sending.described(requests)} of queue {queue_name!r}"
    pending.operations.append((what, sending.adding_requests(queue_name, requests, backend)))

    def finish(_: object) -> Any:
        for task, request in zip(tasks, requests, strict=True):
            task._mark_added(request.name, queue_name)
        return tasks if multiple else tasks[0]

    return sending.Operation("BulkAdd", lambda _: None, finish, True)


def _check_queue(queue_name: str, backend: Backend) -> None:
    # After the commit it would be too late to tell of a mistyped name.
    global _known_queues
    if _known_queues[0] is not backend:
        _known_queues = backend, set()
    if queue_name in _known_queues[1]:
        return
    try:
        if backend.kind == "stub":
            # To ask App Engine's stub for the statistics of an unknown queue was no error.
            for outcome in backend.delete_tasks(queue_name, [automatic_task_id()]):
                _refuse_unknown(outcome.error, queue_name)
        else:
            backend.queue_stats([queue_name])
            _known_queues[1].add(queue_name)
    except BackendError as error:
        _refuse_unknown(error, queue_name)


def _refuse_unknown(error: BackendError | None, queue_name: str) -> None:
    # Any other reason may pass: an account that may only enqueue cannot look.
    if error is not None and error.reason is Reason.UNKNOWN_QUEUE:
        raise error_for(error, f"add a task to queue {queue_name!r}") from error


def _current() -> _Transaction | None:
    # A library that was never imported has no transaction running.
    if "google.cloud.ndb" in sys.modules:
        transaction = _of_cloud_ndb()
        if transaction is not None:
            return transaction
    if "google.appengine.api.datastore" in sys.modules:
        return _of_sdk()
    return None


def _of_cloud_ndb() -> _Transaction | None:
    context = sys.modules["google.cloud.ndb"].context.get_context(raise_context_error=False)
    if context is None or not context.in_transaction():
        return None

    def find() -> _OnCommit | None:
        callbacks = context.on_commit_callbacks
        return next((found for found in callbacks if isinstance(found, _OnCommit)), None)

    return _Transaction(find, context.call_on_commit)


def _of_sdk() -> _Transaction | None:
    datastore = sys.modules["google.appengine.api.datastore"]
    if not datastore.IsInTransaction():
        return None
    # Each attempt of a transaction, of db and of ndb, has a connection of its own.
    connection = datastore._GetConnection()

    def register(pending: _OnCommit) -> None:
        connection._appengine_compat_tasks = pending
        context = _ndb_context(connection)
        if context is not None:
            context.call_on_commit(pending)
            return
        commit = connection.commit

        def commit_and_enqueue() -> bool:
            committed: bool = commit()
            if committed:
                pending()
            return committed

        # db has no hook for what is to be done on commit.
        connection.commit = commit_and_enqueue

    return _Transaction(lambda: getattr(connection, "_appengine_compat_tasks", None), register)


def _ndb_context(connection: object) -> Any:
    """Return ndb's context of a transaction, or None when the transaction is db's."""
    tasklets = sys.modules.get("google.appengine.ext.ndb.tasklets")
    context = None if tasklets is None else tasklets.get_context()
    # A transaction of db may run inside one of ndb, independently.
    return context if getattr(context, "_conn", None) is connection else None
