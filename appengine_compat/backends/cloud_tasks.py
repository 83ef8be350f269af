"""Tasks that go to Google Cloud Tasks, or to whatever speaks its protocol.

Every task is created under a name, a random one where the caller gave none: a call that failed
for a passing reason may have reached the service all the same, and only a name lets it be
repeated without a second task. (The service says that names cost it a look-up, and that random
ones cost least.)
"""

from __future__ import annotations

import logging
import os
import random
import secrets
import time
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from appengine_compat import platform, settings
from appengine_compat.backends import cloud_tasks_connection as wire
from appengine_compat.backends import cloud_tasks_errors as errors
from appengine_compat.backends import cloud_tasks_messages as messages
from appengine_compat.backends.base import BackendError, Outcome, Reason, TaskRequest
from appengine_compat.core import limits
from appengine_compat.core.model import QueueStats
from appengine_compat.core.names import QUEUE_ID, TASK_ID
from appengine_compat.errors import ApiError
from appengine_compat.platform import Platform

if TYPE_CHECKING:
    from google.cloud import tasks_v2

_logger = logging.getLogger(__name__)

MAX_CALL_SECONDS = 20.0
"""The service refuses calls whose deadline is more than 30 seconds away."""
_TRY_SECONDS = 10.0
_MOST_TRIES = 5
_FIRST_PAUSE_SECONDS = 0.1


