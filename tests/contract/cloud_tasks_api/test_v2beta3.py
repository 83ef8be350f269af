"""v2beta3, as far as its clients need it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from google.api_core import exceptions

from tests.contract.cloud_tasks_api.calls import (
    add,
    now_of,
)
from tests.contract.cloud_tasks_doors import LOCATION, QUEUE


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

    def test_a_read_mask_of_everything_and_of_nothing_known(self, door, client) -> None:
        request = {"name": QUEUE, "read_mask": {"paths": ["*"]}}
        queue = door.v2beta3.get_queue(request=request)
        assert queue.name == QUEUE
        assert "stats" in queue
        queue = door.v2beta3.get_queue(request={"name": QUEUE, "read_mask": {"paths": ["type"]}})
        assert queue.type_ == queue.Type.PUSH
        for path in ("colour", "rate_limits.colour"):
            with pytest.raises(exceptions.BadRequest, match="colour"):
                door.v2beta3.get_queue(request={"name": QUEUE, "read_mask": {"paths": [path]}})

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
