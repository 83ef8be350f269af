"""Every refusal of the service, with the text that production answers.

Texts marked "unverified" in ``docs/`` are our guess of one that was never recorded.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from appengine_compat.errors import ApiError

_REFERENCE = "https://cloud.google.com/tasks/docs/reference/rest/v2/projects.locations.queues"

# Reasons: words by which code tells apart refusals of one code.
UNKNOWN_QUEUE = "UNKNOWN_QUEUE"
TASK_ALREADY_EXISTS = "TASK_ALREADY_EXISTS"
TOMBSTONED_TASK = "TOMBSTONED_TASK"
UNKNOWN_TASK = "UNKNOWN_TASK"
TASK_TOO_LARGE = "TASK_TOO_LARGE"
INVALID_TASK_NAME = "INVALID_TASK_NAME"
INVALID_QUEUE_NAME = "INVALID_QUEUE_NAME"
INVALID_ETA = "INVALID_ETA"
INVALID_DISPATCH_DEADLINE = "INVALID_DISPATCH_DEADLINE"
INVALID_URL = "INVALID_URL"
CONSUMER_INVALID = "CONSUMER_INVALID"


def _invalid(message: str, reason: str = "", links: tuple[tuple[str, str], ...] = ()) -> ApiError:
    return ApiError("INVALID_ARGUMENT", message, reason=reason, help_links=links)


# --- names ---


def queue_name_malformed() -> ApiError:
    """A queue's name has another shape."""
    return _invalid(
        'Queue name must be formatted: "projects/<PROJECT_ID>/locations/<LOCATION_ID>/queues/'
        '<QUEUE_ID>".',
        INVALID_QUEUE_NAME,
        (("Definition of queue name", f"{_REFERENCE}#Queue.FIELDS.name"),),
    )


def resource_name_malformed() -> ApiError:
    """A parent or a name has another shape."""
    return _invalid("Invalid resource field value in the request.")


def project_denied(parent: str) -> ApiError:
    """CreateQueue's parent is no location: production looks for a project of that name."""
    return ApiError(
        "PERMISSION_DENIED",
        f"Permission denied on resource project {parent}.",
        reason=CONSUMER_INVALID,
        metadata=(("consumer", f"projects/{parent}"), ("service", "cloudtasks.googleapis.com")),
    )


def location_unknown(location: str) -> ApiError:
    """There is no such location; the wildcard ``-`` is none either."""
    return _invalid(
        f"Location '{location}' is not a valid location. Use ListLocations to list valid locations."
    )


def task_id_malformed(task_id: str) -> ApiError:
    """A task id has other characters or another length."""
    return _invalid(
        f'Task ID "{task_id}" can contain only letters ([A-Za-z]), numbers ([0-9]), hyphens (-), '
        "or underscores (_). Task ID must between 1 and 500 characters.",
        INVALID_TASK_NAME,
        (("Definition of task ID", f"{_REFERENCE}.tasks#Task.FIELDS.name"),),
    )


def queue_outside_parent(name: str, parent: str) -> ApiError:
    """CreateQueue names a queue of another location."""
    return _invalid(f"{name} must begin with {parent}.", INVALID_QUEUE_NAME)


def task_of_other_queue(parent: str, queue: str) -> ApiError:
    """CreateTask names a task of another queue."""
    return _invalid(
        f"The queue name from request ('{parent}') must be the same as the queue name in the "
        f"named task ('{queue}').",
        INVALID_TASK_NAME,
    )


# --- existence ---


def queue_missing() -> ApiError:
    """The queue does not exist, or was deleted."""
    return ApiError(
        "NOT_FOUND",
        "Queue does not exist. If you just created the queue, wait at least a minute for the "
        "queue to initialize.",
        reason=UNKNOWN_QUEUE,
    )


def queue_missing_for_delete() -> ApiError:
    """DeleteQueue has a text of its own."""
    return ApiError("NOT_FOUND", "Requested entity was not found.", reason=UNKNOWN_QUEUE)


