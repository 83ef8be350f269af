"""The module that old code knows: ``Task``, ``Queue``, ``add`` and all that goes with them.

Tests replace its globals, and what calls them looks them up here at each call.
"""

from __future__ import annotations

import typing
from collections import abc

from google.appengine.api.taskqueue import _construction, _errors, _limits, _pull, _rpc, _sending
from google.appengine.api.taskqueue import _transactions as transactions
from google.appengine.api.taskqueue._construction import DEFAULT_APP_VERSION
from google.appengine.api.taskqueue._errors import (
    BadTaskStateError,
    BadTransactionState,
    BadTransactionStateError,
    DatastoreError,
    DuplicateTaskNameError,
    Error,
    InternalError,
    InvalidDeadlineError,
    InvalidDispatchDeadlineError,
    InvalidEtaError,
    InvalidLeaseTimeError,
    InvalidMaxTasksError,
    InvalidQueueError,
    InvalidQueueModeError,
    InvalidQueueNameError,
    InvalidTagError,
    InvalidTaskError,
    InvalidTaskNameError,
    InvalidTaskRetryOptionsError,
    InvalidUrlError,
    PermissionDeniedError,
    QueuePausedError,
    TaskAlreadyExistsError,
    TaskLeaseExpiredError,
    TaskTooLargeError,
    TombstonedTaskError,
    TooManyTasksError,
    TransactionalRequestTooLargeError,
    TransientError,
    UnknownQueueError,
)
from google.appengine.api.taskqueue._limits import (
    MAX_DISPATCH_DEADLINE,
    MAX_LEASE_SECONDS,
    MAX_PULL_TASK_SIZE_BYTES,
    MAX_PUSH_TASK_SIZE_BYTES,
    MAX_QUEUE_NAME_LENGTH,
    MAX_TAG_LENGTH,
    MAX_TASK_NAME_LENGTH,
    MAX_TASK_SIZE_BYTES,
    MAX_TASKS_PER_ADD,
    MAX_TASKS_PER_LEASE,
    MAX_TRANSACTIONAL_REQUEST_SIZE_BYTES,
    MAX_URL_LENGTH,
    MIN_DISPATCH_DEADLINE,
)
from google.appengine.api.taskqueue._retry_options import TaskRetryOptions
from google.appengine.api.taskqueue._statistics import QueueStatistics
from google.appengine.api.taskqueue._statistics import check_deadline as _check_deadline
from google.appengine.api.taskqueue._task import Task

# Nothing public is here but what __all__ names, which Google's test of a module's interface asks.
if typing.TYPE_CHECKING:
    from typing import Any

__all__ = [
    "DEFAULT_APP_VERSION",
    "MAX_DISPATCH_DEADLINE",
    "MAX_LEASE_SECONDS",
    "MAX_PULL_TASK_SIZE_BYTES",
    "MAX_PUSH_TASK_SIZE_BYTES",
    "MAX_QUEUE_NAME_LENGTH",
    "MAX_TAG_LENGTH",
    "MAX_TASKS_PER_ADD",
    "MAX_TASKS_PER_LEASE",
    "MAX_TASK_NAME_LENGTH",
    "MAX_TASK_SIZE_BYTES",
    "MAX_TRANSACTIONAL_REQUEST_SIZE_BYTES",
    "MAX_URL_LENGTH",
    "MIN_DISPATCH_DEADLINE",
    "BadTaskStateError",
    "BadTransactionState",
    "BadTransactionStateError",
    "DatastoreError",
    "DuplicateTaskNameError",
    "Error",
    "InternalError",
    "InvalidDeadlineError",
    "InvalidDispatchDeadlineError",
    "InvalidEtaError",
    "InvalidLeaseTimeError",
    "InvalidMaxTasksError",
    "InvalidQueueError",
    "InvalidQueueModeError",
    "InvalidQueueNameError",
    "InvalidTagError",
    "InvalidTaskError",
    "InvalidTaskNameError",
    "InvalidTaskRetryOptionsError",
    "InvalidUrlError",
    "PermissionDeniedError",
    "Queue",
    "QueuePausedError",
    "QueueStatistics",
    "Task",
    "TaskAlreadyExistsError",
    "TaskLeaseExpiredError",
    "TaskRetryOptions",
    "TaskTooLargeError",
    "TombstonedTaskError",
    "TooManyTasksError",
    "TransactionalRequestTooLargeError",
    "TransientError",
    "UnknownQueueError",
    "add",
    "create_rpc",
]

