"""Batches: what is done is told, and what is not; nothing is done twice."""

from __future__ import annotations

from typing import Any

import pytest
from google.api_core import exceptions
from google.longrunning import operations_pb2
from google.rpc import code_pb2

from tests.contract.cloud_tasks_api.calls import (
    FULL,
    HTTP,
    NO_ENTITY,
    NO_QUEUE,
    add,
    refused,
)
from tests.contract.cloud_tasks_doors import LOCATION, QUEUE


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