def queue_exists() -> ApiError:
    """CreateQueue of one that is there."""
    return ApiError("ALREADY_EXISTS", "Queue already exists")


def queue_existed_recently() -> ApiError:
    """CreateQueue of one that was deleted a short while ago."""
    return ApiError(
        "FAILED_PRECONDITION",
        "The queue cannot be created because a queue with this name existed too recently.",
    )


def task_missing() -> ApiError:
    """No task of this name was ever there."""
    return ApiError("NOT_FOUND", "Requested entity was not found.", reason=UNKNOWN_TASK)


def task_gone() -> ApiError:
    """The task has finished or was deleted, and its name is still reserved."""
    return ApiError(
        "NOT_FOUND",
        "The task no longer exists, though a task with this name existed recently. The task "
        "either successfully completed or was deleted.",
        reason=TOMBSTONED_TASK,
    )


def task_exists() -> ApiError:
    """The name belongs to a task that is waiting or running."""
    return ApiError("ALREADY_EXISTS", "Requested entity already exists", reason=TASK_ALREADY_EXISTS)


def task_tombstoned() -> ApiError:
    """The name belongs to a task that finished or was deleted recently."""
    return ApiError(
        "ALREADY_EXISTS",
        'Requested entity already exists [detail: "[ORIGINAL ERROR] ExecutorError::1015: '
        'apphosting::ExecutorServiceError::TOMBSTONED_TASK"]',
        reason=TOMBSTONED_TASK,
    )


def entity_missing() -> ApiError:
    """There is nothing of this name: an operation, or a resource of another kind."""
    return ApiError("NOT_FOUND", "Requested entity was not found.")


# --- tasks ---


def pull_task_refused() -> ApiError:
    """A task to be leased, which only v2beta3 still describes."""
    return ApiError(
        "UNIMPLEMENTED", "Pull tasks are not served here: give the task a request to dispatch."
    )


def task_too_large(stored_bytes: int) -> ApiError:
    """The stored task would pass ``limits.MAX_STORED_TASK_BYTES``."""
    return ApiError(
        "INVALID_ARGUMENT",
        "Task size too large",
        reason=TASK_TOO_LARGE,
        stored_bytes=stored_bytes,
    )


def request_missing() -> ApiError:
    """The task has neither kind of request (text unverified for v2)."""
    return _invalid("Task.message_type is not set.")


def schedule_too_far(schedule_time: datetime) -> ApiError:
    """The schedule time lies beyond the horizon; production prints it in US Pacific time."""
    shown = schedule_time.astimezone(_pacific(schedule_time)).isoformat(timespec="seconds")
    return _invalid(
        f"The Task.scheduleTime, {shown}, is too far in the future. Schedule time must be no "
        "more than 720h in the future.",
        INVALID_ETA,
    )


def _pacific(moment: datetime) -> timezone:
    # The zone database is not there on every machine (Windows, slim images); the rule of the
    # United States since 2007 is: daylight time from the second Sunday of March, 10:00 UTC, to
    # the first Sunday of November, 09:00 UTC.
    year = moment.astimezone(timezone.utc).year
    march = datetime(year, 3, 8, 10, tzinfo=timezone.utc)
    november = datetime(year, 11, 1, 9, tzinfo=timezone.utc)
    start = march + timedelta(days=(6 - march.weekday()) % 7)
    end = november + timedelta(days=(6 - november.weekday()) % 7)
    return timezone(timedelta(hours=-7 if start <= moment < end else -8))


def queue_routes_nowhere(name: str) -> ApiError:
    """BufferTask for a queue that has no address for tasks (text unverified)."""
    return ApiError(
        "FAILED_PRECONDITION",
        f"Tasks cannot be buffered in {name}: its httpTarget has no uriOverride with a host.",
    )


def url_missing() -> ApiError:
    """An HTTP request without a url."""
    return _invalid("HttpRequest.url is required.", INVALID_URL)