# Private names that code in the wild reaches for.
_DEFAULT_QUEUE = _limits.DEFAULT_QUEUE
_DEFAULT_QUEUE_PATH = _limits.DEFAULT_QUEUE_PATH
_MAX_COUNTDOWN_SECONDS = _limits.MAX_COUNTDOWN_SECONDS
_TASK_NAME_PATTERN = _limits.TASK_NAME_PATTERN
_TASK_NAME_RE = _limits.TASK_NAME_RE
_QUEUE_NAME_PATTERN = _limits.QUEUE_NAME_PATTERN
_QUEUE_NAME_RE = _limits.QUEUE_NAME_RE
_UTCTimeZone = _construction.UTCTimeZone
_UTC = _construction.UTC
_UNKNOWN_APP_VERSION = _construction.UNKNOWN_APP_VERSION
_RelativeUrlError = _errors._RelativeUrlError
_flatten_params = _construction.flatten_params
_parse_relative_url = _construction.parse_relative_url


class Queue:
    """A queue, by its name. That it exists is found out when it is used."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, name: str = _DEFAULT_QUEUE) -> None:
        """Name a queue.

        Args:
            name: letters, digits and ``-``, 100 at most.

        Raises:
            InvalidQueueNameError: it has another shape.
        """
        if not _QUEUE_NAME_RE.match(name):
            raise InvalidQueueNameError(
                f'Queue name does not match pattern "{_QUEUE_NAME_PATTERN}"; found {name}'
            )
        self.__name = name
        self._app: str | None = None

    @property
    def name(self) -> str:
        """The queue's name."""
        return self.__name

    def add(
        self,
        task: Any,
        transactional: bool = False,
        *,
        _client: object = None,
    ) -> Any:
        """Add tasks to the queue.

        Tasks of one call are independent: some may be added and others refused. Each task's
        ``was_enqueued`` tells, and one exception stands for all refusals.

        Args:
            task: a task, or an iterable of up to 100.
            transactional: whether to add them when the current datastore transaction commits,
                and not at all if it does not.
            _client: where to send them, instead of what the settings choose.

        Returns:
            The task, or the list of them; ``[]`` for none.

        Raises:
            BadTaskStateError: a task was added before.
            DuplicateTaskNameError: two have the same name.
            TooManyTasksError: there are more than 100.
            UnknownQueueError: the queue does not exist.
            TaskAlreadyExistsError: a task of this name is in the queue. Whatever the reason that
                a name is taken, the error is a ``TombstonedTaskError`` too, and the reverse.
            BadTransactionStateError: transactional, outside of a transaction.
            TransientError: the call may be tried again.
            Error: any other reason; the base of all of these.

        Differs from App Engine: failures of the transport and missing settings are
        ``taskqueue.Error`` too, and no message is empty.
        """
        if not task:
            return []
        # Tests and wrappers replace add_async, and App Engine's add went through it.
        if type(self).add_async is not _ADD_ASYNC:
            return self.add_async(task, transactional).get_result()
        return self._add_now(task, transactional, _client)

    def add_async(
        self, task: Any, transactional: bool = False, rpc: Any = None, *, _client: object = None
    ) -> Any:
        """Start to add tasks to the queue, as ``add`` does.

        The tasks are sent at once, waited for or not; by the test stub when waited for.

        Args:
            task: a task, or an iterable of up to 100.
            transactional: as for ``add``.
            rpc: an RPC object of ``create_rpc`` to use.
            _client: as for ``add``.

        Returns:
            The RPC object, whose result is that of ``add``.
        """
        return self.__start(self.__adding(task, transactional, _client), rpc)

    def _add_now(self, task: Any, transactional: bool, client: object) -> Any:
        return _rpc.run(self.__adding(task, transactional, client))

    def __adding(self, task: Any, transactional: bool, client: object) -> _sending.Operation:
        tasks, multiple = _listed(task)
        pull = [one.method == "PULL" for one in tasks]
        if any(pull) and not all(pull):
            raise InvalidTaskError("You cannot add both push and pull tasks in a single call.")
        if len(tasks) > MAX_TASKS_PER_ADD:
            raise TooManyTasksError(
                f"No more than {MAX_TASKS_PER_ADD} tasks can be added in a single call"
            )
        names: set[str] = set()
        for one in tasks:
            _check_unique(one.name, names)
            if one.was_enqueued:
                raise BadTaskStateError("The task has already been enqueued.")
            if transactional:
                transactions.check(one)
        if any(pull):
            raise _pull.refusal("a task with method PULL")
        backend = _sending.backend_for(client)
        if transactional:
            return transactions.adding(self.__name, tasks, multiple, backend)
        return _sending.adding(self.__name, tasks, multiple, backend)

    def delete_tasks(self, task: Any) -> Any:
        """Delete tasks of the queue.

        A task that is not there (any more) is no error: its ``was_deleted`` stays False.

        Args:
            task: a task that has a name, or an iterable of them.

        Returns:
            The task, or the list of them.

        Raises:
            BadTaskStateError: a task has no name, or was deleted before.
            DuplicateTaskNameError: two have the same name.
            UnknownQueueError: the queue does not exist.
            Error: any other reason.
        """
        if type(self).delete_tasks_async is not _DELETE_TASKS_ASYNC:
            return self.delete_tasks_async(task).get_result()
        return _rpc.run(self.__deleting(task))

    def delete_tasks_async(self, task: Any, rpc: Any = None) -> Any:
        """Start to delete tasks, as ``delete_tasks`` does, and return an RPC object."""
        return self.__start(self.__deleting(task), rpc)

    def delete_tasks_by_name(self, task_name: Any) -> Any:
        """Delete the tasks of these names, as ``delete_tasks`` does.

        Returns:
            A ``Task`` for the name, or a list of them.
        """
        return self.delete_tasks(_named(task_name))

    def delete_tasks_by_name_async(self, task_name: Any, rpc: Any = None) -> Any:
        """Start to delete the tasks of these names, and return an RPC object."""
        return self.delete_tasks_async(_named(task_name), rpc)

    def __deleting(self, task: Any) -> _sending.Operation:
        tasks, multiple = _listed(task)
        names: set[str] = set()
        for one in tasks:
            if not one.name:
                raise BadTaskStateError("A task name must be specified for a task")
            if one.was_deleted:
                raise BadTaskStateError(f"The task {one.name} has already been deleted")
            _check_unique(one.name, names)
        return _sending.deleting(self.__name, tasks, multiple, _sending.backend_for(None))

    def purge(self) -> None:
        """Delete every task of the queue.

        Raises:
            UnknownQueueError: the queue does not exist.
            Error: any other reason.
        """
        _rpc.run(_sending.purging(self.__name, _sending.backend_for(None)))

    def fetch_statistics(self, deadline: float = 10) -> Any:
        """Fetch what the queue is doing, as a ``QueueStatistics``.

        Args:
            deadline: seconds.
        """
        _check_deadline(deadline)
        return self.fetch_statistics_async(_rpc.create(deadline, None, waits=True)).get_result()

    def fetch_statistics_async(self, rpc: Any = None) -> Any:
        """Start to fetch what the queue is doing, and return an RPC object."""
        return QueueStatistics.fetch_async(self, rpc)

    def lease_tasks(self, lease_seconds: float, max_tasks: int, deadline: float = 10) -> Any:
        """Refuse: there are no pull queues on Cloud Tasks; pull from Pub/Sub instead.

        Raises:
            InvalidQueueModeError: always, once the arguments are found right.
        """
        _check_deadline(deadline)
        return self.lease_tasks_async(lease_seconds, max_tasks)

    def lease_tasks_async(
        self,
        lease_seconds: float,
        max_tasks: int,
        rpc: Any = None,  # noqa: ARG002
    ) -> Any:
        """Refuse, as ``lease_tasks`` does."""
        _pull.check_lease(lease_seconds, max_tasks)
        raise _pull.refusal("lease_tasks")

    def lease_tasks_by_tag(
        self, lease_seconds: float, max_tasks: int, tag: Any = None, deadline: float = 10
    ) -> Any:
        """Refuse, as ``lease_tasks`` does."""
        _check_deadline(deadline)
        return self.lease_tasks_by_tag_async(lease_seconds, max_tasks, tag)

    def lease_tasks_by_tag_async(
        self,
        lease_seconds: float,
        max_tasks: int,
        tag: Any = None,  # noqa: ARG002
        rpc: Any = None,  # noqa: ARG002
    ) -> Any:
        """Refuse, as ``lease_tasks`` does."""
        _pull.check_lease(lease_seconds, max_tasks)
        raise _pull.refusal("lease_tasks_by_tag")

    def modify_task_lease(self, task: Task, lease_seconds: float) -> None:
        """Refuse, as ``lease_tasks`` does."""
        _pull.check_lease(lease_seconds)
        raise _pull.refusal(f"modify_task_lease of task {task.name!r}")

    def __start(self, operation: _sending.Operation, rpc: Any) -> Any:
        return _rpc.start(create_rpc() if rpc is None else rpc, operation)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Queue):
            return NotImplemented
        return (self.name, self._app) == (other.name, other._app)

    def __repr__(self) -> str:
        return f"Queue<name={self.__name!r}>"


