"""BatchCreateTasks and BatchDeleteTasks: many tasks in one commit, answered by an Operation.

The operation is done when it is answered. It is kept for a day, in the commit of what it did,
so that a call repeated with its ``request_id`` finds it and does nothing twice.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from typing import Any

from google.longrunning import operations_pb2
from google.protobuf import empty_pb2

from appengine_compat.core import limits, messages, moments, names
from appengine_compat.core.model import Task
from appengine_compat.errors import ApiError
from appengine_compat.local.documents import Record
from appengine_compat.local.fronts import resources, rpc_status, values
from appengine_compat.local.fronts.resources import Api
from appengine_compat.local.fronts.task_messages import read_task, write_task
from appengine_compat.local.fronts.task_methods import view_of

OPERATION_KEY = "operation "
_KEPT_SECONDS = 86400

_NONE_SUCCEEDED = (
    "None of the requests succeeded, refer to BatchDeleteTasksMetadata.failed_requests for "
    "individual error details"
)


def batch_create_tasks(api: Api, request: Any) -> Any:
    """BatchCreateTasks."""
    parent = resources.queue(request.parent)
    if len(request.requests) > limits.MAX_BATCH_CREATE:
        raise messages.too_many_in_batch("tasks", limits.MAX_BATCH_CREATE)
    if any(each.parent != parent for each in request.requests):
        raise messages.parents_differ()
    views = [view_of(each) for each in request.requests]
    tasks = [_task_or_refusal(each.task) for each in request.requests]
    name = _operation_name(parent, "create", request.request_id)

    def encoded(results: Sequence[Task | ApiError], now: int) -> bytes:
        operation = operations_pb2.Operation(name=name, done=True)
        response = api.version.message("BatchCreateTasksResponse")()
        failed = {}
        for place, (result, view) in enumerate(zip(results, views, strict=True)):
            if isinstance(result, ApiError):
                failed[place] = result
            else:
                response.tasks.append(write_task(api.version, result, view))
        _write_metadata(operation, api.version.message("BatchCreateTasksMetadata"), failed, now)
        operation.response.Pack(response)
        return bytes(operation.SerializeToString())

    record = Record(OPERATION_KEY + name, _KEPT_SECONDS, encoded)
    return operations_pb2.Operation.FromString(api.service.create_tasks_once(parent, tasks, record))


def _task_or_refusal(message: Any) -> Task | ApiError:
    try:
        return read_task(message)
    except ApiError as refusal:
        return refusal


def batch_delete_tasks(api: Api, request: Any) -> Any:
    """BatchDeleteTasks."""
    parent = resources.queue(request.parent)
    for each in request.names:
        if not each.startswith(f"{parent}/tasks/"):
            raise messages.parents_differ()
    count = len(request.names)
    name = _operation_name(parent, "delete", request.request_id)

    def encoded(results: Sequence[ApiError | None], now: int) -> bytes:
        operation = operations_pb2.Operation(name=name, done=True)
        failed = {place: result for place, result in enumerate(results) if result is not None}
        _write_metadata(operation, api.version.message("BatchDeleteTasksMetadata"), failed, now)
        if failed and len(failed) == count:
            operation.error.code = rpc_status.code_number("ABORTED")
            operation.error.message = _NONE_SUCCEEDED
        else:
            operation.response.Pack(empty_pb2.Empty())
        return bytes(operation.SerializeToString())

    record = Record(OPERATION_KEY + name, _KEPT_SECONDS, encoded)
    return operations_pb2.Operation.FromString(
        api.service.delete_tasks_once(parent, list(request.names), record)
    )


def _write_metadata(
    operation: Any, metadata_class: Any, failed: dict[int, ApiError], now: int
) -> None:
    # By name: the two metadata number their states differently.
    state = metadata_class.State.Value("PARTIALLY_SUCCEEDED" if failed else "SUCCEEDED")
    metadata = metadata_class(state=state)
    moment = moments.to_datetime(now)
    values.write_moment(metadata.start_time, moment)
    values.write_moment(metadata.end_time, moment)
    for place, refusal in failed.items():
        metadata.failed_requests[place].CopyFrom(rpc_status.status(refusal))
    operation.metadata.Pack(metadata)


def _operation_name(parent: str, kind: str, request_id: str) -> str:
    queue = names.parse_queue_name(parent)
    if not request_id:
        return f"{queue.parent}/operations/{uuid.uuid4()}"
    digest = hashlib.sha256(f"{parent} {kind} {request_id}".encode()).digest()
    return f"{queue.parent}/operations/{uuid.UUID(bytes=digest[:16])}"
