"""From tasks to a backend, and from what it answers to results and exceptions.

An ``Operation`` is one call of the task queue, prepared at the caller's line: everything that
can be refused before it is sent has been. It may then run at once, in another thread, or when
somebody waits for it.
"""

from __future__ import annotations

import re
import sys
import urllib.parse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from google.appengine.api.taskqueue import _limits
from google.appengine.api.taskqueue._errors import NAME_IS_TAKEN, error_for, joined_error
from google.appengine.runtime import context

from appengine_compat.backends import choice
from appengine_compat.backends.base import Backend, BackendError, Outcome, Reason, TaskRequest
from appengine_compat.core import telemetry, trace
from appengine_compat.core.model import RetryOverrides
from appengine_compat.errors import CompatError

if TYPE_CHECKING:
    from google.appengine.api.taskqueue._task import Task

_TRANSPORT = frozenset({Reason.TRANSIENT, Reason.INTERNAL, Reason.PERMISSION_DENIED})
"""Refusals of the call; all others are verdicts on its tasks."""

_ABSENT = frozenset({Reason.UNKNOWN_TASK, Reason.TOMBSTONED_TASK})
_MOST_TRACED_BYTES = 900_000
_NOT_PLAIN = re.compile(r"[^\x21-\x7e]+")
_TESTBED_MODULE = "google.appengine.ext.testbed"
_TESTBED = "Development/1.0 (testbed)"
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


@dataclass(frozen=True, slots=True)
class Operation:
    """One call of the task queue, ready to run."""

    method: str
    """App Engine's name of the call, as RPC objects tell it."""
    run: Callable[[float | None], Any]
    """Does it, within a number of seconds; raises when the call as a whole failed."""
    finish: Callable[[Any], Any]
    """Makes the caller's result of what ``run`` returned, or raises; may be called again."""
    is_lazy: bool = False
    """Whether nothing may happen before somebody waits: the test stub's way."""


def backend_for(client: object) -> Backend:
    """Return where tasks go: to an explicit client, a registered stub, or the chosen backend.

    Raises:
        taskqueue.Error: none is chosen and none is safe to guess, or it cannot start; it is the
            ``appengine_compat`` error too.
        AssertionError: the SDK's testbed is active without a task queue stub; no task of a test
            may leave the process.
    """
    try:
        if client is not None:
            return choice.as_backend(client)
        stub = _registered_stub()
        if stub is None and choice.active() is None and _is_in_sdk_testbed():
            raise AssertionError(
                'No api proxy found for service "taskqueue". The testbed is active without it: '
                "call init_taskqueue_stub() first."
            )
        return choice.current() if stub is None else stub
    except CompatError as error:
        raise joined_error(error) from error


def _registered_stub() -> Backend | None:
    # Nobody can have registered a stub in a module that was never imported.
    stub_map = sys.modules.get("google.appengine.api.apiproxy_stub_map")
    if stub_map is None:
        return None
    stub = stub_map.apiproxy.GetStub("taskqueue")
    return stub if hasattr(stub, "create_tasks") else None


def _is_in_sdk_testbed() -> bool:
    # Our own testbed activates a backend that refuses. Google's can be told by this variable
    # alone, as Google's own taskqueue tells it.
    return _TESTBED_MODULE in sys.modules and context.get("SERVER_SOFTWARE") == _TESTBED


def task_request(
    queue_name: str,
    *,
    name: str,
    method: str,
    relative_url: str,
    headers: Iterable[tuple[bytes, bytes]],
    payload: Any,
    schedule_posix: float | None,
    target: str,
    retry_options: Any,
    dispatch_deadline_usec: int | None,
) -> TaskRequest:
    """Return a task as a backend takes it."""
    if not relative_url.startswith("/"):
        relative_url = f"{_limits.DEFAULT_QUEUE_PATH}/{queue_name}{relative_url}"
    return TaskRequest(
        relative_url=relative_url,
        method=method,
        headers=tuple((key.decode(), value.decode()) for key, value in headers),
        payload=payload.encode() if isinstance(payload, str) else payload or b"",
        name=name,
        schedule_time=None if schedule_posix is None else _moment(schedule_posix),
        target=target,
        retry=None if retry_options is None else _retry_overrides(retry_options),
        dispatch_deadline_seconds=(dispatch_deadline_usec or 0) / 1e6,
    )


def _moment(posix: float) -> datetime:
    try:
        return _EPOCH + timedelta(seconds=posix)
    except (OverflowError, ValueError):
        # Not a number, or before year 1: App Engine took both, and both mean "at once".
        return _EPOCH


def _retry_overrides(options: Any) -> RetryOverrides:
    overrides = RetryOverrides(
        min_backoff_seconds=options.min_backoff_seconds,
        max_backoff_seconds=options.max_backoff_seconds,
        max_doublings=options.max_doublings,
        max_retry_duration_seconds=options.task_age_limit,
    )
    limit = options.task_retry_limit
    # App Engine counted tries after the first one, Cloud Tasks counts them all.
    return overrides if limit is None else replace(overrides, max_attempts=limit + 1)


def adding(queue_name: str, tasks: list[Task], multiple: bool, backend: Backend) -> Operation:
    """Return the operation that adds tasks to a queue."""
    requests = [task._to_request(queue_name) for task in tasks]
    operation = adding_requests(queue_name, requests, backend)

    def finish(outcomes: list[Outcome]) -> Any:
        for task, outcome in zip(tasks, outcomes, strict=True):
            if outcome.error is None:
                task._mark_added(outcome.task_id, queue_name)
        operation.finish(outcomes)
        return tasks if multiple else tasks[0]

    return Operation(operation.method, operation.run, finish, operation.is_lazy)


