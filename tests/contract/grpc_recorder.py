"""A gRPC server that keeps Cloud Tasks' rules on enqueuing, and what it was asked.

It stands at the far end of a real channel: what the tests look at has been on the wire. It
dispatches nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

import grpc
from google.cloud import tasks_v2, tasks_v2beta3
from google.longrunning import operations_pb2
from google.rpc import code_pb2, status_pb2

from appengine_compat.core import limits, messages
from appengine_compat.core.names import parse_task_name, short_id
from appengine_compat.errors import ApiError

PROJECT = "test-project"
LOCATION = "europe-west3"
PARENT = f"projects/{PROJECT}/locations/{LOCATION}"


@dataclass
class Call:
    """One request as it came in."""

    rpc: str
    request: Any
    metadata: dict[str, str]
    timeout_seconds: float | None


@dataclass
class Fault:
    """An answer that a call gets in place of its own."""

    rpc: str
    code: str
    message: str
    times: int
    after: bool
    """Whether the call has its effect all the same."""
    from_call: int
    """1 for the next call of the operation."""


@dataclass
class Recorder:
    """The server's memory, and the knobs of the tests."""

    queues: set[str] = field(default_factory=set)
    tasks: dict[str, Any] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    calls: list[Call] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    item_faults: dict[int, ApiError] = field(default_factory=dict)
    """Refusals of items of the next batch, by their place in it."""
    slow_operations: int = 0
    """How many times an operation is answered as not yet done."""
    stats: dict[str, Any] = field(default_factory=dict)
    operations: dict[str, Any] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    address: str = ""

    def fail(
        self,
        rpc: str,
        code: str,
        message: str = "injected",
        *,
        times: int = 1,
        after: bool = False,
        from_call: int = 1,
    ) -> None:
        """Refuse coming calls of an operation, before or after they have taken effect."""
        calls_before = len(self.requests(rpc))
        self.faults.append(Fault(rpc, code, message, times, after, calls_before + from_call))

    def take_fault(self, rpc: str) -> Fault | None:
        """Return the fault of the call that has just been recorded, if it has one."""
        calls = len(self.requests(rpc))
        for fault in self.faults:
            if fault.rpc == rpc and fault.times and calls >= fault.from_call:
                fault.times -= 1
                return fault
        return None

    def requests(self, rpc: str) -> list[Any]:
        """Return the requests of one operation, in the order they came."""
        return [call.request for call in self.calls if call.rpc == rpc]

    def finish(self, queue: str, task_id: str) -> None:
        """Let a task have run: it is gone, and its name reserved."""
        name = f"{PARENT}/queues/{queue}/tasks/{task_id}"
        del self.tasks[name]
        self.gone.add(name)

    # --- the operations ---

    def create_task(self, request: Any) -> Any:
        """Keep one task."""
        return self._create(request)

    def batch_create_tasks(self, request: Any) -> Any:
        """Keep tasks, and tell of each that was refused."""
        if request.request_id and request.request_id in self.operations:
            return self.operations[request.request_id]
        if len(request.requests) > limits.MAX_BATCH_CREATE:
            raise messages.too_many_in_batch("requests", limits.MAX_BATCH_CREATE)
        self._require_queue(request.parent)
        response = tasks_v2.BatchCreateTasksResponse.pb()()
        metadata = tasks_v2.BatchCreateTasksMetadata.pb()()
        faults, self.item_faults = self.item_faults, {}
        for index, item in enumerate(request.requests):
            refused = faults.get(index) or self._fate(self._create_in, response, item)
            if refused is not None:
                metadata.failed_requests[index].CopyFrom(_status(refused))
        metadata.state = 5 if metadata.failed_requests else 2
        return self._operation(request.request_id, metadata, response)

    def batch_delete_tasks(self, request: Any) -> Any:
        """Delete tasks, and tell of each that was not there."""
        if len(request.names) > limits.MAX_BATCH_DELETE:
            raise messages.too_many_in_batch("names", limits.MAX_BATCH_DELETE)
        self._require_queue(request.parent)
        metadata = tasks_v2.BatchDeleteTasksMetadata.pb()()
        for index, name in enumerate(request.names):
            refused = self._fate(self._delete, name)
            if refused is not None:
                metadata.failed_requests[index].CopyFrom(_status(refused))
        error = None
        if request.names and len(metadata.failed_requests) == len(request.names):
            text = (
                "None of the requests succeeded, refer to "
                "BatchDeleteTasksMetadata.failed_requests for individual error details"
            )
            error = ApiError("ABORTED", text)
        return self._operation(request.request_id, metadata, None, error)

    def purge_queue(self, request: Any) -> Any:
        """Forget a queue's tasks."""
        self._require_queue(request.name)
        for name in [name for name in self.tasks if name.startswith(f"{request.name}/")]:
            del self.tasks[name]
            self.gone.add(name)
        return tasks_v2.Queue.pb()(name=request.name)

    def get_queue(self, request: Any) -> Any:
        """Tell of a queue, with statistics when the mask names them (v2beta3)."""
        self._require_queue(request.name)
        queue = tasks_v2beta3.Queue.pb()(name=request.name)
        if "stats" in request.read_mask.paths:
            queue.stats.tasks_count = sum(
                name.startswith(f"{request.name}/") for name in self.tasks
            )
            if request.name in self.stats:
                queue.stats.CopyFrom(self.stats[request.name])
        return queue

    def get_operation(self, request: Any) -> Any:
        """Tell how far an operation is."""
        self.slow_operations -= 1
        operation = operations_pb2.Operation()
        operation.CopyFrom(self.operations[request.name])
        operation.done = self.slow_operations <= 0
        return operation

    @staticmethod
    def _fate(operation: Callable[..., object], *arguments: object) -> ApiError | None:
        try:
            operation(*arguments)
        except ApiError as error:
            return error
        return None

    def _create_in(self, response: Any, request: Any) -> None:
        response.tasks.append(self._create(request))

    def _delete(self, name: str) -> None:
        parse_task_name(name)
        if name in self.gone:
            raise messages.task_gone()
        if self.tasks.pop(name, None) is None:
            raise messages.task_missing()
        self.gone.add(name)

    def _create(self, request: Any) -> Any:
        self._require_queue(request.parent)
        task = type(request.task)()
        task.CopyFrom(request.task)
        if task.name:
            parse_task_name(task.name)
            if task.name.rpartition("/tasks/")[0] != request.parent:
                raise messages.task_of_other_queue(request.parent, task.name)
            if task.name in self.tasks:
                raise messages.task_exists()
            if task.name in self.gone:
                raise messages.task_tombstoned()
        else:
            task.name = f"{request.parent}/tasks/{len(self.calls):019d}"
        _check(task)
        now = datetime.now(timezone.utc)
        if not task.HasField("schedule_time") or task.schedule_time.ToDatetime(timezone.utc) < now:
            task.schedule_time.FromDatetime(now)
        if task.schedule_time.ToDatetime(timezone.utc) > now + timedelta(hours=720):
            raise messages.schedule_too_far(task.schedule_time.ToDatetime(timezone.utc))
        if task.ByteSize() > limits.MAX_STORED_TASK_BYTES:
            raise messages.task_too_large(task.ByteSize())
        self.tasks[task.name] = task
        return task

    def _require_queue(self, path: str) -> None:
        if short_id(path) not in self.queues or not path.startswith(f"{PARENT}/queues/"):
            raise messages.queue_missing()

    def _operation(
        self, request_id: str, metadata: Any, response: Any, error: ApiError | None = None
    ) -> Any:
        operation = operations_pb2.Operation(name=f"{PARENT}/operations/{len(self.calls)}")
        operation.metadata.Pack(metadata)
        if error is not None:
            operation.error.CopyFrom(_status(error))
        elif response is not None:
            operation.response.Pack(response)
        operation.done = self.slow_operations == 0
        self.operations[operation.name] = operation
        if request_id:
            self.operations[request_id] = operation
        return operation


