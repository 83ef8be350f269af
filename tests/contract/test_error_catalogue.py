"""Each refusal that was recorded from the real service, word for word, at both doors."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.api_core import exceptions
from google.cloud import tasks_v2
from google.iam.v1 import policy_pb2

from tests.contract.cloud_tasks_api.calls import GONE, HTTP, NO_ENTITY, NO_QUEUE
from tests.contract.cloud_tasks_doors import LOCATION, QUEUE, Door, opened

MISSING = f"{LOCATION}/queues/missing"
DELETED = f"{LOCATION}/queues/deleted"
LIVE = f"{QUEUE}/tasks/live"
ENDED = f"{QUEUE}/tasks/gone"
NEVER = f"{QUEUE}/tasks/never"

REFERENCE = "https://cloud.google.com/tasks/docs/reference/rest/v2/projects.locations.queues"
QUEUE_HELP = ("Definition of queue name", f"{REFERENCE}#Queue.FIELDS.name")
TASK_HELP = ("Definition of task ID", f"{REFERENCE}.tasks#Task.FIELDS.name")

Client = tasks_v2.CloudTasksClient


@dataclass(frozen=True)
class Row:
    """A call, and how the service refuses it."""

    what: str
    call: Callable[[Client], Any]
    code: str
    message: str
    help_link: tuple[str, str] | None = None


def on_queue(method: str, name: str) -> Callable[[Client], Any]:
    return lambda client: getattr(client, method)(name=name)


def creating_queue(
    name: str = f"{LOCATION}/queues/new", **settings: Any
) -> Callable[[Client], Any]:
    return lambda client: client.create_queue(parent=LOCATION, queue={"name": name, **settings})


def creating(parent: str = QUEUE, **task: Any) -> Callable[[Client], Any]:
    task = task if "app_engine_http_request" in task else {**HTTP, **task}
    return lambda client: client.create_task(parent=parent, task=task)


FAR = datetime(2100, 1, 1, tzinfo=timezone.utc)

ROWS = (
    *(
        Row(f"{method} of a queue that {why}", on_queue(method, name), "NOT_FOUND", NO_QUEUE)
        for method in ("get_queue", "pause_queue", "resume_queue", "purge_queue")
        for why, name in (("is missing", MISSING), ("was deleted", DELETED))
    ),
    Row("CreateTask, queue missing", creating(MISSING), "NOT_FOUND", NO_QUEUE),
    Row("CreateTask, queue deleted", creating(DELETED), "NOT_FOUND", NO_QUEUE),
    Row(
        "ListTasks, queue missing",
        lambda client: next(client.list_tasks(parent=MISSING).pages),
        "NOT_FOUND",
        NO_QUEUE,
    ),
    Row("DeleteQueue missing", on_queue("delete_queue", MISSING), "NOT_FOUND", NO_ENTITY),
    Row("CreateQueue exists", creating_queue(QUEUE), "ALREADY_EXISTS", "Queue already exists"),
    Row(
        "CreateQueue recently deleted",
        creating_queue(DELETED),
        "FAILED_PRECONDITION",
        "The queue cannot be created because a queue with this name existed too recently.",
    ),
    *(
        Row(
            f"CreateQueue named {name!r}",
            creating_queue(name),
            "INVALID_ARGUMENT",
            'Queue name must be formatted: "projects/<PROJECT_ID>/locations/<LOCATION_ID>/queues/'
            '<QUEUE_ID>".',
            QUEUE_HELP,
        )
        for name in (
            "",
            "short",
            f"{LOCATION}/queues/under_score",
            f"{LOCATION}/queues/{'a' * 101}",
        )
    ),
    Row(
        "CreateQueue of another location",
        creating_queue("projects/p/locations/elsewhere/queues/q"),
        "INVALID_ARGUMENT",
        f"projects/p/locations/elsewhere/queues/q must begin with {LOCATION}.",
    ),
    *(
        Row(f"CreateQueue: {message}", creating_queue(**settings), "INVALID_ARGUMENT", message)
        for settings, message in (
            (
                {"rate_limits": {"max_dispatches_per_second": -1}},
                "RateLimits.maxDispatchesPerSecond cannot be negative.",
            ),
            (
                {"rate_limits": {"max_dispatches_per_second": 500.1}},
                "RateLimits.maxDispatchesPerSecond must be less than or equal to 500.",
            ),
            (
                {"rate_limits": {"max_concurrent_dispatches": -1}},
                "RateLimits.maxConcurrentDispatches cannot be negative.",
            ),
            (
                {"rate_limits": {"max_concurrent_dispatches": 5001}},
                "RateLimits.maxConcurrentDispatches must be less than or equal to 5000.",
            ),
            (
                {"retry_config": {"max_attempts": -2}},
                "RetryConfig.maxAttempts must be greater or equal to -1.",
            ),
            (
                {"retry_config": {"max_doublings": -1}},
                "RetryConfig.maxDoublings cannot be negative.",
            ),
            (
                {"retry_config": {"min_backoff": timedelta(seconds=-1)}},
                "RetryConfig.minBackoff cannot be negative.",
            ),
            (
                {
                    "retry_config": {
                        "min_backoff": timedelta(seconds=2),
                        "max_backoff": timedelta(seconds=1),
                    }
                },
                "RetryConfig.minBackoff must be less than or equal to RetryConfig.maxBackoff.",
            ),
        )
    ),
    Row(
        "CreateTask, name of another queue",
        creating(name=f"{MISSING}/tasks/a"),
        "INVALID_ARGUMENT",
        f"The queue name from request ('{QUEUE}') must be the same as the queue name in the named "
        f"task ('{MISSING}').",
    ),
    *(
        Row(
            f"CreateTask, id {task_id[:20]!r}",
            creating(name=f"{QUEUE}/tasks/{task_id}"),
            "INVALID_ARGUMENT",
            f'Task ID "{task_id}" can contain only letters ([A-Za-z]), numbers ([0-9]), hyphens '
            "(-), or underscores (_). Task ID must between 1 and 500 characters.",
            TASK_HELP,
        )
        for task_id in ("a.b", "a b", "a:b", "", "ü", "x" * 501)
    ),
    Row(
        "CreateTask, duplicate of a live task",
        creating(name=LIVE),
        "ALREADY_EXISTS",
        "Requested entity already exists",
    ),
    Row(
        "CreateTask, name of a task that is gone",
        creating(name=ENDED),
        "ALREADY_EXISTS",
        'Requested entity already exists [detail: "[ORIGINAL ERROR] ExecutorError::1015: '
        'apphosting::ExecutorServiceError::TOMBSTONED_TASK"]',
    ),
    *(
        Row(
            f"CreateTask, too big for {kind}",
            creating(**{kind: {**request, "body": b"x" * 1_048_570}}),
            "INVALID_ARGUMENT",
            "Task size too large",
        )
        for kind, request in (
            ("http_request", HTTP["http_request"]),
            ("app_engine_http_request", {}),
        )
    ),
    Row(
        "CreateTask, no url",
        creating(http_request={}),
        "INVALID_ARGUMENT",
        "HttpRequest.url is required.",
    ),
    Row(
        "CreateTask, url of another scheme",
        creating(http_request={"url": "ftp://h/"}),
        "INVALID_ARGUMENT",
        "HttpTarget.url must start with 'http://' or 'https://'.",
    ),
    Row(
        "CreateTask, token over http",
        creating(
            http_request={
                "url": "http://example.com/",
                "oidc_token": {"service_account_email": "a@b"},
            }
        ),
        "INVALID_ARGUMENT",
        "HttpRequest.url must start with 'https://' for request with "
        "HttpRequest.authorization_header",
    ),
    Row(
        "CreateTask, schedule time beyond 30 days",
        creating(schedule_time=FAR),
        "INVALID_ARGUMENT",
        "The Task.scheduleTime, 2099-12-31T16:00:00-08:00, is too far in the future. Schedule time "
        "must be no more than 720h in the future.",
    ),
    *(
        Row(
            f"CreateTask, deadline of {deadline} for {words}",
            creating(dispatch_deadline=deadline, **request),
            "INVALID_ARGUMENT",
            f"Task.dispatchDeadline must be between [15s, {words}].",
        )
        for words, request, deadlines in (
            ("30m", {}, (14, 1801, -1)),
            ("24h15s", {"app_engine_http_request": {}}, (14, 86416)),
        )
        for deadline in (timedelta(seconds=seconds) for seconds in deadlines)
    ),
    *(
        Row(f"{method} of an unknown id", on_queue(method, NEVER), "NOT_FOUND", NO_ENTITY)
        for method in ("get_task", "delete_task", "run_task")
    ),
    Row("GetTask, recently deleted", on_queue("get_task", ENDED), "NOT_FOUND", GONE),
)
BY_SHAPE = (
    ("get_queue", {"name": "bad"}),
    ("list_queues", {"parent": "bad"}),
    ("create_task", {"parent": "bad", "task": HTTP}),
    ("get_task", {"name": f"{QUEUE}/bad"}),
    ("delete_task", {"name": "bad"}),
    ("batch_create_tasks", {"parent": "bad"}),
    ("get_iam_policy", {"resource": "bad"}),
    ("get_cmek_config", {"name": "bad"}),
)


@contextmanager
def furnished(name: str) -> Iterator[Door]:
    with opened(name) as door:
        door.behind.open("memory", Path())
        for name in (QUEUE, DELETED):
            door.v2.create_queue(parent=LOCATION, queue={"name": name})
        door.v2.delete_queue(name=DELETED)
        for name in (LIVE, ENDED):
            door.v2.create_task(parent=QUEUE, task={"name": name, **HTTP})
        door.v2.delete_task(name=ENDED)
        yield door
        door.behind.close()


@pytest.fixture(scope="module", params=["grpc", "rest"])
def door(request) -> Iterator[Door]:
    with furnished(request.param) as door:
        yield door


@pytest.fixture(scope="module")
def grpc_client() -> Iterator[Client]:
    with furnished("grpc") as door:
        yield door.v2


def told(error: exceptions.GoogleAPICallError) -> tuple[str, str, list[dict[str, Any]]]:
    """Return the code, the text and the details of a refusal, as REST spells them."""
    if isinstance(error.response, grpc.Call):
        details = [
            {"links": [{"description": link.description, "url": link.url} for link in each.links]}
            for each in error.details
        ]
        return error.grpc_status_code.name, error.message, details
    body = error.response.json()["error"]
    assert body["code"] == error.response.status_code
    kind = "type.googleapis.com/google.rpc.Help"
    details = body.get("details", [])
    assert all(detail.pop("@type") == kind for detail in details)
    return body["status"], body["message"], details


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.what)
def test_a_refusal(door: Door, row: Row) -> None:
    with pytest.raises(exceptions.GoogleAPICallError) as caught:
        row.call(door.v2)
    links = []
    if row.help_link is not None:
        description, url = row.help_link
        links = [{"links": [{"description": description, "url": url}]}]
    assert told(caught.value) == (row.code, row.message, links)


def test_24_clients_tell_codes_apart_over_grpc_and_http_statuses_over_rest(door: Door) -> None:
    over_grpc = door.name == "grpc"
    for call, code, status in (
        (creating_queue(QUEUE), exceptions.AlreadyExists, exceptions.Conflict),
        (creating(name="bad"), exceptions.InvalidArgument, exceptions.BadRequest),
        (creating_queue(DELETED), exceptions.FailedPrecondition, exceptions.BadRequest),
    ):
        with pytest.raises(exceptions.GoogleAPICallError) as caught:
            call(door.v2)
        assert type(caught.value) is (code if over_grpc else status)
    stale = {"resource": QUEUE, "policy": policy_pb2.Policy(etag=b"stale")}
    with pytest.raises(exceptions.Conflict) as aborted:
        door.v2.set_iam_policy(request=stale)
    assert isinstance(aborted.value, exceptions.Aborted) is over_grpc


def test_a_negative_burst_size_is_no_fault(door: Door) -> None:
    made = door.v2.create_queue(
        parent=LOCATION,
        queue={"name": f"{LOCATION}/queues/burst", "rate_limits": {"max_burst_size": -1}},
    )
    assert made.rate_limits.max_burst_size == 100
    door.service.store.write(
        lambda connection: connection.execute("DELETE FROM queues WHERE name LIKE '%/burst'")
    )


class TestOverGrpcAlone:
    """REST has no path for these names, and its client sends no deadline."""

    @pytest.mark.parametrize(("method", "request_"), BY_SHAPE, ids=lambda value: str(value)[:20])
    def test_names_of_another_shape_are_no_resource(
        self, grpc_client: Client, method: str, request_: Any
    ) -> None:
        with pytest.raises(exceptions.InvalidArgument) as caught:
            getattr(grpc_client, method)(request=request_, timeout=20)
        assert caught.value.message == "Invalid resource field value in the request."

    def test_create_queue_takes_its_parent_for_a_project(self, grpc_client: Client) -> None:
        with pytest.raises(exceptions.PermissionDenied) as caught:
            grpc_client.create_queue(parent="not-a-valid-parent", queue={"name": QUEUE})
        error = caught.value
        assert error.message == "Permission denied on resource project not-a-valid-parent."
        assert error.reason == "CONSUMER_INVALID"
        assert error.domain == "googleapis.com"
        assert error.metadata == {
            "consumer": "projects/not-a-valid-parent",
            "service": "cloudtasks.googleapis.com",
        }

    def test_a_deadline_of_more_than_30_seconds_is_refused(self, grpc_client: Client) -> None:
        with pytest.raises(exceptions.InvalidArgument) as caught:
            grpc_client.pause_queue(name=QUEUE, timeout=60)
        assert re.fullmatch(
            r"The request deadline is \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}-0[78]:00\. "
            r"The deadline cannot be more than 30s in the future\.",
            caught.value.message,
        )
        assert grpc_client.resume_queue(name=QUEUE, timeout=29).name == QUEUE
        # No deadline at all is what Google's client sends with batches, and is let through.
        grpc_client.batch_delete_tasks(request={"parent": QUEUE, "names": [NEVER]}, timeout=None)