def adding_requests(queue_name: str, requests: list[TaskRequest], backend: Backend) -> Operation:
    """Return the operation that creates tasks in a queue, and whose result is their outcomes."""
    is_stub = backend.kind == "stub"
    if not is_stub:  # a test looks at the URL as it was given
        requests = [_with_plain_url(request) for request in requests]

    def run(timeout_seconds: float | None) -> list[Outcome]:
        if not requests:
            return []
        try:
            if is_stub or not _is_traced():
                return backend.create_tasks(queue_name, requests, timeout_seconds=timeout_seconds)
            with telemetry.enqueuing(queue_name, len(requests)) as span:
                place = span or trace.CURRENT.get()
                traced = [_with_trace(request, place) for request in requests]
                return backend.create_tasks(queue_name, traced, timeout_seconds=timeout_seconds)
        except BackendError as error:
            if error.reason in _TRANSPORT:
                action = f"add {described(requests)} to queue {queue_name!r}"
                raise error_for(error, action) from error
            return [Outcome(request.name, error) for request in requests]
        except CompatError as error:
            raise joined_error(error) from error

    def finish(outcomes: list[Outcome]) -> list[Outcome]:
        failed: tuple[TaskRequest, BackendError] | None = None
        for request, outcome in zip(requests, outcomes, strict=True):
            # A name that is taken is often expected; any other error must not hide behind it.
            if outcome.error is not None and (failed is None or failed[1].reason in NAME_IS_TAKEN):
                failed = request, outcome.error
        if failed is not None:
            request, error = failed
            # One bad task can have all of its call refused.
            what = f"task {error.task!r}" if error.task else described([request])
            action = f"add {what} to queue {queue_name!r}"
            raise error_for(error, action) from error
        return outcomes

    return Operation("BulkAdd", run, finish, is_stub)


def _with_plain_url(request: TaskRequest) -> TaskRequest:
    # App Engine took spaces and any letter in a URL, Cloud Tasks takes what HTTP does.
    url = request.relative_url
    plain = _NOT_PLAIN.sub(lambda found: urllib.parse.quote(found[0]), url)
    return request if plain == url else replace(request, relative_url=plain)


def _is_traced() -> bool:
    return trace.CURRENT.get() is not None or telemetry.is_set_up()


def _with_trace(request: TaskRequest, place: trace.Trace | None) -> TaskRequest:
    # Beside the caller's headers, not among them: Task.headers is what old code looks at. Nor
    # may a task be refused because a trace has made it too large.
    if (
        place is None
        or len(request.payload) > _MOST_TRACED_BYTES
        or trace.has_own(name for name, _ in request.headers)
    ):
        return request
    return replace(request, headers=(*request.headers, *trace.headers(place)))


def described(requests: Sequence[TaskRequest]) -> str:
    """Return how an error names the tasks of a call."""
    if len(requests) != 1:
        return f"{len(requests)} tasks"
    (request,) = requests
    return f"task {request.name!r}" if request.name else f"a task for {request.relative_url!r}"


def deleting(queue_name: str, tasks: list[Task], multiple: bool, backend: Backend) -> Operation:
    """Return the operation that deletes tasks of a queue."""
    names = [str(task.name) for task in tasks]

    def run(timeout_seconds: float | None) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for start in range(0, len(names), _limits.MAX_DELETES_PER_CALL):
            part = names[start : start + _limits.MAX_DELETES_PER_CALL]

            def call(part: list[str] = part) -> list[Outcome]:
                return backend.delete_tasks(queue_name, part, timeout_seconds=timeout_seconds)

            try:
                outcomes += call()
            except BackendError as error:
                # What the parts before have deleted is still to be told.
                outcomes += [Outcome(name, error) for name in part]
        return outcomes

    def finish(outcomes: list[Outcome]) -> Any:
        failed: tuple[str, BackendError] | None = None
        for task, name, outcome in zip(tasks, names, outcomes, strict=True):
            if outcome.error is None:
                task._mark_deleted()
            elif outcome.error.reason not in _ABSENT and failed is None:
                failed = name, outcome.error
        if failed is not None:
            name, error = failed
            action = f"delete task {name!r} of queue {queue_name!r}"
            raise error_for(error, action) from error
        return tasks if multiple else tasks[0]

    return Operation("Delete", run, finish, backend.kind == "stub")


def purging(queue_name: str, backend: Backend) -> Operation:
    """Return the operation that deletes every task of a queue."""

    def run(timeout_seconds: float | None) -> None:
        try:
            backend.purge_queue(queue_name, timeout_seconds=timeout_seconds)
        except BackendError as error:
            raise error_for(error, f"purge queue {queue_name!r}") from error

    return Operation("PurgeQueue", run, lambda _: None, backend.kind == "stub")


def fetching(
    queue_names: list[str], make: Callable[[Sequence[Any]], Any], backend: Backend
) -> Operation:
    """Return the operation that fetches what queues are doing.

    Args:
        queue_names: which queues.
        make: makes the caller's result of their ``QueueStats``.
        backend: where they are.
    """

    def run(timeout_seconds: float | None) -> Sequence[Any]:
        try:
            return backend.queue_stats(queue_names, timeout_seconds=timeout_seconds)
        except BackendError as error:
            which = ", ".join(repr(name) for name in queue_names)
            raise error_for(error, f"fetch the statistics of queue {which}") from error

    return Operation("FetchQueueStats", run, make, backend.kind == "stub")