_ADD_ASYNC = Queue.add_async
_DELETE_TASKS_ASYNC = Queue.delete_tasks_async


def create_rpc(deadline: float | None = None, callback: Any = None) -> Any:
    """Return an RPC object to pass to one ``_async`` call.

    Args:
        deadline: seconds for the call, or None for the backend's own.
        callback: called without arguments, once, when the call has run and is waited for.
    """
    return _rpc.create(deadline, callback)


def add(*args: Any, **kwargs: Any) -> Any:
    """Make a task and add it to a queue.

    Args:
        *args: the payload, as for ``Task``.
        **kwargs: ``queue_name`` (``default``) and ``transactional`` (False) as for ``Task.add``;
            all others as for ``Task``.

    Returns:
        The task.
    """
    transactional = kwargs.pop("transactional", False)
    queue_name = kwargs.pop("queue_name", _DEFAULT_QUEUE)
    return Task(*args, **kwargs).add(queue_name=queue_name, transactional=transactional)


def _listed(task_or_tasks: Any) -> tuple[list[Any], bool]:
    if isinstance(task_or_tasks, Task) or not isinstance(task_or_tasks, abc.Iterable):
        return [task_or_tasks], False
    return list(task_or_tasks), True


def _named(name_or_names: Any) -> Any:
    if isinstance(name_or_names, str):
        return Task(name=name_or_names)
    return [Task(name=name) for name in name_or_names]


def _check_unique(name: str | None, names: set[str]) -> None:
    if not name:
        return
    if name in names:
        raise DuplicateTaskNameError(
            f"The task name {name!r} is used more than once in the request"
        )
    names.add(name)


# Pickles, tracebacks and reprs name the module that old code knows.
for _public in list(globals().values()):
    if isinstance(_public, type) and _public.__module__.startswith(f"{__package__}._"):
        _public.__module__ = __name__
del _public