def _check(task: Any) -> None:
    kind = task.WhichOneof("message_type")
    if kind is None:
        raise messages.request_missing()
    request = getattr(task, kind)
    method = tasks_v2.HttpMethod(request.http_method).name
    if kind == "http_request":
        if not request.url.startswith(("http://", "https://")):
            raise messages.url_scheme_unknown()
        if request.WhichOneof("authorization_header") and not request.url.startswith("https://"):
            raise messages.url_not_https()
        if request.body and method not in limits.HTTP_BODY_METHODS:
            raise messages.body_not_allowed("HttpRequest", limits.HTTP_BODY_METHODS)
        longest, shown = limits.MAX_HTTP_DISPATCH_DEADLINE_SECONDS, "30m"
    else:
        if not request.relative_uri.startswith("/") or " " in request.relative_uri:
            raise messages.relative_uri_malformed()
        if request.body and method not in limits.APP_ENGINE_BODY_METHODS:
            raise messages.body_not_allowed("AppEngineHttpRequest", limits.APP_ENGINE_BODY_METHODS)
        longest, shown = limits.MAX_APP_ENGINE_DISPATCH_DEADLINE_SECONDS, "24h15s"
    if task.HasField("dispatch_deadline"):
        seconds = task.dispatch_deadline.ToTimedelta().total_seconds()
        if not limits.MIN_DISPATCH_DEADLINE_SECONDS <= seconds <= longest:
            raise messages.deadline_out_of_range("15s", shown)


