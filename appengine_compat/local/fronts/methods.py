"""The table of RPCs: full name, request class, and the function that does it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from google.cloud.location import locations_pb2
from google.iam.v1 import iam_policy_pb2
from google.longrunning import operations_pb2
from google.protobuf.message import DecodeError

from appengine_compat.errors import ApiError
from appengine_compat.local.fronts import (
    batch_methods,
    place_methods,
    policy_methods,
    queue_methods,
    rpc_status,
    task_methods,
)
from appengine_compat.local.fronts.resources import Api
from appengine_compat.local.fronts.versions import V2, V2BETA3, Version
from appengine_compat.local.service import LocalService

_QUEUES_AND_TASKS: dict[str, Callable[[Api, Any], Any]] = {
    "ListQueues": queue_methods.list_queues,
    "GetQueue": queue_methods.get_queue,
    "CreateQueue": queue_methods.create_queue,
    "UpdateQueue": queue_methods.update_queue,
    "DeleteQueue": queue_methods.delete_queue,
    "PurgeQueue": queue_methods.purge_queue,
    "PauseQueue": queue_methods.pause_queue,
    "ResumeQueue": queue_methods.resume_queue,
    "ListTasks": task_methods.list_tasks,
    "GetTask": task_methods.get_task,
    "CreateTask": task_methods.create_task,
    "BatchCreateTasks": batch_methods.batch_create_tasks,
    "DeleteTask": task_methods.delete_task,
    "BatchDeleteTasks": batch_methods.batch_delete_tasks,
    "RunTask": task_methods.run_task,
    "UpdateCmekConfig": place_methods.update_cmek_config,
    "GetCmekConfig": place_methods.get_cmek_config,
}
# What many clients wait for at once is done together: the disk is asked once for all of them.
_SHARED: dict[str, Callable[[Api, Sequence[Any]], list[Any]]] = {
    "CreateTask": task_methods.create_tasks,
}
_POLICIES: dict[str, tuple[Any, Callable[[Api, Any], Any]]] = {
    "GetIamPolicy": (iam_policy_pb2.GetIamPolicyRequest, policy_methods.get_iam_policy),
    "SetIamPolicy": (iam_policy_pb2.SetIamPolicyRequest, policy_methods.set_iam_policy),
    "TestIamPermissions": (
        iam_policy_pb2.TestIamPermissionsRequest,
        policy_methods.test_iam_permissions,
    ),
}
_MIXINS: dict[str, tuple[Any, Callable[[Api, Any], Any]]] = {
    "google.cloud.location.Locations/ListLocations": (
        locations_pb2.ListLocationsRequest,
        place_methods.list_locations,
    ),
    "google.cloud.location.Locations/GetLocation": (
        locations_pb2.GetLocationRequest,
        place_methods.get_location,
    ),
    "google.longrunning.Operations/GetOperation": (
        operations_pb2.GetOperationRequest,
        place_methods.get_operation,
    ),
}


@dataclass(frozen=True)
class Method:
    """One RPC of one version over one service."""

    full_name: str
    request_class: Any
    api: Api
    function: Callable[[Api, Any], Any]
    together: Callable[[Api, Sequence[Any]], list[Any]] | None = None

    def call(self, request: Any) -> Any:
        """Do it.

        Raises:
            ApiError: the service refuses; or INTERNAL, with the cause in the log.
        """
        try:
            return self.function(self.api, request)
        except Exception as error:
            raise rpc_status.as_refusal(error, self.full_name) from None

    def call_encoded(self, encoded: bytes) -> Any:
        """Do it for a request in protobuf's encoding.

        Raises:
            ApiError: as ``call``; INVALID_ARGUMENT for bytes that are no such request.
        """
        return self.call(self._decoded(encoded))

    def call_together(self, encoded: Sequence[bytes]) -> list[Any]:
        """Do it for several requests in protobuf's encoding, as one piece of work.

        Only where ``together`` is given.

        Returns:
            For each, in order: its response, or the ``ApiError`` that ``call_encoded`` raises.
        """
        assert self.together is not None
        results: list[Any] = []
        for each in encoded:
            try:
                results.append(self._decoded(each))
            except ApiError as refusal:  # noqa: PERF203
                results.append(refusal)
        places = [at for at, each in enumerate(results) if not isinstance(each, ApiError)]
        try:
            done = self.together(self.api, [results[at] for at in places])
        except Exception as error:
            done = [error] * len(places)
        for at, each in zip(places, done, strict=True):
            is_error = isinstance(each, Exception)
            results[at] = rpc_status.as_refusal(each, self.full_name) if is_error else each
        return results

    def _decoded(self, encoded: bytes) -> Any:
        try:
            return self.request_class.FromString(encoded)
        except DecodeError:
            raise ApiError(
                "INVALID_ARGUMENT", f"The request is not a {self.request_class.__name__}."
            ) from None


def methods(service: LocalService, location: str) -> dict[str, Method]:
    """Return every RPC that is served, by its full name ``package.Service/Method``.

    Args:
        service: does the work.
        location: the location to list though it has no queue yet.
    """
    found = {}
    for version in (V2, V2BETA3):
        api = Api(service, version, location)
        for name, (request_class, function) in _own(version).items():
            full_name = f"{version.service}/{name}"
            together = _SHARED.get(name)
            found[full_name] = Method(full_name, request_class, api, function, together)
    api = Api(service, V2, location)
    for full_name, (request_class, function) in _MIXINS.items():
        found[full_name] = Method(full_name, request_class, api, function)
    return found


def _own(version: Version) -> dict[str, tuple[Any, Callable[[Api, Any], Any]]]:
    own = {
        name: (version.message(f"{name}Request"), function)
        for name, function in _QUEUES_AND_TASKS.items()
    }
    return own | _POLICIES