def url_scheme_unknown() -> ApiError:
    """An HTTP request to something else than http(s)."""
    return _invalid("HttpTarget.url must start with 'http://' or 'https://'.", INVALID_URL)


def url_not_https() -> ApiError:
    """A token may travel over https only."""
    return _invalid(
        "HttpRequest.url must start with 'https://' for request with "
        "HttpRequest.authorization_header",
        INVALID_URL,
    )


def url_too_long(limit: int) -> ApiError:
    """The url is longer than allowed (text unverified)."""
    return _invalid(f"HttpRequest.url must be no more than {limit} characters.", INVALID_URL)


def relative_uri_malformed() -> ApiError:
    """An App Engine request's path is not one (text unverified)."""
    return _invalid(
        "AppEngineHttpRequest.relativeUri must start with '/' and must not contain spaces.",
        INVALID_URL,
    )


def relative_uri_too_long(limit: int) -> ApiError:
    """An App Engine request's path is longer than allowed (text unverified)."""
    return _invalid(
        f"AppEngineHttpRequest.relativeUri must be no more than {limit} characters.", INVALID_URL
    )


def body_not_allowed(kind: str, allowed: tuple[str, ...]) -> ApiError:
    """The method carries no body (text unverified)."""
    return _invalid(f"{kind}.body is only allowed for the HTTP methods {', '.join(allowed)}.")


def header_malformed(name: str) -> ApiError:
    """A header's name or value has a line break or a NUL (text unverified)."""
    return _invalid(f"Header {name!r} has a line break in its name or its value.")


def headers_too_large(limit: int) -> ApiError:
    """An HTTP request's headers together are larger than allowed (text unverified)."""
    return _invalid(f"HttpRequest.headers must be less than {limit} bytes in total.")


def deadline_out_of_range(lowest: str, highest: str) -> ApiError:
    """``dispatch_deadline`` is outside what the kind of target allows."""
    return _invalid(
        f"Task.dispatchDeadline must be between [{lowest}, {highest}].",
        INVALID_DISPATCH_DEADLINE,
    )


# --- queue settings ---


def setting_invalid(message: str) -> ApiError:
    """A field of RateLimits or RetryConfig is out of range."""
    return _invalid(message)


def mask_path_unknown(path: str) -> ApiError:
    """An update mask names something that a queue does not have (text unverified)."""
    return _invalid(f"Invalid field path in update_mask: {path}.")


def pull_queue_refused() -> ApiError:
    """A queue to lease tasks from, which only v2beta3 still describes."""
    return ApiError("UNIMPLEMENTED", "Pull queues are not served here: use type PUSH.")


def filter_invalid(why: str) -> ApiError:
    """A filter of ListQueues that cannot be read (text unverified)."""
    return _invalid(f"Invalid filter: {why}")


# --- calls ---


def deadline_too_far(deadline: datetime) -> ApiError:
    """A caller would wait longer than production lets it."""
    shown = deadline.astimezone(_pacific(deadline)).isoformat(timespec="milliseconds")
    return _invalid(
        f"The request deadline is {shown}. The deadline cannot be more than 30s in the future."
    )


def policy_changed() -> ApiError:
    """SetIamPolicy with the etag of a policy that is not the present one."""
    return ApiError(
        "ABORTED",
        "There were concurrent policy changes. Please retry the whole read-modify-write with "
        "exponential backoff.",
    )


def read_mask_path_unknown(path: str) -> ApiError:
    """A read mask names something that a queue does not have (text unverified)."""
    return _invalid(f"Invalid field path in read_mask: {path}.")


# --- batches ---


def too_many_in_batch(what: str, limit: int) -> ApiError:
    """A batch call with more items than allowed (text unverified)."""
    return _invalid(f"The request contains more than {limit} {what}.")


def parents_differ() -> ApiError:
    """A batch call whose items belong to other queues (text unverified)."""
    return _invalid("The parent of every request must match the parent of the batch.")


def page_token_invalid() -> ApiError:
    """A page token that this service did not make, or that has expired (text unverified)."""
    return _invalid("The page token is invalid or has expired.")
