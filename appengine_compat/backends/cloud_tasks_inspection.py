"""What ``appengine-compat doctor`` asks Google: who we are, what we may, and what is there.

Nothing here changes anything.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import google.auth
import google.auth.exceptions
import google.auth.transport.requests
from google.cloud import tasks_v2

from appengine_compat import platform
from appengine_compat.backends import cloud_tasks_connection as wire
from appengine_compat.core.model import Queue
from appengine_compat.errors import ApiError, CompatError

IAM_URL = "https://iam.googleapis.com/v1"
ACT_AS = "iam.serviceAccounts.actAs"

_TIMEOUT_SECONDS = 10.0
_SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
_V2 = "/google.cloud.tasks.v2.CloudTasks/"
_GET_QUEUE = wire.Rpc(_V2 + "GetQueue", "get_queue", tasks_v2.GetQueueRequest, tasks_v2.Queue.pb())
_GET_TASK = wire.Rpc(_V2 + "GetTask", "get_task", tasks_v2.GetTaskRequest, tasks_v2.Task.pb())


class InspectionError(CompatError):
    """Google could not be asked, or does not tell."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this program is to Google."""

    email: str
    """"" where the credentials do not say."""
    kind: str
    """What kind of credentials they are."""


@dataclass(frozen=True, slots=True)
class TaskState:
    """How far a task has come."""

    attempts: int
    last_status: str
    """What the last attempt was answered, in the service's words; "" before the first."""


def identity() -> Identity:
    """Return who the application default credentials are, having tried them.

    Raises:
        InspectionError: there are none, or Google does not take them.
    """
    credentials = _credentials()
    email = getattr(credentials, "service_account_email", "") or getattr(credentials, "account", "")
    return Identity(email="" if email == "default" else email, kind=type(credentials).__module__)


def may_act_as(service_account: str) -> bool:
    """Tell whether the credentials may put this account on tasks (``iam.serviceAccounts.actAs``).

    Raises:
        InspectionError: Google does not tell, for instance since the account is not there.
    """
    credentials = _credentials()
    library: Any = google.auth.transport.requests
    session = library.AuthorizedSession(credentials)
    address = (
        f"{IAM_URL}/projects/-/serviceAccounts/{quote(service_account, safe='@')}"
        ":testIamPermissions"
    )
    try:
        answer = session.post(address, json={"permissions": [ACT_AS]}, timeout=_TIMEOUT_SECONDS)
    except (OSError, google.auth.exceptions.GoogleAuthError) as error:
        raise InspectionError(f"{IAM_URL} cannot be asked: {error}") from error
    if answer.status_code != 200:
        raise InspectionError(_words(answer.status_code, answer.text))
    return ACT_AS in answer.json().get("permissions", ())


def _words(status: int, text: str) -> str:
    try:
        said = str(json.loads(text)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        said = text[:200]
    return f"IAM answers {status}: {said}"


def _credentials() -> Any:
    try:
        found: tuple[Any, Any] = google.auth.default(scopes=_SCOPES)
        credentials = found[0]
        if not credentials.valid:
            credentials.refresh(google.auth.transport.requests.Request())
    except (OSError, google.auth.exceptions.GoogleAuthError) as error:
        raise InspectionError(" ".join(str(error).split())) from error
    return credentials


class Inspector:
    """Looks at queues and tasks where the backend puts them."""

    def __init__(self) -> None:
        self._connection = wire.Connection(emulator=platform.emulator_host())

    def queue(self, name: str) -> Any | None:
        """Return the message of a queue by its whole name; None where there is none.

        Raises:
            InspectionError: the service does not tell.
        """
        return self._found(_GET_QUEUE, tasks_v2.GetQueueRequest.pb()(name=name), name)

    def task(self, name: str) -> TaskState | None:
        """Return how far a task has come; None where it is done and gone.

        Raises:
            InspectionError: the service does not tell.
        """
        task = self._found(_GET_TASK, tasks_v2.GetTaskRequest.pb()(name=name), name)
        if task is None:
            return None
        status = task.last_attempt.response_status
        return TaskState(task.dispatch_count, status.message or (str(status.code or "")))

    def _found(self, rpc: wire.Rpc, request: Any, name: str) -> Any | None:
        metadata = wire.routing("name", name)
        try:
            return self._connection.call(rpc, request, _TIMEOUT_SECONDS, metadata)
        except ApiError as error:
            if error.code == "NOT_FOUND":
                return None
            raise InspectionError(str(error)) from error


def differences(wanted: Queue, found: Any) -> list[str]:
    """Return what a queue has otherwise than queue.yaml wants it, in words."""
    rates, retry = found.rate_limits, found.retry_config
    rows = (
        ("rate", wanted.rate_limits.max_dispatches_per_second, rates.max_dispatches_per_second),
        ("concurrency", wanted.rate_limits.max_concurrent_dispatches,
         rates.max_concurrent_dispatches),
        ("attempts", wanted.retry_config.max_attempts, retry.max_attempts),
    )  # fmt: skip
    return [f"{what} {has:g}, not {wants:g}" for what, wants, has in rows if has != wants]