class CloudTasksBackend:
    """Cloud Tasks as a ``Backend``."""

    kind = "cloudtasks"

    def __init__(self, *, client: tasks_v2.CloudTasksClient | None = None) -> None:
        """Read the settings; nothing is connected before the first task.

        Args:
            client: a client to use in place of one that is made when needed.

        Raises:
            ConfigError: project or location are not known.
        """
        emulator = "" if client else platform.emulator_host()
        on_app_engine = platform.detect() is Platform.APP_ENGINE
        self._addressing = messages.Addressing(
            on_app_engine=on_app_engine or (bool(emulator) and not settings.TARGETS.get()),
            emulated=bool(emulator),
            version=os.environ.get("GAE_VERSION", "") if on_app_engine else "",
        )
        self._place = errors.Place(
            project=platform.project(),
            location=platform.location(),
            service_account=self._addressing.service_account,
            endpoint=emulator or "cloudtasks.googleapis.com",
            is_emulator=bool(emulator),
        )
        self._connection = wire.Connection(emulator=emulator, client=client)
        self._queues: dict[str, tuple[str, wire.Metadata]] = {}

    def __repr__(self) -> str:
        place = self._place
        return (
            f"<CloudTasksBackend projects/{place.project.value}/locations/{place.location.value} "
            f"at {place.endpoint}>"
        )

    def create_tasks(
        self, queue: str, requests: Sequence[TaskRequest], *, timeout_seconds: float | None = None
    ) -> list[Outcome]:
        """Create tasks: one by CreateTask, several by BatchCreateTasks.

        Raises:
            BackendError: the call as a whole failed.
        """
        if len(requests) > limits.MAX_BATCH_CREATE:
            raise BackendError(
                Reason.INVALID_REQUEST,
                f"{len(requests)} tasks are too many for one call: give "
                f"{limits.MAX_BATCH_CREATE} at most.",
                queue=queue,
            )
        budget = _Budget(timeout_seconds)
        outcomes: list[Outcome | None] = [None] * len(requests)
        ready: dict[int, Any] = {}
        for index, request in enumerate(requests):
            made = self._create_request(queue, request)
            if isinstance(made, BackendError):
                outcomes[index] = Outcome(request.name, made)
            else:
                ready[index] = made
        if len(requests) == 1 and ready:
            return [self._create_one(queue, requests[0], ready[0], budget)]
        if ready:
            self._create_batch(queue, requests, ready, outcomes, budget)
        return [outcome for outcome in outcomes if outcome is not None]

    def delete_tasks(
        self, queue: str, task_ids: Sequence[str], *, timeout_seconds: float | None = None
    ) -> list[Outcome]:
        """Delete tasks by BatchDeleteTasks.

        Raises:
            BackendError: the call as a whole failed.
        """
        budget = _Budget(timeout_seconds)
        outcomes: list[Outcome] = []
        for start in range(0, len(task_ids), limits.MAX_BATCH_DELETE):
            part = task_ids[start : start + limits.MAX_BATCH_DELETE]
            try:
                outcomes += self._delete_batch(queue, part, budget)
            except BackendError as error:
                if not outcomes:
                    raise
                # What was deleted by then is to be told.
                outcomes += [Outcome(task_id, error) for task_id in task_ids[start:]]
                break
        return outcomes

    def purge_queue(self, queue: str, *, timeout_seconds: float | None = None) -> None:
        """Delete every task that is in the queue when the call is made.

        Raises:
            BackendError: the queue is not there, or the call failed.
        """
        path, _ = self._queue(queue)
        request = messages.PurgeQueueRequest(name=path)
        metadata = _routing("name", path)
        budget = _Budget(timeout_seconds)
        try:
            self._call(wire.PURGE, request, metadata, budget)
        except ApiError as error:
            raise errors.translate(error, errors.PURGE, self._place, queue) from error

    def queue_stats(
        self, queues: Sequence[str], *, timeout_seconds: float | None = None
    ) -> list[QueueStats]:
        """Return what each queue is doing, as v2beta3 tells it: v2 has no statistics.

        Raises:
            BackendError: a queue is not there, or a call failed.
        """
        from appengine_compat.backends import cloud_tasks_stats as stats

        budget = _Budget(timeout_seconds)
        answers = []
        for queue in queues:
            path, _ = self._queue(queue)
            try:
                answer = self._call(
                    stats.GET_QUEUE, stats.request(path), _routing("name", path), budget
                )
            except ApiError as error:
                raise errors.translate(error, errors.STATS, self._place, queue) from error
            answers.append(stats.read(answer))
        return answers

    # --- creating ---

    def _create_request(self, queue: str, request: TaskRequest) -> Any:
        """Return the message of a call that creates the task, or why there cannot be one."""
        path, _ = self._queue(queue)
        task_id = request.name or secrets.token_hex(16)
        message = messages.CreateTaskRequest(parent=path)
        try:
            if not TASK_ID.match(task_id):
                raise BackendError(
                    Reason.INVALID_TASK_NAME,
                    f"{task_id!r} cannot name a task: give 1 to 500 letters, digits, hyphens "
                    "and underscores.",
                )
            messages.write_task(message.task, f"{path}/tasks/{task_id}", request, self._addressing)
        except BackendError as error:
            error.queue, error.task = queue, request.name
            return error
        except (ValueError, TypeError) as error:
            # What protobuf says of texts that are not Unicode, header values that are not texts.
            return BackendError(
                Reason.INVALID_REQUEST,
                f"The task cannot be put in a message: {error}",
                queue=queue,
                task=request.name,
            )
        return message

    def _create_one(
        self, queue: str, request: TaskRequest, message: Any, budget: _Budget
    ) -> Outcome:
        task_id = _short(message.task.name)
        _, metadata = self._queue(queue)
        try:
            self._call(wire.CREATE, message, metadata, budget)
        except ApiError as error:
            refused = self._refusal(error, queue, request, task_id, budget.tries)
            return Outcome(task_id, refused)
        return Outcome(task_id)

    def _create_batch(
        self,
        queue: str,
        requests: Sequence[TaskRequest],
        ready: dict[int, Any],
        outcomes: list[Outcome | None],
        budget: _Budget,
    ) -> None:
        """Create what is ready, and again what failed for a passing reason."""
        path, metadata = self._queue(queue)
        waiting = list(ready)
        while waiting:
            batch = messages.BatchCreateTasksRequest(
                parent=path,
                requests=[ready[index] for index in waiting],
                request_id=_request_id(),
            )
            try:
                operation = self._finished(
                    self._call(wire.BATCH_CREATE, batch, metadata, budget), budget
                )
                failures = _failures(
                    operation,
                    messages.BatchCreateTasksMetadata,
                    len(waiting),
                    messages.BatchCreateTasksResponse,
                )
            except ApiError as error:
                if len(waiting) == len(ready):
                    raise errors.translate(error, errors.CREATE, self._place, queue) from error
                # Others of the batch have been created: their callers must hear of it.
                failures = dict.fromkeys(range(len(waiting)), error)
            again = []
            may_repeat = budget.may_try_again()
            for position, index in enumerate(waiting):
                task_id = _short(ready[index].task.name)
                failure = failures.get(position)
                if failure is None:
                    outcomes[index] = Outcome(task_id)
                elif may_repeat and errors.is_passing(failure):
                    again.append(index)
                else:
                    refused = self._refusal(failure, queue, requests[index], task_id, budget.tries)
                    outcomes[index] = Outcome(task_id, refused)
            waiting = again
            if waiting:
                budget.pause()

    def _refusal(
        self, error: ApiError, queue: str, request: TaskRequest, task_id: str, tries: int
    ) -> BackendError | None:
        note = ""
        if error.code == "ALREADY_EXISTS":
            if not request.name:
                return None  # nobody else can know the name: an earlier try arrived after all
            if tries > 1:
                note = (
                    "An earlier try of this call failed on the way and may have created it: "
                    "one task of this name exists or existed."
                )
        refused = errors.translate(error, errors.CREATE, self._place, queue, request.name, note)
        refused.task = task_id
        refused.__cause__ = error
        return refused

    # --- deleting ---

    def _delete_batch(self, queue: str, task_ids: Sequence[str], budget: _Budget) -> list[Outcome]:
        path, metadata = self._queue(queue)
        request = messages.BatchDeleteTasksRequest(
            parent=path,
            names=[f"{path}/tasks/{task_id}" for task_id in task_ids],
            request_id=_request_id(),
        )
        try:
            operation = self._finished(
                self._call(wire.BATCH_DELETE, request, metadata, budget), budget
            )
            failures = _failures(operation, messages.BatchDeleteTasksMetadata, len(task_ids))
        except ApiError as error:
            raise errors.translate(error, errors.DELETE, self._place, queue) from error
        outcomes = []
        for index, task_id in enumerate(task_ids):
            failure = failures.get(index)
            refused = None
            if failure is not None:
                refused = errors.translate(failure, errors.DELETE, self._place, queue, task_id)
                refused.__cause__ = failure
            outcomes.append(Outcome(task_id, refused))
        return outcomes

    # --- calling ---

    def _queue(self, queue: str) -> tuple[str, wire.Metadata]:
        known = self._queues.get(queue)
        if known is None:
            if not QUEUE_ID.match(queue):
                raise BackendError(
                    Reason.INVALID_QUEUE_NAME,
                    f"{queue!r} cannot name a queue: give 1 to 100 letters, digits and hyphens.",
                    queue=queue,
                )
            path = str(self._place.queue_name(queue))
            known = self._queues[queue] = (path, _routing("parent", path))
        return known

    def _call(self, rpc: wire.Rpc, request: Any, metadata: wire.Metadata, budget: _Budget) -> Any:
        while True:
            budget.tries += 1
            try:
                return self._connection.call(rpc, request, budget.try_seconds(), metadata)
            except ApiError as error:
                if not errors.is_passing(error) or not budget.may_try_again():
                    raise
                _logger.info("%s failed, and is tried again: %s", rpc.path, error)
                budget.pause()

    def _finished(self, operation: Any, budget: _Budget) -> Any:
        """Return a batch's operation when it is done; the service usually answers a done one."""
        while not operation.done:
            if not budget.may_poll():
                raise ApiError(
                    "DEADLINE_EXCEEDED",
                    f"the batch was accepted but has not finished ({operation.name})",
                )
            budget.pause()
            request = wire.GetOperationRequest(name=operation.name)
            metadata = _routing("name", operation.name)
            operation = self._connection.call(
                wire.GET_OPERATION, request, budget.try_seconds(), metadata
            )
        return operation


