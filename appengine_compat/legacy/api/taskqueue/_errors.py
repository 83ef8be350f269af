"""The exceptions of ``taskqueue``, and which one stands for each refusal of a backend.

Every failure of an add, a delete, a purge or a fetch is a ``taskqueue.Error``, and says what
happened to which task of which queue. (App Engine's had empty texts, and failures of the
transport came from another tree.)
"""

from __future__ import annotations

from collections.abc import Mapping

from appengine_compat.backends.base import BackendError, Reason
from appengine_compat.errors import CompatError


class Error(CompatError):
    """Base of every error of this module."""


class UnknownQueueError(Error):
    """The queue does not exist."""


class TransientError(Error):
    """The task queue could not be reached, or was too busy; the call may be tried again."""


class InternalError(Error):
    """The task queue failed for a reason of its own."""


class InvalidTaskError(Error):
    """The task's parameters, headers, payload or method do not go together."""


class InvalidTaskNameError(InvalidTaskError):
    """The task's name has another shape than task names have, or may not be given here."""


class TaskTooLargeError(InvalidTaskError):
    """The task is larger than tasks may be."""


class TaskAlreadyExistsError(InvalidTaskError):
    """A task of this name is in the queue."""


class TombstonedTaskError(InvalidTaskError):
    """A task of this name was in the queue recently, and the name is still reserved."""


class InvalidUrlError(InvalidTaskError):
    """The task's URL is not an absolute path, or too long."""


class InvalidEtaError(InvalidTaskError):
    """The task's ETA is too far ahead."""


class BadTaskStateError(Error):
    """The task was added or deleted before, or has no name where one is needed."""


class InvalidQueueError(Error):
    """The queue's configuration does not allow this."""


class InvalidQueueNameError(InvalidQueueError):
    """The queue's name has another shape than queue names have."""


class _RelativeUrlError(Error):
    """A URL that should be relative is not."""


class PermissionDeniedError(Error):
    """The program's account may not do this to this queue."""


class DuplicateTaskNameError(Error):
    """Two tasks of one call have the same name."""


class TooManyTasksError(Error):
    """More tasks in one call than are allowed."""


class DatastoreError(Error):
    """The datastore refused the task's part in a transaction."""


class BadTransactionStateError(Error):
    """A transactional add outside of a transaction."""


BadTransactionState = BadTransactionStateError


class InvalidTaskRetryOptionsError(Error):
    """Retry options are out of range, or contradict each other."""


class InvalidLeaseTimeError(Error):
    """A lease time is negative or too long."""


class InvalidMaxTasksError(Error):
    """The number of tasks to lease is out of range."""


class InvalidDeadlineError(Error):
    """A deadline is not positive."""


class InvalidQueueModeError(Error):
    """The call is for the other kind of queue; there are no pull queues on Cloud Tasks."""


class TransactionalRequestTooLargeError(TaskTooLargeError):
    """The tasks of one transactional add are too large together."""


class TaskLeaseExpiredError(Error):
    """The task's lease is over."""


class QueuePausedError(Error):
    """The queue is paused."""


class InvalidTagError(Error):
    """A tag is too long."""


class InvalidDispatchDeadlineError(Error):
    """A dispatch deadline is out of range."""


class _NameExistsError(TaskAlreadyExistsError, TombstonedTaskError):
    """The name is taken; both handlers of old code catch it, the more exact class first."""

    def __reduce__(self) -> tuple[object, ...]:
        return error_for_name, (False, self.args)


class _NameTombstonedError(TombstonedTaskError, TaskAlreadyExistsError):
    """The name is still reserved; both handlers of old code catch it."""

    def __reduce__(self) -> tuple[object, ...]:
        return error_for_name, (True, self.args)


# Code in the wild catches one of the pair and means both: Cloud Tasks answers both alike.
_NameExistsError.__name__ = _NameExistsError.__qualname__ = "TaskAlreadyExistsError"
_NameTombstonedError.__name__ = _NameTombstonedError.__qualname__ = "TombstonedTaskError"
_NameExistsError.__module__ = _NameTombstonedError.__module__ = f"{__package__}.taskqueue"


