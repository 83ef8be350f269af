"""The IAM trio. Policies are kept and answered; nobody is kept out by them here."""

from __future__ import annotations

import hashlib
from typing import Any

from google.iam.v1 import iam_policy_pb2, policy_pb2

from appengine_compat.core import messages
from appengine_compat.errors import ApiError
from appengine_compat.local import queue_operations
from appengine_compat.local.fronts import resources
from appengine_compat.local.fronts.resources import Api
from appengine_compat.local.store import Connection

_NO_POLICY_ETAG = b"\x00\x20\x01"
"""What production answers for a queue without a policy; base64 shows it as ACAB."""


def get_iam_policy(api: Api, request: Any) -> Any:
    """GetIamPolicy; an empty one where none was set."""
    name = resources.queue(request.resource)
    return _decoded(
        api.service.store.read(lambda connection: queue_operations.policy(connection, name))
    )


def set_iam_policy(api: Api, request: Any) -> Any:
    """SetIamPolicy, which replaces the whole policy."""
    name = resources.queue(request.resource)
    policy = policy_pb2.Policy()
    policy.CopyFrom(request.policy)
    given_etag = policy.etag
    policy.etag = b""
    policy.etag = hashlib.sha256(policy.SerializeToString(deterministic=True)).digest()[:8]

    def put(connection: Connection) -> None:
        current = _decoded(queue_operations.policy(connection, name))
        if given_etag and given_etag != current.etag:
            raise messages.policy_changed()
        queue_operations.set_policy(connection, name, policy.SerializeToString())

    api.service.store.write(put)
    return policy


def test_iam_permissions(api: Api, request: Any) -> Any:
    """TestIamPermissions: all of them, and none for a queue that is not there."""
    name = resources.queue(request.resource)
    for permission in request.permissions:
        if "*" in permission:
            raise messages.setting_invalid(f"Permission {permission} must not hold a wildcard.")
    try:
        api.service.get_queue(name)
    except ApiError as refusal:
        if refusal.code != "NOT_FOUND":
            raise
        return iam_policy_pb2.TestIamPermissionsResponse()
    return iam_policy_pb2.TestIamPermissionsResponse(permissions=request.permissions)


def _decoded(kept: bytes | None) -> Any:
    if kept is None:
        return policy_pb2.Policy(etag=_NO_POLICY_ETAG)
    return policy_pb2.Policy.FromString(kept)