def _status(error: ApiError) -> status_pb2.Status:
    return status_pb2.Status(code=code_pb2.Code.Value(error.code), message=error.message)


_V2 = "/google.cloud.tasks.v2.CloudTasks/"
_METHODS: dict[str, tuple[Any, Callable[[Recorder, Any], Any]]] = {
    _V2 + "CreateTask": (tasks_v2.CreateTaskRequest.pb(), Recorder.create_task),
    _V2 + "BatchCreateTasks": (
        tasks_v2.BatchCreateTasksRequest.pb(),
        Recorder.batch_create_tasks,
    ),
    _V2 + "BatchDeleteTasks": (
        tasks_v2.BatchDeleteTasksRequest.pb(),
        Recorder.batch_delete_tasks,
    ),
    _V2 + "PurgeQueue": (tasks_v2.PurgeQueueRequest.pb(), Recorder.purge_queue),
    "/google.cloud.tasks.v2beta3.CloudTasks/GetQueue": (
        tasks_v2beta3.GetQueueRequest.pb(),
        Recorder.get_queue,
    ),
    "/google.longrunning.Operations/GetOperation": (
        operations_pb2.GetOperationRequest,
        Recorder.get_operation,
    ),
}


class _Handler(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    def service(self, details: Any) -> Any:
        if details.method not in _METHODS:
            return None
        request_class, operation = _METHODS[details.method]
        rpc = short_id(details.method)

        def answer(request: Any, context: Any) -> Any:
            recorder = self.recorder
            with recorder.lock:
                remaining = context.time_remaining()
                metadata = {pair.key: pair.value for pair in details.invocation_metadata}
                recorder.calls.append(Call(rpc, request, metadata, remaining))
                fault = recorder.take_fault(rpc)
                try:
                    if fault is None or fault.after:
                        result = operation(recorder, request)
                    if fault is not None:
                        raise ApiError(fault.code, fault.message)
                    return result
                except ApiError as error:
                    code, text = getattr(grpc.StatusCode, error.code), error.message
            context.abort(code, text)

        return grpc.unary_unary_rpc_method_handler(
            answer,
            request_deserializer=request_class.FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )


@contextmanager
def serving(*queues: str) -> Iterator[Recorder]:
    """Serve on a free port of this machine, with these queues."""
    recorder = Recorder(queues=set(queues))
    server = grpc.server(
        futures.ThreadPoolExecutor(8), options=[("grpc.max_receive_message_length", -1)]
    )
    server.add_generic_rpc_handlers((_Handler(recorder),))
    recorder.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield recorder
    finally:
        server.stop(None).wait()
