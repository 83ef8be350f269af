"""Tasks that go to Google Cloud Tasks, or to whatever speaks its protocol.

Every task is created under a name, a random one where the caller gave none: a call that failed
for a passing reason may have reached the service all the same, and only a name lets it be
repeated without a second task. (The service says that names cost it a look-up, and that random
ones cost least.)
"""

from __future__ import annotations

import os
import secrets
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from appengine_compat import platform, settings
from appengine_compat.backends import cloud_tasks_calls as calls
from appengine_compat.backends import cloud_tasks_connection as wire
from appengine_compat.backends import cloud_tasks_errors as errors
from appengine_compat.backends import cloud_tasks_messages as messages
from appengine_compat.backends.base import BackendError, Outcome, Reason, TaskRequest
from appengine_compat.backends.cloud_tasks_calls import Budget
from appengine_compat.core import limits
from appengine_compat.core.model import QueueStats
from appengine_compat.core.names import QUEUE_ID, TASK_ID
from appengine_compat.errors import ApiError
from appengine_compat.platform import Platform

if TYPE_CHECKING:
    from google.cloud import tasks_v2


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
            # A client that was given may lead anywhere.
            is_google=not emulator and client is None,
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
        budget = Budget(timeout_seconds)
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
        budget = Budget(timeout_seconds)
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
        metadata = wire.routing("name", path)
        budget = Budget(timeout_seconds)
        try:
            calls.persist(self._connection, wire.PURGE, request, metadata, budget)
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

        budget = Budget(timeout_seconds)
        answers = []
        for queue in queues:
            path, _ = self._queue(queue)
            try:
                answer = calls.persist(
                    self._connection,
                    stats.GET_QUEUE,
                    stats.request(path),
                    wire.routing("name", path),
                    budget,
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
        self, queue: str, request: TaskRequest, message: Any, budget: Budget
    ) -> Outcome:
        task_id = _short(message.task.name)
        _, metadata = self._queue(queue)
        try:
            calls.persist(self._connection, wire.CREATE, message, metadata, budget)
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
        budget: Budget,
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
                operation = calls.finished(
                    self._connection,
                    calls.persist(self._connection, wire.BATCH_CREATE, batch, metadata, budget),
                    budget,
                )
                failures = calls.failures(
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

    def _delete_batch(self, queue: str, task_ids: Sequence[str], budget: Budget) -> list[Outcome]:
        path, metadata = self._queue(queue)
        request = messages.BatchDeleteTasksRequest(
            parent=path,
            names=[f"{path}/tasks/{task_id}" for task_id in task_ids],
            request_id=_request_id(),
        )
        try:
            operation = calls.finished(
                self._connection,
                calls.persist(self._connection, wire.BATCH_DELETE, request, metadata, budget),
                budget,
            )
            failures = calls.failures(operation, messages.BatchDeleteTasksMetadata, len(task_ids))
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
            known = self._queues[queue] = (path, wire.routing("parent", path))
        return known


def _short(name: str) -> str:
    return name.rpartition("/")[2]


def _request_id() -> str:
    return str(uuid.uuid4())