class _Budget:
    """The time and the tries that one call of the backend may take."""

    def __init__(self, timeout_seconds: float | None) -> None:
        allowed = MAX_CALL_SECONDS if timeout_seconds is None else timeout_seconds
        self._end = time.monotonic() + min(allowed, MAX_CALL_SECONDS)
        self._next_pause = _FIRST_PAUSE_SECONDS
        self.tries = 0

    def try_seconds(self) -> float:
        return max(0.001, min(_TRY_SECONDS, self._end - time.monotonic()))

    def may_try_again(self) -> bool:
        return self.tries < _MOST_TRIES and self.may_poll()

    def may_poll(self) -> bool:
        return time.monotonic() + self._next_pause < self._end

    def pause(self) -> None:
        # Scattered, so that programs that failed together do not come back together.
        time.sleep(self._next_pause * random.uniform(0.5, 1.0))
        self._next_pause = min(2.0, self._next_pause * 2)


def _failures(
    operation: Any, metadata_class: Any, count: int, response_class: Any = None
) -> dict[int, ApiError]:
    """Return the failed items of a batch by their place in it.

    Raises:
        ApiError: the batch as a whole failed, or what it says does not add up.
    """
    # By bytes, not by type name: the alpha and beta services' messages have the same fields.
    metadata = metadata_class.FromString(operation.metadata.value)
    failures = {
        int(index): ApiError(wire.code_name(status.code), status.message)
        for index, status in metadata.failed_requests.items()
    }
    if operation.HasField("error") and len(failures) < count:
        raise ApiError(wire.code_name(operation.error.code), operation.error.message)
    if response_class is not None and len(failures) < count:
        created = len(response_class.FromString(operation.response.value).tasks)
        if created + len(failures) != count:
            raise ApiError(
                "DATA_LOSS",
                f"of {count} tasks the answer tells of {created} created and {len(failures)} "
                "failed, so that it is not known what became of the rest",
            )
    return failures


def _routing(field: str, path: str) -> wire.Metadata:
    return (("x-goog-request-params", f"{field}={quote(path, safe='')}"),)


def _short(name: str) -> str:
    return name.rpartition("/")[2]


def _request_id() -> str:
    return str(uuid.uuid4())
