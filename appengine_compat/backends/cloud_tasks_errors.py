"""What Cloud Tasks' refusals mean, and what to do about each.

One table, from code and text to ``Reason``. Texts count because the service uses one code for
many things: NOT_FOUND is a missing queue, task or service account.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from appengine_compat import settings
from appengine_compat.backends.base import BackendError, Reason
from appengine_compat.core.names import QueueName
from appengine_compat.errors import ApiError
from appengine_compat.platform import Found

# Behind Cloud Tasks stands App Engine's old executor; in batches its own word shows through.
_EXECUTOR_WORD = re.compile(r"ExecutorServiceError::([A-Z_]+)")
_EXECUTOR_REASONS = {
    "UNKNOWN_QUEUE": Reason.UNKNOWN_QUEUE,
    "TOMBSTONED_QUEUE": Reason.UNKNOWN_QUEUE,
    "UNKNOWN_TASK": Reason.UNKNOWN_TASK,
    "TASK_ALREADY_EXISTS": Reason.TASK_ALREADY_EXISTS,
    "TOMBSTONED_TASK": Reason.TOMBSTONED_TASK,
    "TASK_TOO_LARGE": Reason.TASK_TOO_LARGE,
    "INVALID_TASK_NAME": Reason.INVALID_TASK_NAME,
    "INVALID_QUEUE_NAME": Reason.INVALID_QUEUE_NAME,
    "INVALID_QUEUE_MODE": Reason.INVALID_QUEUE_MODE,
    "INVALID_URL": Reason.INVALID_URL,
    "INVALID_ETA": Reason.INVALID_ETA,
    "INVALID_DISPATCH_DEADLINE": Reason.INVALID_DISPATCH_DEADLINE,
    "INVALID_REQUEST": Reason.INVALID_REQUEST,
    "PERMISSION_DENIED": Reason.PERMISSION_DENIED,
    "TRANSIENT_ERROR": Reason.TRANSIENT,
    "INTERNAL_ERROR": Reason.INTERNAL,
}

_QUEUE = "Create it: gcloud tasks queues create {queue} --project={project} --location={location}"
_CREDENTIALS = (
    "Give the program credentials: a service account on the platform, or "
    "`gcloud auth application-default login` on a laptop"
)
_LATER = "It may work later; nothing is known to be wrong with the task"

# (code, part of the text, reason, what to do); the first that fits counts.
_TABLE: tuple[tuple[str, str, Reason, str], ...] = (
    ("NOT_FOUND", "queue does not exist", Reason.UNKNOWN_QUEUE, _QUEUE),
    ("FAILED_PRECONDITION", "queue does not exist", Reason.UNKNOWN_QUEUE, _QUEUE),
    ("NOT_FOUND", "existed recently", Reason.TOMBSTONED_TASK, ""),
    (
        "NOT_FOUND",
        "service account",
        Reason.INVALID_REQUEST,
        "Set {service_account_variable} to a service account that exists in project {project}",
    ),
    ("ALREADY_EXISTS", "tombstone", Reason.TOMBSTONED_TASK, ""),
    ("ALREADY_EXISTS", "", Reason.TASK_ALREADY_EXISTS, ""),
    ("INVALID_ARGUMENT", "task size too large", Reason.TASK_TOO_LARGE, ""),
    ("INVALID_ARGUMENT", "scheduletime", Reason.INVALID_ETA, ""),
    ("INVALID_ARGUMENT", "dispatchdeadline", Reason.INVALID_DISPATCH_DEADLINE, ""),
    ("INVALID_ARGUMENT", "task id", Reason.INVALID_TASK_NAME, ""),
    ("INVALID_ARGUMENT", "queue name from request", Reason.INVALID_TASK_NAME, ""),
    ("INVALID_ARGUMENT", "queue name", Reason.INVALID_QUEUE_NAME, ""),
    ("INVALID_ARGUMENT", "queue id", Reason.INVALID_QUEUE_NAME, ""),
    (
        "INVALID_ARGUMENT",
        "location",
        Reason.INVALID_REQUEST,
        "Set {location_variable} to one of: gcloud tasks locations list --project={project}",
    ),
    (
        "INVALID_ARGUMENT",
        "url must start with 'https://'",
        Reason.INVALID_URL,
        "Give the service an https:// address in {targets_variable}",
    ),
    ("INVALID_ARGUMENT", "url", Reason.INVALID_URL, ""),
    ("INVALID_ARGUMENT", "relativeuri", Reason.INVALID_URL, ""),
    ("INVALID_ARGUMENT", "relative_uri", Reason.INVALID_URL, ""),
    ("INVALID_ARGUMENT", "", Reason.INVALID_REQUEST, ""),
    (
        "PERMISSION_DENIED",
        "actas",
        Reason.PERMISSION_DENIED,
        "Grant the caller roles/iam.serviceAccountUser on the service account that tasks come "
        "as ({service_account})",
    ),
    (
        "PERMISSION_DENIED",
        "serviceaccount",
        Reason.PERMISSION_DENIED,
        "Grant the caller roles/iam.serviceAccountUser on the service account that tasks come "
        "as ({service_account})",
    ),
    (
        "PERMISSION_DENIED",
        "has not been used",
        Reason.PERMISSION_DENIED,
        "Enable the API: gcloud services enable cloudtasks.googleapis.com --project={project}",
    ),
    (
        "PERMISSION_DENIED",
        "",
        Reason.PERMISSION_DENIED,
        "Grant the caller {role} in project {project} (and, for tasks that come as a service "
        "account, roles/iam.serviceAccountUser on it); and check that the project is the right one",
    ),
    ("UNAUTHENTICATED", "", Reason.PERMISSION_DENIED, _CREDENTIALS),
    ("UNAVAILABLE", "", Reason.TRANSIENT, "{unavailable}"),
    ("DEADLINE_EXCEEDED", "", Reason.TRANSIENT, _LATER),
    ("ABORTED", "", Reason.TRANSIENT, _LATER),
    ("CANCELLED", "", Reason.TRANSIENT, _LATER),
    (
        "RESOURCE_EXHAUSTED",
        "",
        Reason.TRANSIENT,
        "A quota of project {project} is spent: enqueue more slowly, or ask for a larger one",
    ),
    (
        "UNIMPLEMENTED",
        "",
        Reason.INTERNAL,
        "The service at {endpoint} does not have this operation",
    ),
)

_PASSING = frozenset(
    {"UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED", "INTERNAL", "RESOURCE_EXHAUSTED"}
)


@dataclass(frozen=True, slots=True)
class Place:
    """Whose queues they are, as messages tell it."""

    project: Found
    location: Found
    service_account: str
    endpoint: str
    is_emulator: bool

    def queue_name(self, queue: str) -> QueueName:
        """Return the resource name of the queue of this id."""
        return QueueName(self.project.value, self.location.value, queue)


@dataclass(frozen=True, slots=True)
class Operation:
    """What was asked for, and what NOT_FOUND means then."""

    verb: str
    """As in "Cloud Tasks refused to …"."""
    not_found: Reason
    role: str = "roles/cloudtasks.enqueuer"


CREATE = Operation("create", Reason.INVALID_REQUEST)
DELETE = Operation("delete", Reason.UNKNOWN_TASK, "roles/cloudtasks.taskDeleter")
PURGE = Operation("purge", Reason.UNKNOWN_QUEUE, "roles/cloudtasks.queueAdmin")
STATS = Operation("tell the statistics of", Reason.UNKNOWN_QUEUE, "roles/cloudtasks.viewer")


def is_passing(error: ApiError) -> bool:
    """Tell whether the same call may well succeed when it is made again."""
    if error.code not in _PASSING:
        return False
    word = _EXECUTOR_WORD.search(error.message)
    return word is None or word[1] in ("TRANSIENT_ERROR", "INTERNAL_ERROR")


def translate(
    error: ApiError, operation: Operation, place: Place, queue: str, task: str = "", note: str = ""
) -> BackendError:
    """Return what a refusal means.

    Args:
        error: the refusal.
        operation: what was asked for.
        place: project and location.
        queue: queue id.
        task: task id; "" when the call concerns no single one.
        note: a sentence that the message ends with.
    """
    reason, remedy = _row(error.code, error.message, operation)
    facts = {
        "queue": queue,
        "project": place.project.value,
        "location": place.location.value,
        "role": operation.role,
        "endpoint": place.endpoint,
        "service_account": place.service_account or "none is set",
        "unavailable": _unavailable(error.message, place),
        "targets_variable": settings.TARGETS.variable,
        "location_variable": settings.LOCATION.variable,
        "service_account_variable": settings.SERVICE_ACCOUNT.variable,
    }
    what = f"the task {task!r} in queue" if task else "queue"
    if operation is CREATE and not task:
        what = "a task in queue"
    done = "did not" if reason is Reason.TRANSIENT else "refused to"
    sentences = [
        f"Cloud Tasks {done} {operation.verb} {what} {place.queue_name(queue)} (project from "
        f"{place.project.source}, location from {place.location.source}): "
        f"{error.code}: {error.message.rstrip('. ')}.",
        remedy.format_map(facts).rstrip(".") + "." if remedy else "",
        note,
    ]
    message = " ".join(filter(None, sentences))
    return BackendError(reason, message, queue=queue, task=task)


def _row(code: str, text: str, operation: Operation) -> tuple[Reason, str]:
    lowered = text.lower()
    word = _EXECUTOR_WORD.search(text)
    if word and word[1] in _EXECUTOR_REASONS:
        reason = _EXECUTOR_REASONS[word[1]]
        return reason, _QUEUE if reason is Reason.UNKNOWN_QUEUE else ""
    for row_code, part, reason, remedy in _TABLE:
        if row_code == code and part in lowered:
            return reason, remedy
    if code == "NOT_FOUND":
        reason = operation.not_found
        return reason, _QUEUE if reason is Reason.UNKNOWN_QUEUE else ""
    return Reason.INTERNAL, ""


def _unavailable(text: str, place: Place) -> str:
    if place.is_emulator:
        return (
            f"Nothing that can be used answers at {place.endpoint}: start it (appengine-compat "
            "dev), or unset CLOUD_TASKS_EMULATOR_HOST"
        )
    if "metadata from plugin" in text:  # gRPC's words for credentials that could not be had
        return _CREDENTIALS
    return _LATER
