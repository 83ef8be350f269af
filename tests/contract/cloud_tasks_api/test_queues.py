"""Queues: settings, lists, updates, states."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from google.cloud import tasks_v2
from google.protobuf import field_mask_pb2

from tests.contract.cloud_tasks_api.calls import (
    NO_ENTITY,
    NO_QUEUE,
    add,
    now_of,
    refused,
)
from tests.contract.cloud_tasks_doors import LOCATION, QUEUE


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
    with refused(
        "INVALID_ARGUMENT",
        "Location '-' is not a valid location. Use ListLocations to list valid locations.",
    ):
        door.v2.create_queue(
            parent="projects/p/locations/-", queue={"name": "projects/p/locations/-/queues/q"}
        )


def test_a_page_has_no_negative_size(client) -> None:
    for call in (client.list_queues, client.list_tasks):
        parent = LOCATION if call == client.list_queues else QUEUE
        with refused("INVALID_ARGUMENT", "The page size must not be negative."):
            next(call(request={"parent": parent, "page_size": -1}).pages)


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