def error_for_name(is_tombstoned: bool, args: tuple[object, ...]) -> Error:
    """Return the error of a name that is taken, as pickles of it are read."""
    return (_NameTombstonedError if is_tombstoned else _NameExistsError)(*args)


CLASS_OF: Mapping[Reason, type[Error]] = {
    Reason.UNKNOWN_QUEUE: UnknownQueueError,
    Reason.UNKNOWN_TASK: Error,
    Reason.TASK_ALREADY_EXISTS: _NameExistsError,
    Reason.TOMBSTONED_TASK: _NameTombstonedError,
    Reason.TASK_TOO_LARGE: TaskTooLargeError,
    Reason.INVALID_TASK_NAME: InvalidTaskNameError,
    Reason.INVALID_QUEUE_NAME: InvalidQueueNameError,
    Reason.INVALID_QUEUE_MODE: InvalidQueueModeError,
    Reason.INVALID_URL: InvalidUrlError,
    Reason.INVALID_ETA: InvalidEtaError,
    Reason.INVALID_DISPATCH_DEADLINE: InvalidDispatchDeadlineError,
    Reason.INVALID_REQUEST: InvalidTaskError,
    Reason.INVALID_TARGET: InvalidTaskError,
    Reason.PERMISSION_DENIED: PermissionDeniedError,
    Reason.TRANSIENT: TransientError,
    Reason.INTERNAL: InternalError,
}

NAME_IS_TAKEN = frozenset({Reason.TASK_ALREADY_EXISTS, Reason.TOMBSTONED_TASK})


def error_for(refusal: BackendError, action: str) -> Error:
    """Return the exception that old code knows for a backend's refusal.

    Args:
        refusal: what the backend said; raise the exception from it.
        action: what was tried, naming queue and task, as "add task 'a' to queue 'q'".
    """
    detail = str(refusal) or refusal.reason.value
    text = detail if _names_its_place(refusal) else f"Could not {action}: {detail}"
    return CLASS_OF[refusal.reason](text)


def _names_its_place(refusal: BackendError) -> bool:
    text, queue, task = str(refusal), refusal.queue, refusal.task
    names_queue = bool(queue) and (repr(queue) in text or f"/queues/{queue}" in text)
    return names_queue and (not task or repr(task) in text)


_joined: dict[type[CompatError], type[Error]] = {}


def joined_error(error: CompatError) -> Error:
    """Return the same error as a ``taskqueue.Error`` too, so that old handlers catch it.

    For what App Engine had no word for: settings that are missing or wrong.
    """
    if isinstance(error, Error):
        return error
    return _join(type(error), error.args, error.__dict__)


def _join(kind: type[CompatError], args: tuple[object, ...], state: dict[str, object]) -> Error:
    joined = _joined.get(kind)
    if joined is None:

        def reduce(self: CompatError) -> tuple[object, ...]:
            return _join, (kind, self.args, self.__dict__)

        joined = type(kind.__name__, (Error, kind), {"__reduce__": reduce, "__doc__": kind.__doc__})
        _joined[kind] = joined
    made = joined.__new__(joined)
    Exception.__init__(made, *args)
    made.__dict__.update(state)
    return made


def datastore_refusal(message: str) -> Error:
    """Return the error of a transaction that cannot take the tasks.

    Beside Google's SDK it is its ``datastore_errors.BadRequestError`` too, as on App Engine.
    """
    try:
        from google.appengine.api import datastore_errors  # type: ignore[attr-defined]
    except ImportError:
        return DatastoreError(message)
    joint = type("JointException", (datastore_errors.BadRequestError, DatastoreError), {})
    error: Error = joint(f"taskqueue.DatastoreError caused by: {joint.__mro__[1]} {message}")
    return error
