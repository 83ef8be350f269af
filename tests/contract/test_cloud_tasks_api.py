"""Cloud Tasks v2 as Google's client knows it, at every door, over every kind of database.

Numbers in names are those of the list of behaviours that emulators get wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from google.api_core import exceptions
from google.cloud import tasks_v2
from google.cloud.location import locations_pb2
from google.iam.v1 import policy_pb2
from google.longrunning import operations_pb2
from google.protobuf import field_mask_pb2
from google.rpc import code_pb2

from tests.contract.cloud_tasks_doors import (
    DOORS,
    LOCATION,
    QUEUE,
    STORES,
    Door,
    opened,
)

HTTP = {"http_request": {"url": "http://localhost:9/work"}}
FULL = tasks_v2.Task.View.FULL
BASIC = tasks_v2.Task.View.BASIC
NO_QUEUE = (
    "Queue does not exist. If you just created the queue, wait at least a minute for the queue "
    "to initialize."
)
NO_ENTITY = "Requested entity was not found."
GONE = (
    "The task no longer exists, though a task with this name existed recently. The task either "
    "successfully completed or was deleted."
)


@pytest.fixture(scope="module", params=DOORS)
def entrance(request) -> Iterator[Door]:
    with opened(request.param) as door:
        yield door


@pytest.fixture(params=STORES)
def door(entrance: Door, request, tmp_path) -> Iterator[Door]:
    entrance.behind.open(request.param, tmp_path)
    yield entrance
    entrance.behind.close()


@pytest.fixture
def client(door: Door) -> tasks_v2.CloudTasksClient:
    door.v2.create_queue(parent=LOCATION, queue={"name": QUEUE})
    return door.v2


def refused(code: str, message: str):
    """Expect a refusal. Over REST the client tells only the HTTP status, before the text."""
    kinds: dict[str, Any] = {
        "NOT_FOUND": exceptions.NotFound,
        "ALREADY_EXISTS": exceptions.Conflict,
        "ABORTED": exceptions.Conflict,
        "INVALID_ARGUMENT": exceptions.BadRequest,
        "FAILED_PRECONDITION": exceptions.BadRequest,
    }
    return pytest.raises(kinds[code], check=lambda error: error.message.endswith(message))


def now_of(door: Door) -> datetime:
    return datetime.fromtimestamp(door.clock.now(), timezone.utc)


def add(client: tasks_v2.CloudTasksClient, task_id: str = "", **fields: Any) -> tasks_v2.Task:
    task = {**HTTP, **fields}
    if task_id:
        task["name"] = f"{QUEUE}/tasks/{task_id}"
    return client.create_task(parent=QUEUE, task=task)


# --- queues ---


def test_a_queue_has_the_services_defaults(client) -> None:
    queue = client.get_queue(name=QUEUE)
    assert queue.state == tasks_v2.Queue.State.RUNNING
    assert queue.rate_limits == tasks_v2.RateLimits(
        max_dispatches_per_second=500, max_burst_size=100, max_concurrent_dispatches=1000
    )
    assert queue.retry_config == tasks_v2.RetryConfig(
        max_attempts=100,
        min_backoff=timedelta(milliseconds=100),
        max_backoff=timedelta(hours=1),
        max_doublings=16,
    )
    assert not queue.purge_time
    assert "stackdriver_logging_config" not in queue


def test_every_setting_comes_back(door) -> None:
    given = tasks_v2.Queue(
        name=QUEUE,
        rate_limits={"max_dispatches_per_second": 5, "max_concurrent_dispatches": 3},
        retry_config={
            "max_attempts": -1,
            "max_retry_duration": timedelta(hours=2),
            "min_backoff": timedelta(0),
            "max_backoff": timedelta(seconds=1.5),
            "max_doublings": 3,
        },
        app_engine_routing_override={"service": "s", "version": "v", "instance": "i"},
        stackdriver_logging_config={"sampling_ratio": 0.25},
        http_target={
            "uri_override": {
                "scheme": "HTTP",
                "host": "h",
                "port": 0,
                "path_override": {"path": ""},
                "query_override": {"query_params": ""},
                "uri_override_enforce_mode": "IF_NOT_EXISTS",
            },
            "http_method": "PUT",
            "header_overrides": [{"header": {"key": "X-A", "value": "1"}}],
            "oidc_token": {"service_account_email": "a@b", "audience": "c"},
        },
    )
    made = door.v2.create_queue(parent=LOCATION, queue=given)
    expected = tasks_v2.Queue(given)
    expected.state = tasks_v2.Queue.State.RUNNING
    expected.rate_limits.max_burst_size = 10
    expected.app_engine_routing_override.host = "i.v.s.p.us-central1.r.appspot.com"
    assert made == expected
    assert door.v2.get_queue(name=QUEUE) == expected


def test_22_parts_of_an_override_that_clear_are_kept_apart_from_those_left_out(client) -> None:
    override = {"host": "h", "port": 0, "path_override": {"path": ""}}
    client.update_queue(queue={"name": QUEUE, "http_target": {"uri_override": override}})
    found = client.get_queue(name=QUEUE).http_target.uri_override
    assert "port" in found
    assert "path_override" in found
    assert "query_override" not in found
    assert "scheme" not in found


def test_a_token_of_the_queue_may_be_of_either_kind(client) -> None:
    token = {"service_account_email": "a@b", "scope": "s"}
    updated = client.update_queue(queue={"name": QUEUE, "http_target": {"oauth_token": token}})
    assert updated.http_target.oauth_token == tasks_v2.OAuthToken(token)


def test_queues_are_listed_in_order_and_by_pages(door) -> None:
    names = [f"{LOCATION}/queues/q{number}" for number in (3, 1, 2, 5, 4)]
    for name in names:
        door.v2.create_queue(parent=LOCATION, queue={"name": name})
    door.v2.create_queue(
        parent="projects/p/locations/other", queue={"name": "projects/p/locations/other/queues/q0"}
    )
    first = next(door.v2.list_queues(request={"parent": LOCATION, "page_size": 2}).pages)
    assert [queue.name for queue in first.queues] == sorted(names)[:2]
    assert first.next_page_token
    pager = door.v2.list_queues(request={"parent": LOCATION, "page_size": 2})
    assert [queue.name for queue in pager] == sorted(names)
    whole = next(door.v2.list_queues(request={"parent": LOCATION, "page_size": 1_000_000}).pages)
    assert len(whole.queues) == 5
    assert not whole.next_page_token


def test_a_page_token_is_for_its_list_and_for_two_hours(door) -> None:
    for number in range(3):
        door.v2.create_queue(parent=LOCATION, queue={"name": f"{LOCATION}/queues/q{number}"})
    request = {"parent": LOCATION, "page_size": 1, "filter": "state=RUNNING"}
    token = next(door.v2.list_queues(request=request).pages).next_page_token

    def second(**changes: Any) -> Any:
        changed = {**request, "page_token": token, **changes}
        return next(door.v2.list_queues(request=changed).pages)

    assert second().queues[0].name.endswith("/q1")
    for wrong in (
        {"filter": "state=PAUSED"},
        {"parent": f"{LOCATION}x"},
        {"page_token": "nonsense"},
    ):
        with refused("INVALID_ARGUMENT", "The page token is invalid or has expired."):
            second(**wrong)
    door.clock.advance(7201)
    with refused("INVALID_ARGUMENT", "The page token is invalid or has expired."):
        second()


def test_a_filter_chooses_queues(door) -> None:
    for name, rate in (("a", 1), ("b", 100), ("c", 100)):
        door.v2.create_queue(
            parent=LOCATION,
            queue={
                "name": f"{LOCATION}/queues/{name}",
                "rate_limits": {"max_dispatches_per_second": rate},
            },
        )
    door.v2.pause_queue(name=f"{LOCATION}/queues/c")

    def found(text: str) -> str:
        request = {"parent": LOCATION, "filter": text}
        return "".join(queue.name[-1] for queue in door.v2.list_queues(request=request))

    assert found("state: PAUSED") == "c"
    assert found("rateLimits.maxDispatchesPerSecond < 100 OR state != RUNNING") == "ac"
    with refused("INVALID_ARGUMENT", "Invalid filter: a queue has no field colour."):
        found("colour = red")


def test_a_list_of_every_location_is_not_had(door) -> None:
    with refused(
        "INVALID_ARGUMENT",
        "Location '-' is not a valid location. Use ListLocations to list valid locations.",
    ):
        next(door.v2.list_queues(parent="projects/p/locations/-").pages)


class TestUpdate:
    """19: upsert, masks, and what no update touches."""

    def test_it_creates_the_queue_that_is_not_there(self, door) -> None:
        made = door.v2.update_queue(
            queue={"name": QUEUE, "rate_limits": {"max_concurrent_dispatches": 7}},
            update_mask=field_mask_pb2.FieldMask(paths=["rate_limits.max_concurrent_dispatches"]),
        )
        assert made.rate_limits.max_concurrent_dispatches == 7
        assert door.v2.get_queue(name=QUEUE) == made

    def test_an_empty_mask_means_every_field(self, client) -> None:
        client.update_queue(queue={"name": QUEUE, "retry_config": {"max_attempts": 3}})
        updated = client.update_queue(
            queue={"name": QUEUE, "rate_limits": {"max_dispatches_per_second": 5}}
        )
        assert updated.rate_limits.max_dispatches_per_second == 5
        assert updated.retry_config.max_attempts == 100

    def test_a_leaf_leaves_its_neighbours(self, client) -> None:
        client.update_queue(
            queue={"name": QUEUE, "retry_config": {"max_attempts": 3, "max_doublings": 2}}
        )
        updated = client.update_queue(
            queue={"name": QUEUE, "retry_config": {"max_attempts": 9, "max_doublings": 9}},
            update_mask={"paths": ["retry_config.max_attempts"]},
        )
        assert updated.retry_config.max_attempts == 9
        assert updated.retry_config.max_doublings == 2

    def test_a_path_that_is_named_but_not_sent_is_cleared(self, client) -> None:
        target = {"uri_override": {"host": "h"}, "http_method": "GET"}
        client.update_queue(
            queue={
                "name": QUEUE,
                "http_target": target,
                "retry_config": {"min_backoff": timedelta(seconds=9)},
                "rate_limits": {"max_concurrent_dispatches": 9},
                "stackdriver_logging_config": {"sampling_ratio": 1},
            }
        )
        paths = [
            "retry_config.min_backoff",
            "rate_limits.max_concurrent_dispatches",
            "stackdriver_logging_config",
            "http_target.uri_override",
        ]
        updated = client.update_queue(queue={"name": QUEUE}, update_mask={"paths": paths})
        assert updated.retry_config.min_backoff == timedelta(milliseconds=100)
        assert updated.rate_limits.max_concurrent_dispatches == 1000
        assert "stackdriver_logging_config" not in updated
        assert "uri_override" not in updated.http_target
        assert updated.http_target.http_method == tasks_v2.HttpMethod.GET
        updated = client.update_queue(queue={"name": QUEUE}, update_mask={"paths": ["http_target"]})
        assert "http_target" not in updated

    def test_doublings_of_nothing_need_a_mask_that_says_so(self, client) -> None:
        def doublings(*paths: str) -> int:
            return client.update_queue(
                queue={"name": QUEUE, "retry_config": {"max_doublings": 0}},
                update_mask={"paths": paths},
            ).retry_config.max_doublings

        assert doublings("retry_config.max_doublings") == 0
        assert doublings("retry_config") == 16

    def test_state_purge_time_and_burst_size_are_not_the_callers(self, client) -> None:
        client.pause_queue(name=QUEUE)
        updated = client.update_queue(
            queue={
                "name": QUEUE,
                "state": "RUNNING",
                "purge_time": datetime(2020, 1, 1, tzinfo=timezone.utc),
                "rate_limits": {"max_burst_size": -5, "max_dispatches_per_second": 500},
            },
            update_mask={"paths": ["state", "purge_time", "rate_limits"]},
        )
        assert updated.state == tasks_v2.Queue.State.PAUSED
        assert not updated.purge_time
        assert updated.rate_limits.max_burst_size == 100

    def test_a_path_that_no_queue_has_is_refused(self, client) -> None:
        with refused("INVALID_ARGUMENT", "Invalid field path in update_mask: rate_limits.colour."):
            client.update_queue(
                queue={"name": QUEUE}, update_mask={"paths": ["rate_limits.colour"]}
            )

    def test_tokens_of_the_target_change_by_their_leaves(self, client) -> None:
        token = {"service_account_email": "a@b", "audience": "one"}
        client.update_queue(queue={"name": QUEUE, "http_target": {"oidc_token": token}})
        updated = client.update_queue(
            queue={"name": QUEUE, "http_target": {"oidc_token": {"audience": "two"}}},
            update_mask={"paths": ["http_target.oidc_token.audience"]},
        )
        assert updated.http_target.oidc_token.service_account_email == "a@b"
        assert updated.http_target.oidc_token.audience == "two"
        updated = client.update_queue(
            queue={"name": QUEUE}, update_mask={"paths": ["http_target.oauth_token"]}
        )
        assert updated.http_target.oidc_token.audience == "two"

    def test_a_routing_changes_by_its_leaves(self, client) -> None:
        client.update_queue(
            queue={"name": QUEUE, "app_engine_routing_override": {"service": "s", "version": "v"}}
        )
        updated = client.update_queue(
            queue={"name": QUEUE},
            update_mask={"paths": ["app_engine_routing_override.version"]},
        )
        assert updated.app_engine_routing_override.service == "s"
        assert not updated.app_engine_routing_override.version


def test_pause_and_resume_may_be_said_twice(client) -> None:
    for _ in range(2):
        assert client.pause_queue(name=QUEUE).state == tasks_v2.Queue.State.PAUSED
    assert client.get_queue(name=QUEUE).state == tasks_v2.Queue.State.PAUSED
    for _ in range(2):
        assert client.resume_queue(name=QUEUE).state == tasks_v2.Queue.State.RUNNING


def test_18_a_purge_takes_what_was_there_and_leaves_the_state(door, client) -> None:
    client.pause_queue(name=QUEUE)
    add(client, "old")
    door.clock.advance(1)
    purged = client.purge_queue(name=QUEUE)
    assert purged.purge_time == now_of(door)
    add(client, "new")
    assert [task.name for task in client.list_tasks(parent=QUEUE)] == [f"{QUEUE}/tasks/new"]
    queue = client.get_queue(name=QUEUE)
    assert queue.state == tasks_v2.Queue.State.PAUSED
    assert queue.purge_time == now_of(door)


def test_2_and_3_missing_queues_have_three_texts(door, client) -> None:
    client.delete_queue(name=QUEUE)
    for call in (client.get_queue, client.pause_queue, client.resume_queue, client.purge_queue):
        with refused("NOT_FOUND", NO_QUEUE):
            call(name=QUEUE)
    with refused("NOT_FOUND", NO_QUEUE):
        add(client)
    with refused("NOT_FOUND", NO_ENTITY):
        client.delete_queue(name=QUEUE)
    with refused(
        "FAILED_PRECONDITION",
        "The queue cannot be created because a queue with this name existed too recently.",
    ):
        client.create_queue(parent=LOCATION, queue={"name": QUEUE})
    door.clock.advance(86401)
    client.create_queue(parent=LOCATION, queue={"name": QUEUE})


# --- tasks ---


def test_9_a_created_task_comes_back_in_the_basic_view(door, client) -> None:
    request = {"url": "https://example.com/a?b=c", "body": b"\xff\xfe?>", "headers": {"X-a": "1"}}
    made = client.create_task(parent=QUEUE, task={"http_request": request})
    assert made.view == BASIC
    assert not made.http_request.body
    assert made.http_request.headers == {"X-a": "1", "User-Agent": "Google-Cloud-Tasks"}
    assert made.http_request.http_method == tasks_v2.HttpMethod.POST
    assert made.dispatch_deadline == timedelta(minutes=10)
    assert made.schedule_time == now_of(door)
    assert made.create_time == now_of(door).replace(microsecond=0)
    assert "first_attempt" not in made
    full = client.get_task(request={"name": made.name, "response_view": FULL})
    assert full.view == FULL
    assert full.http_request.body == b"\xff\xfe?>"
    assert client.get_task(name=made.name) == made


def test_25_automatic_ids_are_digits(client) -> None:
    task_id = add(client).name.rpartition("/")[2]
    assert task_id.isdigit()
    assert 17 <= len(task_id) <= 20


def test_6_the_headers_that_the_service_adds_are_stored(client) -> None:
    request = {"body": b"{}", "headers": {"content-type": "application/json", "User-Agent": "me"}}
    made = client.create_task(parent=QUEUE, task={"app_engine_http_request": request})
    assert dict(made.app_engine_http_request.headers) == {
        "content-type": "application/json",
        "User-Agent": "me AppEngine-Google; (+http://code.google.com/appengine)",
        "Content-Length": "2",
    }
    assert made.app_engine_http_request.app_engine_routing.host == "p.us-central1.r.appspot.com"
    assert made.app_engine_http_request.relative_uri == "/"
    assert "dispatch_deadline" not in made


def test_7_only_app_engine_targets_get_a_content_type(client) -> None:
    http = client.create_task(
        parent=QUEUE, task={"http_request": {"url": "http://localhost/", "body": b"1"}}
    )
    app_engine = client.create_task(parent=QUEUE, task={"app_engine_http_request": {"body": b"1"}})
    assert "Content-Type" not in http.http_request.headers
    headers = app_engine.app_engine_http_request.headers
    assert headers["Content-Type"] == "application/octet-stream"


def test_what_only_the_service_may_set_is_passed_over(client) -> None:
    made = add(
        client,
        create_time=datetime(2020, 1, 1, tzinfo=timezone.utc),
        dispatch_count=5,
        response_count=5,
        view="FULL",
        first_attempt={"dispatch_time": datetime(2020, 1, 1, tzinfo=timezone.utc)},
    )
    assert made.create_time.year == 2026
    assert made.dispatch_count == made.response_count == 0
    assert "first_attempt" not in made


def test_tasks_keep_their_own_retry_settings_and_tokens(client) -> None:
    retry = {"max_attempts": 3, "min_backoff": timedelta(seconds=2)}
    token = {"service_account_email": "a@b", "audience": "c"}
    request = {"url": "https://example.com", "oidc_token": token}
    made = client.create_task(parent=QUEUE, task={"http_request": request, "retry_config": retry})
    assert made.retry_config == tasks_v2.RetryConfig(retry)
    assert made.http_request.oidc_token == tasks_v2.OidcToken(token)


def test_4_a_schedule_time_in_the_past_becomes_now(door, client) -> None:
    past = datetime(2001, 1, 1, tzinfo=timezone.utc)
    assert add(client, schedule_time=past).schedule_time == now_of(door)
    later = now_of(door) + timedelta(hours=1, microseconds=7)
    assert add(client, "later", schedule_time=later).schedule_time == later
    assert client.get_task(name=f"{QUEUE}/tasks/later").schedule_time == later


def test_1_the_name_of_a_deleted_task_stays_reserved(door, client) -> None:
    name = add(client, "a").name
    client.delete_task(name=name)
    with refused("NOT_FOUND", GONE):
        client.get_task(name=name)
    with refused("NOT_FOUND", NO_ENTITY):
        client.get_task(name=f"{QUEUE}/tasks/never")
    with pytest.raises(exceptions.Conflict, match="TOMBSTONED_TASK"):
        add(client, "a")
    door.clock.advance(3601)
    with refused("NOT_FOUND", NO_ENTITY):
        client.get_task(name=name)
    add(client, "a")


@pytest.mark.parametrize("kind", ["http_request", "app_engine_http_request"])
def test_5_the_size_limit_is_on_the_whole_task_as_stored(client, kind: str) -> None:
    limit = 1_048_569
    target: dict[str, Any] = {"headers": {"x-lower": "1"}}
    if kind == "http_request":
        target["url"] = "http://localhost:9/"

    def weighed(task_id: str, size: int) -> int:
        task = {"name": f"{QUEUE}/tasks/{task_id}", kind: {**target, "body": b"x" * size}}
        client.create_task(parent=QUEUE, task=task)
        full = client.get_task(request={"name": task["name"], "response_view": FULL})
        return tasks_v2.Task.pb(full).ByteSize()

    # The sizes of long bodies take as many bytes to write, so the rest weighs the same.
    size = 1_000_000 + limit - weighed("first", 1_000_000)
    assert weighed("lasts", size) == limit
    with refused("INVALID_ARGUMENT", "Task size too large"):
        weighed("heavy", size + 1)


def test_tasks_are_listed_by_pages_without_their_bodies(client) -> None:
    for number in range(5):
        add(client, f"t{number}", http_request={"url": "http://localhost", "body": b"b"})
    pages = list(client.list_tasks(request={"parent": QUEUE, "page_size": 2}).pages)
    assert [len(page.tasks) for page in pages] == [2, 2, 1]
    listed = [task for page in pages for task in page.tasks]
    assert {task.name for task in listed} == {f"{QUEUE}/tasks/t{number}" for number in range(5)}
    assert all(task.view == BASIC and not task.http_request.body for task in listed)
    full = list(client.list_tasks(request={"parent": QUEUE, "response_view": FULL}))
    assert [task.http_request.body for task in full] == [b"b"] * 5


def test_a_page_of_long_bodies_is_short(client) -> None:
    body = b"x" * 900_000
    for number in range(11):
        add(client, f"t{number}", http_request={"url": "http://localhost", "body": body})
    request = {"parent": QUEUE, "response_view": FULL}
    pages = list(client.list_tasks(request=request).pages)
    assert len(pages) == 2
    assert sum(len(page.tasks) for page in pages) == 11
    assert len(list(client.list_tasks(parent=QUEUE).pages)) == 1


def test_17_running_a_task_tells_of_its_dispatch_before_the_reply(door, client) -> None:
    client.pause_queue(name=QUEUE)
    add(client, "a", schedule_time=now_of(door) + timedelta(days=1))
    ran = client.run_task(name=f"{QUEUE}/tasks/a")
    assert ran.dispatch_count == 1
    assert ran.response_count == 0
    assert ran.first_attempt.dispatch_time == now_of(door)
    assert ran.last_attempt.dispatch_time == now_of(door)
    assert "response_time" not in ran.last_attempt
    with refused("NOT_FOUND", NO_ENTITY):
        client.run_task(name=f"{QUEUE}/tasks/never")


# --- batches ---


def status_codes(metadata: Any) -> dict[int, int]:
    return {place: status.code for place, status in metadata.failed_requests.items()}


class TestBatches:
    """20: what is done is told, and what is not, by the index of its request."""

    def create(self, client, *task_ids: str, **fields: Any) -> Any:
        requests = [
            {"parent": QUEUE, "task": {**HTTP, "name": f"{QUEUE}/tasks/{task_id}"}}
            for task_id in task_ids
        ]
        return client.batch_create_tasks(
            request={"parent": QUEUE, "requests": requests, **fields}, timeout=20
        )

    def test_those_that_succeed_come_back_in_order(self, client) -> None:
        add(client, "taken")
        operation = self.create(client, "b", "taken", "bad.name", "a", "b")
        assert operation.done()
        assert [task.name[-1] for task in operation.result().tasks] == ["b", "a"]
        metadata = operation.metadata
        assert metadata.state.name == "PARTIALLY_SUCCEEDED"
        assert metadata.state == 5
        assert status_codes(metadata) == {
            1: code_pb2.ALREADY_EXISTS,
            2: code_pb2.INVALID_ARGUMENT,
            4: code_pb2.ALREADY_EXISTS,
        }
        assert metadata.failed_requests[1].message == "Requested entity already exists"
        assert "Help" in metadata.failed_requests[2].details[0].type_url

    def test_all_may_succeed(self, client) -> None:
        operation = self.create(client, "a", "b")
        assert operation.metadata.state.name == "SUCCEEDED"
        assert operation.metadata.start_time <= operation.metadata.end_time

    def test_views_are_those_of_each_request(self, client) -> None:
        task = {"http_request": {"url": "http://localhost", "body": b"b"}}
        requests = [
            {"parent": QUEUE, "task": task, "response_view": FULL},
            {"parent": QUEUE, "task": task},
        ]
        operation = client.batch_create_tasks(
            request={"parent": QUEUE, "requests": requests}, timeout=20
        )
        assert [task.http_request.body for task in operation.result().tasks] == [b"b", b""]

    def test_a_request_id_that_was_used_does_nothing_again(self, client) -> None:
        first = self.create(client, "a", request_id="same")
        second = self.create(client, "a", request_id="same")
        assert first.operation == second.operation
        assert status_codes(self.create(client, "a", request_id="other").metadata) == {
            0: code_pb2.ALREADY_EXISTS
        }

    def test_the_operation_can_be_asked_for_a_day(self, door, client) -> None:
        operation = self.create(client, "a").operation
        assert operation.name.startswith(f"{LOCATION}/operations/")
        request = operations_pb2.GetOperationRequest(name=operation.name)
        assert client.get_operation(request) == operation
        door.clock.advance(86401)
        with refused("NOT_FOUND", NO_ENTITY):
            client.get_operation(request)

    def test_what_is_wrong_with_the_whole_call(self, client) -> None:
        other = f"{LOCATION}/queues/other"
        with refused("NOT_FOUND", NO_QUEUE):
            client.batch_create_tasks(
                request={"parent": other, "requests": [{"parent": other, "task": HTTP}]}, timeout=20
            )
        with pytest.raises(exceptions.BadRequest, match="parent of every request must match"):
            client.batch_create_tasks(
                request={"parent": QUEUE, "requests": [{"parent": other, "task": HTTP}]}, timeout=20
            )
        with pytest.raises(exceptions.BadRequest, match="more than 100 tasks"):
            self.create(client, *(f"t{number}" for number in range(101)))
        with pytest.raises(exceptions.BadRequest, match="more than 1000 names"):
            self.delete(client, *(f"t{number}" for number in range(1001)))
        with pytest.raises(exceptions.BadRequest, match="parent of every request must match"):
            client.batch_delete_tasks(
                request={"parent": QUEUE, "names": [f"{other}/tasks/a"]}, timeout=20
            )

    def delete(self, client, *task_ids: str, **fields: Any) -> Any:
        names = [f"{QUEUE}/tasks/{task_id}" for task_id in task_ids]
        return client.batch_delete_tasks(
            request={"parent": QUEUE, "names": names, **fields}, timeout=20
        )

    def test_deletes_number_their_states_otherwise(self, client) -> None:
        self.create(client, "a", "b")
        operation = self.delete(client, "a", "never")
        operation.result()
        assert operation.metadata.state.name == "PARTIALLY_SUCCEEDED"
        assert operation.metadata.state == 3
        assert status_codes(operation.metadata) == {1: code_pb2.NOT_FOUND}
        assert self.delete(client, "b").metadata.state.name == "SUCCEEDED"
        assert not list(client.list_tasks(parent=QUEUE))

    def test_a_delete_of_which_nothing_succeeded_was_aborted(self, client) -> None:
        operation = self.delete(client, "x", "y")
        assert operation.operation.error.code == code_pb2.ABORTED
        with pytest.raises(exceptions.Aborted, match="None of the requests succeeded, refer to "):
            operation.result()
        assert status_codes(operation.metadata) == dict.fromkeys((0, 1), code_pb2.NOT_FOUND)

    def test_a_delete_repeated_by_its_id_finds_what_it_did(self, client) -> None:
        self.create(client, "a")
        first = self.delete(client, "a", request_id="same")
        assert self.delete(client, "a", request_id="same").operation == first.operation


# --- what else the API has ---


def test_policies_are_kept_with_their_queue(door, client) -> None:
    assert client.get_iam_policy(request={"resource": QUEUE}) == policy_pb2.Policy(
        etag=b"\x00\x20\x01"
    )
    binding = policy_pb2.Binding(role="roles/cloudtasks.enqueuer", members=["user:a@b.c"])
    policy = policy_pb2.Policy(bindings=[binding])
    kept = client.set_iam_policy(request={"resource": QUEUE, "policy": policy})
    assert list(kept.bindings) == [binding]
    assert client.get_iam_policy(request={"resource": QUEUE}) == kept
    with refused(
        "ABORTED",
        "There were concurrent policy changes. Please retry the whole read-modify-write with "
        "exponential backoff.",
    ):
        client.set_iam_policy(
            request={"resource": QUEUE, "policy": policy_pb2.Policy(etag=b"another")}
        )
    client.delete_queue(name=QUEUE)
    with refused("NOT_FOUND", NO_QUEUE):
        client.get_iam_policy(request={"resource": QUEUE})
    door.clock.advance(86401)
    client.create_queue(parent=LOCATION, queue={"name": QUEUE})
    assert not client.get_iam_policy(request={"resource": QUEUE}).bindings


def test_permissions_are_all_there_and_none_without_the_queue(client) -> None:
    asked = ["cloudtasks.tasks.create", "cloudtasks.queues.get"]
    answer = client.test_iam_permissions(request={"resource": QUEUE, "permissions": asked})
    assert answer.permissions == asked
    missing = {"resource": f"{LOCATION}/queues/missing", "permissions": asked}
    assert not client.test_iam_permissions(request=missing).permissions


def test_the_key_of_a_location_is_remembered(door) -> None:
    name = f"{LOCATION}/cmekConfig"
    assert door.v2.get_cmek_config(name=name) == tasks_v2.CmekConfig(name=name)
    key = f"{LOCATION}/keyRings/r/cryptoKeys/k"
    config = tasks_v2.CmekConfig(name=name, kms_key=key)
    mask = {"paths": ["kms_key"]}
    assert door.v2.update_cmek_config(cmek_config=config, update_mask=mask) == config
    assert door.v2.get_cmek_config(name=name) == config
    cleared = tasks_v2.CmekConfig(name=name)
    assert door.v2.update_cmek_config(cmek_config=cleared, update_mask=mask) == cleared
    with pytest.raises(exceptions.BadRequest, match=r"CmekConfig\.kmsKey must be formatted"):
        door.v2.update_cmek_config(cmek_config={"name": name, "kms_key": "key"}, update_mask=mask)


def test_locations_are_the_servers_own_and_those_with_queues(door) -> None:
    other = "projects/p/locations/europe-west1"
    door.v2.create_queue(parent=other, queue={"name": f"{other}/queues/q"})
    found = door.v2.list_locations(locations_pb2.ListLocationsRequest(name="projects/p"))
    assert [location.location_id for location in found.locations] == ["us-central1", "europe-west1"]
    one = door.v2.get_location(locations_pb2.GetLocationRequest(name=other))
    assert one == found.locations[1]
    assert dict(one.labels) == {"cloud.googleapis.com/region": "europe-west1"}


# --- v2beta3 ---


class TestBeta:
    def test_stats_come_when_the_read_mask_names_them(self, door, client) -> None:
        add(client)
        add(client, schedule_time=now_of(door) + timedelta(hours=1))
        assert "stats" not in door.v2beta3.get_queue(name=QUEUE)
        door.clock.advance(5)
        request = {"name": QUEUE, "read_mask": {"paths": ["stats"]}}
        queue = door.v2beta3.get_queue(request=request)
        assert queue.stats.tasks_count == 2
        assert queue.stats.oldest_estimated_arrival_time == now_of(door) - timedelta(seconds=5)
        assert queue.stats.effective_execution_rate == 500
        assert not queue.name
        listed = door.v2beta3.list_queues(
            request={"parent": LOCATION, "read_mask": {"paths": ["name", "stats.tasks_count"]}}
        )
        assert [(each.name, each.stats.tasks_count) for each in listed] == [(QUEUE, 2)]

    def test_what_a_queue_yaml_uploads_arrives(self, door) -> None:
        paths = [
            "rate_limits.max_burst_size",
            "rate_limits.max_concurrent_dispatches",
            "rate_limits.max_dispatches_per_second",
            "retry_config.max_attempts",
            "retry_config.max_backoff",
            "retry_config.max_doublings",
            "retry_config.max_retry_duration",
            "retry_config.min_backoff",
            "task_ttl",
            "tombstone_ttl",
            "app_engine_http_queue.app_engine_routing_override",
        ]
        queue = {
            "name": QUEUE,
            "rate_limits": {
                "max_dispatches_per_second": 5,
                "max_burst_size": 7,
                "max_concurrent_dispatches": 3,
            },
            "retry_config": {"max_attempts": -1, "max_doublings": 16},
            "task_ttl": timedelta(days=3650),
            "tombstone_ttl": timedelta(days=9),
            "app_engine_http_queue": {"app_engine_routing_override": {"service": "api"}},
        }
        made = door.v2beta3.update_queue(queue=queue, update_mask={"paths": paths})
        assert made.rate_limits.max_burst_size == 7
        assert made.task_ttl == timedelta(days=3650)
        assert made.tombstone_ttl == timedelta(days=9)
        assert made.type_ == made.Type.PUSH
        assert made.app_engine_http_queue.app_engine_routing_override.service == "api"
        plain = door.v2.get_queue(name=QUEUE)
        assert plain.app_engine_routing_override.service == "api"
        assert plain.rate_limits.max_burst_size == 7

    def test_the_burst_size_follows_the_rate_only_when_that_changes(self, door, client) -> None:
        def burst(rates: dict[str, Any], *paths: str) -> int:
            return door.v2beta3.update_queue(
                queue={"name": QUEUE, "rate_limits": rates}, update_mask={"paths": paths}
            ).rate_limits.max_burst_size

        assert burst({"max_burst_size": 33}, "rate_limits.max_burst_size") == 33
        assert (
            burst({"max_concurrent_dispatches": 2}, "rate_limits.max_concurrent_dispatches") == 33
        )
        assert (
            burst({"max_dispatches_per_second": 5}, "rate_limits.max_dispatches_per_second") == 10
        )
        with pytest.raises(exceptions.BadRequest, match="maxBurstSize"):
            burst({"max_burst_size": 501}, "rate_limits.max_burst_size")
        # An update by v2 computes it again, whatever it changes.
        burst({"max_burst_size": 33}, "rate_limits.max_burst_size")
        updated = client.update_queue(
            queue={"name": QUEUE, "retry_config": {"max_attempts": 5}},
            update_mask={"paths": ["retry_config.max_attempts"]},
        )
        assert updated.rate_limits.max_burst_size == 10

    def test_a_queue_is_created_with_its_own_times(self, door) -> None:
        made = door.v2beta3.create_queue(
            parent=LOCATION,
            queue={
                "name": QUEUE,
                "rate_limits": {"max_burst_size": 42},
                "task_ttl": timedelta(days=20),
                "tombstone_ttl": timedelta(hours=2),
            },
        )
        assert made.task_ttl == timedelta(days=20)
        assert made.tombstone_ttl == timedelta(hours=2)
        assert made.rate_limits.max_burst_size == 42
        door.v2beta3.update_queue(queue={"name": QUEUE})
        assert door.v2beta3.get_queue(name=QUEUE).task_ttl == timedelta(days=20)

    def test_tasks_are_the_same_ones(self, door, client) -> None:
        made = door.v2beta3.create_task(
            parent=QUEUE, task={"http_request": {"url": "http://localhost/", "body": b"1"}}
        )
        assert client.get_task(name=made.name).http_request.url == "http://localhost/"
        assert not door.v2beta3.get_task(name=made.name).http_request.body
        door.v2beta3.delete_task(name=made.name)

    def test_pull_queues_are_not_served(self, door) -> None:
        with pytest.raises(exceptions.MethodNotImplemented, match="Pull queues are not served"):
            door.v2beta3.create_queue(parent=LOCATION, queue={"name": QUEUE, "type_": "PULL"})
